"""The checks of an order and of a return, made before they are sent."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from airflow_provider_feedamp.api.types import MarketplaceState, ReturnType
from airflow_provider_feedamp.exceptions import InputError

#: Characters in an order's or a line's number.
LONGEST_NUMBER = 128

_STATES = frozenset(state.value for state in MarketplaceState)
_CURRENCY = re.compile(r"[A-Z]{3}")
_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?Z")
#: An instant that is written in another way: with an offset, or with no zone.
_OTHER_INSTANT = re.compile(r"[0-9-]{8,10}[T ][0-9:]{4,8}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9:]{2,5})?")
#: Texts that may be shown: no name, address or e-mail looks like that, whatever slipped into the field.
_SHOWABLE = re.compile(r"[A-Z_]{1,24}|[a-z]{3}|[0-9TZ:.+ -]{0,40}")
_MOST_SHOWN = 10


def check_order(order: object) -> None:
    """Refuse an order that FeedAMP would refuse.

    :raises InputError: Names the order and all that is wrong with it.
    """
    try:
        problems = order_problems(order)
    except Exception as error:  # noqa: BLE001 - one order of millions must not end an import, whatever is in it
        problems = [f"it could not be checked: {type(error).__name__}"]
    if problems:
        number = order.get("mp_order_number") if isinstance(order, Mapping) else None
        name = (
            f"Order {number[:LONGEST_NUMBER]!r}"
            if number and isinstance(number, str)
            else "An order without a number"
        )
        more = f"; and {len(problems) - _MOST_SHOWN} more" if len(problems) > _MOST_SHOWN else ""
        raise InputError(f"{name} was not sent: {'; '.join(problems[:_MOST_SHOWN])}{more}")


def order_problems(order: object) -> list[str]:
    """Return all that is wrong with an order, in words that name the field; empty when it can be sent.

    What FeedAMP documents is checked, and nothing else: unknown fields pass, and so do the inner fields of
    ``customer`` and ``shipping_address``. The words never hold personal data.

    :param order: The order as parsed from JSON.
    """
    if not isinstance(order, Mapping):
        return [f"the order is {_harmless(order)}: it must be an object"]
    problems = []
    for name, check in _REQUIRED.items():
        value = order.get(name)
        if value is None:
            problems.append(f"{name} is {'null' if name in order else 'missing'}: it is required")
        elif wrong := check(value):
            problems.append(f"{name} {wrong}")
    for name in _OPTIONAL_INSTANTS:
        value = order.get(name)
        if value is not None and (wrong := _instant_problem(value)):
            problems.append(f"{name} {wrong}")
    lines = order.get("order_lines")
    if isinstance(lines, list | tuple):
        problems += _problems_of_lines(lines)
    return problems


def _problems_of_lines(lines: list[object] | tuple[object, ...]) -> list[str]:
    problems = []
    first_with: dict[str, int] = {}
    for index, line in enumerate(lines):
        if not isinstance(line, Mapping):
            problems.append(f"order_lines[{index}] is {_harmless(line)}: it must be an object")
            continue
        for name, check in _REQUIRED_OF_LINE.items():
            value = line.get(name)
            if value is None:
                problems.append(
                    f"order_lines[{index}].{name} is {'null' if name in line else 'missing'}: it is required"
                )
            elif wrong := check(value):
                problems.append(f"order_lines[{index}].{name} {wrong}")
        if "unit_price" in line and (wrong := _price_problem(line["unit_price"])):
            problems.append(f"order_lines[{index}].unit_price {wrong}")
        number = line.get("mp_line_number")
        if isinstance(number, str) and (first := first_with.setdefault(number, index)) != index:
            problems.append(
                f"order_lines[{index}].mp_line_number is the same as that of order_lines[{first}]"
            )
    return problems


def _order_number_problem(value: object) -> str:
    wrong = _number_problem(value)
    if not wrong and value in {".", ".."}:
        return f"is {value!r}: a URL cannot carry it"
    if not wrong and isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return "holds half a character (a lone surrogate): a URL cannot carry it"
    return wrong


def _number_problem(value: object) -> str:
    if isinstance(value, str) and len(value) > LONGEST_NUMBER:
        return f"has {len(value)} characters: at most {LONGEST_NUMBER} are allowed"
    return _text_problem(value)


def _text_problem(value: object) -> str:
    if not isinstance(value, str):
        return f"is {_harmless(value)}: it must be text"
    return "" if value and not value.isspace() else "is blank: it must be text"


def _object_problem(value: object) -> str:
    return "" if isinstance(value, Mapping) else f"is {_harmless(value)}: it must be an object"


def _lines_problem(value: object) -> str:
    if isinstance(value, list | tuple):
        return "" if value else "is empty: an order needs at least one line"
    return f"is {_harmless(value)}: it must be a list"


def _currency_problem(value: object) -> str:
    if isinstance(value, str) and _CURRENCY.fullmatch(value):
        return ""
    return f"is {_harmless(value)}: it must be a currency code of three capital letters, such as USD"


def _state_problem(value: object) -> str:
    if isinstance(value, str) and value in _STATES:
        return ""
    return f"is {_harmless(value)}: it must be one of {', '.join(MarketplaceState)}"


def _instant_problem(value: object) -> str:
    if isinstance(value, str) and _INSTANT.fullmatch(value):
        try:
            datetime.fromisoformat(value)
        except ValueError:
            return f"is {_harmless(value)}: there is no such day or time"
        return ""
    wanted = "it must be a time in UTC with a Z, such as 2024-05-01T23:52:01Z"
    if isinstance(value, str) and _OTHER_INSTANT.fullmatch(value):
        with suppress(ValueError, OverflowError):
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is None:
                return f"is {_harmless(value)}: {wanted}; this has no time zone"
            return f"is {_harmless(value)}: {wanted}; write {moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return f"is {_harmless(value)}: {wanted}"


def _quantity_problem(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return ""
    return f"is {_harmless(value)}: it must be a whole number of at least 1"


def _price_problem(value: object) -> str:
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool) and math.isfinite(value):
        return ""
    return f"is {_harmless(value)}: it must be a number"


def _harmless(value: object) -> str:
    """Return a value as an error may show it: numbers and short codes; of anything else only what it is."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float | Decimal):
        return str(value)[:40]
    if isinstance(value, str):
        return repr(value) if _SHOWABLE.fullmatch(value) else f"a text of {len(value)} characters"
    if isinstance(value, list | tuple):
        return "a list"
    return "an object" if isinstance(value, Mapping) else f"a {type(value).__name__}"


_Check = Callable[[object], str]
_REQUIRED: dict[str, _Check] = {
    "mp_order_number": _order_number_problem,
    "sales_channel": _text_problem,
    "customer": _object_problem,
    "purchase_date": _instant_problem,
    "currency": _currency_problem,
    "shipping_address": _object_problem,
    "order_lines": _lines_problem,
    "marketplace_state": _state_problem,
}
_REQUIRED_OF_LINE: dict[str, _Check] = {
    "mp_line_number": _number_problem,
    "sku": _text_problem,
    "quantity": _quantity_problem,
}
_OPTIONAL_INSTANTS = (
    "earliest_ship_date",
    "latest_ship_date",
    "earliest_delivery_date",
    "latest_delivery_date",
)


_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def check_return(mp_order_number: str, mp_return_number: str, return_: object) -> None:
    """Refuse a return that FeedAMP would refuse.

    :raises InputError: Names the return and all that is wrong with it.
    """
    problems = return_problems(mp_order_number, mp_return_number, return_)
    if problems:
        more = f"; and {len(problems) - _MOST_SHOWN} more" if len(problems) > _MOST_SHOWN else ""
        name = f"Return {_name_of(mp_return_number)} of order {_name_of(mp_order_number)}"
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
        if wrong := _return_number_problem(number):
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
    return problems + _problems_of_return_lines(return_.get("return_lines"))


def _problems_of_return_lines(lines: object) -> list[str]:
    if not isinstance(lines, list | tuple) or not lines:
        return ["return_lines must be a list with at least one line"]
    problems = []
    first_with: dict[str, int] = {}
    for index, line in enumerate(lines):
        name = f"return_lines[{index}]"
        if not isinstance(line, Mapping):
            problems.append(f"{name} must be an object")
            continue
        problems += [f"{name}.{wrong}" for wrong in _problems_of_return_line(line)]
        number = line.get("mp_return_line_number")
        if isinstance(number, str) and (first := first_with.setdefault(number, index)) != index:
            problems.append(f"{name}.mp_return_line_number is the same as that of return_lines[{first}]")
    return problems


def _problems_of_return_line(line: Mapping[str, object]) -> list[str]:
    problems = []
    for name in ("mp_return_line_number", "mp_order_line_number"):
        if wrong := _return_number_problem(line.get(name)):
            problems.append(f"{name} {wrong}")
    quantity = line.get("quantity")
    if type(quantity) is not int or quantity < 1:
        problems.append("quantity must be a whole number of at least 1")
    if not isinstance(line.get("preauthorized"), bool | None):
        problems.append("preauthorized must be true or false")
    return problems


def _return_number_problem(value: object) -> str:
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


def _name_of(number: object) -> str:
    return repr(number[:LONGEST_NUMBER]) if number and isinstance(number, str) else "without a number"


def check_errors(errors: Sequence[Mapping[str, Any]], of: str) -> list[dict[str, Any]]:
    """Return the errors to report, or refuse those that FeedAMP would refuse.

    :param of: What they are errors of, in words.
    :raises InputError: The errors cannot be sent as they are.
    """
    wrong = "" if isinstance(errors, list | tuple) else "they are not a list"
    if not wrong and not errors:
        wrong = "there is none"
    for index, error in enumerate(errors if not wrong else ()):
        wrong = _problem_of_error(error) or wrong
        if wrong:
            wrong = f"[{index}]{wrong}"
            break
    if wrong:
        raise InputError(f"The errors to report for {of} cannot be sent: {wrong}.")
    return [dict(error) for error in errors]


def _problem_of_error(error: object) -> str:
    if not isinstance(error, Mapping):
        return " is not an object"
    for name in ("code", "message"):
        value = error.get(name)
        if not isinstance(value, str) or not value.strip():
            return f".{name} must be text that is not blank"
    line = error.get("mp_line_number")
    if line is not None and not (isinstance(line, str) and 0 < len(line) <= LONGEST_NUMBER):
        return f".mp_line_number must be text of 1 to {LONGEST_NUMBER} characters"
    return ""
