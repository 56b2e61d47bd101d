"""The checks of an order and of a return, made before they are sent.

Which fields are checked stands in ``types.py``: each is annotated there with the name of its rule here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, Final, get_origin, get_type_hints

from airflow_provider_feedamp.api.types import (
    IF_GIVEN,
    MarketplaceState,
    Order,
    OrderLine,
    Return,
    ReturnLine,
    ReturnType,
)
from airflow_provider_feedamp.exceptions import InputError

#: Characters in an order's or a line's number.
LONGEST_NUMBER = 128

_CURRENCY = re.compile(r"[A-Z]{3}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?Z")
#: An instant that is written in another way: with an offset, or with no zone.
_OTHER_INSTANT = re.compile(r"[0-9-]{8,10}[T ][0-9:]{4,8}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9:]{2,5})?")
#: Texts that may be shown: no name, address or e-mail looks like that, whatever slipped into the field.
_SHOWABLE = re.compile(r"[A-Z_]{1,24}|[a-z]{3}|[0-9TZ:.+ -]{0,40}")
_MOST_SHOWN = 10
_MISSING: Final = object()
_STATES = frozenset(MarketplaceState)
#: As tuples: a union would be made anew with each check, and what is no dict is rare.
_OBJECT, _LIST, _PRICE = (dict, Mapping), (list, tuple), (int, float, Decimal)
_Words = Callable[..., str]


def check_order(order: object) -> None:
    """Refuse an order that FeedAMP would refuse.

    :raises InputError: Names the order and all that is wrong with it.
    """
    try:
        problems = order_problems(order)
    except Exception as error:  # noqa: BLE001 - one order of millions must not end an import, whatever is in it
        problems = [f"it could not be checked: {type(error).__name__}"]
    if problems:
        name = _quoted(order.get("mp_order_number") if isinstance(order, Mapping) else None)
        _refuse("An order without a number" if name is None else f"Order {name}", problems)


def check_return(mp_order_number: str, mp_return_number: str, return_: object) -> None:
    """Refuse a return that FeedAMP would refuse.

    :raises InputError: Names the return and all that is wrong with it.
    """
    if problems := return_problems(mp_order_number, mp_return_number, return_):
        of_return, of_order = (
            _quoted(each) or "without a number" for each in (mp_return_number, mp_order_number)
        )
        _refuse(f"Return {of_return} of order {of_order}", problems)


def _quoted(number: object) -> str | None:
    return repr(number[:LONGEST_NUMBER]) if number and isinstance(number, str) else None


def _refuse(name: str, problems: list[str]) -> None:
    more = f"; and {len(problems) - _MOST_SHOWN} more" if len(problems) > _MOST_SHOWN else ""
    raise InputError(f"{name} was not sent: {'; '.join(problems[:_MOST_SHOWN])}{more}")


def order_problems(order: object) -> list[str]:
    """Return all that is wrong with an order, in words that name the field; empty when it can be sent.

    What FeedAMP documents is checked, and nothing else: unknown fields pass, and so do the inner fields of
    ``customer`` and ``shipping_address``. The words never hold personal data.

    :param order: The order as parsed from JSON.
    """
    if not isinstance(order, _OBJECT):
        return [f"the order {_in_order('object', order)}"]
    lines = order.get("order_lines")
    return _of_fields(Order, order, _in_order) + _of_lines("order_lines", lines, OrderLine, _in_order)


def return_problems(mp_order_number: object, mp_return_number: object, return_: object) -> list[str]:
    """Return all that is wrong with a return, in words that name the field; empty when it can be sent.

    What FeedAMP documents is checked, and nothing else: unknown fields pass, and so do the inner fields of
    ``shipping_address``. The words never hold a value that was given.

    :param mp_order_number: The number of its order.
    :param mp_return_number: Its own number.
    :param return_: The return as parsed from JSON.
    """
    numbers = {"mp_order_number": mp_order_number, "mp_return_number": mp_return_number}
    problems = [
        f"{name} {_in_return('number')}" for name, number in numbers.items() if not _is_number(number)
    ]
    if not isinstance(return_, _OBJECT):
        return [*problems, "it must be an object"]
    for name, number in numbers.items():
        if return_.get(name) not in (None, number):
            problems.append(f"{name} in the body is not that of the path")
    lines = return_.get("return_lines")
    problems += _of_fields(Return, return_, _in_return)
    return problems + _of_lines("return_lines", lines, ReturnLine, _in_return)


def _of_fields(kind: type, given: Mapping[str, object], in_words: _Words) -> list[str]:
    problems = []
    for name, rule, holds, needed in _checked_fields(kind):
        value = given.get(name, _MISSING)  # a price may be left out, but not be null
        if (value is _MISSING or (value is None and rule != "price")) and not needed:
            continue
        if not holds(value):
            problems.append(f"{name} {in_words(rule, value, needed)}")
    return problems


def _of_lines(name: str, lines: object, kind: type, in_words: _Words) -> list[str]:
    problems = []
    first_with: dict[str, int] = {}
    own_number = _checked_fields(kind)[0][0]
    for index, line in enumerate(lines if isinstance(lines, _LIST) else ()):
        if not isinstance(line, _OBJECT):
            problems.append(f"{name}[{index}] {in_words('object', line)}")
            continue
        if wrong := _of_fields(kind, line, in_words):
            problems += [f"{name}[{index}].{each}" for each in wrong]
        number = line.get(own_number)
        if isinstance(number, str) and (first := first_with.setdefault(number, index)) != index:
            problems.append(f"{name}[{index}].{own_number} is the same as that of {name}[{first}]")
    return problems


@cache
def _checked_fields(kind: type) -> list[tuple[str, str, Callable[[Any], object], bool]]:
    """Return of each field its name, its rule's name, its rule, and whether it has to be there."""
    return [
        (name, hint.__metadata__[0], _RULES[hint.__metadata__[0]][0], IF_GIVEN not in hint.__metadata__)
        for name, hint in get_type_hints(kind, include_extras=True).items()
        if get_origin(hint) is Annotated
    ]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != "" and not value.isspace()


def _is_number(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_NUMBER and not value.isspace()


def _is_order_number(value: object) -> bool:
    """Say whether a number can also stand in a URL: a dot alone and half a character cannot."""
    if not isinstance(value, str) or not _is_number(value) or value in {".", ".."}:
        return False
    return value.isascii() or value.encode(errors="ignore").decode() == value


def _written_as(form: re.Pattern[str], read: Callable[[str], object]) -> Callable[[object], bool]:
    def holds(value: object) -> bool:
        try:
            return isinstance(value, str) and bool(form.fullmatch(value) and read(value))
        except ValueError:
            return False

    return holds


#: The rules by name: whether a value can be sent, and what it must be.
_RULES: dict[str, tuple[Callable[[Any], object], str]] = {
    "text": (_is_text, "be text"),
    "number": (_is_number, f"be text of 1 to {LONGEST_NUMBER} characters"),
    "order number": (_is_order_number, "be text"),
    "object": (lambda value: isinstance(value, _OBJECT), "be an object"),
    "lines": (
        lambda value: isinstance(value, _LIST) and len(value) > 0,
        "be a list with at least one line",
    ),
    "currency": (
        lambda value: isinstance(value, str) and _CURRENCY.fullmatch(value),
        "be a currency code of three capital letters, such as USD",
    ),
    "state": (
        lambda value: isinstance(value, str) and value in _STATES,
        f"be one of {', '.join(MarketplaceState)}",
    ),
    "return type": (
        lambda value: isinstance(value, str) and value in tuple(ReturnType),
        f"be one of {', '.join(ReturnType)}",
    ),
    "instant": (
        _written_as(_INSTANT, datetime.fromisoformat),
        "be a time in UTC with a Z, such as 2024-05-01T23:52:01Z",
    ),
    "date": (_written_as(_DATE, date.fromisoformat), "be a date, such as 2024-05-10"),
    "quantity": (
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 1,
        "be a whole number of at least 1",
    ),
    "price": (
        lambda value: isinstance(value, _PRICE) and not isinstance(value, bool) and math.isfinite(value),
        "be a number",
    ),
    "yes or no": (lambda value: isinstance(value, bool), "be true or false"),
}


def _in_return(rule: str, value: object = None, needed: bool = False) -> str:
    return f"must {_RULES[rule][1]}"


def _in_order(rule: str, value: object, needed: bool = False) -> str:
    """Say what is wrong with a value, of which numbers and short codes alone are shown."""
    if needed and (value is None or value is _MISSING):
        return f"is {'missing' if value is _MISSING else 'null'}: it is required"
    if isinstance(value, str) and rule in {"text", "number", "order number"}:
        if len(value) > LONGEST_NUMBER and rule != "text":
            return f"has {len(value)} characters: at most {LONGEST_NUMBER} are allowed"
        if not _is_text(value):
            return "is blank: it must be text"
        wrong = f"is {value!r}" if value in {".", ".."} else "holds half a character (a lone surrogate)"
        return f"{wrong}: a URL cannot carry it"
    if rule == "lines":
        empty = isinstance(value, _LIST)
        return (
            "is empty: an order needs at least one line"
            if empty
            else f"is {_harmless(value)}: it must be a list"
        )
    wanted = f"it must {_RULES['text' if rule == 'number' else rule][1]}"
    if isinstance(value, str) and rule == "instant":
        wanted = (
            "there is no such day or time" if _INSTANT.fullmatch(value) else wanted + _how_to_write(value)
        )
    return f"is {_harmless(value)}: {wanted}"


def _how_to_write(instant: str) -> str:
    if _OTHER_INSTANT.fullmatch(instant):
        with suppress(ValueError, OverflowError):
            moment = datetime.fromisoformat(instant)
            if moment.tzinfo is None:
                return "; this has no time zone"
            return f"; write {moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return ""


def _harmless(value: object) -> str:
    """Return a value as an error may show it: numbers and short codes; of anything else only what it is."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, _PRICE):
        return str(value)[:40]
    if isinstance(value, str):
        return repr(value) if _SHOWABLE.fullmatch(value) else f"a text of {len(value)} characters"
    if isinstance(value, _LIST):
        return "a list"
    return "an object" if isinstance(value, _OBJECT) else f"a {type(value).__name__}"


def check_errors(errors: Sequence[Mapping[str, Any]], of: str) -> list[dict[str, Any]]:
    """Return the errors to report, or refuse those that FeedAMP would refuse.

    :param of: What they are errors of, in words.
    :raises InputError: The errors cannot be sent as they are.
    """
    if not isinstance(errors, _LIST):
        wrong = "they are not a list"
    elif not errors:
        wrong = "there is none"
    else:
        found = (f"[{index}]{_problem_of_error(error)}" for index, error in enumerate(errors))
        wrong = next((each for each in found if not each.endswith("]")), "")
    if wrong:
        raise InputError(f"The errors to report for {of} cannot be sent: {wrong}.")
    return [dict(error) for error in errors]


def _problem_of_error(error: object) -> str:
    if not isinstance(error, _OBJECT):
        return " is not an object"
    for name in ("code", "message"):
        if not _is_text(error.get(name)):
            return f".{name} must be text that is not blank"
    line = error.get("mp_line_number")
    if line is not None and not (isinstance(line, str) and 0 < len(line) <= LONGEST_NUMBER):
        return f".mp_line_number must be text of 1 to {LONGEST_NUMBER} characters"
    return ""
