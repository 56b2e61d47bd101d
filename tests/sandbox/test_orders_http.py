"""The five order endpoints (A4) and their cross-cutting rules (A5, A8) as a marketplace meets them."""

from __future__ import annotations

import time
from urllib.parse import quote

import pytest

from tests.sandbox.caller import Caller, order

ODD_NUMBERS = ["A/1 ü%", "a+b&c=d?e#f", "..", "%2F", "x;y,z", "日本", "n" * 128]


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", "Basic {token}", "{token}"])
def test_a_call_needs_a_live_bearer(hooli: Caller, header: str | None) -> None:
    token = str(hooli.session.headers["Authorization"]).removeprefix("Bearer ")
    hooli.session.headers.pop("Authorization")
    headers = {} if header is None else {"Authorization": header.format(token=token)}
    answer = hooli.call("GET", "/orders", headers=headers)
    assert (answer.status_code, answer.json()[0]["code"]) == (401, "UNAUTHORIZED")


def test_an_order_is_inserted_with_201_updated_with_200_and_read_unwrapped(hooli: Caller) -> None:
    assert [hooli.place().status_code, hooli.place().status_code] == [201, 200]
    shown = hooli.call("GET", "/orders/600A").json()
    assert shown == {
        **order(),
        "is_marketplace_fulfilled": False,
        "fulfillments": [],
        "acknowledged": False,
        "status": "ORDERED",
        "errors": [],
    }


@pytest.mark.parametrize("number", ODD_NUMBERS)
def test_an_escaped_order_number_is_one_segment_and_arrives_intact(hooli: Caller, number: str) -> None:
    # requests would resolve "..", as any client may; a number is escaped as one segment otherwise.
    path = "/orders/" + quote(number, safe="").replace(".", "%252E" if number == ".." else ".")
    real = number.replace("..", "%2E%2E")
    assert hooli.call("PUT", path, json=order(real)).status_code == 201
    assert hooli.call("GET", path).json()["mp_order_number"] == real
    assert hooli.call("GET", path + "/fulfillments").status_code == 200
    assert hooli.numbers() == [real]


def test_a_path_that_nobody_serves_is_404(hooli: Caller) -> None:
    answer = hooli.call("GET", "/no")
    assert (answer.status_code, answer.json()[0]["code"]) == (404, "NOT_FOUND")


def test_an_unescaped_slash_is_another_path(hooli: Caller) -> None:
    hooli.place("A/1")
    assert hooli.call("GET", "/orders/A/1").status_code == 404
    assert hooli.call("GET", "/orders/A%2F1").status_code == 200


def test_a_path_that_is_not_utf8_is_refused(hooli: Caller) -> None:
    assert hooli.call("GET", "/orders/%FF").status_code == 400


def test_another_method_is_refused(hooli: Caller) -> None:
    assert hooli.call("DELETE", "/orders/600A").status_code == 405


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
    hooli: Caller, style: str, content_type: str, text: str
) -> None:
    hooli.control.change(error_body=style)
    answer = hooli.call("GET", "/orders/X")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"].startswith(content_type)
    assert answer.text[: len(text)] == text
    assert bool(answer.text) is bool(text)


@pytest.mark.parametrize(
    ("status", "codes"),
    [("by_effect", [201, 200]), ("200", [200, 200]), ("201", [201, 201]), ("204", [204, 204])],
)
def test_the_status_of_writes_can_be_chosen(hooli: Caller, status: str, codes: list[int]) -> None:
    hooli.control.change(write_status=status)
    answers = [hooli.place(), hooli.place()]
    assert [each.status_code for each in answers] == codes
    assert all(bool(each.content) is (each.status_code != 204) for each in answers)


@pytest.mark.parametrize("size", ["9", "51", "0", "-20", "ten", "", "20.0", "²"])
def test_a_page_size_outside_its_bounds_is_refused(hooli: Caller, size: str) -> None:
    answer = hooli.find(page_size=size)
    assert (answer.status_code, answer.json()[0]["code"]) == (400, "INVALID_QUERY_PARAM")


@pytest.mark.parametrize(("size", "pages"), [(10, [10, 10]), (20, [20])])
def test_the_last_page_may_be_full_and_the_size_is_bound_into_the_cursor(
    hooli: Caller, size: int, pages: list[int]
) -> None:
    for index in range(20):
        hooli.place(f"N{index:02}", marketplace_state="AWAITING_SHIPMENT")
    found, cursor = [], {"page_size": str(size), "fulfillment_status": "UNFULFILLED"}
    while cursor:
        body = hooli.find(**cursor).json()
        found.append(len(body["orders"]))
        cursor = {"cursor": body["next_cursor"]} if body["next_cursor"] else {}
    assert found == pages


def test_a_cursor_is_good_again_but_not_for_another_seller(hooli: Caller, globex: Caller) -> None:
    for index in range(11):
        hooli.place(f"N{index:02}")
    cursor = hooli.find(page_size=10).json()["next_cursor"]
    assert [hooli.numbers(cursor=cursor) for _ in range(2)] == [["N10"], ["N10"]]
    assert globex.find(cursor=cursor).status_code == 400


def test_an_unescaped_plus_in_an_offset_is_refused(hooli: Caller) -> None:
    assert hooli.call("GET", "/orders?imported_after=2024-05-01T12:00:00+00:00").status_code == 400
    assert hooli.find(imported_after="2024-05-01T12:00:00+00:00").status_code == 200


def test_an_answer_does_not_wait_for_the_acknowledgement_of_its_head(hooli: Caller) -> None:
    def duration() -> float:
        start = time.perf_counter()
        hooli.find()
        return time.perf_counter() - start

    # Held back by Nagle's algorithm, every answer but a connection's first takes 40 ms and more.
    assert min(duration() for _ in range(10)) < 0.03
