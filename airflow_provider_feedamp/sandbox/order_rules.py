"""What FeedAMP checks in the bodies of Place Order and Report Errors (feedamp-api.md A4.4 to A4.7)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from airflow_provider_feedamp.sandbox.refusal import (
    INCORRECT_TYPE,
    INVALID_PAYLOAD,
    INVALID_VALUE,
    MISSING_FIELD,
    UNKNOWN_FIELD,
    Problem,
    problem,
)

MARKETPLACE_STATES = ("PENDING", "AWAITING_SHIPMENT", "SHIPPED", "CANCELLED")
MAX_NUMBER_LENGTH = 128

_UTC_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")
_CURRENCY = re.compile(r"[A-Z]{3}")

# Each check returns None, or the code and the rest of the sentence that begins with the field's name.
_Check = Callable[[object], tuple[str, str] | None]


def _number(value: object) -> tuple[str, str] | None:
    if not isinstance(value, str):
        return INCORRECT_TYPE, "must be a string"
    if not 1 <= len(value) <= MAX_NUMBER_LENGTH:
        return INVALID_VALUE, f"must have 1 to {MAX_NUMBER_LENGTH} characters"
    return None


def _text(value: object) -> tuple[str, str] | None:
    if not isinstance(value, str):
        return INCORRECT_TYPE, "must be a string"
    return None if value else (INVALID_VALUE, "must not be empty")


def _any_text(value: object) -> tuple[str, str] | None:
    return None if isinstance(value, str) else (INCORRECT_TYPE, "must be a string")


def _object(value: object) -> tuple[str, str] | None:
    return None if isinstance(value, dict) else (INCORRECT_TYPE, "must be an object")


def _boolean(value: object) -> tuple[str, str] | None:
    return None if isinstance(value, bool) else (INCORRECT_TYPE, "must be a boolean")


def _list(value: object) -> tuple[str, str] | None:
    if not isinstance(value, list):
        return INCORRECT_TYPE, "must be a list"
    return None if value else (INVALID_VALUE, "must not be empty")


def _currency(value: object) -> tuple[str, str] | None:
    if not isinstance(value, str):
        return INCORRECT_TYPE, "must be a string"
    return None if _CURRENCY.fullmatch(value) else (INVALID_VALUE, "must be an ISO 4217 code")


def _instant(value: object) -> tuple[str, str] | None:
    if not isinstance(value, str):
        return INCORRECT_TYPE, "must be a string"
    try:
        valid = bool(_UTC_INSTANT.fullmatch(value)) and bool(datetime.fromisoformat(value))
    except ValueError:
        valid = False
    return None if valid else (INVALID_VALUE, "must be a UTC instant like 2024-05-01T23:52:01Z")


def _state(value: object) -> tuple[str, str] | None:
    return (
        None
        if value in MARKETPLACE_STATES
        else (INVALID_VALUE, f"must be one of {', '.join(MARKETPLACE_STATES)}")
    )


def _quantity(value: object) -> tuple[str, str] | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return INCORRECT_TYPE, "must be an integer"
    return None if value >= 1 else (INVALID_VALUE, "must be at least 1")


def _amount(value: object) -> tuple[str, str] | None:
    fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    return None if fits else (INCORRECT_TYPE, "must be a number")


_REQUIRED: Mapping[str, _Check] = {
    "mp_order_number": _number,
    "sales_channel": _text,
    "customer": _object,
    "purchase_date": _instant,
    "currency": _currency,
    "shipping_address": _object,
    "order_lines": _list,
    "marketplace_state": _state,
}
_OPTIONAL: Mapping[str, _Check] = {
    "location": _object,
    "delivery_notes": _any_text,
    "earliest_ship_date": _instant,
    "latest_ship_date": _instant,
    "latest_delivery_date": _instant,
    "earliest_delivery_date": _instant,
    "is_marketplace_fulfilled": _boolean,
}
_LINE_REQUIRED: Mapping[str, _Check] = {"mp_line_number": _number, "sku": _text, "quantity": _quantity}
_LINE_OPTIONAL: Mapping[str, _Check] = {"unit_price": _amount}
_ERROR_REQUIRED: Mapping[str, _Check] = {"code": _text, "message": _any_text}
_ERROR_OPTIONAL: Mapping[str, _Check] = {"mp_line_number": _number}


def order_problems(body: object, number: str, *, strict_fields: bool) -> list[Problem]:
    """Return all that is wrong with the body of a Place Order; names of fields, never their content.

    :param body: The parsed body.
    :param number: The order number in the path.
    :param strict_fields: Whether unknown and read-only fields are refused.
    """
    if not isinstance(body, dict):
        return [problem(INVALID_PAYLOAD, "the body must be an object")]
    found = list(_field_problems(body, _REQUIRED, _OPTIONAL))
    lines = body.get("order_lines")
    if isinstance(lines, list):
        found.extend(_line_problems(lines))
    if not found and body["mp_order_number"] != number:
        found.append(problem(INVALID_VALUE, "'mp_order_number' differs from the one in the path"))
    if strict_fields:
        unknown = sorted(body.keys() - _REQUIRED.keys() - _OPTIONAL.keys())
        found.extend(problem(UNKNOWN_FIELD, f"'{name}' cannot be set") for name in unknown)
    return found


def error_problems(body: object, line_numbers: Mapping[str, int], *, strict_fields: bool) -> list[Problem]:
    """Return all that is wrong with the body of a Report Errors call.

    :param body: The parsed body.
    :param line_numbers: The order's lines.
    :param strict_fields: Whether unknown fields are refused.
    """
    if not isinstance(body, list) or not body:
        return [problem(INVALID_PAYLOAD, "the body must be a list with at least one error")]
    found: list[Problem] = []
    for index, entry in enumerate(body):
        where = f"[{index}]"
        if not isinstance(entry, dict):
            found.append(problem(INCORRECT_TYPE, f"'{where}' must be an object"))
            continue
        found.extend(_field_problems(entry, _ERROR_REQUIRED, _ERROR_OPTIONAL, where + "."))
        line = entry.get("mp_line_number")
        if isinstance(line, str) and line not in line_numbers:
            found.append(problem(INVALID_VALUE, f"'{where}.mp_line_number' is not a line of the order"))
        debug = entry.get("debug")
        if debug is not None and not (
            isinstance(debug, list) and all(isinstance(each, dict) for each in debug)
        ):
            found.append(problem(INCORRECT_TYPE, f"'{where}.debug' must be a list of objects"))
        if strict_fields:
            unknown = sorted(entry.keys() - {"code", "message", "mp_line_number", "debug"})
            found.extend(problem(UNKNOWN_FIELD, f"'{where}.{name}' cannot be set") for name in unknown)
    return found


def _field_problems(
    body: Mapping[str, object],
    required: Mapping[str, _Check],
    optional: Mapping[str, _Check],
    prefix: str = "",
) -> Iterator[Problem]:
    for name, check in required.items():
        value = body.get(name)
        if value is None:
            yield problem(MISSING_FIELD, f"'{prefix}{name}' is required")
            continue
        wrong = check(value)
        if wrong:
            yield problem(wrong[0], f"'{prefix}{name}' {wrong[1]}")
    for name, check in optional.items():
        value = body.get(name)
        wrong = check(value) if value is not None else None
        if wrong:
            yield problem(wrong[0], f"'{prefix}{name}' {wrong[1]}")


def _line_problems(lines: list[object]) -> Iterator[Problem]:
    seen: set[object] = set()
    for index, line in enumerate(lines):
        where = f"order_lines[{index}]"
        if not isinstance(line, dict):
            yield problem(INCORRECT_TYPE, f"'{where}' must be an object")
            continue
        yield from _field_problems(line, _LINE_REQUIRED, _LINE_OPTIONAL, where + ".")
        number = line.get("mp_line_number")
        if isinstance(number, str):
            if number in seen:
                yield problem(INVALID_VALUE, f"'{where}.mp_line_number' is on an earlier line")
            seen.add(number)
