from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from airflow_provider_feedamp.tokens.cache import CACHE
from airflow_provider_feedamp.tokens.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_feedamp.sandbox.server import RunningSandbox


class SetConnection(Protocol):
    """Sets the connection feedamp_default: a dictionary as JSON, a text as it is."""

    def __call__(self, connection: dict[str, Any] | str) -> None: ...


@pytest.fixture(autouse=True)
def _as_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AIRFLOW__FEEDAMP__TOKEN_STORE", "memory")
    CACHE.clear()
    open_store.cache_clear()
    yield
    CACHE.clear()
    open_store.cache_clear()


@pytest.fixture
def set_connection(monkeypatch: pytest.MonkeyPatch) -> SetConnection:
    def set_it(connection: dict[str, Any] | str) -> None:
        text = connection if isinstance(connection, str) else json.dumps(connection)
        monkeypatch.setenv("AIRFLOW_CONN_FEEDAMP_DEFAULT", text)

    return set_it


@pytest.fixture
def feedamp(sandbox: RunningSandbox, set_connection: SetConnection) -> RunningSandbox:
    """Make the sandbox the connection feedamp_default of the seller hooli, with tokens kept in memory."""
    set_connection(sandbox.connection("hooli"))
    return sandbox
