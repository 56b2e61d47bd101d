"""What a rendered template gives for a parameter, read as what it is."""

from __future__ import annotations

import math
from typing import NoReturn

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
