"""The database behind the SQL store: which connections it takes, and one engine for each process."""

from __future__ import annotations

import json
import os
import signal
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook
from cryptography.fernet import Fernet
from sqlalchemy import text

from airflow_provider_feedamp.exceptions import ConfigurationError, TokenStoreError
from airflow_provider_feedamp.stores import sql_database
from airflow_provider_feedamp.stores.sql import SqlStore
from airflow_provider_feedamp.stores.sql_database import SqlDatabase
from airflow_provider_feedamp.tokens.models import TokenKey
from tests.stores.fernet import set_fernet_key
from tests.stores.sql_support import CONN_ID, KEY, VARIABLE, execute, held, record, sqlite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.databases import DatabaseServer

SESSION = {"postgres": "SELECT pg_backend_pid()", "mysql": "SELECT connection_id()"}


def use(database: SqlDatabase, query: str = "SELECT 1") -> int:
    """Run a query and return its one number."""
    with database.connect("count") as connection:
        return int(connection.execute(text(query)).scalar() or 0)


def exit_code_of_child(work: Callable[[], object]) -> int:
    """Run the work in a forked child that gets 30 seconds, and return its exit code (1: it failed)."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(30)
            code = int(bool(work()))
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# Which connections it takes


@pytest.mark.parametrize("conn_id", [None, ""])
def test_a_store_without_a_connection_is_refused_at_once(conn_id: str | None) -> None:
    with pytest.raises(ConfigurationError, match="token_store_conn_id"):
        SqlStore(conn_id)


@pytest.mark.parametrize(
    ("connection", "complaint"),
    [
        ({"conn_type": "http", "host": "127.0.0.1"}, "no SQL connection"),
        ({"conn_type": "nobody_has_this"}, "no hook can be loaded for it.*provider"),
        pytest.param(
            {"conn_type": "mysql", "host": "127.0.0.1", "extra": {"client": "pymysql"}},
            "driver installed",
            marks=pytest.mark.skipif(
                find_spec("airflow.providers.mysql") is None, reason="the MySQL provider is not installed"
            ),
        ),
    ],
)
def test_a_connection_that_leads_to_no_database_is_refused(
    monkeypatch: pytest.MonkeyPatch, connection: dict[str, object], complaint: str
) -> None:
    # As if PyMySQL were not installed.
    monkeypatch.setitem(sys.modules, "pymysql", None)
    monkeypatch.setenv(VARIABLE, json.dumps(connection))

    with pytest.raises(ConfigurationError, match=rf"'tokens'.*{complaint}"):
        SqlStore(CONN_ID).read(KEY)


def test_a_connection_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BaseHook, "get_connection", _raise(AirflowNotFoundException("tokens")))

    with pytest.raises(ConfigurationError, match="There is no Airflow connection 'tokens'"):
        SqlStore(CONN_ID).read(KEY)


def test_a_connection_that_cannot_be_looked_up_now_is_worth_another_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(BaseHook, "get_connection", _raise(OSError("the API server is down")))

    with pytest.raises(TokenStoreError, match=r"'tokens'.*cannot be read now") as failed:
        SqlStore(CONN_ID).read(KEY)

    assert failed.value.retryable


def test_a_database_of_another_kind_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, sqlite(tmp_path))
    monkeypatch.delitem(sql_database._CLOCKS, "sqlite")

    with pytest.raises(ConfigurationError, match="leads to 'sqlite'"):
        SqlStore(CONN_ID).read(KEY)


def test_making_a_store_looks_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BaseHook, "get_connection", _raise(AssertionError("looked up")))

    SqlStore(CONN_ID)


# One engine for each process


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> DatabaseServer:
    """Return a running server, with the connection set to it."""
    running: DatabaseServer = request.getfixturevalue(request.param)
    monkeypatch.setenv(VARIABLE, running.connection)
    return running


def test_a_mysql_connection_with_a_narrow_character_set_takes_any_sellers_name(
    mariadb: DatabaseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = {**json.loads(mariadb.connection), "extra": {"charset": "latin1"}}
    monkeypatch.setenv(VARIABLE, json.dumps(narrow))
    execute("DROP TABLE IF EXISTS feedamp_tokens")
    set_fernet_key(monkeypatch, Fernet.generate_key().decode())
    store, key = SqlStore(CONN_ID), TokenKey(KEY.token_url, "client-of-latin1", "商店 😀")

    with held(store, key):
        store.write(record(key), expected=None)

    assert store.keys(key.token_url, key.client_id) == [key]
    store.delete(key)


def test_a_process_keeps_its_session_of_the_database(server: DatabaseServer) -> None:
    database = SqlDatabase(CONN_ID)

    assert use(database, SESSION[server.conn_type]) == use(database, SESSION[server.conn_type])


def test_a_forked_child_has_a_session_of_its_own_and_leaves_its_parents_alone(server: DatabaseServer) -> None:
    database = SqlDatabase(CONN_ID)
    session = use(database, SESSION[server.conn_type])

    shared = exit_code_of_child(lambda: use(database, SESSION[server.conn_type]) == session)

    assert shared == 0
    assert use(database, SESSION[server.conn_type]) == session


def test_a_child_forked_while_an_engine_is_being_made_can_make_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, sqlite(tmp_path))

    with sql_database._GUARD:
        code = exit_code_of_child(lambda: use(SqlDatabase(CONN_ID)) != 1)

    assert code == 0


def _raise(error: Exception) -> Callable[..., object]:
    def fail(*arguments: object, **options: object) -> object:
        raise error

    return fail
