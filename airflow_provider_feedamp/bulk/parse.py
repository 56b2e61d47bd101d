"""From the bytes of one line, or from values of Python, to an order, or to why it is none."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
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

    @property
    def number(self) -> str | None:
        """The order's number, if there is a text in its place."""
        number = self.order.get("mp_order_number") if isinstance(self.order, dict) else None
        return number if isinstance(number, str) else None


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
        if isinstance(value, list):
            problem = "is a JSON array (an array of orders belongs in a .json file), not a JSON object"
        elif not isinstance(value, dict):
            problem = f"is {_KINDS[type(value)]}, not a JSON object"
        elif {"line", "reason", "codes"} <= value.keys() and ("order" in value or "raw" in value):
            return parse_order(line, _order_of_reject(decoded), unit)
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


def json_of(value: Any) -> str:
    """Return a value of Python as JSON: decimals keep their digits, times are written in UTC.

    :raises UnfitError: An order cannot hold it.
    """
    match value:
        case JsonText():
            return _whole_json(value)
        case None | str() | int():
            return json.dumps(value)
        case Decimal() | float():
            return _finite(value)
        case datetime():
            if value.utcoffset() is None:
                raise UnfitError("is a time without a zone; give it one where it comes from")
            return f'"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"'
        case date() | UUID():
            return json.dumps(str(value))
        case dict():
            if not all(isinstance(name, str) for name in value):
                raise UnfitError("has a key that is no text; keys must be texts")
            return f"{{{','.join(f'{json.dumps(name)}:{json_of(each)}' for name, each in value.items())}}}"
        case list() | tuple():
            return f"[{','.join(map(json_of, value))}]"
    raise UnfitError(
        f"is of the type {type(value).__name__}, which an order does not have; convert it where it comes from"
    )


def _finite(value: Decimal | float) -> str:
    if not Decimal(value).is_finite():
        raise UnfitError(f"is {value}, which is not a JSON number")
    return format(value, "f") if isinstance(value, Decimal) else repr(value)


def _whole_json(text: JsonText) -> str:
    # It goes in as it is written, so it must be one JSON value and nothing else.
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise UnfitError("is not JSON") from None
    return str(text)


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
    return str(error) if isinstance(error, _TwiceError) else f"is not JSON: {error}"


def _order_of_reject(text: str) -> bytes:
    """Return the order of a line of a rejects file as it is written there, or its raw text."""
    found = ""
    at = text.index("{") + 1
    while True:
        name, at = _DECODER.raw_decode(text, _after_space(text, at))
        at = _after_space(text, text.index(":", at) + 1)
        value, end = _DECODER.raw_decode(text, at)
        if name == "order":
            return text[at:end].encode()
        if name == "raw":
            found = str(value)
        at = _after_space(text, end)
        if text[at] == "}":
            return found.encode("utf-8", "backslashreplace")
        at += 1


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at
