from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_feedamp.api.checks import check_return, return_problems
from airflow_provider_feedamp.exceptions import InputError

pytestmark = pytest.mark.once

LINE: dict[str, Any] = {"mp_return_line_number": "R-1", "mp_order_line_number": "1", "quantity": 2}
GOOD: dict[str, Any] = {"return_lines": [LINE]}


def with_line(**changes: Any) -> dict[str, Any]:
    line = LINE | changes
    return {"return_lines": [{name: value for name, value in line.items() if value is not ...}]}


@pytest.mark.parametrize(
    "return_",
    [
        GOOD,
        {"return_lines": (LINE,)},
        {"return_lines": [LINE, LINE | {"mp_return_line_number": "R-2"}]},  # two of the same order line
        GOOD | {"request_date": "2024-02-29", "respond_date": "2024-05-17"},
        GOOD | {"request_date": None, "return_type": None, "shipping_address": None},
        GOOD | {"return_type": "NO_RETURN"},
        GOOD | {"mp_order_number": "A", "mp_return_number": "R"},
        GOOD | {"shipping_address": {}, "customer_email": "", "unknown": [1]},
        with_line(preauthorized=True, unknown={}),
        with_line(mp_return_line_number="x" * 128, mp_order_line_number="ü/ %"),
    ],
)
def test_a_return_that_feedamp_takes_has_no_problem(return_: dict[str, Any]) -> None:
    assert return_problems("A", "R", return_) == []
    check_return("A", "R", return_)


@pytest.mark.parametrize(
    ("return_", "named"),
    [
        (None, "it must be an object"),
        ([LINE], "it must be an object"),
        ({}, "return_lines must be a list"),
        ({"return_lines": []}, "return_lines must be a list"),
        ({"return_lines": {}}, "return_lines must be a list"),
        ({"return_lines": "line"}, "return_lines must be a list"),
        ({"return_lines": [LINE, "line"]}, "return_lines[1] must be an object"),
        ({"return_lines": [LINE, LINE]}, "return_lines[1].mp_return_line_number is the same"),
        (with_line(mp_return_line_number=...), "return_lines[0].mp_return_line_number must be text"),
        (with_line(mp_return_line_number=""), "return_lines[0].mp_return_line_number must be text"),
        (with_line(mp_return_line_number=" "), "return_lines[0].mp_return_line_number must be text"),
        (with_line(mp_return_line_number=1), "return_lines[0].mp_return_line_number must be text"),
        (with_line(mp_order_line_number=...), "return_lines[0].mp_order_line_number must be text"),
        (with_line(mp_order_line_number="x" * 129), "return_lines[0].mp_order_line_number must be text"),
        (with_line(quantity=...), "return_lines[0].quantity must be a whole number"),
        (with_line(quantity=0), "return_lines[0].quantity must be a whole number"),
        (with_line(quantity=True), "return_lines[0].quantity must be a whole number"),
        (with_line(quantity=1.0), "return_lines[0].quantity must be a whole number"),
        (with_line(quantity="1"), "return_lines[0].quantity must be a whole number"),
        (with_line(preauthorized="yes"), "return_lines[0].preauthorized must be true or false"),
        (with_line(preauthorized=1), "return_lines[0].preauthorized must be true or false"),
        (GOOD | {"request_date": "2024-5-1"}, "request_date must be a date"),
        (GOOD | {"request_date": "20240501"}, "request_date must be a date"),
        (GOOD | {"request_date": "2023-02-29"}, "request_date must be a date"),
        (GOOD | {"respond_date": "2024-05-17T00:00:00Z"}, "respond_date must be a date"),
        (GOOD | {"respond_date": 20240517}, "respond_date must be a date"),
        (GOOD | {"return_type": "ship"}, "return_type must be one of SHIP, NO_RETURN, IN_STORE"),
        (GOOD | {"return_type": ["SHIP"]}, "return_type must be one of"),
        (GOOD | {"mp_order_number": "B"}, "mp_order_number in the body is not that of the path"),
        (GOOD | {"mp_return_number": "B"}, "mp_return_number in the body is not that of the path"),
        (GOOD | {"shipping_address": "Jane"}, "shipping_address must be an object"),
    ],
)
def test_a_return_that_feedamp_refuses_has_one_problem_that_names_the_field(return_: Any, named: str) -> None:
    [problem] = return_problems("A", "R", return_)
    assert problem.startswith(named)


@pytest.mark.parametrize("number", ["", " ", "x" * 129, None, 7])
def test_both_numbers_must_be_texts_that_feedamp_takes(number: Any) -> None:
    assert return_problems(number, number, GOOD) == [
        "mp_order_number must be text of 1 to 128 characters",
        "mp_return_number must be text of 1 to 128 characters",
    ]


def test_all_problems_are_told_at_once_without_a_value() -> None:
    person = {"mp_order_line_number": "Jane Smith" * 20, "quantity": "Jane", "preauthorized": "Jane"}
    bad = {"return_lines": [person, person], "request_date": "Jane", "return_type": "Jane"}
    with pytest.raises(InputError) as caught:
        check_return("A", "R", bad)
    text = str(caught.value)
    assert text.startswith("Return 'R' of order 'A' was not sent: ")
    for field in ("request_date", "return_type", "[0].quantity", "[1].mp_order_line_number"):
        assert field in text
    assert "Jane" not in text


def test_a_long_list_of_problems_is_cut() -> None:
    with pytest.raises(InputError, match=r"; and 20 more$"):
        check_return("A", "R", {"return_lines": [1] * 30})
