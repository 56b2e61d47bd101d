"""The life of an order (A3.2 to A3.4, A4.6) without HTTP."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.sandbox.refusal import Refusal
from tests.sandbox.caller import raw_order

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.clock import SandboxClock
    from airflow_provider_feedamp.sandbox.orders import OrderBook
    from airflow_provider_feedamp.sandbox.seller_actions import SellerActions
    from airflow_provider_feedamp.sandbox.settings import SandboxSettings


def put(book: OrderBook, state: str = "AWAITING_SHIPMENT", **changes: Any) -> bool:
    return book.place("600A", raw_order(marketplace_state=state, **changes))[1]


def seen(book: OrderBook) -> tuple[str, str, str | None]:
    order = book.get("600A")
    return order.status, order.fulfillments()["status"], order.filter_status


def test_a_pending_order_matches_no_fulfilment_filter(book: OrderBook) -> None:
    put(book, "PENDING")
    assert seen(book) == ("PENDING", "PENDING", None)


def test_a_released_order_is_ordered_and_not_acknowledged(book: OrderBook) -> None:
    put(book, "PENDING")
    put(book)
    assert seen(book) == ("ORDERED", "PENDING", "UNFULFILLED")
    assert book.get("600A").acknowledged is False


def test_an_acknowledged_order_is_in_progress(book: OrderBook, seller: SellerActions) -> None:
    put(book)
    seller.acknowledge("600A")
    assert seen(book) == ("IN_PROGRESS", "PENDING", "UNFULFILLED")


@pytest.mark.parametrize("action", ["ship", "cancel"])
def test_any_shipped_or_cancelled_quantity_is_a_partial_fulfilment(
    book: OrderBook, seller: SellerActions, action: str
) -> None:
    put(book)
    getattr(seller, action)("600A", "L1", 2)
    assert seen(book) == ("IN_PROGRESS", "PARTIALLY_FULFILLED", "PARTIALLY_FULFILLED")


def test_a_shipped_but_unclosed_order_stands_under_the_partial_filter(
    book: OrderBook, seller: SellerActions
) -> None:
    put(book)
    seller.ship("600A")
    assert seen(book) == ("FULFILLED", "COMPLETE", "PARTIALLY_FULFILLED")


def test_shipping_some_and_cancelling_the_rest_is_fulfilled(book: OrderBook, seller: SellerActions) -> None:
    put(book)
    seller.ship("600A", "L2")
    seller.cancel("600A")
    assert seen(book)[0] == "FULFILLED"


def test_an_order_the_seller_cancelled_whole_is_cancelled(book: OrderBook, seller: SellerActions) -> None:
    put(book)
    seller.cancel("600A")
    assert seen(book) == ("CANCELLED", "COMPLETE", "PARTIALLY_FULFILLED")


@pytest.mark.parametrize("state", ["SHIPPED", "CANCELLED"])
def test_closing_completes_the_order(book: OrderBook, seller: SellerActions, state: str) -> None:
    put(book)
    seller.ship("600A")
    put(book, state)
    assert seen(book) == ("COMPLETE", "COMPLETE", "COMPLETE")


def test_an_order_cancelled_before_any_fulfilment_matches_no_filter(book: OrderBook) -> None:
    put(book)
    put(book, "CANCELLED")
    assert seen(book) == ("COMPLETE", "PENDING", None)


def test_fulfilments_show_every_line_and_the_order_only_the_active_ones(
    book: OrderBook, seller: SellerActions
) -> None:
    put(book)
    seller.ship("600A", "L1", 2, carrier="FedEx", tracking_number="1Z9", tracking_url="https://t.example/1Z9")
    seller.cancel("600A", "L1", 1)
    active = {
        "mp_line_number": "L1",
        "shipments": [
            {
                "quantity": 2,
                "carrier": "FedEx",
                "tracking_number": "1Z9",
                "shipped_date": "2024-05-01",
                "tracking_url": "https://t.example/1Z9",
            }
        ],
        "cancellations": [{"quantity": 1, "reason": "out_of_stock"}],
        "status": "PARTIALLY_FULFILLED",
        "pending": {"quantity": 1},
    }
    idle = {
        "mp_line_number": "L2",
        "shipments": [],
        "cancellations": [],
        "status": "PENDING",
        "pending": {"quantity": 1},
    }
    order = book.get("600A")
    assert order.fulfillments()["fulfillments"] == [active, idle]
    assert order.resource()["fulfillments"] == [active]


def test_read_only_fields_of_a_put_are_ignored(book: OrderBook, seller: SellerActions) -> None:
    put(book)
    seller.ship("600A", "L2")
    put(book, fulfillments=[], acknowledged=True, status="COMPLETE", errors=[{"code": "X"}])
    shown = book.get("600A").resource()
    assert len(shown["fulfillments"]) == 1
    assert (shown["acknowledged"], shown["status"], shown["errors"]) == (False, "IN_PROGRESS", [])


def test_a_put_inserts_once_and_then_updates(book: OrderBook, clock: SandboxClock) -> None:
    assert put(book) is True
    imported = book.get("600A").imported_at
    clock.advance(60)
    assert put(book, delivery_notes="back door") is False
    assert book.get("600A").resource()["delivery_notes"] == "back door"
    assert book.get("600A").imported_at == imported


def test_fields_nobody_documented_and_the_very_bytes_survive(book: OrderBook) -> None:
    raw = raw_order().replace(b"59.99", b"59.990").replace(b'"USD"', b'"USD", "gift_message": "h\xc3\xbc"')
    book.place("600A", raw)
    assert book.get("600A").raw == raw
    assert book.get("600A").resource()["gift_message"] == "hü"


@pytest.mark.parametrize("old", ["SHIPPED", "CANCELLED"])
def test_a_closed_order_is_reopened_unless_transitions_are_strict(
    book: OrderBook, settings: SandboxSettings, old: str
) -> None:
    put(book, old)
    put(book)
    put(book, old)
    settings.update({"strict_transitions": True})
    put(book, old)
    with pytest.raises(Refusal) as caught:
        put(book)
    assert caught.value.status == 400
    assert book.get("600A").marketplace_state == old


def test_an_update_cannot_take_away_what_is_shipped(book: OrderBook, seller: SellerActions) -> None:
    put(book)
    seller.ship("600A", "L1", 2)
    for quantity, allowed in ((1, False), (2, True)):
        lines = [{"mp_line_number": "L1", "sku": "S", "quantity": quantity}]
        if allowed:
            put(book, order_lines=lines)
            continue
        with pytest.raises(Refusal, match="400"):
            put(book, order_lines=lines)
    assert book.get("600A").quantities == {"L1": 2}


def test_errors_are_appended_until_the_seller_resolves_them(book: OrderBook, seller: SellerActions) -> None:
    put(book)
    complaint = {"code": "INVALID_TRACKING_NUMBER", "message": "no such parcel", "mp_line_number": "L1"}
    for _ in range(2):
        book.report_errors("600A", json.dumps([complaint]).encode())
    assert book.get("600A").resource()["errors"] == [complaint, complaint]
    seller.resolve_errors("600A")
    assert book.get("600A").resource()["errors"] == []


def test_the_seller_cannot_ship_more_than_is_pending(book: OrderBook, seller: SellerActions) -> None:
    put(book)
    with pytest.raises(Refusal):
        seller.ship("600A", "L1", 5)
    with pytest.raises(Refusal):
        seller.ship("600A", "L9")
    with pytest.raises(Refusal):
        seller.ship("600A", quantity=1)
    seller.ship("600A")
    with pytest.raises(Refusal):
        seller.cancel("600A")
    assert len(book.get("600A").shipments["L1"]) == 1


@pytest.mark.parametrize("state", ["PENDING", "SHIPPED", "CANCELLED"])
def test_the_seller_acts_only_on_orders_that_are_open(
    book: OrderBook, seller: SellerActions, state: str
) -> None:
    put(book, state)
    for act in (seller.acknowledge, seller.ship, seller.cancel):
        with pytest.raises(Refusal):
            act("600A")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b"\xef\xbb\xbf{}", b'{"a": NaN}', b"1e400", b"[" * 100_000, b"[1] [2]"],
    ids=["empty", "cut", "not UTF-8", "byte-order mark", "NaN", "infinite", "deep", "two values"],
)
def test_a_body_that_is_not_json_is_refused(book: OrderBook, body: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        book.place("600A", body)
    assert [each["code"] for each in caught.value.problems] == ["INVALID_PAYLOAD"]
    assert len(book) == 0
