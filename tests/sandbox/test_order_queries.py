"""The filters of Get Orders (A4.1, A5) without HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_feedamp.sandbox.order_queries import PARAMETERS, order_query
from airflow_provider_feedamp.sandbox.query_values import instant, query_parameters
from airflow_provider_feedamp.sandbox.refusal import Refusal
from tests.sandbox.caller import raw_order

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.clock import SandboxClock
    from airflow_provider_feedamp.sandbox.orders import OrderBook
    from airflow_provider_feedamp.sandbox.seller_actions import SellerActions


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2024-05-01T12:00:00Z", "2024-05-01T12:00:00+00:00"),
        ("2024-05-01T12:00:00+02:00", "2024-05-01T10:00:00+00:00"),
        ("2024-05-01T12:00:00", "2024-05-01T16:00:00+00:00"),
        ("2024-12-01T12:00:00", "2024-12-01T17:00:00+00:00"),
        ("2024-11-03T01:30:00", "2024-11-03T05:30:00+00:00"),
        ("2024-05-01", "2024-05-01T04:00:00+00:00"),
    ],
)
def test_an_instant_without_zone_is_new_york_time(text: str, utc: str) -> None:
    value = instant({"imported_after": text}, "imported_after")
    assert value is not None
    assert value.isoformat() == utc


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("imported_after", "yesterday"),
        ("imported_after", ""),
        ("imported_after", "2024-05-01T12:00:00 02:00"),
        ("seller_updated_after", "0001-01-01T00:00:00+23:00"),
        ("has_errors", "maybe"),
        ("fulfillment_status", "PENDING"),
        ("fulfillment_status", "unfulfilled"),
        ("mp_order_numbers", ""),
        ("mp_order_numbers", "a,,b"),
    ],
)
def test_a_filter_that_cannot_be_read_is_named(name: str, value: str) -> None:
    with pytest.raises(Refusal) as caught:
        order_query({name: value})
    assert caught.value.status == 400
    assert caught.value.problems[0]["code"] == "INVALID_QUERY_PARAM"
    assert f"'{name}'" in caught.value.problems[0]["message"]


def test_a_parameter_is_given_once() -> None:
    with pytest.raises(Refusal, match="400"):
        query_parameters([("mp_order_numbers", "a"), ("mp_order_numbers", "b")], PARAMETERS, strict=False)


def test_a_parameter_nobody_documented_is_ignored_unless_strict() -> None:
    pairs = [("marketplace_state", "PENDING")]
    assert query_parameters(pairs, PARAMETERS, strict=False) == {}
    with pytest.raises(Refusal, match="400"):
        query_parameters(pairs, PARAMETERS, strict=True)


@pytest.mark.parametrize(
    ("bound", "matches"),
    [("2024-05-01T12:00:00Z", True), ("2024-05-01T08:00:00", True), ("2024-05-01T12:00:01Z", False)],
)
def test_imported_after_means_on_or_after(book: OrderBook, bound: str, matches: bool) -> None:
    order, _ = book.place("600A", raw_order())
    assert order_query({"imported_after": bound}).matches(order) is matches


def test_seller_updated_after_finds_only_what_a_seller_touched(
    book: OrderBook, seller: SellerActions, clock: SandboxClock
) -> None:
    order, _ = book.place("600A", raw_order())
    query = order_query({"seller_updated_after": "2024-05-01T12:01:00Z"})
    assert not query.matches(order)
    clock.advance(60)
    seller.acknowledge("600A")
    assert query.matches(order)
    assert not order_query({"seller_updated_after": "2024-05-01T12:01:01Z"}).matches(order)


@pytest.mark.parametrize(
    ("text", "matches"), [("true", True), ("1", True), ("TRUE", True), ("false", False), ("0", False)]
)
def test_has_errors_selects_orders_with_reported_errors(book: OrderBook, text: str, matches: bool) -> None:
    order, _ = book.place("600A", raw_order())
    book.report_errors("600A", b'[{"code": "X", "message": "m"}]')
    assert order_query({"has_errors": text}).matches(order) is matches


def test_filters_work_together(book: OrderBook) -> None:
    order, _ = book.place("600A", raw_order())
    both = {"mp_order_numbers": "600A,600B", "fulfillment_status": "COMPLETE,UNFULFILLED"}
    assert order_query(both).matches(order)
    assert not order_query({**both, "fulfillment_status": "COMPLETE"}).matches(order)
    assert not order_query({**both, "mp_order_numbers": "600B"}).matches(order)
