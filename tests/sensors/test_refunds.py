"""The sensor waits for refunds, and says the same in a worker and in the triggerer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
from airflow_provider_feedamp.sensors.refunds import FeedAmpRefundsSensor
from tests.sensors.waiting import MODES, both_modes

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox


def sensor(**arguments: Any) -> FeedAmpRefundsSensor:
    return FeedAmpRefundsSensor(task_id="wait", **{"poke_interval": 0, **arguments})


@both_modes
def test_it_waits_for_a_refund(feedamp: RunningSandbox, deferrable: bool) -> None:
    made: list[Any] = []
    feedamp.control.ship("acme", "A")

    result = MODES[deferrable](
        sensor(deferrable=deferrable), lambda: made.append(feedamp.control.create_refund("acme", "A"))
    )

    assert result == [{"mp_order_number": "A", "feedamp_refund_id": made[0]["feedamp_refund_id"]}]


@both_modes
def test_a_refund_whose_errors_are_resolved_is_to_be_processed_again(
    feedamp: RunningSandbox, deferrable: bool
) -> None:
    feedamp.control.ship("acme", "A")
    number = feedamp.control.create_refund("acme", "A")["feedamp_refund_id"]
    FeedAmpHook().client.refunds.report_errors("A", number, [{"code": "EXCESS_ITEM_REFUND", "message": "m"}])

    result = MODES[deferrable](
        sensor(deferrable=deferrable), lambda: feedamp.control.resolve_refund_errors("acme", number)
    )

    assert [each["feedamp_refund_id"] for each in result] == [number]


@both_modes
def test_only_the_refunds_of_some_orders_count(feedamp: RunningSandbox, deferrable: bool) -> None:
    for number in "AB":
        feedamp.control.ship("acme", number)
    feedamp.control.create_refund("acme", "B")

    result = MODES[deferrable](
        sensor(mp_order_numbers=["A"], deferrable=deferrable),
        lambda: feedamp.control.create_refund("acme", "A"),
    )

    assert [each["mp_order_number"] for each in result] == ["A"]


def test_refunds_from_before_an_instant_do_not_count(feedamp: RunningSandbox) -> None:
    feedamp.control.ship("acme", "A")
    feedamp.control.create_refund("acme", "A")

    later, earlier = (datetime.now(UTC) + timedelta(hours=sign) for sign in (1, -1))

    assert not sensor(created_after=later).poke({})
    assert sensor(created_after=earlier.isoformat()).poke({})
