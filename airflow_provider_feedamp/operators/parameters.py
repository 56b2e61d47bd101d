"""What a task is given: as it is, from another task, or as the text that a template renders to."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, NoReturn

from airflow_provider_feedamp.exceptions import InputError

Check = Callable[[object], str]


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

    :param name: The parameter, for the error.
    :param value: What the task was given.
    :param fields: For each field that is needed, what says what is wrong with its value (nothing: "").
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
    """Return an instant, also from ISO 8601; None if none was given.

    :raises InputError: It cannot be read. Whether it has a zone, the client checks.
    """
    if nothing(value):
        return None
    try:
        return value if isinstance(value, datetime) else datetime.fromisoformat(str(value).strip())
    except ValueError as error:
        raise InputError(
            f"{name} must be a datetime with a time zone, or one in ISO 8601, not {value!r}."
        ) from error


def nothing(value: object) -> bool:
    """Say whether a value is None, also as a template renders it."""
    return value is None or value == "None"


def text(value: object) -> str:
    """Say what is wrong with a number of the marketplace's, a code or a message."""
    return "" if isinstance(value, str) and value.strip() else "must be text that is not blank"


def refund_id(value: object) -> str:
    """Say what is wrong with a refund's id: FeedAMP gives a number, a template may make a text of it."""
    digits = str(value) if type(value) is int else value
    fine = isinstance(digits, str) and digits.isascii() and digits.isdigit()
    return "" if fine else "must be a whole number or its digits"


#: What ``None`` looks like when a template has rendered it.
_NONE = (None, "None", "")


def flag(name: str, value: object) -> bool:
    """Return a parameter as the truth that it is.

    :raises InputError: It is not true or false.
    """
    if isinstance(value, bool):
        return value
    if str(value).strip().lower() in {"true", "false"}:
        return str(value).strip().lower() == "true"
    _refuse(name, "True or False", value)


def whole_number(name: str, value: object, *, least: int, most: int | None = None) -> int:
    """Return a parameter as the whole number that it is.

    :raises InputError: It is not a number, or is out of bounds.
    """
    number = None
    if isinstance(value, str) and value.strip().isdecimal():
        number = int(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    if number is not None and number >= least and (most is None or number <= most):
        return number
    _refuse(name, f"a whole number from {least}" + (f" to {most}" if most is not None else ""), value)


def limit(name: str, value: object) -> int | None:
    """Return a parameter that is a number of things, or None for any number.

    :raises InputError: It is neither.
    """
    if value is None or value == "None":
        return None
    try:
        return whole_number(name, value, least=0)
    except ValueError:
        _refuse(name, "a whole number from 0 or None", value)


def rate(name: str, value: object) -> float | None:
    """Return a parameter that is a number above 0, or None (an empty text means that, too).

    :raises InputError: It is neither.
    """
    if value in _NONE:
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if 0 < number < math.inf:
        return number
    _refuse(name, "a number above 0 or None", value)


def _refuse(name: str, wanted: str, value: object) -> NoReturn:
    from airflow_provider_feedamp.exceptions import InputError

    raise InputError(f"{name} must be {wanted}, not {value!r}.")
