"""What each call of the client sends, and what it makes of the answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from airflow_provider_feedamp.api.client import FeedAmpClient, OrdersApi, RefundsApi, ReturnsApi, Unverified
from airflow_provider_feedamp.api.types import (
    CreatedReturn,
    FulfillmentFilter,
    MarketplaceState,
    PlacedOrder,
    RefundStatus,
    ReturnStatus,
)
from airflow_provider_feedamp.exceptions import (
    ApiError,
    BadRequestError,
    FeedAmpError,
    InputError,
    NotFoundError,
    RateLimitError,
    ServerError,
    UnreachableError,
    UnreadableError,
)
from tests.api.edge import ORDER, Edge, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_feedamp.api.http import Http

    Read = Callable[[FeedAmpClient], Any]

REFUND: dict[str, Any] = {"mp_order_number": "A", "feedamp_refund_id": 1001, "status": "CREATED"}
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
RETURN: dict[str, Any] = {"return_lines": [LINE], "customer_email": "jane@example.com"}
HELD = RETURN | {"mp_order_number": "A", "mp_return_number": "R", "status": "AWAITING_AUTHORIZATION"}
INSTANT = datetime(2024, 5, 1, 12, 0, 0, 500_000, tzinfo=UTC)
EARLIEST, LATEST = "2024-05-01T12:00:00Z", "2024-05-01T12:00:01Z"
ERROR = {"code": "EXCESS_REFUND", "message": "more than was paid"}
OTHER = {"code": "OTHER", "message": "something else"}
CUT = Reply(cut="before the answer")
OK = Reply(200, {})


def sent(edge: Edge) -> list[str]:
    return [request.method for request in edge.received]


# What is read


@pytest.mark.parametrize(
    ("read", "held", "target"),
    [
        (lambda client: client.orders.get("A/1 ü%"), ORDER, "A%2F1%20%C3%BC%25"),
        (lambda client: client.orders.fulfillments("A/1"), {"status": "COMPLETE"}, "A%2F1/fulfillments"),
        (lambda client: client.refunds.get("A/1", 1001), REFUND, "A%2F1/refunds/1001"),
        (lambda client: client.refunds.get("A/1", "1001"), REFUND, "A%2F1/refunds/1001"),
        (lambda client: client.returns.get("A/1", "R ü/2"), HELD, "A%2F1/returns/R%20%C3%BC%2F2"),
        (lambda client: client.returns.refunds("A", "R/1"), {"rma": "RMA-1"}, "A/returns/R%2F1/refunds"),
    ],
)
def test_one_is_read_as_feedamp_holds_it(
    client: FeedAmpClient, edge: Edge, read: Read, held: dict[str, Any], target: str
) -> None:
    edge.will_reply(Reply(200, held | {"status": "SOMETHING_NEW", "new_field": 1}))
    assert read(client) == held | {"status": "SOMETHING_NEW", "new_field": 1}
    assert edge.received[0].target == f"/api/v1/orders/{target}"


each_read = pytest.mark.parametrize(
    ("read", "what"),
    [
        (lambda client: client.orders.get("A"), "reading order 'A'"),
        (lambda client: client.orders.fulfillments("A"), "reading the fulfilments of order 'A'"),
        (lambda client: client.refunds.get("A", 7), "reading refund 7 of order 'A'"),
        (lambda client: client.returns.get("A", "R"), "reading return 'R' of order 'A'"),
        (lambda client: client.returns.refunds("A", "R"), "reading the amounts of return 'R' of order 'A'"),
    ],
)
each_list_of_an_order = pytest.mark.parametrize("name", ["refunds", "returns"])


@each_read
def test_what_is_unknown_is_not_found(client: FeedAmpClient, edge: Edge, read: Read, what: str) -> None:
    edge.will_reply(Reply(404))
    with pytest.raises(NotFoundError, match=what):
        read(client)


@each_read
@pytest.mark.parametrize("reply", [Reply(200, [ORDER]), Reply(200, b""), Reply(204), Reply(200, "text")])
def test_an_answer_that_is_no_object_is_an_error(
    client: FeedAmpClient, edge: Edge, read: Read, what: str, reply: Reply
) -> None:
    edge.will_reply(reply)
    with pytest.raises(ApiError, match=f"{what}.*no JSON object"):
        read(client)


@each_list_of_an_order
def test_what_belongs_to_one_order_is_read_from_all_pages_each_once(
    client: FeedAmpClient, edge: Edge, name: str
) -> None:
    first, second = (
        {"mp_order_number": "A", "feedamp_refund_id": n, "mp_return_number": f"{n}"} for n in (1, 2)
    )
    edge.will_reply(
        Reply(200, {name: [first, first], "next_cursor": "c"}), Reply(200, {name: [first, second]})
    )
    assert getattr(client, name).of_order("A/1") == [first, second]
    assert edge.received[0].target == f"/api/v1/orders/A%2F1/{name}"


@each_list_of_an_order
def test_what_belongs_to_an_unknown_order_is_not_found(client: FeedAmpClient, edge: Edge, name: str) -> None:
    edge.will_reply(Reply(404))
    with pytest.raises(NotFoundError, match=f"the {name} of order 'A'"):
        getattr(client, name).of_order("A")


@each_list_of_an_order
@pytest.mark.parametrize("body", [[], [REFUND], {}, {"refunds": None}, {"refunds": [1], "returns": [1]}])
def test_what_is_no_list_of_an_order_is_an_error(
    client: FeedAmpClient, edge: Edge, name: str, body: Any
) -> None:
    edge.will_reply(Reply(200, body))
    with pytest.raises(ApiError, match=f"no list of {name}"):
        getattr(client, name).of_order("A")


@pytest.mark.parametrize("number", ["", ".", "..", None, 7])
def test_a_number_that_a_url_cannot_carry_is_refused_unsent(
    returns: ReturnsApi, edge: Edge, number: Any
) -> None:
    for call in (returns.get, returns.refunds, returns.complete):
        with pytest.raises(InputError):
            call("A", number)
    assert edge.received == []


@pytest.mark.parametrize("refund_id", ["", "10 01", "A1", "-1", "1.0", "²", "٣", -1, 1.0, True, None, "1/2"])
def test_what_is_no_refund_id_is_refused_unsent(refunds: RefundsApi, edge: Edge, refund_id: Any) -> None:
    for call in (
        lambda: refunds.get("A", refund_id),
        lambda: refunds.complete("A", refund_id),
        lambda: refunds.report_errors("A", refund_id, [ERROR]),
    ):
        with pytest.raises(InputError, match="feedamp_refund_id of a refund of order 'A'"):
            call()
    assert edge.received == []


# What the lists are asked for


@pytest.mark.parametrize(
    ("name", "filters", "query"),
    [
        ("orders", {}, {"page_size": "50"}),
        (
            "orders",
            {
                "mp_order_numbers": ["1", "ü"],
                "fulfillment_status": [FulfillmentFilter.UNFULFILLED, "PARTIALLY_FULFILLED"],
                "imported_after": INSTANT,
                "seller_updated_after": INSTANT,
                "has_errors": False,
                "page_size": 10,
            },
            {
                "mp_order_numbers": "1,ü",
                "fulfillment_status": "UNFULFILLED,PARTIALLY_FULFILLED",
                "imported_after": EARLIEST,
                "seller_updated_after": EARLIEST,
                "has_errors": "false",
                "page_size": "10",
            },
        ),
        ("orders", {"has_errors": True}, {"has_errors": "true", "page_size": "50"}),
        (
            "refunds",
            {
                "mp_order_numbers": ["A"],
                "refund_status": [RefundStatus.CREATED, "SOMETHING_NEW"],
                "created_after": INSTANT,
                "created_before": INSTANT,
            },
            {
                "mp_order_numbers": "A",
                "refund_status": "CREATED,SOMETHING_NEW",
                "created_after": EARLIEST,
                "created_before": LATEST,
                "page_size": "50",
            },
        ),
        (
            "returns",
            {
                "mp_order_numbers": ["A"],
                "return_status": [ReturnStatus.REFUNDED, "REJECTED"],
                "requested_after": INSTANT,
                "requested_before": INSTANT,
                "filters": {"sort": "newest"},
            },
            {
                "mp_order_numbers": "A",
                "return_status": "REFUNDED,REJECTED",
                "requested_after": EARLIEST,
                "requested_before": LATEST,
                "page_size": "50",
                "sort": "newest",
            },
        ),
        ("returns", {"page_size": None}, {}),
    ],
)
def test_the_filters_are_sent_as_feedamp_reads_them(
    client: FeedAmpClient, edge: Edge, name: str, filters: dict[str, Any], query: dict[str, str]
) -> None:
    edge.will_reply(Reply(200, {name: []}))
    assert list(getattr(client, name).list(**filters)) == []
    assert (edge.received[0].path, edge.received[0].query) == (f"/api/v1/{name}", query)


def test_many_order_numbers_are_asked_for_in_several_calls(orders: OrdersApi, edge: Edge) -> None:
    numbers = [str(number) for number in range(120)]
    for part in (numbers[:50], numbers[50:100], numbers[99:]):
        edge.will_reply(Reply(200, {"orders": [{"mp_order_number": number} for number in part]}))
    assert [order["mp_order_number"] for order in orders.list(mp_order_numbers=numbers)] == numbers
    asked = [request.query["mp_order_numbers"].split(",") for request in edge.received]
    assert asked == [numbers[:50], numbers[50:100], numbers[100:]]


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
    asked = [request.query["orders"] for request in edge.received]
    assert asked == [",".join(numbers[:50]), ",".join(numbers[50:])]


@pytest.mark.parametrize(
    "filters", [{"a": 1}, {"a": None}, {1: "a"}, {"a": ["b"]}, {"a": "\ud800"}, {"\ud800": "a"}]
)
def test_further_filters_must_be_texts(returns: ReturnsApi, edge: Edge, filters: Any) -> None:
    with pytest.raises(InputError, match="filters"):
        returns.list(filters=filters)
    assert edge.received == []


# What is placed and created


@pytest.mark.parametrize(
    ("reply", "inserted", "known"),
    [
        (Reply(201, ORDER | HELD), True, True),
        (Reply(200, ORDER | HELD), False, True),
        (Reply(201, b""), True, False),
        (Reply(200, {}), False, False),
        (Reply(200, [1]), False, False),
        (Reply(202, b"accepted"), None, False),
        (Reply(204), None, False),
    ],
)
def test_what_was_placed_says_what_became_of_it(
    client: FeedAmpClient, edge: Edge, reply: Reply, inserted: bool | None, known: bool
) -> None:
    edge.will_reply(reply, reply)
    held: Any = ORDER | HELD if known else None
    assert client.orders.place(ORDER) == PlacedOrder("600A", inserted, held)
    assert client.returns.create("A/1", "R/1", RETURN) == CreatedReturn("A/1", "R/1", inserted, held)
    order, return_ = edge.received
    assert (order.method, order.target, json.loads(order.body)) == ("PUT", "/api/v1/orders/600A", ORDER)
    assert (return_.method, return_.target) == ("PUT", "/api/v1/orders/A%2F1/returns/R%2F1")


def test_an_order_is_sent_as_it_was_read(orders: OrdersApi, edge: Edge) -> None:
    body = json.dumps(ORDER, indent=1).replace("59.99", "59.990").encode()
    orders.place(json.loads(body), body=body)
    assert edge.received[0].body == body


def test_an_order_number_that_needs_escaping_arrives_whole(orders: OrdersApi, edge: Edge) -> None:
    orders.place(ORDER | {"mp_order_number": "A/1 ü%"})
    assert edge.received[0].target == "/api/v1/orders/A%2F1%20%C3%BC%25"
    assert json.loads(edge.received[0].body)["mp_order_number"] == "A/1 ü%"


def test_what_is_wrong_is_refused_unsent(client: FeedAmpClient, edge: Edge) -> None:
    with pytest.raises(InputError, match="Order '600A' was not sent: currency"):
        client.orders.place(ORDER | {"currency": "usd"})
    with pytest.raises(InputError, match="Return 'R' of order 'A' was not sent: return_lines") as caught:
        client.returns.create("A", "R", RETURN | {"return_lines": []})
    assert "jane" not in str(caught.value)
    assert edge.received == []


def test_what_is_refused_is_named_with_the_servers_codes(client: FeedAmpClient, edge: Edge) -> None:
    edge.otherwise = Reply(400, [{"code": "FIELD_INVALID_VALUE", "message": "'currency' is not supported"}])
    with pytest.raises(BadRequestError, match="placing order '600A'") as caught:
        client.orders.place(ORDER)
    assert caught.value.codes == ("FIELD_INVALID_VALUE",)
    assert "Jane" not in str(caught.value)
    with pytest.raises(BadRequestError, match="creating return 'R' of order 'A'") as caught:
        client.returns.create("A", "R", RETURN)
    assert caught.value.codes == ("FIELD_INVALID_VALUE",)


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
    returns.create("A", "R", RETURN | given)
    assert json.loads(edge.received[0].body) == RETURN | {"mp_order_number": "A"}


def test_amounts_are_sent_with_the_digits_that_they_have(returns: ReturnsApi, edge: Edge) -> None:
    line = LINE | {"requested_refund_principal": Decimal("0.1"), "tax": 0.3}
    returns.create("A", "R", {"return_lines": [line]})
    assert b'"requested_refund_principal":0.1,' in edge.received[0].body
    assert b'"tax":0.3' in edge.received[0].body


def test_creating_is_repeated_like_any_put(returns: ReturnsApi, edge: Edge) -> None:
    edge.will_reply(Reply(503), CUT, Reply(201))
    assert returns.create("A", "R", RETURN).inserted is True
    assert sent(edge) == ["PUT"] * 3


# What is reported and completed


class Call(NamedTuple):
    """One of the calls that report errors or mark something as complete."""

    path: str
    send: Callable[[FeedAmpClient, Any], None]
    done: str = ""


IN_ORDER = "/api/v1/orders/A%2F1"
REPORTS = {
    "order": Call(IN_ORDER, lambda client, errors: client.orders.report_errors("A/1", errors)),
    "refund": Call(
        f"{IN_ORDER}/refunds/7", lambda client, errors: client.refunds.report_errors("A/1", 7, errors)
    ),
    "return": Call(
        f"{IN_ORDER}/returns/R%201", lambda client, errors: client.returns.report_errors("A/1", "R 1", errors)
    ),
}
COMPLETIONS = {
    "refund": Call(f"{IN_ORDER}/refunds/7", lambda client, _: client.refunds.complete("A/1", 7), "COMPLETE"),
    "return": Call(
        f"{IN_ORDER}/returns/R%201", lambda client, _: client.returns.complete("A/1", "R 1"), "COMPLETED"
    ),
}
each_report = pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
each_completion = pytest.mark.parametrize("completion", COMPLETIONS.values(), ids=COMPLETIONS)
UNCLEAR: dict[str, tuple[Reply, type[FeedAmpError]]] = {
    "cut": (CUT, UnreachableError),
    **{str(status): (Reply(status), ServerError) for status in (500, 503, 504, 522)},
    "a web page": (Reply(200, b"<html>a proxy's page"), UnreadableError),
}
each_unclear_failure = pytest.mark.parametrize(("failure", "error"), UNCLEAR.values(), ids=UNCLEAR)


@each_report
def test_errors_are_reported_as_a_list(client: FeedAmpClient, edge: Edge, report: Call) -> None:
    errors = [ERROR | {"mp_line_number": "1", "debug": [{"a": 1}]}, OTHER]
    report.send(client, errors)
    [post] = edge.received
    assert (post.method, post.target) == ("POST", f"{report.path}/errors")
    assert json.loads(post.body) == errors


@each_completion
@pytest.mark.parametrize("answer", [OK, Reply(204), Reply(200, b""), Reply(202, b"done")])
def test_marking_as_complete_sends_no_body_and_any_success_does(
    client: FeedAmpClient, edge: Edge, completion: Call, answer: Reply
) -> None:
    edge.will_reply(answer)
    completion.send(client, None)
    [post] = edge.received
    assert (post.method, post.target, post.body) == ("POST", f"{completion.path}/complete", b"")


@each_completion
@pytest.mark.parametrize(
    ("tail", "behind"), [("close", "/close"), ("actions/complete", "/actions/complete"), ("/", "")]
)
def test_the_guessed_path_can_be_replaced(
    http: Http, edge: Edge, completion: Call, tail: str, behind: str
) -> None:
    guesses = Unverified(refund_complete_path=tail, return_complete_path=tail)
    completion.send(FeedAmpClient(http, guesses), None)
    assert edge.received[0].target == f"{completion.path}{behind}"


@each_report
@pytest.mark.parametrize(
    ("errors", "named"),
    [
        ([], "there is none"),
        (ERROR, "not a list"),
        ("text", "not a list"),
        (["text"], r"\[0\] is not an object"),
        ([{"code": "A"}], r"\[0\]\.message"),
        ([ERROR, ERROR | {"code": " "}], r"\[1\]\.code"),
        ([ERROR | {"code": 1}], r"\[0\]\.code"),
        ([ERROR | {"mp_line_number": "x" * 129}], r"\[0\]\.mp_line_number"),
        ([ERROR | {"mp_line_number": 1}], r"\[0\]\.mp_line_number"),
    ],
)
def test_a_report_with_something_wrong_is_refused_unsent(
    client: FeedAmpClient, edge: Edge, report: Call, errors: Any, named: str
) -> None:
    with pytest.raises(InputError, match=f"order 'A/1' cannot be sent: .*{named}"):
        report.send(client, errors)
    assert edge.received == []


@pytest.mark.parametrize("call", [*REPORTS.values(), *COMPLETIONS.values()])
@pytest.mark.parametrize(
    ("status", "error"), [(400, BadRequestError), (404, NotFoundError), (429, RateLimitError)]
)
def test_after_a_clear_refusal_nobody_looks(
    client: FeedAmpClient, edge: Edge, call: Call, status: int, error: type[FeedAmpError]
) -> None:
    edge.otherwise = Reply(status)
    with pytest.raises(error):
        call.send(client, [ERROR])
    assert sent(edge) == ["POST"] * (4 if status == 429 else 1)


@each_report
@each_unclear_failure
def test_a_report_that_arrived_is_not_sent_again(
    client: FeedAmpClient, edge: Edge, report: Call, failure: Reply, error: type[FeedAmpError]
) -> None:
    edge.will_reply(failure, Reply(200, {"errors": [OTHER, ERROR]}))
    report.send(client, [ERROR])
    assert sent(edge) == ["POST", "GET"]
    assert edge.received[1].target == report.path


@each_report
@each_unclear_failure
def test_a_report_that_did_not_arrive_is_sent_once_more(
    client: FeedAmpClient, edge: Edge, report: Call, failure: Reply, error: type[FeedAmpError]
) -> None:
    edge.will_reply(failure, Reply(200, {"errors": [OTHER]}), OK)
    report.send(client, [ERROR])
    assert sent(edge) == ["POST", "GET", "POST"]
    assert edge.received[2].body == edge.received[0].body


@each_report
@each_unclear_failure
def test_a_report_is_sent_twice_at_most(
    client: FeedAmpClient, edge: Edge, report: Call, failure: Reply, error: type[FeedAmpError]
) -> None:
    held = Reply(200, {"errors": []})
    edge.will_reply(failure, held, failure, held)
    with pytest.raises(error, match="reporting errors of"):
        report.send(client, [ERROR])
    assert sent(edge) == ["POST", "GET", "POST", "GET"]


@each_report
def test_the_second_report_is_looked_for_as_well(client: FeedAmpClient, edge: Edge, report: Call) -> None:
    edge.will_reply(CUT, Reply(200, {"errors": []}), CUT, Reply(200, {"errors": [ERROR]}))
    report.send(client, [ERROR])
    assert sent(edge) == ["POST", "GET", "POST", "GET"]


@each_report
@pytest.mark.parametrize(
    "look",
    [
        Reply(200, {}),
        Reply(200, {"errors": None}),
        Reply(200, {"errors": "many"}),
        Reply(404),
        Reply(200, []),
    ],
)
def test_a_report_is_not_sent_again_when_the_look_says_nothing(
    client: FeedAmpClient, edge: Edge, report: Call, look: Reply
) -> None:
    edge.will_reply(CUT, look)
    with pytest.raises(UnreachableError, match="reporting errors of"):
        report.send(client, [ERROR])
    assert sent(edge) == ["POST", "GET"]


def test_the_look_is_repeated_like_any_read(client: FeedAmpClient, edge: Edge) -> None:
    edge.will_reply(Reply(503), Reply(503), CUT, Reply(200, {"errors": [ERROR]}))
    client.orders.report_errors("A", [ERROR])
    assert sent(edge) == ["POST", "GET", "GET", "GET"]


@pytest.mark.parametrize(
    ("held", "again"),
    [
        (ERROR | {"mp_line_number": "1"}, False),
        (ERROR, False),  # whether FeedAMP gives the line back is not documented
        (ERROR | {"mp_line_number": "1", "reported_at": "2024-05-01"}, False),
        (ERROR | {"mp_line_number": "2"}, True),
        (ERROR | {"message": "another"}, True),
        ("text", True),
    ],
)
def test_an_error_that_is_held_is_known_by_code_message_and_line(
    client: FeedAmpClient, edge: Edge, held: Any, again: bool
) -> None:
    edge.will_reply(CUT, Reply(200, {"errors": [held]}), OK)
    client.orders.report_errors("A", [ERROR | {"mp_line_number": "1"}])
    assert sent(edge) == ["POST", "GET", *(["POST"] if again else [])]


@each_report
def test_a_report_that_is_held_in_part_is_sent_once_more(
    client: FeedAmpClient, edge: Edge, report: Call
) -> None:
    edge.will_reply(CUT, Reply(200, {"errors": [ERROR]}), OK)
    report.send(client, [ERROR, ERROR])
    assert sent(edge) == ["POST", "GET", "POST"]


@each_completion
@each_unclear_failure
def test_a_completion_that_arrived_is_not_sent_again(
    client: FeedAmpClient, edge: Edge, completion: Call, failure: Reply, error: type[FeedAmpError]
) -> None:
    edge.will_reply(failure, Reply(200, {"status": completion.done}))
    completion.send(client, None)
    assert sent(edge) == ["POST", "GET"]
    assert edge.received[1].target == completion.path


@each_completion
@pytest.mark.parametrize("status", ["CREATED", "REFUNDED", "SOMETHING_NEW", None])
def test_a_completion_that_did_not_arrive_is_sent_once_more(
    client: FeedAmpClient, edge: Edge, completion: Call, status: str | None
) -> None:
    edge.will_reply(CUT, Reply(200, {"status": status}), OK)
    completion.send(client, None)
    assert sent(edge) == ["POST", "GET", "POST"]


@each_completion
@each_unclear_failure
def test_a_completion_is_sent_twice_at_most(
    client: FeedAmpClient, edge: Edge, completion: Call, failure: Reply, error: type[FeedAmpError]
) -> None:
    held = Reply(200, {"status": "CREATED"})
    edge.will_reply(failure, held, failure, held)
    with pytest.raises(error, match=r"marking .* as complete"):
        completion.send(client, None)
    assert sent(edge) == ["POST", "GET", "POST", "GET"]


def test_what_is_reported_never_reaches_the_log(
    client: FeedAmpClient, edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    edge.will_reply(CUT, Reply(200, {"errors": []}), OK)
    client.orders.report_errors("A", [{"code": "A", "message": "Jane Smith is not known"}])
    assert "Jane" not in caplog.text
