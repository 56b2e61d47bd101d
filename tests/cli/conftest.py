from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

# Airflow sets up its logging when it is imported: not while a test has taken its streams away.
from airflow_provider_feedamp.hooks.authorisation import Authorisation
from airflow_provider_feedamp.tokens.cache import CACHE
from airflow_provider_feedamp.tokens.store import open_store
from tests.bulk.feedamps import write_orders
from tests.cli.support import KEPT, Person, Shop
from tests.operators.support import order

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_feedamp.hooks.authorisation import Started
    from airflow_provider_feedamp.sandbox.server import RunningSandbox


@pytest.fixture(autouse=True)
def _as_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")  # which the command would set, and leave behind
    CACHE.clear()
    open_store.cache_clear()
    yield
    CACHE.clear()
    open_store.cache_clear()


@pytest.fixture
def shop(sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """Make the sandbox the connection feedamp_default of the seller hooli; its sellers approve at once."""
    sandbox.control.change(approval="auto", rotation="rotate")
    connection = sandbox.connection("hooli")
    monkeypatch.setenv("AIRFLOW__FEEDAMP__TOKEN_STORE", KEPT)
    monkeypatch.setenv("AIRFLOW_CONN_FEEDAMP_DEFAULT", json.dumps(connection))
    return Shop(sandbox)


@pytest.fixture
def person(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Person:
    """Return who reads the URL from the screen and pastes what the browser came back to."""
    person, real = Person(shop), Authorisation.start

    def start(self: Authorisation, redirect_url: str, seconds: float = 600) -> Started:
        started = real(self, redirect_url, seconds)
        person.state = started.state
        return started

    monkeypatch.setattr(Authorisation, "start", start)
    monkeypatch.setattr("airflow_provider_feedamp.cli.sellers.prompt_secret", person.pastes)
    return person


@pytest.fixture
def source(tmp_path: Path) -> str:
    """A file of five orders, of which the third is refused."""
    orders = [order(f"A-{line}", currency="?" if line == 3 else "USD") for line in range(1, 6)]
    return write_orders(tmp_path / "orders.ndjson", orders)
