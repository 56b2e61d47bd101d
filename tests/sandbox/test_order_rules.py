"""What the bodies of Place Order (A4.4) and Report Errors (A4.7) must be."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_feedamp.sandbox.error_rules import error_problems
from airflow_provider_feedamp.sandbox.order_rules import order_problems
from tests.sandbox.caller import order

REQUIRED = [
    "mp_order_number",
    "sales_channel",
    "customer",
    "purchase_date",
    "currency",
    "shipping_address",
    "order_lines",
    "marketplace_state",
]


def found(body: object, number: str = "600A", *, strict: bool = False) -> list[tuple[str, str]]:
    problems = order_problems(body, number, strict_fields=strict)
    return [(each["code"], each["message"].split("'")[1]) for each in problems]


def line(**changes: Any) -> list[dict[str, Any]]:
    return [{"mp_line_number": "L1", "sku": "S", "quantity": 1, **changes}]


def test_a_whole_order_has_no_problem() -> None:
    assert found(order()) == []


@pytest.mark.parametrize("absent", [False, True], ids=["null", "absent"])
@pytest.mark.parametrize("name", REQUIRED)
def test_a_required_field_must_be_there(name: str, absent: bool) -> None:
    body = order()
    body[name] = None
    if absent:
        del body[name]
    assert ("MISSING_REQUIRED_FIELD", name) in found(body)


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("mp_order_number", 600, "FIELD_INCORRECT_DATA_TYPE"),
        ("mp_order_number", "", "FIELD_INVALID_VALUE"),
        ("mp_order_number", "x" * 129, "FIELD_INVALID_VALUE"),
        ("sales_channel", "", "FIELD_INVALID_VALUE"),
        ("customer", "Jane", "FIELD_INCORRECT_DATA_TYPE"),
        ("purchase_date", "2024-05-01", "FIELD_INVALID_VALUE"),
        ("purchase_date", "2024-05-01T23:52:01", "FIELD_INVALID_VALUE"),
        ("purchase_date", "2024-05-01T23:52:01+00:00", "FIELD_INVALID_VALUE"),
        ("purchase_date", "2024-02-30T00:00:00Z", "FIELD_INVALID_VALUE"),
        ("currency", "usd", "FIELD_INVALID_VALUE"),
        ("shipping_address", [], "FIELD_INCORRECT_DATA_TYPE"),
        ("order_lines", {}, "FIELD_INCORRECT_DATA_TYPE"),
        ("order_lines", [], "FIELD_INVALID_VALUE"),
        ("marketplace_state", "SENT", "FIELD_INVALID_VALUE"),
        ("marketplace_state", ["SHIPPED"], "FIELD_INVALID_VALUE"),
        ("latest_ship_date", "tomorrow", "FIELD_INVALID_VALUE"),
        ("is_marketplace_fulfilled", "no", "FIELD_INCORRECT_DATA_TYPE"),
    ],
)
def test_a_field_that_does_not_fit_is_named_with_its_code(name: str, value: Any, code: str) -> None:
    assert found(order(**{name: value})) == [(code, name)]


@pytest.mark.parametrize(
    ("changes", "code", "name"),
    [
        ({"quantity": 0}, "FIELD_INVALID_VALUE", "quantity"),
        ({"quantity": -3}, "FIELD_INVALID_VALUE", "quantity"),
        ({"quantity": True}, "FIELD_INCORRECT_DATA_TYPE", "quantity"),
        ({"quantity": 1.0}, "FIELD_INCORRECT_DATA_TYPE", "quantity"),
        ({"sku": ""}, "FIELD_INVALID_VALUE", "sku"),
        ({"mp_line_number": "x" * 129}, "FIELD_INVALID_VALUE", "mp_line_number"),
        ({"mp_line_number": None}, "MISSING_REQUIRED_FIELD", "mp_line_number"),
        ({"unit_price": "1.10"}, "FIELD_INCORRECT_DATA_TYPE", "unit_price"),
    ],
)
def test_a_line_that_does_not_fit_is_named_with_its_place(
    changes: dict[str, Any], code: str, name: str
) -> None:
    assert found(order(order_lines=line(**changes))) == [(code, f"order_lines[0].{name}")]


def test_line_numbers_are_unique_in_an_order() -> None:
    lines = line() + line()
    assert found(order(order_lines=lines)) == [("FIELD_INVALID_VALUE", "order_lines[1].mp_line_number")]


def test_a_line_is_an_object() -> None:
    assert found(order(order_lines=["L1"])) == [("FIELD_INCORRECT_DATA_TYPE", "order_lines[0]")]


def test_the_number_in_the_body_is_the_one_in_the_path() -> None:
    assert found(order("600A"), "600B") == [("FIELD_INVALID_VALUE", "mp_order_number")]


def test_an_order_is_an_object() -> None:
    assert [each["code"] for each in order_problems([order()], "600A", strict_fields=False)] == [
        "INVALID_PAYLOAD"
    ]


@pytest.mark.parametrize("name", ["gift_message", "status", "fulfillments", "acknowledged", "errors"])
def test_unknown_and_read_only_fields_are_refused_only_when_strict(name: str) -> None:
    assert found(order(**{name: "x"})) == []
    assert found(order(**{name: "x"}), strict=True) == [("UNKNOWN_FIELD_PRESENT", name)]


def test_all_problems_are_told_at_once() -> None:
    body = order(currency=None, sales_channel="", order_lines=line(quantity=0))
    assert len(found(body)) == 3


def test_problems_never_quote_the_order() -> None:
    body = order(customer="Jane A. Smith", sales_channel=7, marketplace_state="Jane")
    assert "Jane" not in str(order_problems(body, "600A", strict_fields=True))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"code": "X", "message": "m"}, "INVALID_PAYLOAD"),
        ([], "INVALID_PAYLOAD"),
        (["X"], "FIELD_INCORRECT_DATA_TYPE"),
        ([{"message": "m"}], "MISSING_REQUIRED_FIELD"),
        ([{"code": "X"}], "MISSING_REQUIRED_FIELD"),
        ([{"code": "X", "message": "m", "mp_line_number": "L9"}], "FIELD_INVALID_VALUE"),
        ([{"code": "X", "message": "m", "debug": {}}], "FIELD_INCORRECT_DATA_TYPE"),
    ],
)
def test_reported_errors_that_do_not_fit_are_refused(body: object, code: str) -> None:
    assert [each["code"] for each in error_problems(body, {"L1": 1}, strict_fields=False)] == [code]


def test_a_reported_error_may_have_any_code_a_line_and_diagnostics() -> None:
    body = [{"code": "ANYTHING", "message": "", "mp_line_number": "L1", "debug": [{"a": 1}]}]
    assert error_problems(body, {"L1": 1}, strict_fields=True) == []
    assert error_problems([{**body[0], "more": 1}], {"L1": 1}, strict_fields=True) != []
