"""The database behind the ``sql`` store: its table, its clock, and one engine for each process."""

from __future__ import annotations

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

from airflow_provider_feedamp.exceptions import ConfigurationError, TokenStoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Connection, Engine

#: How long each driver waits for a database that does not answer: seconds, save tcp_user_timeout.
_POSTGRESQL_OPTIONS = {"connect_timeout": 10, "tcp_user_timeout": 20_000}
_MYSQL_OPTIONS = {"connect_timeout": 10, "read_timeout": 20, "write_timeout": 20}
_DRIVER_OPTIONS = {
    "psycopg2": _POSTGRESQL_OPTIONS,
    "psycopg": _POSTGRESQL_OPTIONS,
    "mysqldb": _MYSQL_OPTIONS,
    "pymysql": _MYSQL_OPTIONS,
    "mysqlconnector": {"connection_timeout": 10},
}

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

        :param what: What is being done, for the error: "read the token record of seller 'x'".
        :raises TokenStoreError: if the database fails.
        :raises ConfigurationError: if the connection cannot be used as a token store.
        """
        engine = self._engine()
        try:
            if os.getpid() not in self._prepared:
                _create_table(engine)
                self._prepared.add(os.getpid())
            with engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            # The database's own text may quote values; its error code says as much.
            raise TokenStoreError(
                f"The database behind the Airflow connection {self.conn_id!r} failed to {what} "
                f"({_names(error)}). Is it up, and may the connection's user create, read and write the "
                f"table {TOKENS.name}?"
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


def _names(error: SQLAlchemyError) -> str:
    """Return the error's class and the database's code for it."""
    cause = getattr(error, "orig", None)
    code = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    code = code or next((each for each in getattr(cause, "args", ()) if isinstance(each, int)), None)
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
    event.listen(engine, "do_connect", _set_options)
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


def _set_options(dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> None:
    """Set what a driver would otherwise leave open, before each new connection; the user's own value wins."""
    for name, value in _DRIVER_OPTIONS.get(dialect.driver, {}).items():
        options.setdefault(name, value)
    if dialect.name == "mysql":
        # Sellers' names are any Unicode; the driver's own default may be latin1.
        options["charset"] = "utf8mb4"


def _create_table(engine: Engine) -> None:
    if inspect(engine).has_table(TOKENS.name):
        return
    try:
        TOKENS.create(engine)
    except SQLAlchemyError:
        # Another worker may have been quicker by a moment.
        if not inspect(engine).has_table(TOKENS.name):
            raise
