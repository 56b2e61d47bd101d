"""Orders and returns are checked before they are sent, in words that show no personal data."""

from __future__ import annotations

import json
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest

from airflow_provider_feedamp.api.checks import check_order, check_return, order_problems, return_problems
from airflow_provider_feedamp.exceptions import InputError
from tests.api.edge import LINE, ORDER

INSTANTS = ["earliest_ship_date", "latest_ship_date", "earliest_delivery_date", "latest_delivery_date"]
LEFT_OUT = object()


def with_line(**fields: Any) -> dict[str, Any]:
    return ORDER | {"order_lines": [{k: v for k, v in (LINE | fields).items() if v is not LEFT_OUT}]}


@pytest.mark.parametrize(
    "order",
    [
        ORDER,
        MappingProxyType(ORDER),
        ORDER | {"unknown": None, "location": None, "delivery_notes": ""},
        ORDER | {"mp_order_number": "A/1 ü%"},
        ORDER | {"mp_order_number": "x" * 128},
        ORDER | {"purchase_date": "2024-02-29T00:00:00.123Z"},
        ORDER | {"customer": {}, "shipping_address": MappingProxyType({})},
        ORDER | {"order_lines": (LINE, LINE | {"mp_line_number": "2"})},
        *[ORDER | {"marketplace_state": state} for state in ("PENDING", "SHIPPED", "CANCELLED")],
        *[ORDER | {name: "2024-05-01T23:52:01Z"} for name in INSTANTS],
        *[ORDER | {name: None} for name in INSTANTS],
        *[with_line(unit_price=price) for price in (0, 12, -1.5, Decimal("19.90"), LEFT_OUT)],
        with_line(quantity=10**12),
        with_line(sku="half a \ud800", mp_line_number="\udc00"),
    ],
)
def test_an_order_that_can_be_sent_has_no_problems(order: Any) -> None:
    assert order_problems(order) == []
    check_order(order)


@pytest.mark.parametrize("name", [*ORDER, "mp_line_number", "sku", "quantity"])
def test_a_required_field_that_is_missing_or_null_is_named(name: str) -> None:
    without, null, place = with_line(**{name: LEFT_OUT}), with_line(**{name: None}), f"order_lines[0].{name}"
    if name in ORDER:
        without = {other: value for other, value in ORDER.items() if other != name}
        null, place = ORDER | {name: None}, name
    assert order_problems(without) == [f"{place} is missing: it is required"]
    assert order_problems(null) == [f"{place} is null: it is required"]


WRONG = [
    ("mp_order_number", "", "is blank"),
    ("mp_order_number", " \t", "is blank"),
    ("mp_order_number", "x" * 129, "has 129 characters: at most 128 are allowed"),
    ("mp_order_number", 600, "is 600: it must be text"),
    ("mp_order_number", "..", "is '..': a URL cannot carry it"),
    ("mp_order_number", "A\ud800", "holds half a character"),
    ("sales_channel", "", "is blank"),
    ("sales_channel", ["US"], "is a list: it must be text"),
    ("customer", "Jane Smith", "is a text of 10 characters: it must be an object"),
    ("shipping_address", [], "is a list: it must be an object"),
    ("currency", "usd", "is 'usd': it must be a currency code"),
    ("currency", "EURO", "is 'EURO'"),
    ("currency", 978, "is 978"),
    ("currency", "ÄÖÜ", "is a text of 3 characters"),
    ("marketplace_state", "SHIPED", "is 'SHIPED': it must be one of PENDING, AWAITING_SHIPMENT, SHIPPED"),
    ("marketplace_state", True, "is true"),
    ("marketplace_state", {}, "is an object"),
    ("order_lines", [], "is empty"),
    ("order_lines", {"0": LINE}, "is an object: it must be a list"),
    ("order_lines", "none", "is a text of 4 characters: it must be a list"),
]
WRONG_IN_A_LINE = [
    ("quantity", 0, "is 0: it must be a whole number of at least 1"),
    ("quantity", -5, "is -5"),
    ("quantity", True, "is true"),
    ("quantity", 2.0, "is 2.0"),
    ("quantity", "2", "is '2'"),
    ("sku", " ", "is blank"),
    ("sku", 17, "is 17: it must be text"),
    ("mp_line_number", "x" * 129, "has 129 characters"),
    ("mp_line_number", 1, "is 1: it must be text"),
    ("unit_price", float("nan"), "is nan: it must be a number"),
    ("unit_price", float("inf"), "is inf"),
    ("unit_price", Decimal("NaN"), "is NaN"),
    ("unit_price", "9.99", "is '9.99'"),
    ("unit_price", False, "is false"),
    ("unit_price", None, "is null: it must be a number"),
]


@pytest.mark.parametrize(("field", "value", "problem"), WRONG + WRONG_IN_A_LINE)
def test_a_field_with_a_wrong_value_is_named(field: str, value: Any, problem: str) -> None:
    in_line = field in {*LINE}
    [found] = order_problems(with_line(**{field: value}) if in_line else ORDER | {field: value})
    assert found.startswith(f"order_lines[0].{field} {problem}" if in_line else f"{field} {problem}")


@pytest.mark.parametrize(
    ("value", "what_to_do"),
    [
        ("2024-05-01T23:52:01+00:00", "; write 2024-05-01T23:52:01Z"),
        ("2024-05-01T23:52:01.5-05:00", "; write 2024-05-02T04:52:01Z"),
        ("2024-05-01 23:52:01Z", "; write 2024-05-01T23:52:01Z"),
        ("20240501T235201Z", "; write 2024-05-01T23:52:01Z"),
        ("2024-05-01T23:52:01", "; this has no time zone"),
        ("0001-01-01T00:00:00+09:00", ""),  # cannot be moved to UTC
        ("2024-13-01T00:00:00+00:00", ""),
    ],
)
def test_an_instant_in_another_form_comes_with_how_to_write_it(value: str, what_to_do: str) -> None:
    form = "it must be a time in UTC with a Z, such as 2024-05-01T23:52:01Z"
    problems = order_problems(ORDER | {"purchase_date": value})
    assert problems == [f"purchase_date is {value!r}: {form}{what_to_do}"]


@pytest.mark.parametrize("name", ["purchase_date", *INSTANTS])
@pytest.mark.parametrize(
    "value",
    [
        "2024-05-01T23:52:01",
        "2024-05-01T23:52:01+00:00",
        "2024-05-01T23:52:01z",
        "2024-05-01 23:52:01Z",
        "2024-05-01T23:52Z",
        "2024-05-01",
        "2024-05-01T23:52:01Z\n",
        "2023-02-29T00:00:00Z",
        "2024-13-01T00:00:00Z",
        "2024-05-01T25:00:00Z",
        "٢٠٢٤-05-01T00:00:00Z",
        "",
        1714607521,
    ],
)
def test_a_time_that_is_not_in_utc_with_a_z_is_named(name: str, value: Any) -> None:
    [found] = order_problems(ORDER | {name: value})
    assert found.startswith(f"{name} is ")


def test_a_line_that_is_no_object_or_comes_twice_is_named_with_its_place() -> None:
    lines = [LINE, None, LINE | {"mp_line_number": "2"}, LINE]
    assert order_problems(ORDER | {"order_lines": lines}) == [
        "order_lines[1] is null: it must be an object",
        "order_lines[3].mp_line_number is the same as that of order_lines[0]",
    ]


@pytest.mark.parametrize("value", [None, "text", 17, [], [ORDER]])
def test_what_is_not_an_object_is_no_order(value: Any) -> None:
    [problem] = order_problems(value)
    assert problem.endswith("it must be an object")


def test_an_order_is_refused_by_number_with_all_its_problems_at_once() -> None:
    with pytest.raises(InputError) as caught:
        check_order(with_line(quantity=0) | {"currency": "usd", "sales_channel": ""})
    text = str(caught.value)
    assert text.startswith("Order '600A' was not sent: sales_channel is blank")
    assert "; currency is 'usd'" in text
    assert "; order_lines[0].quantity is 0" in text


@pytest.mark.parametrize("order", [None, {}, {"mp_order_number": 17}, {"mp_order_number": ""}])
def test_an_order_without_a_number_is_refused_as_such(order: Any) -> None:
    with pytest.raises(InputError, match="An order without a number was not sent"):
        check_order(order)


@pytest.mark.parametrize("price", [10**399, Decimal("sNaN")])
def test_a_price_that_cannot_be_checked_refuses_its_order_and_no_other(price: Any) -> None:
    with pytest.raises(InputError, match="Order '600A' was not sent: it could not be checked"):
        check_order(with_line(unit_price=price))


def test_many_problems_are_cut_short() -> None:
    lines = [LINE | {"mp_line_number": str(number), "quantity": 0} for number in range(1000)]
    with pytest.raises(InputError, match=r"; and 990 more$"):
        check_order(ORDER | {"order_lines": lines})
    with pytest.raises(InputError, match=r"; and 20 more$"):
        check_return("A", "R", {"return_lines": [1] * 30})


@pytest.mark.parametrize("name", [*list(ORDER)[1:], *INSTANTS])  # an order number is shown as it is
@pytest.mark.parametrize(
    "slipped", ["Jane Smith", "jane@example.com", "12 Elm St, Springfield", {"full_name": "Jane Smith"}]
)
def test_personal_data_that_slipped_into_a_field_is_not_shown(name: str, slipped: Any) -> None:
    text = json.dumps(order_problems(ORDER | {name: slipped}) + order_problems(with_line(quantity=slipped)))
    for part in ("Jane", "jane", "example", "Elm", "Springfield"):
        assert part not in text


RETURN_LINE: dict[str, Any] = {"mp_return_line_number": "R-1", "mp_order_line_number": "1", "quantity": 2}
RETURN: dict[str, Any] = {"return_lines": [RETURN_LINE]}


def with_return_line(**changes: Any) -> dict[str, Any]:
    line = RETURN_LINE | changes
    return {"return_lines": [{name: value for name, value in line.items() if value is not LEFT_OUT}]}


@pytest.mark.parametrize(
    "return_",
    [
        RETURN,
        {"return_lines": (RETURN_LINE,)},
        {"return_lines": [RETURN_LINE, RETURN_LINE | {"mp_return_line_number": "R-2"}]},  # of one order line
        RETURN | {"request_date": "2024-02-29", "respond_date": "2024-05-17"},
        RETURN | {"request_date": None, "return_type": None, "shipping_address": None},
        RETURN | {"return_type": "NO_RETURN"},
        RETURN | {"mp_order_number": "A", "mp_return_number": "R"},
        RETURN | {"shipping_address": {}, "customer_email": "", "unknown": [1]},
        with_return_line(preauthorized=True, unknown={}),
        with_return_line(preauthorized=None),
        with_return_line(mp_return_line_number="x" * 128, mp_order_line_number="ü/ %"),
    ],
)
def test_a_return_that_feedamp_takes_has_no_problem(return_: dict[str, Any]) -> None:
    assert return_problems("A", "R", return_) == []
    check_return("A", "R", return_)


@pytest.mark.parametrize(
    ("return_", "named"),
    [
        (None, "it must be an object"),
        ([RETURN_LINE], "it must be an object"),
        ({}, "return_lines must be a list with at least one line"),
        ({"return_lines": []}, "return_lines must be a list"),
        ({"return_lines": {}}, "return_lines must be a list"),
        ({"return_lines": "line"}, "return_lines must be a list"),
        ({"return_lines": [RETURN_LINE, "line"]}, "return_lines[1] must be an object"),
        ({"return_lines": [RETURN_LINE] * 2}, "return_lines[1].mp_return_line_number is the same"),
        (RETURN | {"request_date": "2024-5-1"}, "request_date must be a date"),
        (RETURN | {"request_date": "20240501"}, "request_date must be a date"),
        (RETURN | {"request_date": "2023-02-29"}, "request_date must be a date"),
        (RETURN | {"respond_date": "2024-05-17T00:00:00Z"}, "respond_date must be a date"),
        (RETURN | {"respond_date": 20240517}, "respond_date must be a date"),
        (RETURN | {"return_type": "ship"}, "return_type must be one of SHIP, NO_RETURN, IN_STORE"),
        (RETURN | {"return_type": ["SHIP"]}, "return_type must be one of"),
        (RETURN | {"mp_order_number": "B"}, "mp_order_number in the body is not that of the path"),
        (RETURN | {"mp_return_number": "B"}, "mp_return_number in the body is not that of the path"),
        (RETURN | {"shipping_address": "Jane"}, "shipping_address must be an object"),
    ],
)
def test_a_return_that_feedamp_refuses_has_one_problem_that_names_the_field(return_: Any, named: str) -> None:
    [problem] = return_problems("A", "R", return_)
    assert problem.startswith(named)


@pytest.mark.parametrize(
    ("field", "values", "must"),
    [
        ("mp_return_line_number", [LEFT_OUT, None, "", " ", 1], "must be text of 1 to 128 characters"),
        ("mp_order_line_number", [LEFT_OUT, "x" * 129], "must be text of 1 to 128 characters"),
        ("quantity", [LEFT_OUT, None, 0, True, 1.0, "1"], "must be a whole number of at least 1"),
        ("preauthorized", ["yes", 1], "must be true or false"),
    ],
)
def test_a_line_of_a_return_that_feedamp_refuses_is_named(field: str, values: list[Any], must: str) -> None:
    for value in values:
        assert return_problems("A", "R", with_return_line(**{field: value})) == [
            f"return_lines[0].{field} {must}"
        ]


@pytest.mark.parametrize("number", ["", " ", "x" * 129, None, 7])
def test_both_numbers_must_be_texts_that_feedamp_takes(number: Any) -> None:
    assert return_problems(number, number, RETURN) == [
        "mp_order_number must be text of 1 to 128 characters",
        "mp_return_number must be text of 1 to 128 characters",
    ]


def test_a_return_is_refused_with_all_its_problems_at_once_and_without_a_value() -> None:
    person = {"mp_order_line_number": "Jane Smith" * 20, "quantity": "Jane", "preauthorized": "Jane"}
    bad = {"return_lines": [person, person], "request_date": "Jane", "return_type": "Jane"}
    with pytest.raises(InputError) as caught:
        check_return("A", "R", bad)
    text = str(caught.value)
    assert text.startswith("Return 'R' of order 'A' was not sent: ")
    for field in ("request_date", "return_type", "[0].quantity", "[1].mp_order_line_number"):
        assert field in text
    assert "Jane" not in text
