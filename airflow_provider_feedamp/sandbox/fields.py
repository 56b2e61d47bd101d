"""Checks of single fields in request bodies, shared by orders, refunds and returns."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import date, datetime

from airflow_provider_feedamp.sandbox.refusal import (
    INCORRECT_TYPE,
    INVALID_PAYLOAD,
    INVALID_VALUE,
    MISSING_FIELD,
    UNKNOWN_FIELD,
    Problem,
    problem,
)

MAX_NUMBER_LENGTH = 128

#: Returns None, or the code and the rest of the sentence that begins with the field's name.
Check = Callable[[object], tuple[str, str] | None]

_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_UTC_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")
_CURRENCY = re.compile(r"[A-Z]{3}")
_NOT_A_STRING = (INCORRECT_TYPE, "must be a string")


def number(value: object) -> tuple[str, str] | None:
    """Check one of the marketplace's identifiers."""
    if not isinstance(value, str):
        return _NOT_A_STRING
    if not 1 <= len(value) <= MAX_NUMBER_LENGTH:
        return INVALID_VALUE, f"must have 1 to {MAX_NUMBER_LENGTH} characters"
    return None


def text(value: object) -> tuple[str, str] | None:
    """Check a text that must not be empty."""
    if not isinstance(value, str):
        return _NOT_A_STRING
    return None if value else (INVALID_VALUE, "must not be empty")


def any_text(value: object) -> tuple[str, str] | None:
    """Check a text that may be empty."""
    return None if isinstance(value, str) else _NOT_A_STRING


def mapping(value: object) -> tuple[str, str] | None:
    """Check an object, whatever is in it."""
    return None if isinstance(value, dict) else (INCORRECT_TYPE, "must be an object")


def boolean(value: object) -> tuple[str, str] | None:
    """Check a boolean."""
    return None if isinstance(value, bool) else (INCORRECT_TYPE, "must be a boolean")


def filled_list(value: object) -> tuple[str, str] | None:
    """Check a list that must not be empty."""
    if not isinstance(value, list):
        return INCORRECT_TYPE, "must be a list"
    return None if value else (INVALID_VALUE, "must not be empty")


def currency(value: object) -> tuple[str, str] | None:
    """Check a currency code."""
    if not isinstance(value, str):
        return _NOT_A_STRING
    return None if _CURRENCY.fullmatch(value) else (INVALID_VALUE, "must be an ISO 4217 code")


def utc_instant(value: object) -> tuple[str, str] | None:
    """Check an instant of a body: always UTC, and written with ``Z``."""
    if not isinstance(value, str):
        return _NOT_A_STRING
    valid = bool(_UTC_INSTANT.fullmatch(value)) and _reads(datetime.fromisoformat, value)
    return None if valid else (INVALID_VALUE, "must be a UTC instant like 2024-05-01T23:52:01Z")


def day(value: object) -> tuple[str, str] | None:
    """Check a date without a time."""
    if not isinstance(value, str):
        return _NOT_A_STRING
    valid = bool(_DATE.fullmatch(value)) and _reads(date.fromisoformat, value)
    return None if valid else (INVALID_VALUE, "must be a date like 2024-05-01")


def quantity(value: object) -> tuple[str, str] | None:
    """Check a whole number of 1 or more."""
    if not isinstance(value, int) or isinstance(value, bool):
        return INCORRECT_TYPE, "must be an integer"
    return None if value >= 1 else (INVALID_VALUE, "must be at least 1")


def amount(value: object) -> tuple[str, str] | None:
    """Check a number."""
    fits = isinstance(value, (int, float)) and not isinstance(value, bool)
    return None if fits else (INCORRECT_TYPE, "must be a number")


def one_of(choices: Collection[str]) -> Check:
    """Return the check of a closed vocabulary."""
    wrong = (INVALID_VALUE, f"must be one of {', '.join(choices)}")
    return lambda value: None if value in choices else wrong


def field_problems(
    body: Mapping[str, object],
    required: Mapping[str, Check],
    optional: Mapping[str, Check],
    prefix: str = "",
) -> Iterator[Problem]:
    """Yield what is wrong with the fields of one object; names of fields, never their content.

    :param body: The object.
    :param required: Checks of fields that must be there.
    :param optional: Checks of fields that may be missing or null.
    :param prefix: Where the object stands in the body.
    """
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


def line_problems(
    body: Mapping[str, object],
    name: str,
    required: Mapping[str, Check],
    optional: Mapping[str, Check],
    key: str,
) -> Iterator[Problem]:
    """Yield what is wrong with the lines of a body, each of which has a number of its own.

    :param body: The body.
    :param name: The field that holds the lines.
    :param required: Checks of fields that each line must have.
    :param optional: Checks of fields that it may have.
    :param key: The field that tells the lines apart.
    """
    lines = body.get(name)
    seen: set[str] = set()
    for index, line in enumerate(lines if isinstance(lines, list) else ()):
        where = f"{name}[{index}]"
        if not isinstance(line, dict):
            yield problem(INCORRECT_TYPE, f"'{where}' must be an object")
            continue
        yield from field_problems(line, required, optional, where + ".")
        own = line.get(key)
        if isinstance(own, str):
            if own in seen:
                yield problem(INVALID_VALUE, f"'{where}.{key}' is on an earlier line")
            seen.add(own)


def unknown_problems(body: Mapping[str, object], known: Collection[str], prefix: str = "") -> list[Problem]:
    """Return one problem for each field that cannot be set.

    :param body: The object.
    :param known: The fields that can be set.
    :param prefix: Where the object stands in the body.
    """
    unknown = sorted(body.keys() - set(known))
    return [problem(UNKNOWN_FIELD, f"'{prefix}{name}' cannot be set") for name in unknown]


def not_an_object() -> list[Problem]:
    """Return the problem of a body that is something else than an object."""
    return [problem(INVALID_PAYLOAD, "the body must be an object")]


def _reads(reader: Callable[[str], object], value: str) -> bool:
    try:
        reader(value)
    except ValueError:
        return False
    return True
