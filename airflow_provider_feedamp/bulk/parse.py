"""From the bytes of one line, or from values of Python, to an order, or to what is wrong with it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import singledispatch
from typing import Any, NoReturn
from uuid import UUID

_KINDS = {str: "a text", bool: "true or false", int: "a number", float: "a number", type(None): "null"}
_LONGEST_KEY = 64  # Characters that a reason shows.
_SPACE = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True, slots=True)
class SourceOrder:
    """One order as a source gave it.

    :param line: Its line (from 1) in a file of lines; in an array, a list or a query its position (from 1).
    :param order: The order as parsed; None where the text is not JSON.
    :param body: The order's JSON as it was read; where the text is not JSON, that text.
    :param problem: Why this cannot be an order, in words that hold nothing of its content; None if it can.
    :param unit: What ``line`` counts: ``line``, ``item`` or ``row``.
    """

    line: int
    order: Any | None
    body: bytes | None
    problem: str | None = None
    unit: str = "line"

    @property
    def place(self) -> str:
        """Where it is in its source, such as ``line 7``."""
        return f"{self.unit} {self.line}"


def parse_order(line: int, text: bytes, unit: str = "line") -> SourceOrder:
    """Parse one order; a line of a rejects file is unwrapped, so that a mended one can be fed in again."""
    body = text.strip()
    value, problem = None, None
    try:
        decoded = body.decode()
        value = _DECODER.decode(decoded)
    except (ValueError, RecursionError) as error:
        problem = _why_not_json(error) if body else "nothing stands here: there is a comma too many"
    else:
        if not isinstance(value, dict):
            problem = f"is {_kind(value)}, not a JSON object"
        elif _is_reject(value):
            return parse_order(line, _inside(decoded), unit)
    return SourceOrder(line, value, body, problem, unit)


def order_of(position: int, value: object) -> SourceOrder:
    """Take one order that is already parsed, from a list or an XCom."""
    try:
        try:
            body = json.dumps(value, allow_nan=False, separators=(",", ":"))
        except TypeError:
            body = json_of(value)
    except (UnfitError, ValueError, RecursionError, OverflowError) as error:
        text = repr(value).encode("utf-8", "backslashreplace")
        why = f"a value {error}" if isinstance(error, UnfitError) else str(error)
        return SourceOrder(position, None, text, f"cannot be written as JSON: {why}", "item")
    return parse_order(position, body.encode(), "item")


class JsonText(str):
    """A text that is JSON already, such as a database's column of a JSON type gives it."""

    __slots__ = ()


class UnfitError(Exception):
    """A value that has no place in an order; the text says why, and holds nothing of it."""


@singledispatch
def json_of(value: Any) -> str:
    """Return a value of Python as JSON: decimals keep their digits, times are written in UTC.

    :raises UnfitError: An order cannot hold it.
    """
    raise UnfitError(
        f"is of the type {type(value).__name__}, which an order does not have; convert it where it comes from"
    )


@json_of.register(str)
@json_of.register(int)
@json_of.register(type(None))
def _plain(value: Any) -> str:
    return json.dumps(value)


@json_of.register
def _json_text(value: JsonText) -> str:
    # It goes in as it is written, so it must be one JSON value and nothing else.
    try:
        json.loads(value, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise UnfitError("is not JSON") from None
    return str(value)


@json_of.register(Decimal)
@json_of.register(float)
def _number(value: Decimal | float) -> str:
    if not Decimal(value).is_finite():
        raise UnfitError(f"is {value}, which is not a JSON number")
    return format(value, "f") if isinstance(value, Decimal) else repr(value)


@json_of.register
def _instant(value: datetime) -> str:
    if value.utcoffset() is None:
        raise UnfitError("is a time without a zone; give it one where it comes from")
    return f'"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"'


@json_of.register(date)
@json_of.register(UUID)
def _text(value: date | UUID) -> str:
    return json.dumps(str(value))


@json_of.register
def _mapping(value: dict) -> str:  # type: ignore[type-arg]  # singledispatch takes no parameters
    if not all(isinstance(name, str) for name in value):
        raise UnfitError("has a key that is no text; keys must be texts")
    return f"{{{','.join(f'{json.dumps(name)}:{json_of(each)}' for name, each in value.items())}}}"


@json_of.register(list)
@json_of.register(tuple)
def _array(value: list[Any] | tuple[Any, ...]) -> str:
    return f"[{','.join(map(json_of, value))}]"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


class _TwiceError(ValueError):
    """One of two values would be lost, and the next reader may choose the other one."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _TwiceError(f"has the key {twice[:_LONGEST_KEY]!r} twice in one object")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant)


def _why_not_json(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8 at byte {error.start + 1}"
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON: {error.msg.removesuffix(' at')} at character {error.pos + 1}"
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    if isinstance(error, _TwiceError):
        return str(error)
    return f"is not JSON: {error}"


def _kind(value: object) -> str:
    if isinstance(value, list):
        return "a JSON array (an array of orders belongs in a .json file)"
    return _KINDS[type(value)]


def _is_reject(value: dict[str, Any]) -> bool:
    return {"line", "reason", "codes"} <= value.keys() and ("order" in value or "raw" in value)


def _inside(reject: str) -> bytes:
    """Return the order of a line of a rejects file as it is written there, or its raw text."""
    found = ""
    at = reject.index("{") + 1
    while True:
        at = _after_space(reject, at)
        name, at = _DECODER.raw_decode(reject, at)
        at = _after_space(reject, reject.index(":", at) + 1)
        value, end = _DECODER.raw_decode(reject, at)
        if name == "order":
            return reject[at:end].encode()
        if name == "raw":
            found = str(value)
        at = _after_space(reject, end)
        if reject[at] == "}":
            return found.encode("utf-8", "backslashreplace")
        at += 1


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at
