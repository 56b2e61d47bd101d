from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.databases import mariadb, postgresql

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_feedamp.sandbox.server import RunningSandbox

__all__ = ["mariadb", "postgresql", "sandbox"]


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    """Serve a fresh local FeedAMP with the sellers acme and globex."""
    from airflow_provider_feedamp.sandbox.server import serve

    with serve() as running:
        yield running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the rooms that know next to nothing of Airflow, and put those that take long first.

    Of two workers one would otherwise be left with a whole Airflow at the end, and the other with nothing.
    """
    tests = Path(__file__).parent
    for item in items:
        # The last three meet Airflow in the examples and the command's own run, which every Airflow gets.
        rooms = ("api", "tokens", "bulk", "cli", "transfers")
        if any(item.path.is_relative_to(tests / room) for room in rooms) and not _is_slow(item, tests):
            item.add_marker(pytest.mark.plain)
    items.sort(key=lambda item: not _is_slow(item, tests))


def _is_slow(item: pytest.Item, tests: Path) -> bool:
    return item.path.is_relative_to(tests / "system") or item.get_closest_marker("processes") is not None
