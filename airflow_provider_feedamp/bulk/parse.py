"""From the bytes of one line or element to an order, or to what is wrong with it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

_KINDS = {str: "a text", bool: "true or false", int: "a number", float: "a number", type(None): "null"}
_LONGEST_KEY = 64  # Characters that a reason shows.
_SPACE = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True, slots=True)
class SourceOrder:
    """One order as a source gave it.

    :param line: Its line (from 1) in a file of lines, or its position (from 1) in an array or a list.
    :param order: The order as parsed; None where the text is not JSON.
    :param body: The order's JSON as it was read; where the text is not JSON, that text.
    :param problem: Why this cannot be an order, in words that hold nothing of its content; None if it can.
    """

    line: int
    order: Any | None
    body: bytes | None
    problem: str | None = None


def parse_order(line: int, text: bytes) -> SourceOrder:
    """Parse one order; a line of a rejects file is unwrapped, so that a mended one can be fed in again."""
    body = text.strip()
    if not body:
        return SourceOrder(line, None, body, "nothing stands here: there is a comma too many")
    try:
        decoded = body.decode()
        value = _DECODER.decode(decoded)
    except (ValueError, RecursionError) as error:
        return SourceOrder(line, None, body, _why_not_json(error))
    if not isinstance(value, dict):
        return SourceOrder(line, value, body, f"is {_kind(value)}, not a JSON object")
    if _is_reject(value):
        return parse_order(line, _inside(decoded))
    return SourceOrder(line, value, body)


def order_of(position: int, value: object) -> SourceOrder:
    """Take one order that is already parsed, from a list or an XCom."""
    try:
        body = json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        text = repr(value).encode("utf-8", "backslashreplace")
        return SourceOrder(position, None, text, f"cannot be written as JSON: {error}")
    return parse_order(position, body)


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
    return "reason" in value and "line" in value and ("order" in value or "raw" in value)


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
