"""Orders out of a database: a query's rows go to a private file at once, and are read from there.

So no transaction is open while orders are placed, which takes hours: databases end those that are idle.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import weakref
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

from airflow_provider_feedamp.bulk.source import (
    JsonText,
    UnfitError,
    bounded,
    buffered,
    digest,
    json_of,
    parse_order,
)
from airflow_provider_feedamp.exceptions import ConfigurationError, InputError, SourceUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_feedamp.bulk.source import SourceOrder

    #: A row as it is kept: what is wrong with it (None: nothing), and the JSON of its order.
    Written = tuple[str | None, bytes]

log = logging.getLogger(__name__)

#: The order's fields that are objects or lists: text in a column of that name is their JSON.
JSON_FIELDS = frozenset({"customer", "shipping_address", "order_lines", "location"})
#: The order's fields that are true or false: MySQL and SQLite have 0 and 1 for them.
_BOOLEAN_FIELDS = frozenset({"is_marketplace_fulfilled"})
#: Rows that are held at a time: few beside what a task takes anyway, and few trips to the database.
_ROWS_AT_A_TIME = 200
_LONGEST_MESSAGE = 500
_BINARY = (bytes, bytearray, memoryview)


class QueryInput:
    """A query on any SQL connection of Airflow's.

    A query with one column gives the JSON of whole orders, which is sent byte for byte. With more columns,
    each is the field of the order that has its name: NULL leaves the field out, times with a zone are
    written in UTC, decimal numbers keep their digits, and the columns in ``JSON_FIELDS``, like all of a JSON
    type, hold JSON. A row that cannot be an order is one with a problem; the others go on.

    :param query: One statement that returns rows. With ``ORDER BY`` a retry can go on where the import ended.
    :param conn_id: The Airflow connection, of any type that has a hook for SQL.
    :param allow_empty: Whether a query without any row is fine. Default: it is not.
    """

    def __init__(self, query: str, conn_id: str, *, allow_empty: bool = False) -> None:
        self.query = query
        self.conn_id = conn_id
        self.allow_empty = allow_empty
        self._rows: _Spool | None = None
        self._taken = 0

    @property
    def name(self) -> str:
        """The connection; the query's text may hold what no log should show."""
        return f"the query on connection {self.conn_id}"

    def fingerprint(self, read: int = 0) -> str | None:
        """Return a digest of the query and its first rows; None if it has no ``ORDER BY``, or fewer rows."""
        rows = self._spooled()
        if not _has_order(self.query) or read > rows.count:
            return None
        return digest(self.query, self.conn_id, rows.digest(read))

    def open(self, skip: int = 0) -> Iterator[SourceOrder]:
        """Run the query, read all its rows, and return the orders behind the first ones.

        :raises InputError: If the query is refused, gives no rows, two columns have one name, or the
            database fails at a later row.
        :raises ConfigurationError: If this is no SQL connection.
        :raises SourceUnavailableError: If the database cannot be reached or goes away, or the disk is full.
        """
        rows = self._spooled()
        if not rows.count and not self.allow_empty:
            raise InputError(
                f"The query on the Airflow connection {self.conn_id!r} found no order. "
                "If that is fine, set allow_empty=True."
            )
        return self._orders(rows, skip)

    def share(self) -> float | None:
        """Return the share of the rows."""
        return self._taken / self._rows.count if self._rows and self._rows.count else None

    def _orders(self, rows: _Spool, skip: int) -> Iterator[SourceOrder]:
        for self._taken, (problem, body) in enumerate(rows.records(), 1):
            if self._taken > skip:
                order = parse_order(self._taken, body, "row")
                yield replace(order, problem=problem) if problem else order

    def _spooled(self) -> _Spool:
        """Return the rows, which are read from the database at the first call."""
        if self._rows is not None:
            return self._rows
        with _rows_of(self.query, self.conn_id) as (columns, found):
            names = _field_names(columns, self.conn_id)
            try:
                rows = _Spool(_written(names, row) for row in found)
            except OSError as error:
                raise SourceUnavailableError(
                    f"The rows of the query on the Airflow connection {self.conn_id!r} could not be kept "
                    f"in {tempfile.gettempdir()} on this worker: {error.strerror or error}. Nothing was "
                    "sent. Make room there, or name another folder in TMPDIR, and run the task again."
                ) from error
        log.info("The query on connection %s gave %d rows", self.conn_id, rows.count)
        if not _has_order(self.query):
            log.info("The query says no ORDER BY, so a retry of this import would send all orders again")
        self._rows = rows
        return rows


class _Spool:
    """Rows in a file without a name, which its owner alone could read, and which ends with the process."""

    def __init__(self, rows: Iterator[Written]) -> None:
        self.count = 0
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="feedamp-")
        weakref.finalize(self, _close, self._file)
        for row in rows:
            self._file.write(_framed(*row))
            self.count += 1
        self._file.flush()
        self._digest = hashlib.sha256()
        self._digested = 0
        self._to_digest = self.records()

    def records(self) -> Iterator[Written]:
        """Return what was kept of each row; several readers do not disturb each other."""
        return _records(self._file)

    def digest(self, count: int) -> str:
        """Return a digest of the first rows; to ask for ever more of them reads each once."""
        if count < self._digested:
            self._digest, self._digested, self._to_digest = hashlib.sha256(), 0, self.records()
        while self._digested < count:
            self._digest.update(_framed(*next(self._to_digest)))
            self._digested += 1
        return self._digest.hexdigest()


def _records(file: IO[bytes]) -> Iterator[Written]:
    # A function that knows the file alone: an iterator that is not at its end must not keep the spool.
    at = 0

    def read(size: int) -> bytes:
        nonlocal at
        piece = os.pread(file.fileno(), size, at)
        at += len(piece)
        return piece

    stream = buffered(read)
    while head := stream.readline():
        problem, size = json.loads(head)
        yield problem, stream.read(size)


def _framed(problem: str | None, body: bytes) -> bytes:
    return b"%s\n%s" % (json.dumps([problem, len(body)]).encode(), body)


def _close(resource: Any) -> None:
    # Best effort: to close what has failed raises too, and would hide why.
    with suppress(Exception):
        resource.close()


def _has_order(query: str) -> bool:
    """Whether the query orders its result; an ``ORDER BY`` inside of brackets orders something else."""
    import sqlparse

    depth = 0
    for token in sqlparse.parse(query)[0].flatten():  # type: ignore[no-untyped-call]
        depth += (token.value == "(") - (token.value == ")")
        if not depth and token.match(sqlparse.tokens.Keyword, r"ORDER\s+BY", regex=True):
            return True
    return False


def _field_names(columns: Sequence[str], conn_id: str) -> list[str] | None:
    """Return the fields' names; None for one column of whole orders."""
    if len(columns) == 1:
        return None
    # Some databases write all names in capitals; FeedAMP has none.
    names = [name.lower() if name.isupper() else name for name in columns]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(
            f"The query on the Airflow connection {conn_id!r} gives {', '.join(twice)} more than once."
        )
    return names


def _written(names: list[str] | None, row: Sequence[Any]) -> Written:
    return bounded(*(_whole_order(*row) if names is None else _order_of_fields(names, row)))


def _whole_order(value: Any) -> Written:
    if value is None:
        return "is NULL", b""
    if isinstance(value, _BINARY):
        return None, bytes(value)
    if isinstance(value, str):
        return None, value.encode("utf-8", "surrogatepass")
    problem, text = _json_or_problem(value)
    return problem, text.encode()


def _order_of_fields(names: Sequence[str], row: Sequence[Any]) -> Written:
    """Write a row as the JSON of an order; what does not fit goes in as text, to be mended there."""
    fields: list[str] = []
    problems: list[str] = []
    for name, value in zip(names, row, strict=True):
        if value is None:
            continue
        if name in JSON_FIELDS and isinstance(value, (str, *_BINARY)):
            value = JsonText(value if isinstance(value, str) else _text(value))
        elif name in _BOOLEAN_FIELDS and value in (0, 1):
            value = bool(value)
        problem, text = _json_or_problem(value)
        fields.append(f"{json.dumps(name)}:{text}")
        if problem:
            problems.append(f"column {name} {problem}")
    return "; ".join(problems) or None, f"{{{','.join(fields)}}}".encode()


def _json_or_problem(value: Any) -> tuple[str | None, str]:
    """Return a value as JSON, or why it cannot be sent and a JSON text of it."""
    try:
        return None, json_of(value)
    except Exception as error:  # noqa: BLE001 - one row of millions must not end an import, whatever is in it
        why = str(error) if isinstance(error, UnfitError) else f"cannot be written: {type(error).__name__}"
        return why, json.dumps(_text(value) if isinstance(value, _BINARY) else str(value))


def _text(value: bytes | bytearray | memoryview) -> str:
    return bytes(value).decode("utf-8", "backslashreplace")


@contextmanager
def _rows_of(query: object, conn_id: str) -> Iterator[tuple[list[str], Iterator[Sequence[Any]]]]:
    """Run a query and lend the names of its columns, and its rows; at the end all is closed.

    Through SQLAlchemy where the connection's hook has an engine, with a cursor on the server where its
    dialect knows one (PostgreSQL, MySQL, MariaDB); else with the hook's own cursor.
    """
    hook, password = _hook_of(conn_id)
    errors = partial(_errors_told, conn_id, password)
    # Behind a cursor's declaration, a second statement would be run.
    statements = hook.split_sql_string(query) if isinstance(query, str) else []
    if len(statements) != 1 or not isinstance(query, str):
        raise InputError(
            f"The query on the Airflow connection {conn_id!r} must be one SQL statement; "
            f"there are {len(statements)} in it."
        )
    engine = _engine(hook)

    def rows() -> Iterator[Sequence[Any]]:
        with errors():
            while some := fetch(_ROWS_AT_A_TIME):
                yield from some

    with errors(connecting=True):
        connection = hook.get_conn() if engine is None else engine.connect()
    try:
        with errors():
            run = _run_cursor if engine is None else _run_engine
            columns, fetch = run(connection, query.strip().rstrip("; \t\r\n"))
        if not columns:
            raise InputError(f"The query on the Airflow connection {conn_id!r} gives no rows. Name a SELECT.")
        yield columns, rows()
    finally:
        _close(connection)
        if engine is not None:
            engine.dispose()


@contextmanager
def _errors_told(conn_id: str, password: str, *, connecting: bool = False) -> Iterator[None]:
    """Turn whatever the database raises into an error of ours, in its own words without the password.

    :param connecting: Whether no error can be about the query. Default False.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the drivers' errors have nothing in common
        text = " ".join(str(getattr(error, "orig", None) or error).split()) or type(error).__name__
        forms = {password, quote(password), quote(password, safe=""), quote_plus(password)} - {""}
        for form in sorted(forms, key=len, reverse=True):
            text = text.replace(form, "***")
        text = text[:_LONGEST_MESSAGE]
        if connecting or getattr(error, "connection_invalidated", False):
            raise SourceUnavailableError(
                f"The database behind the Airflow connection {conn_id!r} cannot be read: {text}"
            ) from None
        raise InputError(f"The query on the Airflow connection {conn_id!r} failed: {text}") from None


def _hook_of(conn_id: str) -> tuple[Any, str]:
    """Return the hook of an Airflow connection, and its password."""
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
    return hook, connection.password or ""


def _engine(hook: Any) -> Any | None:
    from sqlalchemy.pool import NullPool

    try:
        return hook.get_sqlalchemy_engine(engine_kwargs={"poolclass": NullPool, "hide_parameters": True})
    except Exception:  # noqa: BLE001 - without a dialect for its database, a hook may raise anything
        return None


def _run_cursor(connection: Any, statement: str) -> tuple[list[str], Any]:
    cursor = connection.cursor()
    cursor.execute(statement)
    return [str(column[0]) for column in cursor.description or ()], cursor.fetchmany


def _run_engine(connection: Any, statement: str) -> tuple[list[str], Any]:
    """Run the statement as it is: neither ``:name`` nor ``%`` in it means a parameter."""
    _leave_json_as_text(connection.dialect.driver, connection.connection)
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
