"""The words of the API as types, and its amounts of money."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_feedamp.api.client import READ_ONLY_ORDER_FIELDS
from airflow_provider_feedamp.api.types import CreatedReturn, MarketplaceState, PlacedOrder, refund_total
from airflow_provider_feedamp.exceptions import ApiError


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        *[("types", heavy) for heavy in ("requests", "pydantic", "sqlalchemy", "airflow")],
        ("client", "airflow"),
    ],
)
def test_it_can_be_imported_without_anything_heavy(module: str, heavy: str) -> None:
    code = f"import sys, airflow_provider_feedamp.api.{module}; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_state_can_be_used_as_the_text_that_is_sent() -> None:
    assert f"{MarketplaceState.AWAITING_SHIPMENT}" == "AWAITING_SHIPMENT"


def test_whether_the_marketplace_ships_an_order_is_put_back_with_it() -> None:
    assert "is_marketplace_fulfilled" not in READ_ONLY_ORDER_FIELDS


def test_what_was_taken_does_not_show_its_customer() -> None:
    assert "Jane" not in repr(PlacedOrder("A1", True, {"customer": {"full_name": "Jane Smith"}}))
    assert "jane" not in repr(CreatedReturn("A1", "R1", True, {"customer_email": "jane@example.com"}))


def refund(*lines: dict[str, Any]) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(json.dumps({"merchant_refund_lines": lines}))
    return parsed


def test_amounts_add_up_to_the_cent_and_currencies_are_kept_apart() -> None:
    line = {"currency": "USD", "item_refund": 0.1, "item_tax_refund": 0.2}
    other = {"currency": "EUR", "shipping_refund": 1}
    assert refund_total(refund(*[line] * 1000, other)) == {"USD": Decimal("300.0"), "EUR": Decimal(1)}


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
    assert str(refund_total(refund({"currency": "USD", "item_refund": amount}))["USD"]) in {
        total,
        f"{total}.0",
    }


@pytest.mark.parametrize("amount", [True, "much", "", [], {}, "NaN", "Infinity"])
def test_an_amount_that_is_no_number_is_an_error_that_does_not_show_it(amount: Any) -> None:
    with pytest.raises(ApiError, match=r"^FeedAMP gave an amount that is not a number: item_refund\.$"):
        refund_total(refund({"currency": "USD", "item_refund": amount}))


@pytest.mark.parametrize("nothing", [{}, {"merchant_refund_lines": None}, {"merchant_refund_lines": []}])
def test_a_refund_without_lines_is_no_money(nothing: dict[str, Any]) -> None:
    assert refund_total(nothing) == {}
