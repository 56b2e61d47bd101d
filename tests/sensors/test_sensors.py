"""What each sensor waits for; a worker and the triggerer say the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.exceptions import InputError, NotFoundError, ReturnOverdueError
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
from airflow_provider_feedamp.sensors.orders import FeedAmpFulfillmentSensor
from airflow_provider_feedamp.sensors.refunds import FeedAmpRefundsSensor
from airflow_provider_feedamp.sensors.returns import FeedAmpReturnsSensor
from tests.operators.support import for_good
from tests.sandbox.caller import return_line
from tests.sensors.waiting import MODES, both_modes, deferred, event_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_feedamp.sandbox.server import RunningSandbox

NOW = datetime.now(UTC)
EARLIER = NOW - timedelta(hours=1)
TOMORROW, LAST_WEEK = ((NOW + timedelta(days=days)).date().isoformat() for days in (1, -7))
ONE_PIECE = {"mp_line_number": "L1", "quantity": 1}
NAMES = ("mp_order_number", "mp_return_number")
RETURN = dict(zip(NAMES, "AR", strict=True))
KINDS: dict[str, Any] = {
    "orders": FeedAmpFulfillmentSensor,
    "refunds": FeedAmpRefundsSensor,
    "returns": FeedAmpReturnsSensor,
}


def sensor(what: str, **arguments: Any) -> Any:
    needed: dict[str, Any] = {"returns": [RETURN]} if what == "returns" else {}
    return KINDS[what](task_id="wait", **{"poke_interval": 0, **needed, **arguments})


def create(respond_date: str | None = TOMORROW, *, preauthorized: bool = False) -> None:
    """Place a return of the order A, which is shipped."""
    dates = {} if respond_date is None else {"request_date": "2026-01-01", "respond_date": respond_date}
    line = return_line(preauthorized=preauthorized)
    FeedAmpHook().client.returns.create("A", "R", {"return_lines": [line], **dates})


def refund(sandbox: RunningSandbox, number: str) -> Any:
    return sandbox.control.create_refund("hooli", number)["feedamp_refund_id"]


@both_modes
@pytest.mark.parametrize(
    ("arguments", "before", "does", "details", "found"),
    [
        ({"mp_order_numbers": ["B", "A"]}, "B", "ship", ("A", {}), ["B", "A"]),
        ({"mp_order_numbers": ["A"]}, "", "cancel", ("A", {}), ["A"]),
        ({"mp_order_numbers": ["A"], "until": "started"}, "", "ship", ("A", ONE_PIECE), ["A"]),
        ({"since": EARLIER, "until": "started"}, "", "ship", ("B", ONE_PIECE), ["B"]),
    ],
)
def test_it_waits_for_all_orders_a_cancellation_one_shipment_or_any_order(
    feedamp: RunningSandbox,
    deferrable: bool,
    arguments: dict[str, Any],
    before: str,
    does: str,
    details: tuple[str, dict[str, Any]],
    found: list[str],
) -> None:
    for number in before:
        feedamp.control.ship("hooli", number)
    number, more = details

    waiting = sensor("orders", **arguments, deferrable=deferrable)
    result = MODES[deferrable](waiting, lambda: getattr(feedamp.control, does)("hooli", number, **more))

    assert result == found


@both_modes
@pytest.mark.parametrize("arguments", [{}, {"mp_order_numbers": ["A"]}])
def test_it_waits_for_a_refund_of_the_orders_that_are_asked_for(
    feedamp: RunningSandbox, deferrable: bool, arguments: dict[str, Any]
) -> None:
    for number in "AB":
        feedamp.control.ship("hooli", number)
    if arguments:
        refund(feedamp, "B")
    made: list[Any] = []

    waiting = sensor("refunds", **arguments, deferrable=deferrable)
    result = MODES[deferrable](waiting, lambda: made.append(refund(feedamp, "A")))

    assert result == [{"mp_order_number": "A", "feedamp_refund_id": made[0]}]


@both_modes
def test_a_refund_whose_errors_are_resolved_is_to_be_processed_again(
    feedamp: RunningSandbox, deferrable: bool
) -> None:
    feedamp.control.ship("hooli", "A")
    number = refund(feedamp, "A")
    FeedAmpHook().client.refunds.report_errors("A", number, [{"code": "EXCESS_ITEM_REFUND", "message": "m"}])

    waiting = sensor("refunds", deferrable=deferrable)
    result = MODES[deferrable](waiting, lambda: feedamp.control.resolve_refund_errors("hooli", number))

    assert [each["feedamp_refund_id"] for each in result] == [number]


def test_refunds_from_before_an_instant_do_not_count(feedamp: RunningSandbox) -> None:
    feedamp.control.ship("hooli", "A")
    refund(feedamp, "A")
    later, earlier = (datetime.now(UTC) + timedelta(hours=sign) for sign in (1, -1))

    assert not sensor("refunds", created_after=later).poke({})
    assert sensor("refunds", created_after=earlier.isoformat()).poke({})


@both_modes
def test_it_waits_until_the_amounts_of_a_return_are_entered(
    feedamp: RunningSandbox, deferrable: bool
) -> None:
    feedamp.control.ship("hooli", "A")
    create(preauthorized=True)

    waiting = sensor("returns", deferrable=deferrable)
    result = MODES[deferrable](waiting, lambda: feedamp.control.enter_return_amounts("hooli", "A", "R"))

    assert result == [RETURN | {"status": "REFUNDED", "errors": []}]


@both_modes
def test_what_is_reached_already_needs_no_triggerer(feedamp: RunningSandbox, deferrable: bool) -> None:
    feedamp.control.ship("hooli", "A")
    create()
    feedamp.control.authorize_return("hooli", "A", "R")
    feedamp.control.enter_return_amounts("hooli", "A", "R")
    FeedAmpHook().client.returns.report_errors("A", "R", [{"code": "EXCESS_REFUND", "message": "m"}])

    assert sensor("orders", mp_order_numbers=["A"], deferrable=deferrable).execute({}) == ["A"]
    # A return that is further has reached the status, and its errors that are not resolved are told.
    [reached] = sensor("returns", status="AUTHORIZED", deferrable=deferrable).execute({})
    assert (reached["status"], reached["errors"]) == ("REFUNDED", ["EXCESS_REFUND"])


def test_a_lean_call_is_enough_for_each_poll_of_a_return_in_the_triggerer(feedamp: RunningSandbox) -> None:
    feedamp.control.ship("hooli", "A")
    create(preauthorized=True)
    trigger = deferred(sensor("returns", deferrable=True))
    before = feedamp.control.counters()["calls"]
    feedamp.control.enter_return_amounts("hooli", "A", "R")

    event_of(trigger)

    calls = feedamp.control.counters()["calls"]
    assert calls["get_return_refunds"] == before["get_return_refunds"] + 1
    assert calls["get_return"] == before["get_return"]


# What fails for good


@both_modes
@pytest.mark.parametrize(
    ("what", "arguments", "message"),
    [
        (
            "orders",
            {"mp_order_numbers": ["A", "X1", "X2"]},
            "Not in the seller's account: X1, X2",
        ),
        ("returns", {}, None),
    ],
)
def test_what_feedamp_does_not_know_fails_for_good_after_the_first_look(
    feedamp: RunningSandbox, deferrable: bool, what: str, arguments: dict[str, Any], message: str | None
) -> None:
    with for_good(NotFoundError, match=message):
        sensor(what, **arguments, deferrable=deferrable).execute({})


@pytest.mark.parametrize(
    ("waiting", "changes", "kind", "status"),
    [
        (lambda: sensor("orders", mp_order_numbers=["A"], deferrable=True),
         {"mp_order_numbers": ["X1"]}, NotFoundError, 404),
        (lambda: sensor("returns", respond_date_is_deadline=False, deferrable=True),
         {"respond_dates": [LAST_WEEK]}, ReturnOverdueError, None),
    ],
    ids=["an order that vanishes", "a day that ends"],
)  # fmt: skip
def test_what_cannot_come_any_more_fails_for_good_from_the_triggerer_too(
    feedamp: RunningSandbox,
    waiting: Callable[[], Any],
    changes: dict[str, Any],
    kind: Any,
    status: int | None,
) -> None:
    if kind is ReturnOverdueError:
        feedamp.control.ship("hooli", "A")
        create(LAST_WEEK)
    task = waiting()
    trigger = deferred(task)
    trigger.arguments.update(changes)

    with for_good(kind) as caught:
        task.resume_execution("execute_complete", {"event": event_of(trigger)}, {})

    assert caught.value.status == status


def test_a_return_whose_day_is_over_fails_for_good(feedamp: RunningSandbox) -> None:
    feedamp.control.ship("hooli", "A")
    create(LAST_WEEK)

    with for_good(ReturnOverdueError, match=r"REFUNDED: R \(AWAITING_AUTHORIZATION\)"):
        sensor("returns").execute({})


@pytest.mark.parametrize(
    ("respond_date", "deadline"),
    [(LAST_WEEK, False), (LAST_WEEK, "False"), (None, True), (TOMORROW, True), (TOMORROW, "true")],
)
def test_it_waits_on_where_no_day_is_over(
    feedamp: RunningSandbox, respond_date: str | None, deadline: bool | str
) -> None:
    feedamp.control.ship("hooli", "A")
    create(respond_date)

    assert not sensor("returns", respond_date_is_deadline=deadline).poke({})


@pytest.mark.parametrize(
    ("what", "arguments", "message"),
    [
        ("orders", {}, "exactly one of mp_order_numbers and since"),
        ("orders", {"mp_order_numbers": ["A"], "since": EARLIER}, "exactly one"),
        ("orders", {"mp_order_numbers": "A, B"}, "JSON array"),
        ("orders", {"mp_order_numbers": ["A", " "]}, "blank"),
        ("orders", {"mp_order_numbers": ["A"], "until": "soon"}, "until must be"),
        ("orders", {"since": "2026-01-01T00:00:00"}, "with a time zone"),
        ("orders", {"since": "yesterday"}, "ISO 8601"),
        ("returns", {"returns": [{"mp_order_number": "A"}]}, "mp_return_number"),
        ("returns", {"returns": ["R"]}, "object"),
        ("returns", {"status": "REJECTED"}, "status must be one of"),
        ("returns", {"respond_date_is_deadline": "maybe"}, "respond_date_is_deadline must be True or False"),
    ],
)
def test_what_cannot_be_waited_for_is_refused_for_good(
    feedamp: RunningSandbox, what: str, arguments: dict[str, Any], message: str
) -> None:
    with for_good(InputError, match=message):
        sensor(what, **arguments).execute({})


def test_orders_may_come_as_the_text_of_a_rendered_template(feedamp: RunningSandbox) -> None:
    templates = {"mp_order_numbers": "{{ numbers | tojson }}", "seller": "{{ who }}", "until": "{{ until }}"}
    waiting = sensor("orders", **templates)
    waiting.render_template_fields({"numbers": ["A"], "who": "hooli", "until": "started"})
    feedamp.control.ship("hooli", "A", **ONE_PIECE)

    assert waiting.execute({}) == ["A"]
