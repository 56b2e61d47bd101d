from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.databases import mariadb, missing, postgresql

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_feedamp.sandbox.server import RunningSandbox

__all__ = ["mariadb", "postgresql", "sandbox"]


@pytest.fixture(scope="session")
def one_sandbox() -> Iterator[RunningSandbox]:
    """Serve a local FeedAMP for all tests of this process."""
    from airflow_provider_feedamp.sandbox.server import serve

    with serve() as running:
        yield running


@pytest.fixture
def sandbox(one_sandbox: RunningSandbox) -> RunningSandbox:
    """Return a fresh local FeedAMP with the sellers hooli and globex.

    It is the one of the test before, begun again: its address and its first tokens are the same, so nothing
    that this process keeps by them may stay.
    """
    one_sandbox.control.reset()
    forget()
    return one_sandbox


def forget() -> None:
    """Let this process forget tokens, stores, paces and the triggers' clients, as a new one would."""
    from airflow_provider_feedamp.api import http
    from airflow_provider_feedamp.tokens.cache import CACHE
    from airflow_provider_feedamp.tokens.store import open_store
    from airflow_provider_feedamp.triggers import polling

    CACHE.clear()
    open_store.cache_clear()
    http._pacers.clear()
    polling._clients.clear()


def pytest_report_header() -> list[str]:
    """Say at the start what this machine leaves out, and how to bring it."""
    lacking = "" if os.environ.get("FEEDAMP_TEST_DATABASES") == "no" else ", ".join(missing())
    return (
        [f"left out here: the tests of {lacking}. `bash scripts/databases.sh` brings them"] if lacking else []
    )


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
