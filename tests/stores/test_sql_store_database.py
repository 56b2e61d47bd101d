"""The database behind the SQL store: which connections it takes, and one engine for each process."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook
from sqlalchemy import text

from airflow_provider_feedamp.exceptions import ConfigurationError, TokenStoreError
from airflow_provider_feedamp.tokens import sql_store
from airflow_provider_feedamp.tokens.records import TokenKey
from airflow_provider_feedamp.tokens.sql_store import SqlDatabase, SqlStore
from airflow_provider_feedamp.tokens.store import SUPERVISOR
from tests.stores.sql_support import CONN_ID, KEY, VARIABLE, execute, held, record, sqlite
from tests.tokens.custody import holds_in_child

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_feedamp.exceptions import FeedAmpError
    from tests.databases import DatabaseServer, MariadbServer, Pgbouncer, PostgresqlServer

MYSQL_CLIENTS = ("mysqlclient", "pymysql", "mysql-connector-python")
#: How a server becomes stricter than usual, what its session then says, and how it is as before.
STRICTER = {
    "postgres": (
        "ALTER DATABASE feedamp SET default_transaction_isolation = 'serializable'",
        "SHOW transaction_isolation",
        "ALTER DATABASE feedamp RESET default_transaction_isolation",
    ),
    "mysql": (
        "SET GLOBAL tx_isolation = 'SERIALIZABLE'",
        "SELECT @@tx_isolation",
        "SET GLOBAL tx_isolation = 'REPEATABLE-READ'",
    ),
}
SESSION = {"postgres": "SELECT pg_backend_pid()", "mysql": "SELECT connection_id()"}


def use(database: SqlDatabase, query: str = "SELECT 1") -> int:
    """Run a query and return its one number."""
    with database.connect("count") as connection:
        return int(connection.execute(text(query)).scalar() or 0)


def connect_to(monkeypatch: pytest.MonkeyPatch, connection: str, **extra: Any) -> None:
    """Set the connection to a server, with extras."""
    monkeypatch.setenv(VARIABLE, json.dumps({**json.loads(connection), "extra": extra}))


# Which connections it takes


@pytest.mark.parametrize("conn_id", [None, ""])
def test_a_store_without_a_connection_is_refused_at_once(conn_id: str | None) -> None:
    with pytest.raises(ConfigurationError, match="AIRFLOW__FEEDAMP__TOKEN_STORE_CONN_ID") as refused:
        SqlStore(conn_id)

    assert "extra" not in str(refused.value)


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


@pytest.mark.parametrize(
    ("met", "error", "words"),
    [
        (AirflowNotFoundException("tokens"), ConfigurationError, "There is no Airflow connection 'tokens'"),
        (OSError("the API server is down"), TokenStoreError, r"'tokens'.*cannot be read now"),
    ],
)
def test_a_connection_that_is_not_there_is_refused_and_one_that_cannot_be_read_now_is_worth_another_try(
    monkeypatch: pytest.MonkeyPatch, met: Exception, error: type[FeedAmpError], words: str
) -> None:
    monkeypatch.setattr(BaseHook, "get_connection", _raise(met))

    with pytest.raises(error, match=words) as failed:
        SqlStore(CONN_ID).read(KEY)

    assert failed.value.retryable is (error is TokenStoreError)


def test_a_database_of_another_kind_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, sqlite(tmp_path))
    monkeypatch.delitem(sql_store._CLOCKS, "sqlite")

    with pytest.raises(ConfigurationError, match="leads to 'sqlite'"):
        SqlStore(CONN_ID).read(KEY)


def test_making_a_store_looks_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BaseHook, "get_connection", _raise(AssertionError("looked up")))

    SqlStore(CONN_ID)


# How it connects


def test_a_server_without_tls_is_refused_when_the_connection_asks_for_tls(
    postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect_to(monkeypatch, postgresql.connection, sslmode="verify-full", sslrootcert="system")
    with pytest.raises(TokenStoreError, match=r"read the token record.*OperationalError.*TLS") as refused:
        SqlStore(CONN_ID).read(KEY)
    assert refused.value.retryable

    connect_to(monkeypatch, postgresql.connection, sqlalchemy_query={"sslmode": "require"})
    with pytest.raises(TokenStoreError, match="OperationalError"):
        SqlStore(CONN_ID).read(KEY)


@pytest.mark.parametrize(
    "extra",
    [
        {"client": "mysqlclient", "ssl": {"ca": "/there/is/none"}},
        {"client": "mysqlclient", "ssl_mode": "REQUIRED"},
        {"client": "pymysql", "ssl": {"ca": "/etc/ssl/certs/ca-certificates.crt"}},
        {"client": "pymysql", "ssl_mode": "REQUIRED"},
        {"client": "mysql-connector-python", "ssl_ca": "/there/is/none"},
        {"client": "mysql-connector-python", "ssl_verify_cert": True, "ssl_ca": "/there/is/none"},
    ],
    ids=str,
)
def test_a_mysql_server_without_tls_is_refused_when_the_connection_asks_for_tls(
    mariadb: MariadbServer, monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any]
) -> None:
    # Drivers differ: some refuse by themselves, some do not know the word, some go on in clear.
    connect_to(monkeypatch, mariadb.connection, **extra)

    with pytest.raises(TokenStoreError, match="failed to read the token record"):
        SqlStore(CONN_ID).read(KEY)


@pytest.mark.usefixtures("fernet_key")
def test_the_connection_says_in_which_schema_the_table_is(
    postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgresql.administer("DROP SCHEMA IF EXISTS elsewhere CASCADE", "CREATE SCHEMA elsewhere")
    connect_to(monkeypatch, postgresql.connection, options="-c search_path=elsewhere")

    SqlStore(CONN_ID).write(record(), expected=None)

    assert execute("SELECT seller FROM elsewhere.feedamp_tokens") == [(KEY.seller,)]


@pytest.mark.parametrize("client", MYSQL_CLIENTS)
@pytest.mark.usefixtures("fernet_key")
def test_each_driver_for_mysql_takes_any_sellers_name_in_spite_of_the_connections_own_settings(
    mariadb: MariadbServer, monkeypatch: pytest.MonkeyPatch, client: str
) -> None:
    narrow = {} if client == "mysql-connector-python" else {"charset": "latin1", "cursor": "DictCursor"}
    connect_to(monkeypatch, mariadb.connection, client=client, **narrow)
    execute("DROP TABLE IF EXISTS feedamp_tokens")
    store, key = SqlStore(CONN_ID), TokenKey(KEY.token_url, "client-of-latin1", "商店 😀")

    with held(store, key):
        written = store.write(record(key), expected=None)

    assert store.read(key) == written
    assert store.keys(key.token_url, key.client_id) == [key]


@pytest.mark.usefixtures("fernet_key")
def test_a_connection_whose_rows_are_dictionaries_is_read_all_the_same(
    postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect_to(monkeypatch, postgresql.connection, cursor="dictcursor")
    execute("DROP TABLE IF EXISTS feedamp_tokens")
    store = SqlStore(CONN_ID)

    assert store.write(record(), expected=None) == store.read(KEY)


@pytest.mark.parametrize("kind", ["postgres", *MYSQL_CLIENTS])
def test_a_server_that_takes_the_connection_and_never_answers_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    pytest.importorskip(f"airflow.providers.{'postgres' if kind == 'postgres' else 'mysql'}")
    limits = {driver: _at_once(options) for driver, options in sql_store._DRIVER_OPTIONS.items()}
    monkeypatch.setattr(sql_store, "_DRIVER_OPTIONS", limits)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection = {"conn_type": "mysql", "host": "127.0.0.1", "port": silent.getsockname()[1]}
        if kind == "postgres":
            connect_to(monkeypatch, json.dumps({**connection, "conn_type": "postgres"}))
        else:
            connect_to(monkeypatch, json.dumps(connection), client=kind)

        with pytest.raises(TokenStoreError, match="failed to read the token record"):
            SqlStore(CONN_ID).read(KEY)


def test_a_session_reads_what_is_committed_on_a_server_that_is_stricter_by_default(
    server: DatabaseServer,
) -> None:
    strict, query, usual = STRICTER[server.conn_type]
    server.administer(strict)
    try:
        assert [next(iter(row)).lower().replace("-", " ") for row in execute(query)] == ["read committed"]
    finally:
        server.administer(usual)


@pytest.mark.usefixtures("fernet_key")
def test_after_a_switchover_the_next_try_reaches_the_new_primary(
    postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, postgresql.connection)
    execute("DROP TABLE IF EXISTS feedamp_tokens")
    store = SqlStore(CONN_ID)
    written = store.write(record(), expected=None)
    with store._database.connect("open one"), store._database.connect("open two"):
        pass
    try:
        # The sessions that there are become read-only, as on an old primary that stays up; new ones are not.
        postgresql.administer("ALTER ROLE feedamp SET default_transaction_read_only = off")
        postgresql.administer(
            "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"
        )
        _wait_until_read_only(store)

        with pytest.raises(TokenStoreError, match="25006"):
            store.write(record(generation=1), expected=written.revision)
        stored = store.write(record(generation=1), expected=written.revision)
    finally:
        postgresql.administer(
            "SET default_transaction_read_only = off",
            "ALTER SYSTEM RESET default_transaction_read_only",
            "ALTER ROLE feedamp RESET default_transaction_read_only",
            "SELECT pg_reload_conf()",
        )

    assert store.read(KEY) == stored


@pytest.mark.usefixtures("fernet_key")
def test_renewals_through_a_pooler_that_changes_sessions_all_succeed(
    pgbouncer: Pgbouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, pgbouncer.connection)
    execute("DROP TABLE IF EXISTS feedamp_tokens")
    store, start = SqlStore(CONN_ID), threading.Barrier(4)

    def renew(worker: int) -> int:
        """Write often enough for a driver to prepare its statements, while others change the sessions."""
        key = TokenKey(KEY.token_url, KEY.client_id, f"seller {worker}")
        start.wait()
        stored = None
        for _ in range(18):
            with held(store, key):
                stored = store.write(record(key), expected=stored.revision if stored else None)
        return stored.revision if stored else 0

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(renew, range(4))) == [18] * 4


# One engine for each process


def test_a_process_keeps_its_session_of_the_database(server: DatabaseServer) -> None:
    database = SqlDatabase(CONN_ID)

    assert use(database, SESSION[server.conn_type]) == use(database, SESSION[server.conn_type])


def test_a_forked_child_has_a_session_of_its_own_and_leaves_its_parents_alone(server: DatabaseServer) -> None:
    database = SqlDatabase(CONN_ID)
    session = use(database, SESSION[server.conn_type])

    assert holds_in_child(lambda: use(database, SESSION[server.conn_type]) != session)
    assert use(database, SESSION[server.conn_type]) == session


def test_a_child_forked_while_an_engine_is_being_made_can_make_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, sqlite(tmp_path))

    with SUPERVISOR.lock:
        assert holds_in_child(lambda: use(SqlDatabase(CONN_ID)) == 1)


def _at_once(options: dict[str, Any]) -> dict[str, Any]:
    """Return a driver's time limits, cut down to a second."""
    return {name: value and min(value, 1) for name, value in options.items()}


def _wait_until_read_only(store: SqlStore) -> None:
    """Wait until a pooled session has noticed the server's new setting."""
    for _ in range(1200):
        with store._database.connect("look") as connection:
            if connection.execute(text("SHOW default_transaction_read_only")).scalar() == "on":
                return
        time.sleep(0.05)
    pytest.fail("the session did not become read-only")


def _raise(error: Exception) -> Callable[..., object]:
    def fail(*arguments: object, **options: object) -> object:
        raise error

    return fail
