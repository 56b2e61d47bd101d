"""The database behind the ``sql`` store: its table, its clock, and one engine for each process."""

from __future__ import annotations

import copy
import json
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook
from sqlalchemy import CHAR, BigInteger, Column, Float, MetaData, String, Table, Text, event, inspect
from sqlalchemy.dialects.mysql import MEDIUMTEXT
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from airflow_provider_feedamp.exceptions import ConfigurationError, ContentionError, TokenStoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Connection, Engine

#: How long each driver waits for a database that does not answer: seconds, save tcp_user_timeout.
_POSTGRESQL_OPTIONS: dict[str, Any] = {"connect_timeout": 10, "tcp_user_timeout": 20_000}
_MYSQL_OPTIONS: dict[str, Any] = {"connect_timeout": 10, "read_timeout": 20, "write_timeout": 20}
_DRIVER_OPTIONS: dict[str, dict[str, Any]] = {
    "psycopg2": _POSTGRESQL_OPTIONS,
    # A statement prepared in one session is unknown in the next one that a pooler such as pgbouncer lends.
    "psycopg": {**_POSTGRESQL_OPTIONS, "prepare_threshold": None},
    "mysqldb": _MYSQL_OPTIONS,
    "pymysql": _MYSQL_OPTIONS,
    "mysqlconnector": {"connection_timeout": 10},
}

#: How MySqlHook puts its arguments together for each driver.
_MYSQL_ARGUMENTS = {
    "mysqldb": "_get_conn_config_mysql_client",
    "pymysql": "_get_conn_config_mysql_client",
    "mysqlconnector": "_get_conn_config_mysql_connector_python",
}

#: A server's own default may be stricter, and then of two workers one would get an error instead of its turn.
_READ_COMMITTED = {
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "mysql": "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
}

#: What databases say when another statement was quicker and this one changed nothing: serialization failures
#: and deadlocks, and MySQL's words for a record that changed and a lock that was waited for too long.
_CONTENTION = frozenset({"40001", "40P01", 1213, 1020, 1205})

_LONG_TEXT = Text().with_variant(MEDIUMTEXT(), "mysql")

#: One row for each key. Instants are seconds since 1970 on the database's clock.
TOKENS = Table(
    "feedamp_tokens",
    MetaData(),
    Column("key_digest", CHAR(64), primary_key=True),
    # For people and for listing; JSON's escapes stand for what a database does not take.
    Column("token_url", _LONG_TEXT, nullable=False),
    Column("client_id", _LONG_TEXT, nullable=False),
    Column("seller", _LONG_TEXT, nullable=False),
    # Encrypted; null when only the lease is of use.
    Column("record", _LONG_TEXT),
    Column("revision", BigInteger, nullable=False),
    Column("lease_owner", String(64)),
    Column("lease_until", Float(53), nullable=False),
    Column("updated_at", Float(53), nullable=False),
    mysql_engine="InnoDB",
    mysql_charset="utf8mb4",
    mysql_collate="utf8mb4_bin",
)

#: The seconds since 1970 in each dialect: whatever the session's time zone is, and as the statement runs.
_CLOCKS = {
    "postgresql": "extract(epoch FROM clock_timestamp())",
    "mysql": "(timestampdiff(MICROSECOND, '1970-01-01', utc_timestamp(6)) / 1000000.0)",
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
}


class DatabaseClock(FunctionElement):  # type: ignore[type-arg] # SQLAlchemy 1.4 takes no argument
    """What the database's own clock says; the clocks of the workers do not matter."""

    type = Float(53)
    inherit_cache = True


@compiles(DatabaseClock)
def _compile_clock(element: DatabaseClock, compiler: Any, **options: Any) -> str:
    return _CLOCKS[compiler.dialect.name]


#: Serialises the making of engines: Airflow 3.0 and 3.1 talk to the supervisor over one unlocked socket.
_GUARD = threading.Lock()


def _after_fork() -> None:
    """Make the lock anew: one that another thread of the parent held would never be released."""
    global _GUARD
    _GUARD = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


class _UnreachableError(SQLAlchemyError):
    """No connection could be opened; the text is the class and code of the driver's or the hook's error."""


class SqlDatabase:
    """Lends connections on which every statement is a transaction of its own.

    The engine is made when it is first used, from Airflow's hook of the connection. Each process has its own;
    a child neither uses nor frees the sockets that it inherited from its parent.

    :param conn_id: An Airflow connection to a PostgreSQL, MySQL, MariaDB or SQLite database.
    """

    def __init__(self, conn_id: str) -> None:
        self.conn_id = conn_id
        self._engines: dict[int, Engine] = {}
        self._prepared: set[int] = set()

    @contextmanager
    def connect(self, what: str) -> Iterator[Connection]:
        """Lend a connection; an error of the database becomes ours.

        A connection that met an error is closed, and all idle ones with it: they may lead to a server that is
        read-only by now, while new ones would reach the next primary.

        :param what: What is being done, for the error: "read the token record of seller 'x'".
        :raises ContentionError: if the database let another statement go first.
        :raises TokenStoreError: if the database fails.
        :raises ConfigurationError: if the connection cannot be used as a token store.
        """
        engine = self._engine()
        try:
            if os.getpid() not in self._prepared:
                _create_table(engine)
                self._prepared.add(os.getpid())
            with engine.connect() as connection:
                try:
                    yield connection
                except BaseException:
                    # Also for a signal's exception: it may have cut a statement short.
                    connection.invalidate()
                    raise
        except (SQLAlchemyError, _driver_error(engine)) as error:
            code = _code(error)
            if code in _CONTENTION:
                raise ContentionError(
                    f"The database behind the Airflow connection {self.conn_id!r} let other statements go "
                    f"first (code {code}) and did not {what}. Nothing was changed. Try again."
                ) from None
            engine.dispose()
            # The database's own text may quote values; its error code says as much.
            raise TokenStoreError(
                f"The database behind the Airflow connection {self.conn_id!r} failed to {what} "
                f"({_names(error)}). Is it up, do the connection's host, password and TLS settings fit it, "
                f"and may its user create, read and write the table {TOKENS.name}?"
            ) from None

    def _engine(self) -> Engine:
        # By process: the engine of the parent stays referenced in the child, and is left alone.
        engine = self._engines.get(os.getpid())
        if engine is None:
            with _GUARD:
                engine = self._engines.get(os.getpid())
                if engine is None:
                    engine = self._engines[os.getpid()] = _open(self.conn_id)
        return engine


def _driver_error(engine: Engine) -> type[Exception]:
    driver: Any = engine.dialect.dbapi  # type: ignore[attr-defined,unused-ignore] # by version of SQLAlchemy
    error: type[Exception] = driver.Error
    return error


def _code(error: Exception) -> int | str | None:
    """Return the database's or the driver's code for an error."""
    cause = getattr(error, "orig", None) or error
    # MySQL's own numbers tell more than the SQLSTATE beside them.
    number: int | None = next((each for each in cause.args if isinstance(each, int)), None)
    return number or getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)


def _names(error: Exception) -> str:
    """Return the error's class and the database's code for it."""
    if isinstance(error, _UnreachableError):
        return str(error)
    code = _code(error)
    return type(error).__name__ + (f", code {code}" if code else "")


def _open(conn_id: str) -> Engine:
    hook = _hook(conn_id)
    if not hasattr(hook, "get_sqlalchemy_engine"):
        raise ConfigurationError(
            f"The Airflow connection {conn_id!r} (token_store_conn_id) is no SQL connection. The token store "
            "'sql' needs one to PostgreSQL, MySQL, MariaDB or SQLite."
        )
    options = {"hide_parameters": True, "pool_pre_ping": True, "isolation_level": "AUTOCOMMIT"}
    try:
        engine: Engine = hook.get_sqlalchemy_engine(engine_kwargs=options)
        if engine.dialect.name in _READ_COMMITTED:
            _limit(hook, engine.dialect)
    except Exception as error:  # noqa: BLE001 - the hooks of all SQL providers, and the import of a driver
        raise ConfigurationError(
            f"No database engine can be made of the Airflow connection {conn_id!r} ({type(error).__name__}). "
            "Are its fields right, and is the database's driver installed (psycopg2-binary or psycopg for "
            "PostgreSQL, mysqlclient for MySQL and MariaDB)?"
        ) from None
    if engine.dialect.name not in _CLOCKS:
        raise ConfigurationError(
            f"The token store 'sql' works with PostgreSQL, MySQL, MariaDB and SQLite; the Airflow connection "
            f"{conn_id!r} leads to {engine.dialect.name!r}."
        )
    if engine.dialect.name in _READ_COMMITTED:
        event.listen(engine, "do_connect", _connects(hook))
        event.listen(engine, "connect", _isolates(_READ_COMMITTED[engine.dialect.name]))
    return engine


def _hook(conn_id: str) -> Any:
    try:
        connection: Any = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        raise ConfigurationError(
            f"There is no Airflow connection {conn_id!r} (token_store_conn_id): the token store 'sql' keeps "
            "its records behind it."
        ) from None
    except Exception as error:  # noqa: BLE001 - whatever the metadata database or the API server raises
        raise TokenStoreError(
            f"The Airflow connection {conn_id!r} cannot be read now ({type(error).__name__}). Try again."
        ) from None
    try:
        return connection.get_hook()
    except Exception as error:  # noqa: BLE001 - an unknown type, a provider or driver that fails to load
        raise ConfigurationError(
            f"The Airflow connection {conn_id!r} (token_store_conn_id) has the type {connection.conn_type!r} "
            f"and no hook can be loaded for it ({type(error).__name__}). Is its provider installed: "
            "apache-airflow-providers-postgres, -mysql or -sqlite?"
        ) from None


def _limit(hook: Any, dialect: Any) -> None:
    """Have the hook set what its driver would otherwise leave open; the user's own value wins."""
    ours, own = _DRIVER_OPTIONS.get(dialect.driver, {}), hook.connection.extra_dejson
    if dialect.name == "postgresql":
        # All of the extras become arguments. Our statements need rows as SQLAlchemy knows them.
        extra = {**ours, **(own.get("sqlalchemy_query") or {}), **own}
        extra.pop("cursor", None)
        hook.connection.extra = json.dumps(extra)
        return
    name = _MYSQL_ARGUMENTS[dialect.driver]
    arguments = getattr(hook, name)
    limits = {option: int(own.get(option, value)) for option, value in ours.items()}

    def limited(connection: Any) -> dict[str, Any]:
        given = {option: value for option, value in arguments(connection).items() if option != "cursorclass"}
        # Sellers' names are any Unicode; the driver's own default may be latin1.
        return {**limits, **given, "charset": "utf8mb4"}

    setattr(hook, name, limited)


def _connects(hook: Any) -> Any:
    """Return what opens a connection as Airflow's hook does, with all that the extras say of TLS and more."""

    def connect(dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> Any:
        # A copy: the hook remembers its newest connection, and another thread may open one meanwhile.
        mine = copy.copy(hook)
        try:
            if dialect.driver == "pymysql":
                # The hook knows this driver when it makes a URL, and not when it connects.
                opened = dialect.dbapi.connect(**mine._get_conn_config_mysql_client(mine.connection))
            else:
                opened = mine.get_conn()
            if dialect.name == "mysql" and _asks_for_tls(mine.connection.extra_dejson):
                _require_tls(opened)
            return opened
        except Exception as error:  # noqa: BLE001 - what drivers and hooks raise here is of any class
            # Neither the text nor the cause: they may quote the connection's fields.
            raise _UnreachableError(_names(error)) from None

    return connect


def _asks_for_tls(extra: dict[str, Any]) -> bool:
    named = any(extra.get(name) for name in ("ssl", "ssl_ca", "ssl_verify_cert", "ssl_verify_identity"))
    return named or str(extra.get("ssl_mode")).upper() in ("REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY")


def _require_tls(opened: Any) -> None:
    """Refuse a session in clear: mysqlclient and PyMySQL open one when the server offers no TLS."""
    cursor = opened.cursor()
    cursor.execute("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
    if not cursor.fetchone()[1]:
        opened.close()
        raise _UnreachableError("the connection asks for TLS, and the server offers none")
    cursor.close()


def _isolates(statement: str) -> Any:
    def isolate(connection: Any, record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(statement)
        cursor.close()

    return isolate


def _create_table(engine: Engine) -> None:
    if inspect(engine).has_table(TOKENS.name):
        return
    try:
        TOKENS.create(engine)
    except SQLAlchemyError:
        # Another worker may have been quicker by a moment.
        if not inspect(engine).has_table(TOKENS.name):
            raise
