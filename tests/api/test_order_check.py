from __future__ import annotations

import json
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest

from airflow_provider_feedamp.api.checks import check_order, order_problems
from airflow_provider_feedamp.exceptions import InputError

LINE: dict[str, Any] = {"mp_line_number": "1", "sku": "S", "quantity": 4, "unit_price": 59.99}
ORDER: dict[str, Any] = {
    "mp_order_number": "600A",
    "sales_channel": "US",
    "customer": {"full_name": "Jane Smith", "email": "jane@example.com"},
    "purchase_date": "2024-05-01T23:52:01Z",
    "currency": "USD",
    "shipping_address": {"city": "Springfield"},
    "order_lines": [LINE],
    "marketplace_state": "AWAITING_SHIPMENT",
}
INSTANTS = ["earliest_ship_date", "latest_ship_date", "earliest_delivery_date", "latest_delivery_date"]
ABSENT = object()


def with_line(**fields: Any) -> dict[str, Any]:
    return ORDER | {"order_lines": [{k: v for k, v in (LINE | fields).items() if v is not ABSENT}]}


@pytest.mark.parametrize(
    "order",
    [
        ORDER,
        MappingProxyType(ORDER),
        ORDER | {"unknown": None, "location": None, "delivery_notes": ""},
        ORDER | {"mp_order_number": "A/1 ü%"},
        ORDER | {"mp_order_number": "x" * 128},
        ORDER | {"purchase_date": "2024-02-29T00:00:00.123Z"},
        ORDER | {"customer": {}, "shipping_address": {}},
        ORDER | {"order_lines": (LINE, LINE | {"mp_line_number": "2"})},
        *[ORDER | {"marketplace_state": state} for state in ("PENDING", "SHIPPED", "CANCELLED")],
        *[ORDER | {name: "2024-05-01T23:52:01Z"} for name in INSTANTS],
        *[ORDER | {name: None} for name in INSTANTS],
        *[with_line(unit_price=price) for price in (0, 12, -1.5, Decimal("19.90"), ABSENT)],
        with_line(quantity=10**12),
    ],
)
def test_an_order_that_can_be_sent_has_no_problems(order: Any) -> None:
    assert order_problems(order) == []
    check_order(order)


@pytest.mark.parametrize("name", list(ORDER))
def test_a_required_field_that_is_missing_or_null_is_named(name: str) -> None:
    without = {other: value for other, value in ORDER.items() if other != name}
    assert order_problems(without) == [f"{name} is missing: it is required"]
    assert order_problems(ORDER | {name: None}) == [f"{name} is null: it is required"]


@pytest.mark.parametrize("name", ["mp_line_number", "sku", "quantity"])
def test_a_required_field_of_a_line_that_is_missing_or_null_is_named(name: str) -> None:
    missing = order_problems(with_line(**{name: ABSENT}))
    assert missing == [f"order_lines[0].{name} is missing: it is required"]
    assert order_problems(with_line(**{name: None})) == [f"order_lines[0].{name} is null: it is required"]


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
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
    ],
)
def test_a_field_with_a_wrong_value_is_named(field: str, value: Any, problem: str) -> None:
    [found] = order_problems(ORDER | {field: value})
    assert found.startswith(f"{field} {problem}")


@pytest.mark.parametrize(
    ("value", "what_to_do"),
    [
        ("2024-05-01T23:52:01+00:00", "write 2024-05-01T23:52:01Z"),
        ("2024-05-01T23:52:01.5-05:00", "write 2024-05-02T04:52:01Z"),
        ("2024-05-01 23:52:01Z", "write 2024-05-01T23:52:01Z"),
        ("20240501T235201Z", "write 2024-05-01T23:52:01Z"),
        ("2024-05-01T23:52:01", "this has no time zone"),
    ],
)
def test_an_instant_in_another_form_is_told_how_to_write_it(value: str, what_to_do: str) -> None:
    [problem] = order_problems(ORDER | {"purchase_date": value})

    assert problem.startswith(f"purchase_date is {value!r}: it must be a time in UTC with a Z, such as ")
    assert problem.endswith(f"; {what_to_do}")


@pytest.mark.parametrize("value", ["0001-01-01T00:00:00+09:00", "2024-13-01T00:00:00+00:00"])
def test_an_instant_that_cannot_be_moved_to_utc_is_a_problem_too(value: str) -> None:
    [problem] = order_problems(ORDER | {"purchase_date": value})

    assert problem.endswith("such as 2024-05-01T23:52:01Z")


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


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"quantity": 0}, "quantity is 0: it must be a whole number of at least 1"),
        ({"quantity": -5}, "quantity is -5"),
        ({"quantity": True}, "quantity is true"),
        ({"quantity": 2.0}, "quantity is 2.0"),
        ({"quantity": "2"}, "quantity is '2'"),
        ({"sku": " "}, "sku is blank"),
        ({"sku": 17}, "sku is 17: it must be text"),
        ({"mp_line_number": "x" * 129}, "mp_line_number has 129 characters"),
        ({"mp_line_number": 1}, "mp_line_number is 1: it must be text"),
        ({"unit_price": float("nan")}, "unit_price is nan: it must be a number"),
        ({"unit_price": float("inf")}, "unit_price is inf"),
        ({"unit_price": Decimal("NaN")}, "unit_price is NaN"),
        ({"unit_price": "9.99"}, "unit_price is '9.99'"),
        ({"unit_price": False}, "unit_price is false"),
        ({"unit_price": None}, "unit_price is null"),
    ],
)
def test_a_line_with_a_wrong_value_is_named_with_its_place(fields: dict[str, Any], problem: str) -> None:
    [found] = order_problems(with_line(**fields))
    assert found.startswith(f"order_lines[0].{problem}")


def test_a_line_that_is_not_an_object_is_named() -> None:
    assert order_problems(ORDER | {"order_lines": [LINE, None]}) == [
        "order_lines[1] is null: it must be an object"
    ]


def test_a_line_number_that_comes_twice_is_named_with_both_places() -> None:
    lines = [LINE, LINE | {"mp_line_number": "2"}, LINE]
    assert order_problems(ORDER | {"order_lines": lines}) == [
        "order_lines[2].mp_line_number is the same as that of order_lines[0]"
    ]


@pytest.mark.parametrize("value", [None, "text", 17, [], [ORDER]])
def test_what_is_not_an_object_is_no_order(value: Any) -> None:
    [problem] = order_problems(value)
    assert problem.endswith("it must be an object")


def test_all_problems_are_told_at_once() -> None:
    order = with_line(quantity=0) | {"currency": "usd", "sales_channel": ""}
    assert len(order_problems(order)) == 3


def test_an_order_with_problems_is_refused_by_number_with_all_of_them() -> None:
    with pytest.raises(InputError) as caught:
        check_order(with_line(quantity=0) | {"currency": "usd"})
    text = str(caught.value)
    assert text.startswith("Order '600A' was not sent: currency is 'usd'")
    assert "; order_lines[0].quantity is 0" in text


@pytest.mark.parametrize("order", [None, {}, {"mp_order_number": 17}, {"mp_order_number": ""}])
def test_an_order_without_a_number_is_refused_as_such(order: Any) -> None:
    with pytest.raises(InputError, match="An order without a number was not sent"):
        check_order(order)


def test_many_problems_are_cut_short() -> None:
    lines = [LINE | {"mp_line_number": str(number), "quantity": 0} for number in range(1000)]
    with pytest.raises(InputError, match=r"; and 990 more$"):
        check_order(ORDER | {"order_lines": lines})


@pytest.mark.parametrize("name", [*list(ORDER)[1:], *INSTANTS])  # an order number is shown as it is
@pytest.mark.parametrize(
    "slipped", ["Jane Smith", "jane@example.com", "12 Elm St, Springfield", {"full_name": "Jane Smith"}]
)
def test_personal_data_that_slipped_into_a_field_is_not_shown(name: str, slipped: Any) -> None:
    text = json.dumps(order_problems(ORDER | {name: slipped}) + order_problems(with_line(quantity=slipped)))
    for part in ("Jane", "jane", "example", "Elm", "Springfield"):
        assert part not in text
