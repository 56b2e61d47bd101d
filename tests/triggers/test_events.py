"""The trigger of an asset's watcher fires for what the seller does, and keeps its mark where it can."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import time_machine

from airflow_provider_feedamp.api.activity import RESOURCES
from airflow_provider_feedamp.api.watermark import Watermark
from airflow_provider_feedamp.sandbox.server import RunningSandbox, serve
from airflow_provider_feedamp.stores import open_store
from airflow_provider_feedamp.tokens.cache import CACHE
from airflow_provider_feedamp.triggers import events, threads
from airflow_provider_feedamp.triggers.events import FeedAmpActivityTrigger
from airflow_provider_feedamp.triggers.threads import forget_client
from tests.sandbox.caller import Caller, return_

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.once

#: The marketplace of each test, the latest last.
MARKETPLACE: list[Caller] = []


@pytest.fixture
def feedamp(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningSandbox]:
    CACHE.clear()
    open_store.cache_clear()
    forget_client(("feedamp_default", "acme"))
    with serve() as sandbox:
        MARKETPLACE.append(
            Caller(sandbox, "acme")
        )  # it uses up a refresh token, before the connection gets one
        connection = sandbox.connection("acme", list_requests_per_second="0")
        monkeypatch.setenv("AIRFLOW__FEEDAMP__TOKEN_STORE", "memory")
        monkeypatch.setenv("AIRFLOW_CONN_FEEDAMP_DEFAULT", json.dumps(connection))
        yield sandbox


class Store:
    """What Airflow 3.3 gives the trigger of an asset."""

    def __init__(self, kept: Any = None) -> None:
        self.kept = kept

    async def aget(self, key: str) -> Any:
        return self.kept

    async def aset(self, key: str, value: Any) -> None:
        self.kept = json.loads(json.dumps(value))


def watch(
    resource: str = "fulfillments", store: Store | None = None, **arguments: Any
) -> FeedAmpActivityTrigger:
    arguments = {"poll_interval": 0.01, **arguments}
    trigger = FeedAmpActivityTrigger(resource, seller="acme", **arguments)
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
                "seller": "acme",
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
        lambda: feedamp.control.ship("acme", "A/1 ü%", mp_line_number="L1"),
        lambda: feedamp.control.cancel("acme", "A2"),
        lambda: feedamp.control.ship("acme", "A/1 ü%"),
    )

    assert fired == [
        [{"mp_order_number": "A/1 ü%", "status": "IN_PROGRESS"}],
        [{"mp_order_number": "A2", "status": "CANCELLED"}],
        [{"mp_order_number": "A/1 ü%", "status": "FULFILLED"}],
    ]


def test_it_fires_for_refunds_that_become_ready(feedamp: RunningSandbox) -> None:
    marketplace = MARKETPLACE[-1]
    marketplace.place("A1")
    feedamp.control.ship("acme", "A1")
    made: list[int] = []

    def create() -> None:
        made.append(feedamp.control.create_refund("acme", "A1")["feedamp_refund_id"])

    assert fires(watch("refunds"), create) == [[{"mp_order_number": "A1", "feedamp_refund_id": made[0]}]]


def test_it_fires_for_returns_that_the_seller_moves(feedamp: RunningSandbox) -> None:
    marketplace = MARKETPLACE[-1]
    marketplace.place("A1")
    feedamp.control.ship("acme", "A1")
    marketplace.call("PUT", "/orders/A1/returns/R1", json=return_())

    fired = fires(
        watch("returns"),
        lambda: feedamp.control.authorize_return("acme", "A1", "R1"),
        lambda: feedamp.control.enter_return_amounts("acme", "A1", "R1"),
    )

    assert [[entry["status"] for entry in entries] for entries in fired] == [["AUTHORIZED"], ["REFUNDED"]]
    assert fired[0] == [{"mp_order_number": "A1", "mp_return_number": "R1", "status": "AUTHORIZED"}]


def ship(feedamp: RunningSandbox, *numbers: str) -> None:
    for number in numbers:
        MARKETPLACE[-1].place(number)
        feedamp.control.ship("acme", number)


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


def test_a_mark_is_kept_only_after_airflow_has_had_the_time_to_take_the_events(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, kept_in_pauses, pause = Store(), [], asyncio.sleep

    async def paused(seconds: float) -> None:
        kept_in_pauses.append(store.kept)
        await pause(seconds)

    monkeypatch.setattr(asyncio, "sleep", paused)
    ship(feedamp, "A1")
    fires(watch(store=store), lambda: None, lambda: ship(feedamp, "A2"))

    assert kept_in_pauses[0] is None
    assert store.kept is not None


def test_a_process_that_was_told_to_end_keeps_no_mark_of_events_that_nobody_takes(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store()
    ship(feedamp, "A1")
    monkeypatch.setattr(threads._Ending, "begun", True)

    with pytest.raises(TimeoutError):
        fires(watch(store=store), lambda: None, lambda: None, patience=1)

    assert store.kept is None


@pytest.mark.parametrize("store", [None, Store("no mark")])
@pytest.mark.parametrize(("look_back", "found"), [(3600.0, ["A2"]), (10800.0, ["A1", "A2"])])
def test_without_a_mark_it_begins_some_time_ago(
    feedamp: RunningSandbox, store: Store | None, look_back: float, found: list[str]
) -> None:
    MARKETPLACE[-1].place("A1")
    with time_machine.travel(datetime.now(UTC) - timedelta(hours=2)):
        feedamp.control.ship("acme", "A1")
    ship(feedamp, "A2")

    [fired] = fires(watch(store=store, look_back=look_back), lambda: None)

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
    feedamp: RunningSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(times: int, number: str) -> None:
        feedamp.control.fault("http_error", on="list_orders", status=400, times=times)
        ship(feedamp, number)

    with caplog.at_level(logging.WARNING):
        fires(watch(poll_interval=0.1), lambda: fail(3, "A1"), lambda: fail(1, "A2"))

    pauses = [record.args[1] for record in caplog.records if "Watching" in record.msg]  # type: ignore[index]
    assert pauses == pytest.approx([0.2, 0.4, 0.8, 0.2])


# What Airflow keeps of it


@pytest.mark.parametrize("resource", RESOURCES)
def test_it_can_be_made_anew_from_what_it_serializes(resource: str) -> None:
    trigger = FeedAmpActivityTrigger(
        resource, feedamp_conn_id="mine", seller="A/1 ü%", poll_interval=5.0, look_back=7.0
    )

    path, arguments = trigger.serialize()

    module, _, name = path.rpartition(".")
    assert (module, name) == (FeedAmpActivityTrigger.__module__, "FeedAmpActivityTrigger")
    assert json.loads(json.dumps(arguments)) == arguments
    assert FeedAmpActivityTrigger(**arguments).serialize() == (path, arguments)


def test_its_arguments_hold_no_secret(feedamp: RunningSandbox) -> None:
    shown = f"{watch().serialize()} {watch()!r}"

    assert not any(token in shown for token in feedamp.control.refresh_tokens("acme"))
    assert "demo-secret" not in shown


def test_a_mark_has_its_instant_in_utc(feedamp: RunningSandbox) -> None:
    store = Store()
    before = datetime.now(UTC)
    fires(watch(store=store), lambda: ship(feedamp, "A1"), lambda: ship(feedamp, "A2"))

    mark = Watermark.from_json(store.kept)
    assert before - timedelta(minutes=6) < mark.at < datetime.now(UTC) - timedelta(minutes=4)
