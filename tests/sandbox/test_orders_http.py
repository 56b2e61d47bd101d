"""The five order endpoints (A4) and their cross-cutting rules (A5, A8) as a marketplace meets them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.sandbox.caller import Caller, order

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox

ODD_NUMBERS = ["A/1 ü%", "a+b&c=d?e#f", "..", "%2F", "x;y,z", "日本", "n" * 128]
CALLS = [
    ("GET", "/orders"),
    ("GET", "/orders/600A"),
    ("PUT", "/orders/600A"),
    ("GET", "/orders/600A/fulfillments"),
    ("POST", "/orders/600A/errors"),
]


def walk(caller: Caller, **parameters: Any) -> list[list[str]]:
    """Return the order numbers page by page."""
    pages, cursor = [], None
    while True:
        body = caller.find(**parameters, **({"cursor": cursor} if cursor else {})).json()
        pages.append([each["mp_order_number"] for each in body["orders"]])
        cursor = body.get("next_cursor")
        if not cursor:
            return pages


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", "Basic {token}", "{token}"])
@pytest.mark.parametrize(("method", "path"), CALLS)
def test_every_call_needs_a_live_bearer(acme: Caller, method: str, path: str, header: str | None) -> None:
    token = str(acme.session.headers["Authorization"]).removeprefix("Bearer ")
    acme.session.headers.pop("Authorization")
    headers = {} if header is None else {"Authorization": header.format(token=token)}
    answer = acme.call(method, path, headers=headers, json=order())
    assert (answer.status_code, answer.json()[0]["code"]) == (401, "UNAUTHORIZED")


def test_the_bearer_is_refused_from_the_second_it_expires(sandbox: RunningSandbox, acme: Caller) -> None:
    sandbox.control.advance(3590)
    assert acme.find().status_code == 200
    sandbox.control.advance(10)
    assert acme.find().status_code == 401
    acme.log_in()
    assert acme.find().status_code == 200


def test_no_seller_sees_or_changes_another_sellers_orders(acme: Caller, globex: Caller) -> None:
    acme.place("600A")
    assert globex.numbers() == []
    assert globex.call("GET", "/orders/600A").status_code == 404
    assert globex.call("GET", "/orders/600A/fulfillments").status_code == 404
    assert globex.call("POST", "/orders/600A/errors", json=[]).status_code == 404
    assert globex.place("600A", sales_channel="DE").status_code == 201
    assert acme.call("GET", "/orders/600A").json()["sales_channel"] == "US"


def test_an_order_is_inserted_with_201_updated_with_200_and_read_unwrapped(acme: Caller) -> None:
    assert [acme.place().status_code, acme.place().status_code] == [201, 200]
    shown = acme.call("GET", "/orders/600A").json()
    assert shown == {
        **order(),
        "is_marketplace_fulfilled": False,
        "fulfillments": [],
        "acknowledged": False,
        "status": "ORDERED",
        "errors": [],
    }


@pytest.mark.parametrize("number", ODD_NUMBERS)
def test_an_escaped_order_number_is_one_segment_and_arrives_intact(acme: Caller, number: str) -> None:
    # requests would resolve "..", as any client may; a number is escaped as one segment otherwise.
    path = "/orders/" + quote(number, safe="").replace(".", "%252E" if number == ".." else ".")
    real = number.replace("..", "%2E%2E")
    assert acme.call("PUT", path, json=order(real)).status_code == 201
    assert acme.call("GET", path).json()["mp_order_number"] == real
    assert acme.call("GET", path + "/fulfillments").status_code == 200
    assert acme.numbers() == [real]


def test_an_unescaped_slash_is_another_path(acme: Caller) -> None:
    acme.place("A/1")
    assert acme.call("GET", "/orders/A/1").status_code == 404
    assert acme.call("GET", "/orders/A%2F1").status_code == 200


def test_a_path_that_is_not_utf8_is_refused(acme: Caller) -> None:
    assert acme.call("GET", "/orders/%FF").status_code == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/orders/X"), ("GET", "/orders/X/fulfillments"), ("POST", "/orders/X/errors"), ("GET", "/no")],
)
def test_what_does_not_exist_is_404(acme: Caller, method: str, path: str) -> None:
    answer = acme.call(method, path, json=[{"code": "X", "message": "m"}])
    assert (answer.status_code, answer.json()[0]["code"]) == (404, "NOT_FOUND")


def test_another_method_is_refused(acme: Caller) -> None:
    assert acme.call("DELETE", "/orders/600A").status_code == 405


def test_a_bad_order_is_refused_with_all_its_problems_and_not_stored(acme: Caller) -> None:
    answer = acme.place(currency="usd", sales_channel="")
    assert answer.status_code == 400
    assert [each["code"] for each in answer.json()] == ["FIELD_INVALID_VALUE", "FIELD_INVALID_VALUE"]
    assert acme.call("GET", "/orders/600A").status_code == 404


@pytest.mark.parametrize(
    ("style", "content_type", "text"),
    [
        ("list", "application/json", '[{"code":"NOT_FOUND","message":"order not found"}]'),
        (
            "object",
            "application/json",
            '{"message":"order not found","errors":[{"code":"NOT_FOUND","message":"order not found"}]}',
        ),
        ("oauth", "application/json", '{"error":"NOT_FOUND","error_description":"order not found"}'),
        ("text", "text/plain", "order not found"),
        ("html", "text/html", "<!DOCTYPE html>"),
        ("empty", "text/html", ""),
    ],
)
def test_the_form_of_error_bodies_can_be_chosen(
    sandbox: RunningSandbox, acme: Caller, style: str, content_type: str, text: str
) -> None:
    sandbox.control.change(error_body=style)
    answer = acme.call("GET", "/orders/X")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"].startswith(content_type)
    assert answer.text[: len(text)] == text
    assert bool(answer.text) is bool(text)


@pytest.mark.parametrize(
    ("status", "codes"),
    [("by_effect", [201, 200]), ("200", [200, 200]), ("201", [201, 201]), ("204", [204, 204])],
)
def test_the_status_of_writes_can_be_chosen(
    sandbox: RunningSandbox, acme: Caller, status: str, codes: list[int]
) -> None:
    sandbox.control.change(write_status=status)
    answers = [acme.place(), acme.place()]
    assert [each.status_code for each in answers] == codes
    assert all(bool(each.content) is (each.status_code != 204) for each in answers)


def test_the_body_of_writes_can_be_empty(sandbox: RunningSandbox, acme: Caller) -> None:
    sandbox.control.change(write_body="empty")
    answer = acme.place()
    assert (answer.status_code, answer.content) == (201, b"")


def test_reported_errors_are_found_by_the_filter(acme: Caller) -> None:
    acme.place("600A")
    acme.place("600B")
    answer = acme.call("POST", "/orders/600A/errors", json=[{"code": "X", "message": "m"}])
    assert (answer.status_code, answer.json()) == (200, {})
    assert (acme.numbers(has_errors="true"), acme.numbers(has_errors="false")) == (["600A"], ["600B"])


def test_a_list_has_twenty_orders_unless_told_otherwise(acme: Caller) -> None:
    names = [f"N{index:02}" for index in range(45)]
    for name in names:
        acme.place(name)
    assert walk(acme) == [names[:20], names[20:40], names[40:]]
    assert walk(acme, page_size=10)[0] == names[:10]
    assert walk(acme, page_size=45) == [names]
    assert walk(acme, page_size=50) == [names]


@pytest.mark.parametrize("size", ["9", "51", "0", "-20", "ten", "", "20.0", "²"])
def test_a_page_size_outside_its_bounds_is_refused(acme: Caller, size: str) -> None:
    answer = acme.find(page_size=size)
    assert (answer.status_code, answer.json()[0]["code"]) == (400, "INVALID_QUERY_PARAM")


@pytest.mark.parametrize(
    ("style", "end"), [("null", {"next_cursor": None}), ("empty", {"next_cursor": ""}), ("missing", {})]
)
def test_the_end_of_a_list_can_be_shown_in_three_ways(
    sandbox: RunningSandbox, acme: Caller, style: str, end: dict[str, Any]
) -> None:
    sandbox.control.change(cursor_end=style)
    assert acme.find().json() == {"orders": [], **end}


def test_filters_are_bound_into_the_cursor(acme: Caller) -> None:
    for index in range(24):
        acme.place(f"N{index:02}", marketplace_state="AWAITING_SHIPMENT" if index % 2 else "PENDING")
    first = acme.find(fulfillment_status="UNFULFILLED", page_size=10).json()
    rest = {"cursor": first["next_cursor"]}
    assert acme.numbers(**rest) == ["N21", "N23"]
    assert acme.numbers(**rest, mp_order_numbers="N00", fulfillment_status="COMPLETE") == ["N21", "N23"]


def test_orders_named_in_a_filter_are_paged_too(acme: Caller) -> None:
    names = [f"N{index:02}" for index in range(12)]
    for name in names:
        acme.place(name)
    wanted = ",".join(reversed([*names, "unknown"]))
    assert walk(acme, mp_order_numbers=wanted, page_size=10) == [names[:10], names[10:]]


def test_a_cursor_is_good_again_but_not_for_another_seller_and_not_when_invented(
    acme: Caller, globex: Caller
) -> None:
    for index in range(11):
        acme.place(f"N{index:02}")
    cursor = acme.find(page_size=10).json()["next_cursor"]
    assert [acme.numbers(cursor=cursor) for _ in range(2)] == [["N10"], ["N10"]]
    assert globex.find(cursor=cursor).status_code == 400
    assert acme.find(cursor="12FDG-31dsfgHW").status_code == 400


def test_an_unescaped_plus_in_an_offset_is_refused(acme: Caller) -> None:
    assert acme.call("GET", "/orders?imported_after=2024-05-01T12:00:00+00:00").status_code == 400
    assert acme.find(imported_after="2024-05-01T12:00:00+00:00").status_code == 200


def test_an_answer_does_not_wait_for_the_acknowledgement_of_its_head(acme: Caller) -> None:
    def duration() -> float:
        start = time.perf_counter()
        acme.find()
        return time.perf_counter() - start

    # Held back by Nagle's algorithm, every answer but a connection's first takes 40 ms and more.
    assert min(duration() for _ in range(10)) < 0.03
