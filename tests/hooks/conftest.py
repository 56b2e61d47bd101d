from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from airflow_provider_feedamp.exceptions import TokenStoreError
from airflow_provider_feedamp.tokens.store import MemoryStore, open_store
from tests.conftest import forget

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from airflow_provider_feedamp.tokens.records import TokenKey, TokenRecord


class SetConnection(Protocol):
    """Sets the connection feedamp_default: a dictionary as JSON, a text as it is."""

    def __call__(self, connection: dict[str, Any] | str) -> None: ...


@pytest.fixture(autouse=True)
def _as_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AIRFLOW__FEEDAMP__TOKEN_STORE", "memory")
    forget()
    yield
    forget()


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


def run_python(home: Path, script: str, *arguments: str, **settings: str) -> str:
    """Run a script in a process of its own, with nothing of this one's Airflow; return what it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    environment |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__FERNET_KEY": "",
        "NO_PROXY": "127.0.0.1",
        **settings,
    }
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class FailingStore(MemoryStore):
    """A store of somebody's own: it fails at the write of that number, and then as often as said.

    :param writes: How many writes succeed before.
    :param failures: How many fail then.
    """

    def __init__(self, conn_id: str | None = None) -> None:
        super().__init__(conn_id)
        self.writes, self.failures = 10**9, 0
        self.unreadable = False

    def read(self, key: TokenKey) -> TokenRecord | None:
        if self.unreadable:
            raise TokenStoreError("The token store cannot be read now.")
        return super().read(key)

    def write(self, record: TokenRecord, *, expected: int | None) -> TokenRecord:
        self.writes -= 1
        if self.writes < 0 and self.failures > 0:
            self.failures -= 1
            raise TokenStoreError("The token store takes nothing now.")
        return super().write(record, expected=expected)


@pytest.fixture
def failing(feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> FailingStore:
    name = f"{__name__}.FailingStore"
    monkeypatch.setenv("AIRFLOW__FEEDAMP__TOKEN_STORE", name)
    monkeypatch.setattr("airflow_provider_feedamp.tokens.pending._PAUSES", (0.0, 0.0))
    store = open_store(name, None)
    assert isinstance(store, FailingStore)
    return store
