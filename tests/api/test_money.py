from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_feedamp.api.types import refund_total
from airflow_provider_feedamp.exceptions import ApiError

pytestmark = pytest.mark.once


def refund(*lines: dict[str, Any]) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(json.dumps({"merchant_refund_lines": lines}))
    return parsed


def test_amounts_add_up_to_the_cent() -> None:
    line = {"currency": "USD", "item_refund": 0.1, "item_tax_refund": 0.2}
    assert refund_total(refund(*[line] * 1000)) == {"USD": Decimal("300.0")}


def test_currencies_are_kept_apart() -> None:
    lines = [{"currency": "USD", "item_refund": 6.99}, {"currency": "EUR", "shipping_refund": 1}]
    assert refund_total(refund(*lines)) == {"USD": Decimal("6.99"), "EUR": Decimal(1)}


def test_all_that_goes_to_the_customer_counts_and_a_discount_does_not() -> None:
    line = {
        "currency": "USD",
        "item_refund": 1,
        "item_tax_refund": 0.1,
        "shipping_refund": 0.01,
        "shipping_tax_refund": 0.001,
        "discount_refund": 500,
        "refund_quantity": 7,
    }
    assert refund_total(refund(line)) == {"USD": Decimal("1.111")}
    assert refund_total(refund(line), ["discount_refund"]) == {"USD": Decimal(500)}


@pytest.mark.parametrize(
    ("amount", "total"),
    [("6.990", "6.990"), (None, "0"), (1e2, "100"), (123456789012.34, "123456789012.34"), (-0.5, "-0.5")],
)
def test_an_amount_keeps_its_digits(amount: Any, total: str) -> None:
    assert refund_total(refund({"currency": "USD", "item_refund": amount})) == {"USD": Decimal(total)}


@pytest.mark.parametrize("amount", [True, "much", "", [], {}, "NaN", "Infinity"])
def test_an_amount_that_is_no_number_is_an_error_that_does_not_show_it(amount: Any) -> None:
    with pytest.raises(ApiError, match=r"^FeedAMP gave an amount that is not a number: item_refund\.$"):
        refund_total(refund({"currency": "USD", "item_refund": amount}))


@pytest.mark.parametrize("nothing", [{}, {"merchant_refund_lines": None}, {"merchant_refund_lines": []}])
def test_a_refund_without_lines_is_no_money(nothing: dict[str, Any]) -> None:
    assert refund_total(nothing) == {}
