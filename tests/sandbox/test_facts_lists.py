"""The sandbox against what is known of lists, dates and errors (A1, A5, A8, A9); see test_facts_oauth."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.sandbox.endpoints import OPERATIONS
from airflow_provider_feedamp.sandbox.server import serve
from tests.sandbox.caller import Caller, order, return_, return_line

if TYPE_CHECKING:
    from collections.abc import Iterator


LISTS = ["orders", "refunds", "returns"]
REFUND, RETURN = "/orders/600A/refunds/1001", "/orders/600A/returns/RET-1"
CALLS = {
    "list_orders": ("GET", "/orders"),
    "get_order": ("GET", "/orders/600A"),
    "place_order": ("PUT", "/orders/600A"),
    "get_fulfillments": ("GET", "/orders/600A/fulfillments"),
    "report_order_errors": ("POST", "/orders/600A/errors"),
    "list_refunds": ("GET", "/refunds"),
    "get_order_refunds": ("GET", "/orders/600A/refunds"),
    "get_refund": ("GET", REFUND),
    "complete_refund": ("POST", REFUND + "/complete"),
    "report_refund_errors": ("POST", REFUND + "/errors"),
    "list_returns": ("GET", "/returns"),
    "get_order_returns": ("GET", "/orders/600A/returns"),
    "get_return": ("GET", RETURN),
    "create_return": ("PUT", RETURN),
    "get_return_refunds": ("GET", RETURN + "/refunds"),
    "complete_return": ("POST", RETURN + "/complete"),
    "report_return_errors": ("POST", RETURN + "/errors"),
}
REPORTS = ["report_order_errors", "report_refund_errors", "report_return_errors"]
PAGED = ["list_orders", "list_refunds", "list_returns"]
# New York sprang forward on 10 March 2024 and fell back on 3 November.
MOMENT = datetime(2024, 11, 3, 5, 30, tzinfo=UTC)


def body_of(operation: str) -> Any:
    bodies = {"place_order": order(), "create_return": return_()}
    return bodies.get(operation, [{"code": "X", "message": "m"}])


def fill(caller: Caller) -> None:
    """Have one order, one refund and one return."""
    caller.place()
    caller.control.create_refund(caller.seller, "600A")
    caller.call("PUT", RETURN, json=return_())


@pytest.fixture
def at_a_moment() -> Iterator[Caller]:
    """Have one of each, made at 01:30 of the hour that New York has twice, the first time."""
    with serve(now=lambda: MOMENT) as sandbox:
        caller = Caller(sandbox, "hooli")
        fill(caller)
        sandbox.control.acknowledge("hooli", "600A")
        yield caller


def count(caller: Caller, kind: str, **parameters: Any) -> int | None:
    answer = caller.call("GET", f"/{kind}", params=parameters)
    return len(answer.json()[kind]) if answer.status_code == 200 else None


def test_all_nineteen_endpoints_are_tried_here() -> None:
    """A1: the index, without the two of authentication."""
    assert set(CALLS) | {"authorize", "access_token"} == {each.name for each in OPERATIONS}


@pytest.mark.parametrize("operation", list(CALLS))
def test_every_data_endpoint_needs_a_bearer(hooli: Caller, operation: str) -> None:
    """A1 [D] ov: Authorization on all data endpoints; A8: 401."""
    method, path = CALLS[operation]
    fill(hooli)
    answer = hooli.call(method, path, json=body_of(operation), headers={"Authorization": "Bearer wrong"})
    assert answer.status_code == 401


@pytest.mark.parametrize("operation", list(CALLS))
def test_a_token_is_one_sellers_account(hooli: Caller, globex: Caller, operation: str) -> None:
    """A1 [D] ov, ba: no seller is named in a path."""
    method, path = CALLS[operation]
    fill(hooli)
    answer = globex.call(method, path, json=body_of(operation))
    if operation in PAGED:
        assert answer.json() == {path[1:]: [], "next_cursor": None}
    else:
        assert answer.status_code == (201 if operation == "place_order" else 404)


@pytest.mark.parametrize("operation", [each for each in CALLS if CALLS[each][1] not in ("/orders",)])
def test_a_live_call_is_json(hooli: Caller, operation: str) -> None:
    """A1 [D]: JSON requests and answers."""
    method, path = CALLS[operation]
    fill(hooli)
    answer = hooli.call(method, path, json=body_of(operation))
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    assert isinstance(answer.json(), dict)


@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize(("size", "shown"), [(None, 20), (10, 10), (50, 21), (9, None), (51, None)])
def test_page_size_is_10_to_50_and_20_by_default(
    hooli: Caller, kind: str, size: int | None, shown: int | None
) -> None:
    """A5 [D] gos, rfs; returns [I]; 400 outside is [I]."""
    hooli.place()
    for index in range(21):
        if kind == "orders" and index:
            hooli.place(f"N{index}")
        if kind == "refunds":
            hooli.control.create_refund("hooli", "600A")
        if kind == "returns":
            hooli.call("PUT", f"/orders/600A/returns/R{index}", json=return_())
    assert count(hooli, kind, **({} if size is None else {"page_size": size})) == shown


@pytest.mark.parametrize("kind", LISTS)
def test_a_cursor_leads_through_the_list_and_carries_the_filters(hooli: Caller, kind: str) -> None:
    """A5 [D] gos, rfs: next_cursor, cursor; [U] chosen: filters are bound into it, repeats are ignored."""
    for index in range(12):
        number = f"N{index:02}"
        hooli.place(number)
        hooli.control.create_refund("hooli", number)
        hooli.call("PUT", f"/orders/{number}/returns/R", json=return_())
    wanted = ",".join(f"N{index:02}" for index in range(11))
    first = hooli.call("GET", f"/{kind}", params={"page_size": 10, "mp_order_numbers": wanted}).json()
    rest = {"cursor": first["next_cursor"], "mp_order_numbers": "N11"}
    last = hooli.call("GET", f"/{kind}", params=rest).json()
    numbers = [each["mp_order_number"] for each in first[kind] + last[kind]]
    assert (numbers, last["next_cursor"]) == (wanted.split(","), None)


@pytest.mark.parametrize("kind", LISTS)
def test_a_cursor_is_of_one_list(hooli: Caller, kind: str) -> None:
    """A5 [U]: chosen, 400 for a cursor of another list or of nobody."""
    for index in range(11):
        hooli.place(f"N{index}")
    cursor = hooli.find(page_size=10).json()["next_cursor"]
    assert (count(hooli, kind, cursor=cursor) is not None) is (kind == "orders")
    assert count(hooli, kind, cursor="12FDG-31dsfgHW") is None


@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize(
    ("style", "end"), [("null", {"next_cursor": None}), ("empty", {"next_cursor": ""}), ("missing", {})]
)
def test_the_end_of_a_list_is_a_switch(hooli: Caller, kind: str, style: str, end: dict[str, Any]) -> None:
    """A5 [U]."""
    hooli.control.change(cursor_end=style)
    assert hooli.call("GET", f"/{kind}").json() == {kind: [], **end}


@pytest.mark.parametrize(
    ("bound", "found"),
    [
        pytest.param("2024-11-03T05:30:00Z", 1, id="[D] gos, rfs: on or after"),
        pytest.param("2024-11-03T05:30:01Z", 0, id="[D] gos, rfs: a second too late"),
        pytest.param("2024-11-03T01:30:00-04:00", 1, id="[D] gos, rfs: an offset"),
        pytest.param("2024-11-03T01:30:00", 1, id="[D] gos, rfs: New York by default, first of the two"),
        pytest.param("2024-11-03T01:30:01", 0, id="[D] gos, rfs: New York by default"),
        pytest.param("2024-11-03T05:30:00.5Z", 0, id="[I]: a fraction of a second too late"),
        pytest.param("2024-11-03", 1, id="[I]: a day begins at midnight in New York"),
        pytest.param("2024-11-04", 0, id="[I]: the next day"),
    ],
)
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("orders", "imported_after"),
        ("orders", "seller_updated_after"),
        ("refunds", "created_after"),
        ("returns", "requested_after"),
    ],
)
def test_an_after_filter(at_a_moment: Caller, kind: str, name: str, bound: str, found: int) -> None:
    """A5, A4.1, A6.1 [D] gos, rfs; of returns [I]."""
    assert count(at_a_moment, kind, **{name: bound}) == found


@pytest.mark.parametrize(
    ("bound", "found"),
    [("2024-11-03T05:30:00Z", 1), ("2024-11-03T05:29:59Z", 0), ("2024-11-03T01:30:00", 1), ("2024-11-03", 0)],
)
@pytest.mark.parametrize(("kind", "name"), [("refunds", "created_before"), ("returns", "requested_before")])
def test_a_before_filter(at_a_moment: Caller, kind: str, name: str, bound: str, found: int) -> None:
    """A6.1 [D] rfs: on or before; of returns [I]; the instant counts, not the day that is shown [I]."""
    assert count(at_a_moment, kind, **{name: bound}) == found


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        *((each, {"code": "X", "message": "m"}) for each in REPORTS),
        ("place_order", {}),
        ("create_return", {}),
    ],
)
def test_a_body_that_does_not_fit_is_400(hooli: Caller, operation: str, body: Any) -> None:
    """A8 [D] oe, rfe, rtp, rte: 400; of Place Order [I]."""
    fill(hooli)
    method, path = CALLS[operation]
    assert hooli.call(method, path, json=body).status_code == 400


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("orders", "fulfillment_status", "SHIPPED"),
        ("orders", "has_errors", "perhaps"),
        ("orders", "imported_after", "today"),
        ("refunds", "refund_status", "COMPLETED"),
        ("refunds", "created_before", "today"),
        ("returns", "return_status", "COMPLETE"),
        ("returns", "requested_after", "today"),
    ],
)
def test_a_filter_that_does_not_fit_is_400(hooli: Caller, kind: str, name: str, value: str) -> None:
    """A8 [D] gos, rfs: 400; A10: COMPLETE of refunds, COMPLETED of returns."""
    assert count(hooli, kind, **{name: value}) is None


@pytest.mark.parametrize("operation", [each for each in CALLS if each not in (*PAGED, "place_order")])
def test_what_is_not_there_is_404(hooli: Caller, operation: str) -> None:
    """A8 [D] gf, oe, rf1, rfe, rt1, rtp, rtr, rte; of the others [I]."""
    method, path = CALLS[operation]
    assert hooli.call(method, path, json=body_of(operation)).status_code == 404


@pytest.mark.parametrize("operation", [each for each in CALLS if CALLS[each][1].startswith((REFUND, RETURN))])
def test_a_refund_or_return_of_another_order_is_404(hooli: Caller, operation: str) -> None:
    """A8 [I]: a number under the wrong order names nothing."""
    fill(hooli)
    hooli.place("600B")
    method, path = CALLS[operation]
    answer = hooli.call(method, path.replace("600A", "600B"), json=body_of(operation))
    assert answer.status_code == (201 if operation == "create_return" else 404)


def test_there_is_no_limit_of_requests(hooli: Caller) -> None:
    """A9 [U]: nothing documented; chosen: none, 429 is injected."""
    assert {hooli.find().status_code for _ in range(100)} == {200}


def test_errors_are_lists_of_code_and_message(hooli: Caller) -> None:
    """A8 [I]: the sister product's form; all problems at once; setting error_body."""
    fill(hooli)
    answer = hooli.call("PUT", RETURN, json=return_(return_line(quantity=0, sku=None)))
    assert answer.json() == [
        {"code": "MISSING_REQUIRED_FIELD", "message": "'return_lines[0].sku' is required"},
        {"code": "FIELD_INVALID_VALUE", "message": "'return_lines[0].quantity' must be at least 1"},
    ]
