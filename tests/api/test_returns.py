from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.api.client import ReturnsApi, Unverified
from airflow_provider_feedamp.api.types import CreatedReturn, ReturnStatus
from airflow_provider_feedamp.exceptions import ApiError, BadRequestError, InputError, NotFoundError
from tests.api.edge import Edge, Reply

if TYPE_CHECKING:
    from airflow_provider_feedamp.api.http import Http

pytestmark = pytest.mark.once

LINE: dict[str, Any] = {
    "mp_return_line_number": "R-1-1",
    "mp_order_line_number": "1",
    "sku": "S",
    "quantity": 1,
    "currency": "USD",
    "requested_refund_principal": 59.99,
    "reason": "Wrong color sent",
    "preauthorized": False,
}
NEW: dict[str, Any] = {"return_lines": [LINE], "customer_email": "jane@example.com"}
HELD = NEW | {"mp_order_number": "A", "mp_return_number": "R", "status": "AWAITING_AUTHORIZATION"}
INSTANT = datetime(2024, 5, 1, 12, 0, 0, 500_000, tzinfo=UTC)


def test_the_filters_are_sent_under_their_guessed_names(returns: ReturnsApi, edge: Edge) -> None:
    edge.will_reply(Reply(200, {"returns": []}))
    found = returns.list(
        mp_order_numbers=["A"],
        return_status=[ReturnStatus.REFUNDED, "REJECTED"],
        requested_after=INSTANT,
        requested_before=INSTANT,
        page_size=10,
        filters={"sort": "newest"},
    )
    assert list(found) == []
    assert edge.received[0].path == "/api/v1/returns"
    assert edge.received[0].query == {
        "mp_order_numbers": "A",
        "return_status": "REFUNDED,REJECTED",
        "requested_after": "2024-05-01T12:00:00Z",
        "requested_before": "2024-05-01T12:00:01Z",
        "page_size": "10",
        "sort": "newest",
    }


def test_the_guessed_names_of_filters_can_be_replaced(http: Http, edge: Edge) -> None:
    names = Unverified(
        returns_by_order="orders", returns_by_status="status", returns_after="from", returns_before="to"
    )
    edge.otherwise = Reply(200, {"returns": []})
    numbers = [str(number) for number in range(60)]
    found = ReturnsApi(http, names).list(
        mp_order_numbers=numbers, return_status=["X"], requested_after=INSTANT, requested_before=INSTANT
    )
    assert list(found) == []
    assert set(edge.received[0].query) == {"orders", "status", "from", "to", "page_size"}
    assert [request.query["orders"] for request in edge.received] == [
        ",".join(numbers[:50]),
        ",".join(numbers[50:]),
    ]


def test_the_page_size_can_be_left_to_feedamp(returns: ReturnsApi, edge: Edge) -> None:
    edge.will_reply(Reply(200, {"returns": []}))
    assert list(returns.list(page_size=None)) == []
    assert edge.received[0].query == {}


@pytest.mark.parametrize(
    "filters", [{"a": 1}, {"a": None}, {1: "a"}, {"a": ["b"]}, {"a": "\ud800"}, {"\ud800": "a"}]
)
def test_further_filters_must_be_texts(returns: ReturnsApi, edge: Edge, filters: Any) -> None:
    with pytest.raises(InputError, match="filters"):
        returns.list(filters=filters)
    assert edge.received == []


def test_the_returns_of_one_order_are_read(returns: ReturnsApi, edge: Edge) -> None:
    edge.will_reply(Reply(200, {"returns": [HELD, HELD]}))
    assert returns.of_order("A/1") == [HELD]
    assert edge.received[0].target == "/api/v1/orders/A%2F1/returns"


def test_one_return_is_read_by_its_numbers(returns: ReturnsApi, edge: Edge) -> None:
    edge.will_reply(Reply(200, HELD | {"status": "REJECTED", "new_field": 1}))
    assert returns.get("A/1", "R ü/2") == HELD | {"status": "REJECTED", "new_field": 1}
    assert edge.received[0].target == "/api/v1/orders/A%2F1/returns/R%20%C3%BC%2F2"


def test_the_amounts_of_a_return_are_read(returns: ReturnsApi, edge: Edge) -> None:
    amounts = {"status": "REFUNDED", "rma": "RMA-1", "merchant_refund_lines": [], "errors": []}
    edge.will_reply(Reply(200, amounts))
    assert returns.refunds("A", "R/1") == amounts
    assert edge.received[0].target == "/api/v1/orders/A/returns/R%2F1/refunds"


@pytest.mark.parametrize("call", ["get", "refunds"])
def test_an_unknown_return_is_not_found(returns: ReturnsApi, edge: Edge, call: str) -> None:
    edge.will_reply(Reply(404))
    with pytest.raises(NotFoundError, match="return 'R' of order 'A'"):
        getattr(returns, call)("A", "R")


@pytest.mark.parametrize("call", ["get", "refunds"])
@pytest.mark.parametrize("reply", [Reply(200, [HELD]), Reply(200, b""), Reply(204)])
def test_an_answer_that_is_no_object_is_an_error(
    returns: ReturnsApi, edge: Edge, call: str, reply: Reply
) -> None:
    edge.will_reply(reply)
    with pytest.raises(ApiError, match="no JSON object"):
        getattr(returns, call)("A", "R")


@pytest.mark.parametrize("number", ["", ".", "..", None, 7])
def test_a_number_that_a_url_cannot_carry_is_refused_unsent(
    returns: ReturnsApi, edge: Edge, number: Any
) -> None:
    for call in (returns.get, returns.refunds, returns.complete):
        with pytest.raises(InputError):
            call("A", number)
    assert edge.received == []


@pytest.mark.parametrize(
    ("reply", "inserted", "held"),
    [
        (Reply(201, HELD), True, HELD),
        (Reply(200, HELD), False, HELD),
        (Reply(201, b""), True, None),
        (Reply(200, {}), False, None),
        (Reply(202, b"accepted"), None, None),
        (Reply(204), None, None),
    ],
)
def test_a_created_return_tells_what_became_of_it(
    returns: ReturnsApi, edge: Edge, reply: Reply, inserted: bool | None, held: Any
) -> None:
    edge.will_reply(reply)
    assert returns.create("A/1", "R/1", NEW) == CreatedReturn("A/1", "R/1", inserted, held)
    [put] = edge.received
    assert (put.method, put.target) == ("PUT", "/api/v1/orders/A%2F1/returns/R%2F1")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"mp_order_number": "A"},
        {"mp_order_number": None},
        {"mp_return_number": "R"},
        {"mp_order_number": "A", "mp_return_number": "R"},
    ],
)
def test_the_order_number_is_always_in_the_body_and_the_return_number_never(
    returns: ReturnsApi, edge: Edge, given: dict[str, Any]
) -> None:
    returns.create("A", "R", NEW | given)
    assert json.loads(edge.received[0].body) == NEW | {"mp_order_number": "A"}


def test_amounts_are_sent_with_the_digits_that_they_have(returns: ReturnsApi, edge: Edge) -> None:
    line = LINE | {"requested_refund_principal": Decimal("0.1"), "tax": 0.3}
    returns.create("A", "R", {"return_lines": [line]})
    assert b'"requested_refund_principal":0.1,' in edge.received[0].body
    assert b'"tax":0.3' in edge.received[0].body


def test_a_bad_return_is_refused_unsent(returns: ReturnsApi, edge: Edge) -> None:
    with pytest.raises(InputError, match="Return 'R' of order 'A' was not sent: return_lines") as caught:
        returns.create("A", "R", NEW | {"return_lines": []})
    assert edge.received == []
    assert "jane" not in str(caught.value)


def test_a_refused_return_is_named_with_the_servers_codes(returns: ReturnsApi, edge: Edge) -> None:
    edge.will_reply(Reply(400, [{"code": "FIELD_INVALID_VALUE", "message": "'return_type' is unknown"}]))
    with pytest.raises(BadRequestError, match="creating return 'R' of order 'A'") as caught:
        returns.create("A", "R", NEW)
    assert caught.value.codes == ("FIELD_INVALID_VALUE",)


def test_creating_is_repeated_like_any_put(returns: ReturnsApi, edge: Edge) -> None:
    edge.will_reply(Reply(503), Reply(cut="before the answer"), Reply(201))
    assert returns.create("A", "R", NEW).inserted is True
    assert [request.method for request in edge.received] == ["PUT"] * 3


@pytest.mark.parametrize(
    ("tail", "target"),
    [
        ("close", "/api/v1/orders/A/returns/R/close"),
        ("actions/complete", "/api/v1/orders/A/returns/R/actions/complete"),
        ("/", "/api/v1/orders/A/returns/R"),
    ],
)
def test_the_guessed_path_can_be_replaced(http: Http, edge: Edge, tail: str, target: str) -> None:
    ReturnsApi(http, Unverified(return_complete_path=tail)).complete("A", "R")
    assert edge.received[0].target == target
