from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.api.client import OrdersApi, Unverified
from airflow_provider_feedamp.api.types import FulfillmentFilter, MarketplaceState, PlacedOrder
from airflow_provider_feedamp.exceptions import (
    ApiError,
    BadRequestError,
    InputError,
    NotFoundError,
)
from tests.api.edge import Edge, Reply

if TYPE_CHECKING:
    from airflow_provider_feedamp.api.http import Http

ORDER: dict[str, Any] = {
    "mp_order_number": "600A",
    "sales_channel": "US",
    "customer": {"full_name": "Jane Smith"},
    "purchase_date": "2024-05-01T23:52:01Z",
    "currency": "USD",
    "shipping_address": {"city": "Springfield"},
    "order_lines": [{"mp_line_number": "1", "sku": "S", "quantity": 4, "unit_price": 59.99}],
    "marketplace_state": "AWAITING_SHIPMENT",
}


def page(*numbers: str, cursor: Any = None) -> Reply:
    return Reply(200, {"orders": [{"mp_order_number": number} for number in numbers], "next_cursor": cursor})


def listed(orders: OrdersApi, **filters: Any) -> list[str | None]:
    return [order.get("mp_order_number") for order in orders.list(**filters)]


def test_one_order_is_read_by_its_number(orders: OrdersApi, edge: Edge) -> None:
    edge.will_reply(Reply(200, ORDER | {"new_field": 1}))
    assert orders.get("A/1 ü%") == ORDER | {"new_field": 1}
    assert edge.received[0].target == "/api/v1/orders/A%2F1%20%C3%BC%25"


def test_an_unknown_order_is_not_found(orders: OrdersApi, edge: Edge) -> None:
    edge.will_reply(Reply(404))
    with pytest.raises(NotFoundError, match="reading order '600A'"):
        orders.get("600A")


@pytest.mark.parametrize("reply", [Reply(200, [ORDER]), Reply(200, b""), Reply(204)])
def test_an_answer_that_is_not_an_order_is_an_error(orders: OrdersApi, edge: Edge, reply: Reply) -> None:
    edge.will_reply(reply)
    with pytest.raises(ApiError, match="no JSON object"):
        orders.get("600A")


@pytest.mark.parametrize(
    ("reply", "inserted", "order"),
    [
        (Reply(201, ORDER), True, ORDER),
        (Reply(200, ORDER), False, ORDER),
        (Reply(201, b""), True, None),
        (Reply(200, {}), False, None),
        (Reply(200, [1]), False, None),
        (Reply(202, b"accepted"), None, None),
        (Reply(204), None, None),
    ],
)
def test_a_placed_order_tells_what_became_of_it(
    orders: OrdersApi, edge: Edge, reply: Reply, inserted: bool | None, order: Any
) -> None:
    edge.will_reply(reply)
    assert orders.place(ORDER) == PlacedOrder("600A", inserted, order)
    [put] = edge.received
    assert (put.method, put.target) == ("PUT", "/api/v1/orders/600A")
    assert json.loads(put.body) == ORDER


def test_an_order_is_sent_as_it_was_read(orders: OrdersApi, edge: Edge) -> None:
    body = json.dumps(ORDER, indent=1).replace("59.99", "59.990").encode()
    orders.place(json.loads(body), body=body)
    assert edge.received[0].body == body


def test_an_order_number_that_needs_escaping_arrives_whole(orders: OrdersApi, edge: Edge) -> None:
    orders.place(ORDER | {"mp_order_number": "A/1 ü%"})
    assert edge.received[0].target == "/api/v1/orders/A%2F1%20%C3%BC%25"
    assert json.loads(edge.received[0].body)["mp_order_number"] == "A/1 ü%"


def test_a_bad_order_is_refused_unsent(orders: OrdersApi, edge: Edge) -> None:
    with pytest.raises(InputError, match="Order '600A' was not sent: currency"):
        orders.place(ORDER | {"currency": "usd"})
    assert edge.received == []


def test_a_refused_order_is_named_with_the_servers_codes(orders: OrdersApi, edge: Edge) -> None:
    edge.will_reply(Reply(400, [{"code": "FIELD_INVALID_VALUE", "message": "'currency' is not supported"}]))
    with pytest.raises(BadRequestError, match="placing order '600A'") as caught:
        orders.place(ORDER)
    assert caught.value.codes == ("FIELD_INVALID_VALUE",)
    assert "Jane" not in str(caught.value)


def test_setting_a_state_puts_the_order_back_without_what_feedamp_sets(orders: OrdersApi, edge: Edge) -> None:
    own = {"fulfillments": [], "acknowledged": True, "status": "FULFILLED", "errors": []}
    kept = ORDER | {"is_marketplace_fulfilled": True, "new_field": 1}
    edge.will_reply(Reply(200, kept | own), Reply(200, b""))
    placed = orders.set_state("600A", MarketplaceState.SHIPPED)
    assert placed == PlacedOrder("600A", False, None)
    get, put = edge.received
    assert (get.method, put.method, put.target) == ("GET", "PUT", "/api/v1/orders/600A")
    assert json.loads(put.body) == kept | {"marketplace_state": "SHIPPED"}


def test_further_fields_can_be_left_out_of_what_is_put_back(http: Http, edge: Edge) -> None:
    orders = OrdersApi(http, Unverified(read_only_order_fields={"imported_at"}))
    edge.will_reply(Reply(200, ORDER | {"imported_at": "2024-05-01T00:00:00Z"}), Reply(200))
    orders.set_state("600A", "CANCELLED")
    assert json.loads(edge.received[1].body) == ORDER | {"marketplace_state": "CANCELLED"}


@pytest.mark.parametrize("state", ["shipped", "COMPLETE", ""])
def test_an_unknown_state_is_refused_unsent(orders: OrdersApi, edge: Edge, state: str) -> None:
    with pytest.raises(InputError, match="order '600A' must be one of PENDING, AWAITING_SHIPMENT"):
        orders.set_state("600A", state)
    assert edge.received == []


def test_fulfilments_are_read(orders: OrdersApi, edge: Edge) -> None:
    body = {"status": "COMPLETE", "is_marketplace_fulfilled": False, "fulfillments": []}
    edge.will_reply(Reply(200, body))
    assert orders.fulfillments("A/1") == body
    assert edge.received[0].target == "/api/v1/orders/A%2F1/fulfillments"


def test_errors_are_reported_as_a_list(orders: OrdersApi, edge: Edge) -> None:
    errors = [{"code": "INVALID_TRACKING_NUMBER", "message": "unknown", "mp_line_number": "1", "debug": [{}]}]
    edge.will_reply(Reply(200, {}))
    orders.report_errors("600A", errors)
    [post] = edge.received
    assert (post.method, post.target) == ("POST", "/api/v1/orders/600A/errors")
    assert json.loads(post.body) == errors


def test_all_pages_are_listed_and_the_filters_go_with_each(orders: OrdersApi, edge: Edge) -> None:
    edge.will_reply(page("1", "2", cursor="c+1"), page("3", cursor="c2"), page("4"))
    instant = datetime(2024, 5, 1, tzinfo=UTC)
    found = listed(
        orders,
        mp_order_numbers=["1", "2", "3", "4"],
        fulfillment_status=[FulfillmentFilter.UNFULFILLED, "PARTIALLY_FULFILLED"],
        imported_after=instant,
        seller_updated_after=instant,
        has_errors=False,
        page_size=10,
    )
    assert found == ["1", "2", "3", "4"]
    filters = {
        "mp_order_numbers": "1,2,3,4",
        "fulfillment_status": "UNFULFILLED,PARTIALLY_FULFILLED",
        "imported_after": "2024-05-01T00:00:00Z",
        "seller_updated_after": "2024-05-01T00:00:00Z",
        "has_errors": "false",
        "page_size": "10",
    }
    assert [request.query for request in edge.received] == [
        filters,
        filters | {"cursor": "c+1"},
        filters | {"cursor": "c2"},
    ]


def test_without_filters_full_pages_are_asked_for(orders: OrdersApi, edge: Edge) -> None:
    edge.will_reply(page())
    assert listed(orders) == []
    assert edge.received[0].query == {"page_size": "50"}


@pytest.mark.parametrize("end", [{"next_cursor": None}, {"next_cursor": ""}, {}])
def test_a_list_ends_without_a_cursor(orders: OrdersApi, edge: Edge, end: dict[str, Any]) -> None:
    edge.will_reply(Reply(200, {"orders": [{"mp_order_number": "1"}]} | end))
    assert listed(orders) == ["1"]
    assert len(edge.received) == 1


def test_an_empty_page_with_a_cursor_does_not_end_a_list(orders: OrdersApi, edge: Edge) -> None:
    edge.will_reply(page(cursor="a"), page("1"))
    assert listed(orders) == ["1"]


def test_an_order_on_two_pages_is_listed_once(orders: OrdersApi, edge: Edge) -> None:
    edge.will_reply(page("1", "2", cursor="a"), page("2", "3", "3"))
    assert listed(orders) == ["1", "2", "3"]


def test_orders_without_a_number_are_all_listed(orders: OrdersApi, edge: Edge) -> None:
    edge.will_reply(Reply(200, {"orders": [{"a": 1}, {"b": 2}]}))
    assert list(orders.list()) == [{"a": 1}, {"b": 2}]


def test_a_page_is_asked_for_when_it_is_needed(orders: OrdersApi, edge: Edge) -> None:
    edge.will_reply(page("1", cursor="a"))
    found = orders.list()
    assert edge.received == []
    next(found)
    assert len(edge.received) == 1


def test_many_order_numbers_are_asked_for_in_several_calls(orders: OrdersApi, edge: Edge) -> None:
    numbers = [str(number) for number in range(120)]
    edge.will_reply(page(*numbers[:50]), page(*numbers[50:100]), page(*numbers[99:]))
    assert listed(orders, mp_order_numbers=numbers) == numbers
    asked = [request.query["mp_order_numbers"].split(",") for request in edge.received]
    assert asked == [numbers[:50], numbers[50:100], numbers[100:]]


@pytest.mark.parametrize("nothing", [{"mp_order_numbers": []}, {"fulfillment_status": []}])
def test_a_choice_of_nothing_finds_nothing(orders: OrdersApi, edge: Edge, nothing: dict[str, Any]) -> None:
    assert listed(orders, **nothing) == []
    assert edge.received == []


@pytest.mark.parametrize(
    ("filters", "named"),
    [
        ({"imported_after": datetime(2024, 5, 1)}, "imported_after"),
        ({"seller_updated_after": datetime(2024, 5, 1)}, "seller_updated_after"),
        ({"page_size": 9}, "page_size"),
        ({"page_size": 51}, "page_size"),
        ({"mp_order_numbers": "600A"}, "mp_order_numbers"),
        ({"mp_order_numbers": ["A,1"]}, "mp_order_numbers"),
        ({"fulfillment_status": ["COMPLETE", ""]}, "fulfillment_status"),
    ],
)
def test_a_bad_filter_is_refused_when_the_list_is_asked_for(
    orders: OrdersApi, edge: Edge, filters: dict[str, Any], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        orders.list(**filters)
    assert edge.received == []


@pytest.mark.parametrize("body", [[], {}, {"orders": None}, {"orders": "none"}, {"orders": [1]}])
def test_a_page_without_orders_is_an_error(orders: OrdersApi, edge: Edge, body: Any) -> None:
    edge.will_reply(Reply(200, body))
    with pytest.raises(ApiError, match="no list of orders"):
        listed(orders)
