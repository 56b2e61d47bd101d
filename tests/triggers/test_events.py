"""The trigger of an asset's watcher fires for what the seller does, and keeps its mark where it can."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
import time_machine

from airflow_provider_feedamp.api.changes import RESOURCES, Watermark
from airflow_provider_feedamp.tokens.cache import CACHE
from airflow_provider_feedamp.tokens.store import open_store
from airflow_provider_feedamp.triggers import events, polling
from airflow_provider_feedamp.triggers.events import FeedAmpActivityTrigger
from tests.sandbox.caller import Caller, return_

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_feedamp.sandbox.server import RunningSandbox

pytestmark = pytest.mark.once

KEPT = -1.0
#: The marketplace of each test, the latest last.
MARKETPLACE: list[Caller] = []


@pytest.fixture
def feedamp(sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> RunningSandbox:
    MARKETPLACE.append(Caller(sandbox, "hooli"))  # it uses up a refresh token, before the connection gets one
    connection = sandbox.connection("hooli", list_requests_per_second="0")
    monkeypatch.setenv("AIRFLOW__FEEDAMP__TOKEN_STORE", "memory")
    monkeypatch.setenv("AIRFLOW__FEEDAMP__WATCH_INTERVAL", "0.01")
    monkeypatch.setenv("AIRFLOW_CONN_FEEDAMP_DEFAULT", json.dumps(connection))
    return sandbox


class Store:
    """What Airflow 3.3 gives the trigger of an asset."""

    def __init__(self, kept: Any = None) -> None:
        self.kept = kept

    async def aget(self, key: str) -> Any:
        return self.kept

    async def aset(self, key: str, value: Any) -> None:
        self.kept = json.loads(json.dumps(value))


def watch(resource: str = "fulfillments", store: Store | None = None) -> FeedAmpActivityTrigger:
    trigger = FeedAmpActivityTrigger(resource, seller="hooli")
    trigger.asset_state_store = store  # type: ignore[assignment]
    return trigger


def fires(trigger: FeedAmpActivityTrigger, *steps: Callable[[], Any], patience: float = 30) -> list[Any]:
    """Do one step after the other, and return what the trigger fired after each."""

    async def lived() -> list[Any]:
        fired = []
        firing: Any = trigger.run()
        for step in steps:
            await asyncio.to_thread(step)
            event = await asyncio.wait_for(anext(firing), patience)
            fired.append(event.payload["entries"])
            assert {name: event.payload[name] for name in ("seller", "resource")} == {
                "seller": "hooli",
                "resource": trigger.resource,
            }
        await firing.aclose()
        return fired

    return asyncio.run(lived())


def test_it_fires_for_each_order_that_the_seller_ships_or_cancels(feedamp: RunningSandbox) -> None:
    marketplace = MARKETPLACE[-1]
    for number in ("A/1 ü%", "A2"):
        marketplace.place(number)

    fired = fires(
        watch(),
        lambda: feedamp.control.ship("hooli", "A/1 ü%", mp_line_number="L1"),
        lambda: feedamp.control.cancel("hooli", "A2"),
        lambda: feedamp.control.ship("hooli", "A/1 ü%"),
    )

    assert fired == [
        [{"mp_order_number": "A/1 ü%", "status": "IN_PROGRESS"}],
        [{"mp_order_number": "A2", "status": "CANCELLED"}],
        [{"mp_order_number": "A/1 ü%", "status": "FULFILLED"}],
    ]


def test_it_fires_for_refunds_that_become_ready(feedamp: RunningSandbox) -> None:
    marketplace = MARKETPLACE[-1]
    marketplace.place("A1")
    feedamp.control.ship("hooli", "A1")
    made: list[int] = []

    def create() -> None:
        made.append(feedamp.control.create_refund("hooli", "A1")["feedamp_refund_id"])

    assert fires(watch("refunds"), create) == [[{"mp_order_number": "A1", "feedamp_refund_id": made[0]}]]


def test_it_fires_for_returns_that_the_seller_moves(feedamp: RunningSandbox) -> None:
    marketplace = MARKETPLACE[-1]
    marketplace.place("A1")
    feedamp.control.ship("hooli", "A1")
    marketplace.call("PUT", "/orders/A1/returns/R1", json=return_())

    fired = fires(
        watch("returns"),
        lambda: feedamp.control.authorize_return("hooli", "A1", "R1"),
        lambda: feedamp.control.enter_return_amounts("hooli", "A1", "R1"),
    )

    assert [[entry["status"] for entry in entries] for entries in fired] == [["AUTHORIZED"], ["REFUNDED"]]
    assert fired[0] == [{"mp_order_number": "A1", "mp_return_number": "R1", "status": "AUTHORIZED"}]


def ship(feedamp: RunningSandbox, *numbers: str) -> None:
    for number in numbers:
        MARKETPLACE[-1].place(number)
        feedamp.control.ship("hooli", number)


def test_many_entries_come_in_several_events(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOST_PER_EVENT", 2)
    ship(feedamp, "A1", "A2", "A3")

    fired = fires(watch(), lambda: None, lambda: None)

    assert [len(entries) for entries in fired] == [2, 1]


# The mark


def test_with_a_store_it_goes_on_where_it_was(feedamp: RunningSandbox) -> None:
    store = Store()
    fires(watch(store=store), lambda: ship(feedamp, "A1"), lambda: ship(feedamp, "A2"))

    assert "A1" not in json.dumps(store.kept)
    # A2's mark was not kept any more: what is kept is the mark of the poll before.
    fired = fires(watch(store=store), lambda: ship(feedamp, "A3"))
    assert sorted(entry["mp_order_number"] for entry in fired[0]) == ["A2", "A3"]


class Pauses(list[float]):
    """The pauses of a trigger, which take no time.

    :ivar then: What happens in a pause, by its number from 1 on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.then: dict[int, Callable[[], None]] = {}

    async def pause(self, seconds: float) -> None:
        self.append(seconds)
        await asyncio.to_thread(self.then.get(len(self), lambda: None))


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    paused = Pauses()
    monkeypatch.setattr(events, "pause", paused.pause)
    return paused


def test_a_mark_is_kept_as_soon_as_airflow_has_had_the_time_to_take_the_events(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch, pauses: Pauses
) -> None:
    class Dated(Store):
        async def aset(self, key: str, value: Any) -> None:
            pauses.append(KEPT)
            if pauses.count(KEPT) == 2:
                ship(feedamp, "A2")

    monkeypatch.setenv("AIRFLOW__FEEDAMP__WATCH_INTERVAL", "60")
    ship(feedamp, "A1")
    fires(watch(store=Dated()), lambda: None, lambda: None)

    # The second poll finds nothing, so there is nothing to wait for.
    assert pauses[1:] == [5.0, KEPT, 55.0, 0.0, KEPT, 60.0]


def test_a_process_that_was_told_to_end_keeps_no_mark_of_events_that_nobody_takes(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store()
    ship(feedamp, "A1")
    monkeypatch.setattr(polling._Ending, "begun", True)

    with pytest.raises(TimeoutError):
        fires(watch(store=store), lambda: None, lambda: None, patience=1)

    assert store.kept is None


@pytest.mark.parametrize("store", [None, Store("no mark")])
@pytest.mark.parametrize(
    ("look_back", "found"),
    [("", ["A2"]), ("10800", ["A1", "A2"]), ("soon", ["A2"]), ("-1", ["A2"]), ("nan", ["A2"])],
)
def test_without_a_mark_it_begins_some_time_ago(
    feedamp: RunningSandbox,
    monkeypatch: pytest.MonkeyPatch,
    store: Store | None,
    look_back: str,
    found: list[str],
) -> None:
    monkeypatch.setenv("AIRFLOW__FEEDAMP__WATCH_LOOK_BACK", look_back)
    MARKETPLACE[-1].place("A1")
    with time_machine.travel(datetime.now(UTC) - timedelta(hours=2)):
        feedamp.control.ship("hooli", "A1")
    ship(feedamp, "A2")

    [fired] = fires(watch(store=store), lambda: None)

    assert [entry["mp_order_number"] for entry in fired] == found


def test_a_store_that_two_assets_share_is_left_alone(feedamp: RunningSandbox) -> None:
    class TwoAssets(Store):
        async def aget(self, key: str) -> Any:
            message = "Task has 2 concrete inlets and outlets"
            raise ValueError(message)

        async def aset(self, key: str, value: Any) -> None:
            await self.aget(key)

    ship(feedamp, "A1")

    assert len(fires(watch(store=TwoAssets()), lambda: None, lambda: ship(feedamp, "A2"))) == 2


# Errors


def test_it_goes_on_after_errors_of_feedamp_and_asks_from_the_same_mark(
    feedamp: RunningSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    ship(feedamp, "A1")
    feedamp.control.fault("http_error", on="list_orders", status=400, times=2)

    with caplog.at_level(logging.WARNING):
        fired = fires(watch(), lambda: None)

    assert fired == [[{"mp_order_number": "A1", "status": "FULFILLED"}]]
    assert caplog.text.count("Watching fulfillments failed") == 2


def test_its_pauses_grow_with_each_error_in_a_row(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch, pauses: Pauses
) -> None:
    def fail(times: int, number: str) -> None:
        feedamp.control.fault("http_error", on="list_orders", status=400, times=times)
        ship(feedamp, number)

    monkeypatch.setenv("AIRFLOW__FEEDAMP__WATCH_INTERVAL", "300")
    fires(watch(), lambda: fail(3, "A1"), lambda: fail(1, "A2"))

    assert pauses[1:] == [600.0, 900.0, 900.0, 5.0, 295.0, 600.0]


def test_watchers_begin_with_a_random_wait(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch, pauses: Pauses
) -> None:
    monkeypatch.setenv("AIRFLOW__FEEDAMP__WATCH_INTERVAL", "60")
    ship(feedamp, "A1")
    for _ in range(5):
        fires(watch(), lambda: None)

    assert len(set(pauses)) == 5
    assert all(0 <= wait <= 60 for wait in pauses)


# A seller who must authorise again


@pytest.fixture
def gauge() -> Iterator[list[tuple[str, float, Any]]]:
    from airflow.providers.common.compat.sdk import Stats

    told: list[tuple[str, float, Any]] = []

    def set_to(name: str, value: float, rate: float = 1, delta: bool = False, *, tags: Any = None) -> None:
        told.append((name, value, tags))

    with patch.object(Stats, "gauge", set_to):
        yield told


@pytest.fixture
def authorize(feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def authorize() -> None:
        feedamp.control.connect("hooli")
        monkeypatch.setenv("AIRFLOW_CONN_FEEDAMP_DEFAULT", json.dumps(feedamp.connection("hooli")))

    return authorize


def test_who_must_authorise_again_is_an_error_once_and_watched_from_the_next_poll_on(
    feedamp: RunningSandbox,
    monkeypatch: pytest.MonkeyPatch,
    pauses: Pauses,
    gauge: list[tuple[str, float, Any]],
    authorize: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("AIRFLOW__FEEDAMP__WATCH_INTERVAL", "60")
    ship(feedamp, "A1")
    feedamp.control.revoke("hooli")
    pauses.then[4] = authorize

    with caplog.at_level(logging.INFO, events.__name__):
        fired = fires(watch(), lambda: None)

    assert fired == [[{"mp_order_number": "A1", "status": "FULFILLED"}]]
    assert pauses[1:] == [60.0, 60.0, 60.0]
    tags = {"connection": "feedamp_default", "seller": "hooli", "resource": "fulfillments"}
    assert gauge == [("feedamp.watch.failing", failing, tags) for failing in (1, 1, 1, 0)]
    of_the_watch = [record for record in caplog.records if record.name == events.__name__]
    assert [record.levelname for record in of_the_watch] == ["ERROR", "INFO"]
    assert "Seller 'hooli' has to be authorised again by a person" in of_the_watch[0].getMessage()


def test_an_asset_of_its_own_fires_once_each_time_a_person_has_to_authorise(
    feedamp: RunningSandbox, pauses: Pauses, authorize: Callable[[], None]
) -> None:
    def revoke() -> None:
        feedamp.control.revoke("hooli")
        CACHE.clear()  # the access token that was handed out would do until its end
        open_store.cache_clear()

    revoke()
    # Two pauses for a poll: the first three polls find that a person has to authorise, then three find none.
    pauses.then |= {7: authorize, 13: revoke}

    fired = fires(watch("authorization"), lambda: None, lambda: None)

    assert [len(entries) for entries in fired] == [1, 1]
    assert "Seller 'hooli' has to be authorised again by a person" in fired[0][0]["message"]
    assert len(pauses) == 13


# What Airflow keeps of it


@pytest.mark.parametrize("resource", [*RESOURCES, "authorization"])
def test_it_can_be_made_anew_from_what_it_serializes(resource: str) -> None:
    trigger = FeedAmpActivityTrigger(resource, feedamp_conn_id="mine", seller="A/1 ü%")

    path, arguments = trigger.serialize()

    module, _, name = path.rpartition(".")
    assert (module, name) == (FeedAmpActivityTrigger.__module__, "FeedAmpActivityTrigger")
    assert json.loads(json.dumps(arguments)) == arguments
    assert FeedAmpActivityTrigger(**arguments).serialize() == (path, arguments)


def test_its_arguments_hold_no_secret(feedamp: RunningSandbox) -> None:
    shown = f"{watch().serialize()} {watch()!r}"

    assert not any(token in shown for token in feedamp.control.refresh_tokens("hooli"))
    assert "demo-secret" not in shown


def test_a_mark_has_its_instant_in_utc(feedamp: RunningSandbox) -> None:
    store = Store()
    before = datetime.now(UTC)
    fires(watch(store=store), lambda: ship(feedamp, "A1"), lambda: ship(feedamp, "A2"))

    mark = Watermark.from_json(store.kept)
    assert before - timedelta(minutes=6) < mark.at < datetime.now(UTC) - timedelta(minutes=4)
