"""The sensor waits for returns until their own deadline; a worker and the triggerer say the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_feedamp.exceptions import InputError, NotFoundError, ReturnOverdueError
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
from airflow_provider_feedamp.sensors.returns import FeedAmpReturnsSensor
from tests.sandbox.caller import return_line
from tests.sensors.waiting import MODES, both_modes, deferred, event_of

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox

RETURN = {"mp_order_number": "A", "mp_return_number": "R"}
TOMORROW = (datetime.now(UTC) + timedelta(days=1)).date().isoformat()
LAST_WEEK = (datetime.now(UTC) - timedelta(days=7)).date().isoformat()


@pytest.fixture
def feedamp(feedamp: RunningSandbox) -> RunningSandbox:
    """FeedAMP with an order that is shipped."""
    feedamp.control.ship("acme", "A")
    return feedamp


def create(respond_date: str | None = TOMORROW, *, preauthorized: bool = False) -> None:
    dates = {} if respond_date is None else {"request_date": "2026-01-01", "respond_date": respond_date}
    line = return_line(preauthorized=preauthorized)
    FeedAmpHook().client.returns.create("A", "R", {"return_lines": [line], **dates})


def sensor(**arguments: Any) -> FeedAmpReturnsSensor:
    return FeedAmpReturnsSensor(task_id="wait", **{"poke_interval": 0, "returns": [RETURN], **arguments})


@both_modes
def test_it_waits_until_the_amounts_are_entered(feedamp: RunningSandbox, deferrable: bool) -> None:
    create(preauthorized=True)

    result = MODES[deferrable](
        sensor(deferrable=deferrable), lambda: feedamp.control.enter_return_amounts("acme", "A", "R")
    )

    assert result == [RETURN | {"status": "REFUNDED", "errors": []}]


@both_modes
def test_a_return_that_is_further_has_reached_the_status(feedamp: RunningSandbox, deferrable: bool) -> None:
    create()
    feedamp.control.authorize_return("acme", "A", "R")
    feedamp.control.enter_return_amounts("acme", "A", "R")

    [reached] = sensor(status="AUTHORIZED", deferrable=deferrable).execute({})

    assert reached["status"] == "REFUNDED"


def test_a_lean_call_is_enough_for_each_poll_in_the_triggerer(feedamp: RunningSandbox) -> None:
    create(preauthorized=True)
    trigger = deferred(sensor(deferrable=True))
    before = feedamp.control.counters()["calls"]
    feedamp.control.enter_return_amounts("acme", "A", "R")

    event_of(trigger)

    calls = feedamp.control.counters()["calls"]
    assert calls["get_return_refunds"] == before["get_return_refunds"] + 1
    assert calls["get_return"] == before["get_return"]


@both_modes
def test_errors_that_are_not_resolved_are_told(feedamp: RunningSandbox, deferrable: bool) -> None:
    create(preauthorized=True)
    feedamp.control.enter_return_amounts("acme", "A", "R")
    FeedAmpHook().client.returns.report_errors("A", "R", [{"code": "EXCESS_REFUND", "message": "m"}])

    [reached] = sensor(deferrable=deferrable).execute({})

    assert reached["errors"] == ["EXCESS_REFUND"]


def test_a_return_whose_day_is_over_fails_for_good(feedamp: RunningSandbox) -> None:
    create(LAST_WEEK)

    with pytest.raises(ReturnOverdueError, match=r"REFUNDED: R \(AWAITING_AUTHORIZATION\)") as caught:
        sensor().execute({})

    assert isinstance(caught.value, AirflowFailException)


def test_a_day_that_ends_while_the_task_is_deferred_fails_it_for_good(feedamp: RunningSandbox) -> None:
    create(LAST_WEEK)
    waiting = sensor(deferrable=True, respond_date_is_deadline=False)
    trigger = deferred(waiting)
    trigger.arguments["respond_dates"] = [LAST_WEEK]

    with pytest.raises(ReturnOverdueError) as caught:
        waiting.resume_execution("execute_complete", {"event": event_of(trigger)}, {})

    assert isinstance(caught.value, AirflowFailException)


@pytest.mark.parametrize(
    ("respond_date", "deadline"),
    [(LAST_WEEK, False), (LAST_WEEK, "False"), (None, True), (TOMORROW, True), (TOMORROW, "true")],
)
def test_it_waits_on_where_no_day_is_over(
    feedamp: RunningSandbox, respond_date: str | None, deadline: bool | str
) -> None:
    create(respond_date)

    assert not sensor(respond_date_is_deadline=deadline).poke({})


def test_an_unknown_return_fails_for_good(feedamp: RunningSandbox) -> None:
    with pytest.raises(NotFoundError) as caught:
        sensor().execute({})

    assert isinstance(caught.value, AirflowFailException)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"returns": [{"mp_order_number": "A"}]}, "mp_return_number"),
        ({"returns": ["R"]}, "object"),
        ({"status": "REJECTED"}, "status must be one of"),
        ({"respond_date_is_deadline": "maybe"}, "respond_date_is_deadline must be True or False"),
    ],
)
def test_what_cannot_be_waited_for_is_refused(
    feedamp: RunningSandbox, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        sensor(**arguments).execute({})
