from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.sandbox.after_sale import Thing
from tests.sandbox.caller import Caller

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox


@pytest.fixture
def hooli(sandbox: RunningSandbox) -> Caller:
    return Caller(sandbox, "hooli")


@pytest.fixture
def globex(sandbox: RunningSandbox) -> Caller:
    return Caller(sandbox, "globex")


@pytest.fixture
def asked(hooli: Caller) -> Thing:
    """Have a return that is not authorised."""
    return Thing(hooli, "returns")


@pytest.fixture
def refunded(hooli: Caller) -> Thing:
    """Have a refund of all of an order's first line."""
    return Thing(hooli, "refunds")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave these out of the matrix: the sandbox knows no Airflow, and other tests use it in each cell."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.once)
