"""Rows of a query on an Airflow connection, read a few at a time while they are used."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

from airflow_provider_feedamp.exceptions import ConfigurationError, InputError, SourceUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Rows that are held at a time: few beside what a task takes anyway, and few trips to the database.
_ROWS_AT_A_TIME = 200
#: Seconds that MySQL waits for a reader that is busy placing orders; its own default is one minute.
_PATIENCE_OF_MYSQL = 28800
_LONGEST_MESSAGE = 500


class JsonText(str):
    """The text of a column of a JSON type, as the database wrote it."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class SqlRows:
    """What a query gives.

    :param columns: The names of the columns.
    :param rows: The rows; reading them goes on reading from the database.
    """

    columns: Sequence[str]
    rows: Iterator[Sequence[Any]]


#: Reads the next rows, at most as many as it is asked for.
_Fetch = Callable[[int], "Sequence[Sequence[Any]]"]
#: The names of the columns, none if there are no rows to come, and how to read the rows.
_Results = tuple[list[str], _Fetch]


@contextmanager
def open_query(query: str, conn_id: str) -> Iterator[SqlRows]:
    """Run one query and lend its rows; the database connection is closed when the block is left.

    Through SQLAlchemy where the connection's hook has an engine, with a cursor on the server where its
    dialect knows one (PostgreSQL, MySQL, MariaDB); else with the hook's own cursor.

    :param query: One statement that returns rows.
    :param conn_id: An Airflow connection whose hook is a ``DbApiHook`` of the common SQL provider.
    :raises InputError: If the database refuses the query, or it is more than one statement.
    :raises ConfigurationError: If there is no such connection, or it is no SQL connection.
    :raises SourceUnavailableError: If the database cannot be reached, or goes away.
    """
    hook, database = _database(conn_id)
    statement = _one_statement(hook, query, conn_id)
    engine = _engine(hook)
    if engine is None:
        with _cursor(hook, database) as cursor:
            yield database.read(lambda: _run_cursor(cursor, statement))
        return
    with database.connecting():
        connection = engine.connect()
    try:
        yield database.read(lambda: _run_engine(connection, statement))
    finally:
        _close(connection)
        engine.dispose()


@dataclass(frozen=True, slots=True)
class _Database:
    """The database behind a connection, as its errors are told."""

    conn_id: str
    passwords: tuple[str, ...]

    def read(self, run: Callable[[], _Results]) -> SqlRows:
        with self.reading():
            columns, fetch = run()
        if not columns:
            raise InputError(
                f"The query on the Airflow connection {self.conn_id!r} gives no rows. Name a SELECT."
            )
        return SqlRows(columns, self._rows(fetch))

    def _rows(self, fetch: _Fetch) -> Iterator[Sequence[Any]]:
        while True:
            with self.reading():
                rows = fetch(_ROWS_AT_A_TIME)
            if not rows:
                return
            yield from rows

    @contextmanager
    def connecting(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the drivers' errors have nothing in common
            raise self._gone(error) from None

    @contextmanager
    def reading(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the drivers' errors have nothing in common
            if getattr(error, "connection_invalidated", False):
                raise self._gone(error) from None
            raise InputError(
                f"The query on the Airflow connection {self.conn_id!r} failed: {self._told(error)}"
            ) from None

    def _gone(self, error: Exception) -> SourceUnavailableError:
        return SourceUnavailableError(
            f"The database behind the Airflow connection {self.conn_id!r} cannot be read: {self._told(error)}"
        )

    def _told(self, error: Exception) -> str:
        """Return the database's own words on one line, without the connection's password."""
        text = " ".join(str(getattr(error, "orig", None) or error).split()) or type(error).__name__
        for password in self.passwords:
            text = text.replace(password, "***")
        return text[:_LONGEST_MESSAGE]


def _database(conn_id: str) -> tuple[Any, _Database]:
    from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

    try:
        connection: Any = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        raise ConfigurationError(
            f"There is no Airflow connection {conn_id!r}: the query of the orders needs it."
        ) from None
    try:
        hook = connection.get_hook()
    except Exception as error:  # noqa: BLE001 - an unknown type, a provider or driver that fails to load
        raise ConfigurationError(
            f"No hook can be loaded for the Airflow connection {conn_id!r} of the type "
            f"{connection.conn_type!r} ({type(error).__name__}). Is its provider installed "
            f"(apache-airflow-providers-{connection.conn_type or '...'}), and with it "
            "apache-airflow-providers-common-sql?"
        ) from None
    if not hasattr(hook, "get_sqlalchemy_engine") or not hasattr(hook, "split_sql_string"):
        raise ConfigurationError(
            f"The Airflow connection {conn_id!r} of the type {connection.conn_type!r} is no SQL connection: "
            "its hook is no DbApiHook of apache-airflow-providers-common-sql."
        )
    password = connection.password or ""
    forms = {password, quote(password), quote(password, safe=""), quote_plus(password)} - {""}
    return hook, _Database(conn_id, tuple(sorted(forms, key=len, reverse=True)))


def _one_statement(hook: Any, query: object, conn_id: str) -> str:
    """Return the query, if it is one: behind a cursor's declaration, a second statement would be run."""
    statements = hook.split_sql_string(query) if isinstance(query, str) else []
    if len(statements) != 1 or not isinstance(query, str):
        raise InputError(
            f"The query on the Airflow connection {conn_id!r} must be one SQL statement; "
            f"there are {len(statements)} in it."
        )
    return query.strip().rstrip("; \t\r\n")


def _engine(hook: Any) -> Any | None:
    from sqlalchemy.pool import NullPool

    try:
        return hook.get_sqlalchemy_engine(engine_kwargs={"poolclass": NullPool, "hide_parameters": True})
    except Exception:  # noqa: BLE001 - without a dialect for its database, a hook may raise anything
        return None


@contextmanager
def _cursor(hook: Any, database: _Database) -> Iterator[Any]:
    with database.connecting():
        connection = hook.get_conn()
    try:
        with database.connecting():
            cursor = connection.cursor()
        yield cursor
    finally:
        _close(connection)


def _close(connection: Any) -> None:
    # Best effort: to close what the database has ended raises too, and would hide why.
    with suppress(Exception):
        connection.close()


def _run_cursor(cursor: Any, statement: str) -> _Results:
    cursor.execute(statement)
    return [str(column[0]) for column in cursor.description or ()], cursor.fetchmany


def _run_engine(connection: Any, statement: str) -> _Results:
    """Run the statement as it is: neither ``:name`` nor ``%`` in it means a parameter."""
    dialect = connection.dialect
    if dialect.name in ("mysql", "mariadb"):
        connection.exec_driver_sql(f"SET SESSION net_write_timeout = {_PATIENCE_OF_MYSQL}")
    _leave_json_as_text(dialect.driver, connection.connection)
    result = connection.execution_options(
        stream_results=True,
        max_row_buffer=_ROWS_AT_A_TIME,
        no_parameters=True,
        autocommit=False,  # SQLAlchemy 1.4 would commit what a later one does not
    ).exec_driver_sql(statement)
    return (list(result.keys()) if result.returns_rows else []), result.fetchmany


def _leave_json_as_text(driver: str, pooled: Any) -> None:
    """Take JSON columns as text, so that no number in them changes; other drivers do that anyway."""
    raw = getattr(pooled, "dbapi_connection", None) or pooled.connection
    if driver == "psycopg2":
        from psycopg2.extras import (  # type: ignore[import-untyped]
            register_default_json,
            register_default_jsonb,
        )

        register_default_json(raw, loads=JsonText)
        register_default_jsonb(raw, loads=JsonText)
    elif driver == "psycopg":
        from psycopg.types.json import set_json_loads

        set_json_loads(_json_text, raw)


def _json_text(text: str | bytes) -> JsonText:
    return JsonText(text.decode() if isinstance(text, bytes) else text)
