from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.fernet import Fernet

from tests.databases import pgbouncer
from tests.stores import sql_support
from tests.stores.fernet import forget_fernet_keys, set_fernet_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.databases import DatabaseServer

__all__ = ["pgbouncer"]


@pytest.fixture(autouse=True)
def _forget_fernet_keys() -> Iterator[None]:
    """Let no test's keys reach the next one."""
    yield
    forget_fernet_keys()


@pytest.fixture
def fernet_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give Airflow a key to encrypt with."""
    set_fernet_key(monkeypatch, Fernet.generate_key().decode())


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def database(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Set the connection to a database without our table, and return its kind."""
    if request.param == "sqlite":
        monkeypatch.setenv(sql_support.VARIABLE, sql_support.sqlite(tmp_path))
    else:
        _use(request.getfixturevalue(request.param), monkeypatch)
    return str(request.param)


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> DatabaseServer:
    """Return a server that the test may stop and start, with the connection set to it, without our table."""
    return _use(request.getfixturevalue(request.param), monkeypatch)


def _use(server: DatabaseServer, monkeypatch: pytest.MonkeyPatch) -> DatabaseServer:
    monkeypatch.setenv(sql_support.VARIABLE, server.connection)
    sql_support.execute("DROP TABLE IF EXISTS feedamp_tokens")
    return server
