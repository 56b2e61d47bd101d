"""A trigger asks until its condition is met, its time is up, or an error will not pass."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
from copy import copy
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync

from airflow_provider_feedamp.exceptions import (
    ApiError,
    FeedAmpError,
    RateLimitError,
    ServerError,
    UnreachableError,
)
from airflow_provider_feedamp.triggers import polling
from airflow_provider_feedamp.triggers.polling import MOST_FAILURES, FeedAmpPollingTrigger
from tests.sensors.waiting import again, event_of

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox

NO_MORE = "2126-01-01T00:00:00+00:00"


class Answers:
    """A condition that answers as a test tells it; an error is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.asked_at: list[float] = []

    def met(self, client: Any) -> Any:
        self.asked += 1
        self.asked_at.append(time.monotonic())
        answer = self.answers.pop(0)
        if isinstance(answer, threading.Event):
            answer.wait(30)
        if isinstance(answer, FeedAmpError):
            raise copy(answer)
        return answer


def telling(*answers: Any, seconds: float = 60, **arguments: Any) -> FeedAmpPollingTrigger:
    """Return a trigger of which ``ANSWERS`` is the condition."""
    ANSWERS.__init__(*answers)  # type: ignore[misc]
    deadline = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
    return FeedAmpPollingTrigger(
        condition="Answers", arguments={}, deadline=deadline, **{"poll_interval": 0, **arguments}
    )


ANSWERS = Answers()


@pytest.fixture(autouse=True)
def _answers_can_be_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(polling.CONDITIONS, "Answers", lambda: ANSWERS)


def test_a_trigger_comes_back_from_json_as_it_was() -> None:
    arguments: dict[str, Any] = {
        "condition": "SellerActivity",
        "arguments": {"any": ["thing", {"that": None}]},
        "deadline": NO_MORE,
        "feedamp_conn_id": "c",
        "seller": "s",
        "poll_interval": 1.5,
    }

    path, told = FeedAmpPollingTrigger(**arguments).serialize()

    assert path == f"{FeedAmpPollingTrigger.__module__}.FeedAmpPollingTrigger"
    assert json.loads(json.dumps(told)) == told == arguments
    assert again(FeedAmpPollingTrigger(**arguments)).serialize() == (path, told)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("FulfilledOrders", {"mp_order_numbers": []}),
        ("SellerActivity", {"since": NO_MORE}),
        ("RefundsToProcess", {"mp_order_numbers": []}),
        ("ReturnsInStatus", {"returns": []}),
    ],
)
def test_it_knows_each_condition_by_its_name(
    feedamp: RunningSandbox, name: str, arguments: dict[str, Any]
) -> None:
    trigger = FeedAmpPollingTrigger(
        condition=name, arguments=arguments, deadline="2026-01-01T00:00:00+00:00", poll_interval=0
    )

    assert event_of(trigger)["status"] == ("timeout" if name == "SellerActivity" else "success")


def test_it_asks_until_the_condition_is_met(feedamp: RunningSandbox) -> None:
    assert event_of(telling(None, None, ["A"])) == {"status": "success", "message": "1 found", "found": ["A"]}


def test_nothing_found_is_found_when_the_condition_says_so(feedamp: RunningSandbox) -> None:
    assert event_of(telling([]))["status"] == "success"


def test_behind_the_deadline_it_asks_once_more_and_gives_up(feedamp: RunningSandbox) -> None:
    assert event_of(telling(None, seconds=-5))["status"] == "timeout"
    assert ANSWERS.asked == 1


def test_a_poll_that_hangs_ends_with_the_deadline(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "GRACE", 0.05)
    never = threading.Event()

    try:
        assert event_of(telling(never, seconds=0.05))["status"] == "timeout"
    finally:
        never.set()


PASSING = [ServerError("5xx"), RateLimitError("429", retry_after=0), UnreachableError("cut")]


def test_an_error_that_may_pass_is_polled_through(feedamp: RunningSandbox) -> None:
    assert event_of(telling(*PASSING, None, *PASSING, ["A"]))["status"] == "success"


def test_the_same_error_all_the_time_ends_the_wait(feedamp: RunningSandbox) -> None:
    event = event_of(telling(*[ServerError("5xx", status=503)] * MOST_FAILURES))

    assert (event["status"], event["error"], event["data"]["status"]) == ("error", "ServerError", 503)
    assert ANSWERS.asked == MOST_FAILURES


def test_an_error_that_will_not_pass_ends_the_wait_at_once(feedamp: RunningSandbox) -> None:
    event = event_of(telling(ApiError("no JSON")))

    assert (event["error"], event["message"], ANSWERS.asked) == ("ApiError", "no JSON", 1)


def test_time_that_is_up_in_the_middle_of_errors_is_time_that_is_up(feedamp: RunningSandbox) -> None:
    assert event_of(telling(ServerError("5xx"), seconds=-5))["status"] == "timeout"


def test_it_waits_as_long_as_feedamp_asks(feedamp: RunningSandbox) -> None:
    # An hour is longer than there is time, so that the last poll comes with the deadline.
    event = event_of(telling(RateLimitError("429", retry_after=3600), ["A"], seconds=0.3))

    first, second = ANSWERS.asked_at
    assert event["status"] == "success"
    assert second - first > 0.2


def test_a_trigger_that_is_cancelled_ends_at_once_and_its_thread_runs_on(feedamp: RunningSandbox) -> None:
    goes_on = threading.Event()
    trigger = telling(goes_on)

    async def cancelled() -> None:
        task = asyncio.create_task(trigger._outcome())
        while not ANSWERS.asked:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)

    try:
        asyncio.run(cancelled())
    finally:
        goes_on.set()


def test_an_error_that_nobody_waits_for_any_more_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    goes_on, ended = threading.Event(), threading.Event()

    def fail() -> None:
        goes_on.wait(30)
        ended.set()
        raise ServerError("5xx")

    async def cancelled() -> None:
        call = asyncio.create_task(polling.in_thread(("c", None), fail))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        goes_on.set()
        await asyncio.to_thread(ended.wait, 30)
        await asyncio.sleep(0.05)

    asyncio.run(cancelled())
    gc.collect()

    assert "never retrieved" not in caplog.text


def test_what_a_cancelled_trigger_asked_of_the_loop_is_finished(feedamp: RunningSandbox) -> None:
    # Airflow 3.0 and 3.1 answer a thread's look-ups so; half an answer left behind would end the triggerer.
    steps: list[str] = []

    async def cancelled() -> None:
        begun, goes_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def look_up() -> None:
            begun.set()
            await goes_on.wait()
            steps.append("answered")
            ended.set()

        call = asyncio.create_task(polling.in_thread(("c", None), lambda: async_to_sync(look_up)()))
        await begun.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        goes_on.set()
        await asyncio.wait_for(ended.wait(), 5)

    asyncio.run(cancelled())

    assert steps == ["answered"]


def test_a_changed_connection_is_seen_after_an_error(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = ("feedamp_default", None)
    first = polling.client_for(key)
    assert polling.client_for(key) is first

    event_of(telling(ServerError("5xx"), ["A"]))

    assert polling.client_for(key) is not first


def test_a_changed_connection_is_seen_after_some_minutes(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = ("feedamp_default", None)
    first = polling.client_for(key)
    monkeypatch.setattr(polling, "CLIENT_LIFETIME", 0.0)

    assert polling.client_for(key) is not first


def test_one_seller_does_not_take_all_threads(feedamp: RunningSandbox) -> None:
    held, free = threading.Event(), []

    async def both() -> None:
        busy = [
            asyncio.create_task(polling.in_thread(("c", "slow"), lambda: held.wait(30)))
            for _ in range(polling.THREADS + 1)
        ]
        await asyncio.sleep(0)
        try:
            free.append(await asyncio.wait_for(polling.in_thread(("c", "quick"), lambda: "answer"), 5))
        finally:
            held.set()
            await asyncio.gather(*busy)

    asyncio.run(both())

    assert free == ["answer"]
