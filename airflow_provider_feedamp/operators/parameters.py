"""Reads the parameters of tasks: given as they are, by another task, or as the text that a template renders.

It imports nothing of Airflow, as the command line reads its options with it and has to start at once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NoReturn

from airflow_provider_feedamp.exceptions import InputError

#: Returns why a value cannot be used, or nothing: "".
Check = Callable[[object], str]


def nothing(value: object) -> bool:
    """Say whether a value is None, also as a template renders it."""
    return value is None or value == "None"


def given_list(name: str, value: object) -> list[Any]:
    """Return a list, also the output of mapped tasks, or the text of a JSON array.

    :param name: The parameter, for the error.
    :param value: What the task was given.
    :raises InputError: It is something else.
    """
    if isinstance(value, str):
        try:
            # A price of 1.10 stays what it is; through a float, one with many digits would not.
            value = json.loads(value, parse_float=Decimal)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, list):
            return value
        raise InputError(
            f"{name} is a text that is not a JSON array. A template that renders to Python's notation or to "
            f'nothing does that: pass the task\'s output itself ({name}=task.output), or add "| tojson".'
        )
    if isinstance(value, (Mapping, bytes)) or not isinstance(value, Iterable):
        kind = "None: did the task before return nothing?" if value is None else f"{type(value).__name__}."
        raise InputError(f"{name} must be a list, not {kind}")
    return list(value)


def given_texts(name: str, value: object) -> list[str]:
    """Return a list of texts; see :func:`given_list`.

    :raises InputError: Names the first entry that is blank or no text.
    """
    texts = given_list(name, value)
    for position, entry in enumerate(texts):
        if wrong := text(entry):
            raise InputError(f"{name}[{position}] {wrong}.")
    return texts


def given_objects(name: str, value: object, fields: Mapping[str, Check]) -> list[Mapping[str, Any]]:
    """Return a list of objects; see :func:`given_list`.

    :param fields: The fields that are needed, with their checks.
    :raises InputError: Names the position, and the field that is missing or wrong; never its value.
    """
    objects = given_list(name, value)
    for position, entry in enumerate(objects):
        if not isinstance(entry, Mapping):
            raise InputError(f"{name}[{position}] must be an object with {', '.join(fields)}.")
        for field, check in fields.items():
            if wrong := check(entry.get(field)):
                raise InputError(f"{name}[{position}].{field} {wrong}.")
    return objects


def given_filters(task: object, lists: Iterable[str], instants: Iterable[str]) -> dict[str, Any]:
    """Return the filters of a list call by their names; None for one that was not given.

    :param task: Has the filters as attributes.
    :param lists: The names of those that are lists of texts.
    :param instants: The names of those that are instants.
    :raises InputError: One of them cannot be read.
    """
    given = {name: getattr(task, name) for name in lists}
    texts = {name: None if nothing(value) else given_texts(name, value) for name, value in given.items()}
    return texts | {name: given_instant(name, getattr(task, name)) for name in instants}


def given_instant(name: str, value: object) -> datetime | None:
    """Return an instant with its time zone, also from ISO 8601; None if none was given.

    :raises InputError: It cannot be read, or has no time zone: FeedAMP would take it for New York's.
    """
    if nothing(value):
        return None
    try:
        instant = value if isinstance(value, datetime) else datetime.fromisoformat(str(value).strip())
        if instant.utcoffset() is not None:
            return instant
    except ValueError:
        pass
    raise InputError(
        f"{name} must be a datetime with a time zone, or one in ISO 8601, such as 2026-11-01T00:00:00Z, "
        f"not {value!r}."
    )


def text(value: object) -> str:
    """Check a number of the marketplace's, a code or a message."""
    return "" if isinstance(value, str) and value.strip() else "must be text that is not blank"


def refund_id(value: object) -> str:
    """Check a refund's id: FeedAMP gives a number, a template may make a text of it."""
    digits = str(value) if type(value) is int else value
    fine = isinstance(digits, str) and digits.isascii() and digits.isdigit()
    return "" if fine else "must be a whole number or its digits"


def flag(name: str, value: object) -> bool:
    """Return True or False, also from their text.

    :raises InputError: It is neither.
    """
    word = str(value).strip().lower()
    if word in ("true", "false"):
        return word == "true"
    _refuse(name, "True or False", value)


def whole_number(name: str, value: object, *, least: int, most: int | None = None) -> int:
    """Return a whole number, also from its digits.

    :raises InputError: It is not a number, or is out of bounds.
    """
    number = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
    if type(number) is int and number >= least and (most is None or number <= most):
        return number
    _refuse(name, f"a whole number from {least}" + (f" to {most}" if most is not None else ""), value)


def limit(name: str, value: object) -> int | None:
    """Return how many of something may be, or None for any number.

    :raises InputError: It is neither.
    """
    if nothing(value):
        return None
    try:
        return whole_number(name, value, least=0)
    except ValueError:
        _refuse(name, "a whole number from 0 or None", value)


def rate(name: str, value: object) -> float | None:
    """Return a number above 0, or None (an empty text means that, too).

    :raises InputError: It is neither.
    """
    if nothing(value) or value == "":
        return None
    number = _number(value)
    if 0 < number < math.inf:
        return number
    _refuse(name, "a number above 0 or None", value)


def duration(name: str, value: object) -> timedelta:
    """Return a timedelta, also from seconds.

    :raises InputError: It is none, or below 0.
    """
    try:
        length = value if isinstance(value, timedelta) else timedelta(seconds=_number(value))
        if length >= timedelta(0):
            return length
    except (ValueError, OverflowError):
        pass
    raise InputError(f"{name} is {value!r}: give a timedelta, or seconds of 0 or more.")


def _number(value: object) -> float:
    """Return a number, also from its text; not a number for anything else."""
    try:
        return math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _refuse(name: str, wanted: str, value: object) -> NoReturn:
    raise InputError(f"{name} must be {wanted}, not {value!r}.")
