from __future__ import annotations

import shutil
import sqlite3
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.fernet import Fernet

from tests.airflow_runs import migrated_database
from tests.databases import pgbouncer
from tests.stores import sql_support
from tests.stores.fernet import forget_fernet_keys, set_fernet_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import DatabaseServer

__all__ = ["pgbouncer"]

pytest.register_assert_rewrite("tests.stores.contract")


@pytest.fixture(autouse=True)
def _forget_fernet_keys() -> Iterator[None]:
    """Let no test's keys reach the next one."""
    yield
    forget_fernet_keys()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a metadata database as `airflow db migrate` makes it."""
    source = migrated_database(tmp_path_factory.getbasetemp())
    return Path(shutil.copy(source, tmp_path_factory.mktemp("variables")))


@pytest.fixture(scope="module")
def airflow_database(migrated: Path) -> Iterator[Path]:
    """Let this process's Airflow use the migrated database."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{migrated}")
        reconnect()
        import_module("airflow.models").import_all_models()
        yield migrated
    reconnect()


def reconnect() -> None:
    settings: Any = import_module("airflow.settings")
    settings.dispose_orm()
    settings.configure_vars()
    settings.configure_orm()


@pytest.fixture
def no_variables(airflow_database: Path) -> Path:
    with sqlite3.connect(airflow_database) as connection:
        connection.execute("DELETE FROM variable")
    return airflow_database


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
