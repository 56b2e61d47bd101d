"""Read orders one by one from a query, in memory that does not grow with their number."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial, singledispatch
from itertools import chain
from typing import TYPE_CHECKING, Any
from uuid import UUID

from airflow_provider_feedamp.bulk.parse import SourceOrder, parse_order
from airflow_provider_feedamp.bulk.source import MAX_ORDER_BYTES
from airflow_provider_feedamp.bulk.sql_rows import JsonText, open_query
from airflow_provider_feedamp.exceptions import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: The order's fields that are objects or lists: text in a column of that name is their JSON.
JSON_FIELDS = frozenset({"customer", "shipping_address", "order_lines", "location"})
#: The order's fields that are true or false: MySQL and SQLite have 0 and 1 for them.
_BOOLEAN_FIELDS = frozenset({"is_marketplace_fulfilled"})
_KEPT_OF_A_LONG_ORDER = 1000


def read_sql(query: str, conn_id: str, *, allow_empty: bool = False) -> Iterator[SourceOrder]:
    """Read the orders of a query on any SQL connection of Airflow's.

    A query with one column gives the JSON of whole orders, which is sent byte for byte. With more columns,
    each is the field of the order that has its name: NULL leaves the field out, times with a zone are
    written in UTC, decimal numbers keep their digits, and the columns in ``JSON_FIELDS``, like all of a JSON
    type, hold JSON. What is wrong with a single row is told in its :class:`SourceOrder`; the others go on.

    :param query: One statement that returns rows; with ``ORDER BY``, row numbers mean the same again.
    :param conn_id: The Airflow connection, of any type that has a hook for SQL.
    :param allow_empty: Whether a query without any row is fine. Default: it is not.
    :return: An iterator over a cursor, which holds some rows at a time. The connection is closed when it
        ends, and when it is dropped.
    :raises InputError: At once if the query is refused, gives no rows, or two columns have one name; while
        reading if the database fails at a later row.
    :raises ConfigurationError: At once if this is no SQL connection.
    :raises SourceUnavailableError: If the database cannot be reached, or goes away while it is read.
    """
    orders = _orders(query, conn_id)
    first = next(orders, None)
    if first is not None:
        return chain((first,), orders)
    if allow_empty:
        return orders
    raise InputError(
        f"The query on the Airflow connection {conn_id!r} found no order. "
        "If that is fine, set allow_empty=True."
    )


def _orders(query: str, conn_id: str) -> Iterator[SourceOrder]:
    with open_query(query, conn_id) as found:
        order_of = _reader(found.columns, conn_id)
        for line, row in enumerate(found.rows, 1):
            yield _bounded(order_of(line, row))


def _reader(columns: Sequence[str], conn_id: str) -> Callable[[int, Sequence[Any]], SourceOrder]:
    if len(columns) == 1:
        return _whole_order
    # Some databases write all names in capitals; FeedAMP has none.
    names = [name.lower() if name.isupper() else name for name in columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"The query on the Airflow connection {conn_id!r} gives {', '.join(twice)} more than once."
        )
    return partial(_order_of_fields, names)


def _whole_order(line: int, row: Sequence[Any]) -> SourceOrder:
    (value,) = row
    if value is None:
        return SourceOrder(line, None, b"", "is NULL")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return parse_order(line, bytes(value))
    if isinstance(value, str):
        return parse_order(line, value.encode("utf-8", "surrogatepass"))
    text, problem = _checked(value)
    order = parse_order(line, text.encode())
    return SourceOrder(line, order.order, order.body, problem or order.problem)


def _order_of_fields(names: Sequence[str], line: int, row: Sequence[Any]) -> SourceOrder:
    """Write a row as the JSON of an order; what does not fit goes in as text, to be mended there."""
    fields: list[str] = []
    problems: list[str] = []
    for name, value in zip(names, row, strict=True):
        if value is None:
            continue
        text, problem = _field(name, value)
        fields.append(f"{json.dumps(name)}:{text}")
        if problem:
            problems.append(f"column {name} {problem}")
    order = parse_order(line, f"{{{','.join(fields)}}}".encode())
    return SourceOrder(line, order.order, order.body, "; ".join(problems) or order.problem)


def _field(name: str, value: Any) -> tuple[str, str | None]:
    if name in JSON_FIELDS:
        if isinstance(value, (bytes, bytearray, memoryview)):
            value = bytes(value).decode("utf-8", "backslashreplace")
        if isinstance(value, str):
            value = JsonText(value)
    if name in _BOOLEAN_FIELDS and value in (0, 1):
        value = bool(value)
    return _checked(value)


def _bounded(order: SourceOrder) -> SourceOrder:
    if order.body is None or len(order.body) <= MAX_ORDER_BYTES:
        return order
    problem = f"is longer than {MAX_ORDER_BYTES:,} bytes; only its beginning is kept here"
    return SourceOrder(order.line, None, order.body[:_KEPT_OF_A_LONG_ORDER], problem)


class _UnfitError(Exception):
    """A value that has no place in an order; the text says why, and holds nothing of it."""


def _checked(value: Any) -> tuple[str, str | None]:
    """Return a value as JSON, or as a JSON text and why it cannot be sent."""
    try:
        return _json_of(value), None
    except Exception as error:  # noqa: BLE001 - one row of millions must not end an import, whatever is in it
        text = bytes(value).decode("utf-8", "backslashreplace") if _is_binary(value) else str(value)
        why = str(error) if isinstance(error, _UnfitError) else f"cannot be written: {type(error).__name__}"
        return json.dumps(text), why


def _is_binary(value: Any) -> bool:
    return isinstance(value, (bytes, bytearray, memoryview))


@singledispatch
def _json_of(value: Any) -> str:
    raise _UnfitError(
        f"is of the type {type(value).__name__}, which an order does not have; convert it in the query"
    )


@_json_of.register(str)
@_json_of.register(int)
@_json_of.register(type(None))
def _plain(value: Any) -> str:
    return json.dumps(value)


@_json_of.register
def _json_text(value: JsonText) -> str:
    # It goes in as it is written, so it must be one JSON value and nothing else.
    try:
        json.loads(value, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _UnfitError("is not JSON") from None
    return str(value)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


@_json_of.register(Decimal)
@_json_of.register(float)
def _number(value: Decimal | float) -> str:
    if not Decimal(value).is_finite():
        raise _UnfitError(f"is {value}, which is not a JSON number")
    return format(value, "f") if isinstance(value, Decimal) else repr(value)


@_json_of.register
def _instant(value: datetime) -> str:
    if value.utcoffset() is None:
        raise _UnfitError("is a time without a zone; take a type with a zone, or convert it in the query")
    return f'"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"'


@_json_of.register(date)
@_json_of.register(UUID)
def _text(value: date | UUID) -> str:
    return json.dumps(str(value))


@_json_of.register
def _object(value: dict) -> str:  # type: ignore[type-arg]  # singledispatch takes no parameters
    return f"{{{','.join(f'{json.dumps(str(name))}:{_json_of(each)}' for name, each in value.items())}}}"


@_json_of.register(list)
@_json_of.register(tuple)
def _array(value: list[Any] | tuple[Any, ...]) -> str:
    return f"[{','.join(map(_json_of, value))}]"
