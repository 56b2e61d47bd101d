"""What is wrong with a return, found before it is sent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date

from airflow_provider_feedamp.api.order_check import LONGEST_NUMBER
from airflow_provider_feedamp.api.types import ReturnType
from airflow_provider_feedamp.exceptions import InputError

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOST_SHOWN = 10


def check_return(mp_order_number: str, mp_return_number: str, return_: object) -> None:
    """Refuse a return that FeedAMP would refuse.

    :raises InputError: Names the return and all that is wrong with it.
    """
    problems = return_problems(mp_order_number, mp_return_number, return_)
    if problems:
        more = f"; and {len(problems) - _MOST_SHOWN} more" if len(problems) > _MOST_SHOWN else ""
        name = f"Return {_short(mp_return_number)} of order {_short(mp_order_number)}"
        raise InputError(f"{name} was not sent: {'; '.join(problems[:_MOST_SHOWN])}{more}")


def return_problems(mp_order_number: object, mp_return_number: object, return_: object) -> list[str]:
    """Return all that is wrong with a return, in words that name the field; empty when it can be sent.

    What FeedAMP documents is checked, and nothing else: unknown fields pass, and so do the inner fields of
    ``shipping_address``. The words never hold a value that was given.

    :param mp_order_number: The number of its order.
    :param mp_return_number: Its own number.
    :param return_: The return as parsed from JSON.
    """
    problems = []
    numbers = {"mp_order_number": mp_order_number, "mp_return_number": mp_return_number}
    for name, number in numbers.items():
        if wrong := _number(number):
            problems.append(f"{name} {wrong}")
    if not isinstance(return_, Mapping):
        return [*problems, "it must be an object"]
    for name, number in numbers.items():
        if return_.get(name) not in (None, number):
            problems.append(f"{name} in the body is not that of the path")
    for name in ("request_date", "respond_date"):
        if not _is_date(return_.get(name)):
            problems.append(f"{name} must be a date, such as 2024-05-10")
    if return_.get("return_type") not in (None, *ReturnType):
        problems.append(f"return_type must be one of {', '.join(ReturnType)}")
    if not isinstance(return_.get("shipping_address"), Mapping | None):
        problems.append("shipping_address must be an object")
    return problems + _line_problems(return_.get("return_lines"))


def _line_problems(lines: object) -> list[str]:
    if not isinstance(lines, list | tuple) or not lines:
        return ["return_lines must be a list with at least one line"]
    problems = []
    first_with: dict[str, int] = {}
    for index, line in enumerate(lines):
        name = f"return_lines[{index}]"
        if not isinstance(line, Mapping):
            problems.append(f"{name} must be an object")
            continue
        problems += [f"{name}.{wrong}" for wrong in _problems_of_line(line)]
        number = line.get("mp_return_line_number")
        if isinstance(number, str) and (first := first_with.setdefault(number, index)) != index:
            problems.append(f"{name}.mp_return_line_number is the same as that of return_lines[{first}]")
    return problems


def _problems_of_line(line: Mapping[str, object]) -> list[str]:
    problems = []
    for name in ("mp_return_line_number", "mp_order_line_number"):
        if wrong := _number(line.get(name)):
            problems.append(f"{name} {wrong}")
    quantity = line.get("quantity")
    if type(quantity) is not int or quantity < 1:
        problems.append("quantity must be a whole number of at least 1")
    if not isinstance(line.get("preauthorized"), bool | None):
        problems.append("preauthorized must be true or false")
    return problems


def _number(value: object) -> str:
    if isinstance(value, str) and value.strip() and len(value) <= LONGEST_NUMBER:
        return ""
    return f"must be text of 1 to {LONGEST_NUMBER} characters"


def _is_date(value: object) -> bool:
    if value is None:
        return True
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        return False
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return True


def _short(number: object) -> str:
    return repr(number[:LONGEST_NUMBER]) if number and isinstance(number, str) else "without a number"
