from __future__ import annotations

import subprocess
import sys

import pytest

from airflow_provider_feedamp.api.client import READ_ONLY_ORDER_FIELDS
from airflow_provider_feedamp.api.types import CreatedReturn, MarketplaceState, PlacedOrder


@pytest.mark.parametrize("heavy", ["requests", "pydantic", "sqlalchemy", "airflow"])
def test_the_types_can_be_imported_without_anything_heavy(heavy: str) -> None:
    code = f"import sys, airflow_provider_feedamp.api.types; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_whole_api_can_be_imported_without_airflow() -> None:
    code = "import sys, airflow_provider_feedamp.api.client; sys.exit('airflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_state_can_be_used_as_the_text_that_is_sent() -> None:
    assert f"{MarketplaceState.AWAITING_SHIPMENT}" == "AWAITING_SHIPMENT"


def test_whether_the_marketplace_ships_an_order_is_put_back_with_it() -> None:
    assert "is_marketplace_fulfilled" not in READ_ONLY_ORDER_FIELDS


def test_a_placed_order_does_not_show_its_customer() -> None:
    placed = PlacedOrder("A1", True, {"customer": {"full_name": "Jane Smith"}})
    assert "Jane" not in repr(placed)


def test_a_created_return_does_not_show_its_customer() -> None:
    created = CreatedReturn("A1", "R1", True, {"customer_email": "jane@example.com"})
    assert "jane" not in repr(created)
