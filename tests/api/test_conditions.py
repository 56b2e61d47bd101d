"""Conditions ask for as little as they can, know FeedAMP's traps, and take nothing unknown for done."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
import time_machine

from airflow_provider_feedamp.api.conditions import (
    FulfilledOrders,
    RefundsToProcess,
    ReturnsInStatus,
    SellerActivity,
    plain,
)
from airflow_provider_feedamp.exceptions import NotFoundError, ReturnOverdueError
from tests.api.edge import Edge, Reply

if TYPE_CHECKING:
    from airflow_provider_feedamp.api.client import FeedAmpClient

SINCE = "2026-01-01T12:00:00+00:00"
RETURN = {"mp_order_number": "A", "mp_return_number": "R"}


def order(number: str, status: str | None, **more: Any) -> dict[str, Any]:
    return {"mp_order_number": number, "status": status, **more}


def listed(*orders: dict[str, Any]) -> Reply:
    return Reply(200, {"orders": list(orders)})


NOT_FOUND = Reply(404, [{"code": "NOT_FOUND", "message": "no"}])


@pytest.mark.parametrize(
    ("status", "done"),
    [
        *[(status, True) for status in ("FULFILLED", "CANCELLED", "COMPLETE")],
        *[(status, False) for status in ("IN_PROGRESS", "ORDERED", "PENDING")],
    ],
)
def test_the_order_status_says_whether_the_seller_is_through(
    client: FeedAmpClient, edge: Edge, status: str, done: bool
) -> None:
    edge.will_reply(Reply(200, order("A", status)))
    assert FulfilledOrders(["A"]).met(client) == (["A"] if done else None)


def test_many_orders_are_asked_for_with_few_calls_and_never_as_complete(
    client: FeedAmpClient, edge: Edge
) -> None:
    numbers = [f"A{n}" for n in range(120)]
    for start in (0, 50, 100):
        edge.will_reply(listed(*(order(each, "FULFILLED") for each in numbers[start : start + 50])))
    assert FulfilledOrders(numbers).met(client) == numbers
    assert [request.path for request in edge.received] == ["/api/v1/orders"] * 3
    assert all("fulfillment_status" not in request.query for request in edge.received)


def test_a_number_that_no_list_can_carry_is_asked_for_by_itself(client: FeedAmpClient, edge: Edge) -> None:
    edge.will_reply(listed(order("A", "FULFILLED")), Reply(200, order("B,C", "FULFILLED")))
    assert FulfilledOrders(["A", "B,C"]).met(client) == ["A", "B,C"]
    assert [request.path for request in edge.received] == ["/api/v1/orders", "/api/v1/orders/B%2CC"]


def test_an_order_that_the_list_leaves_out_may_still_be_there(client: FeedAmpClient, edge: Edge) -> None:
    edge.will_reply(listed(order("A", "FULFILLED")), Reply(200, order("B", "ORDERED")))
    assert FulfilledOrders(["A", "B"]).met(client) is None


def test_unknown_orders_are_named_all_at_once(client: FeedAmpClient, edge: Edge) -> None:
    edge.will_reply(listed(order("A", "FULFILLED")), NOT_FOUND, NOT_FOUND)
    with pytest.raises(NotFoundError, match="Not in the seller's account: X1, X2") as caught:
        FulfilledOrders(["A", "X1", "X2"]).met(client)
    assert caught.value.status == 404


def test_not_more_than_ten_unknown_orders_are_asked_for(client: FeedAmpClient, edge: Edge) -> None:
    edge.will_reply(listed())
    edge.otherwise = NOT_FOUND
    with pytest.raises(NotFoundError):
        FulfilledOrders([f"X{n}" for n in range(40)]).met(client)
    assert len(edge.received) == 11


def test_an_order_that_the_marketplace_fulfils_counts_as_done_and_is_named(
    client: FeedAmpClient, edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    edge.otherwise = listed(order("A", "ORDERED", is_marketplace_fulfilled=True), order("B", "FULFILLED"))
    with caplog.at_level(logging.INFO):
        assert FulfilledOrders(["A", "B"]).met(client) == ["A", "B"]
    assert [each.getMessage() for each in caplog.records if "'A'" in each.getMessage()] == [
        "Order 'A' is fulfilled by the marketplace itself: nothing to wait for"
    ]


@pytest.mark.parametrize("status", ["PAUSED", "", None])
@pytest.mark.parametrize(
    ("fulfilled", "done"), [("COMPLETE", True), ("PENDING", False), ("SOMETHING", False)]
)
def test_an_order_status_that_nobody_knows_is_decided_by_the_fulfilments(
    client: FeedAmpClient, edge: Edge, status: str | None, fulfilled: str, done: bool
) -> None:
    edge.will_reply(Reply(200, order("A", status)), Reply(200, {"status": fulfilled}))
    assert FulfilledOrders(["A"]).met(client) == (["A"] if done else None)
    assert edge.received[-1].path == "/api/v1/orders/A/fulfillments"


def test_what_is_unknown_is_logged_once(
    client: FeedAmpClient, edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    condition = FulfilledOrders(["A"])
    for _ in range(3):
        edge.will_reply(Reply(200, order("A", "PAUSED")), Reply(200, {"status": "PENDING"}))
        assert condition.met(client) is None
    assert len([each for each in caplog.records if each.levelno == logging.WARNING]) == 1


@pytest.mark.parametrize(
    ("lines", "begun"),
    [
        ([{"shipments": [{"quantity": 1}]}], True),
        ([{"cancellations": [{"quantity": 1}], "shipments": []}], True),
        ([{"shipments": [], "cancellations": []}], False),
        ([], False),
        (None, False),
        ("odd", False),
        (["odd"], False),
    ],
)
def test_until_started_a_shipment_or_a_cancellation_counts(
    client: FeedAmpClient, edge: Edge, lines: Any, begun: bool
) -> None:
    edge.will_reply(Reply(200, order("A", "IN_PROGRESS", fulfillments=lines)))
    assert FulfilledOrders(["A"], "started").met(client) == (["A"] if begun else None)


def test_activity_is_looked_for_where_orders_that_are_not_closed_stand(
    client: FeedAmpClient, edge: Edge
) -> None:
    edge.will_reply(listed(order("A", "FULFILLED"), order("B", "IN_PROGRESS")))
    assert SellerActivity(SINCE).met(client) == ["A", "B"]
    assert edge.received[0].query["fulfillment_status"] == "PARTIALLY_FULFILLED"
    assert edge.received[0].query["seller_updated_after"] == "2026-01-01T12:00:00Z"


def test_activity_until_complete_counts_only_orders_that_the_seller_is_through_with(
    client: FeedAmpClient, edge: Edge
) -> None:
    edge.will_reply(listed(order("A", "FULFILLED"), order("B", "IN_PROGRESS")), listed(order("B", "PAUSED")))
    assert SellerActivity(SINCE, "complete").met(client) == ["A"]
    assert SellerActivity(SINCE, "complete").met(client) is None


def test_refunds_are_looked_for_by_their_status(client: FeedAmpClient, edge: Edge) -> None:
    refund = {"mp_order_number": "A", "feedamp_refund_id": 7, "notes": "for you"}
    edge.will_reply(Reply(200, {"refunds": [refund]}), Reply(200, {"refunds": []}))
    assert RefundsToProcess().met(client) == [{"mp_order_number": "A", "feedamp_refund_id": 7}]
    assert RefundsToProcess(created_after=SINCE).met(client) is None
    assert {request.query["refund_status"] for request in edge.received} == {"CREATED"}


STEPS = ["AWAITING_AUTHORIZATION", "AUTHORIZED", "REFUNDED", "COMPLETED"]


@pytest.mark.parametrize("wanted", STEPS)
@pytest.mark.parametrize("held", [*STEPS, "REJECTED", None])
def test_a_return_that_is_further_counts_and_an_unknown_status_never_does(
    client: FeedAmpClient, edge: Edge, wanted: str, held: str | None
) -> None:
    edge.will_reply(Reply(200, {"status": held}))
    reached = held in STEPS and STEPS.index(held) >= STEPS.index(wanted)
    assert (ReturnsInStatus([RETURN], wanted).met(client) is not None) is reached


@pytest.mark.parametrize(("now", "over"), [("2026-01-11T11:59:59Z", False), ("2026-01-11T12:00:00Z", True)])
def test_a_day_is_over_when_it_is_over_everywhere(
    client: FeedAmpClient, edge: Edge, now: str, over: bool
) -> None:
    edge.otherwise = Reply(200, {"status": "AUTHORIZED", "respond_date": "2026-01-10"})
    condition = ReturnsInStatus([RETURN]).dated(client)
    with time_machine.travel(now, tick=False):
        if over:
            with pytest.raises(ReturnOverdueError, match=r"R \(AUTHORIZED\)"):
                condition.met(client)
        else:
            assert condition.met(client) is None


def test_a_return_whose_day_was_moved_is_waited_for(client: FeedAmpClient, edge: Edge) -> None:
    edge.otherwise = Reply(200, {"status": "AUTHORIZED", "respond_date": "2126-01-10"})
    assert ReturnsInStatus([RETURN], respond_dates=["2020-01-10"]).met(client) is None


def test_a_return_that_is_through_is_never_overdue(client: FeedAmpClient, edge: Edge) -> None:
    edge.otherwise = Reply(200, {"status": "REFUNDED", "errors": [{"code": "X"}, "odd"]})
    assert ReturnsInStatus([RETURN], respond_dates=["2020-01-10"]).met(client) == [
        RETURN | {"status": "REFUNDED", "errors": ["X"]}
    ]


@pytest.mark.parametrize("day", [None, "", "soon", 7, "9999-12-31"])
def test_a_day_that_cannot_be_read_is_no_deadline(client: FeedAmpClient, edge: Edge, day: Any) -> None:
    edge.otherwise = Reply(200, {"status": "AUTHORIZED", "respond_date": day})
    assert ReturnsInStatus([RETURN]).dated(client).met(client) is None


@pytest.mark.parametrize(
    "condition",
    [
        FulfilledOrders(("A", "B"), "started"),
        SellerActivity(SINCE),
        RefundsToProcess(["A"], SINCE),
        ReturnsInStatus([RETURN], respond_dates=[None]),
    ],
)
def test_a_condition_comes_back_from_json_as_it_was(condition: Any) -> None:
    told = json.loads(json.dumps(plain(condition)))
    assert plain(type(condition)(**told)) == told
