"""Filters of the list endpoints, checked and written as FeedAMP reads them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow_provider_feedamp.exceptions import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: The bounds of ``page_size``. We ask for full pages: list calls are what FeedAMP wants few of.
SMALLEST_PAGE, LARGEST_PAGE = 10, 50
#: Order numbers in one list call, and characters that they take in its URL: servers refuse long ones, the
#: strictest above 8000. More are asked for in turn.
_NUMBERS_PER_CALL = 50
_CHARACTERS_PER_CALL = 6500


def page_size_filter(size: int) -> str:
    """Return ``page_size`` as it is sent."""
    if type(size) is int and SMALLEST_PAGE <= size <= LARGEST_PAGE:
        return str(size)
    raise InputError(
        f"page_size must be a whole number from {SMALLEST_PAGE} to {LARGEST_PAGE}, not {size!r}."
    )


def instant_filter(name: str, instant: datetime, *, latest: bool = False) -> str:
    """Return an instant in UTC and whole seconds, so that FeedAMP reads it without doubt.

    These filters mean "at or after" and "at or before". A fraction of a second goes to the side on which
    nothing is missed.

    :param name: The filter, for the error.
    :param latest: Whether the filter means "at or before".
    """
    if not isinstance(instant, datetime) or instant.utcoffset() is None:
        raise InputError(
            f"{name} must be a datetime with a time zone; FeedAMP reads one without as New York's time."
        )
    try:
        utc = instant.astimezone(UTC)
        whole = datetime(utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second)
        if latest and utc.microsecond:
            whole += timedelta(seconds=1)
    except OverflowError as error:
        raise InputError(f"{name} is outside of the years 1 to 9999 in UTC.") from error
    return f"{whole.isoformat()}Z"


def list_filter(name: str, values: Sequence[str]) -> list[str]:
    """Return the values of a comma-delimited filter, each once."""
    if isinstance(values, str) or not all(isinstance(value, str) and value.strip() for value in values):
        raise InputError(f"{name} must be a list of texts that are not blank.")
    for value in values:
        if "," in value:
            raise InputError(
                f"{name} holds {value!r}, but FeedAMP separates values by commas; read it by itself."
            )
        check_text(name, value)
    return list(dict.fromkeys(values))


def check_text(name: str, value: str) -> None:
    """Refuse a text that a URL cannot carry.

    :param name: The filter, for the error.
    """
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} holds half a character (a lone surrogate): a URL cannot carry it."
        ) from error


def calls_for(
    params: Mapping[str, str],
    chosen: Mapping[str, Sequence[str] | None],
    *,
    numbers: str = "mp_order_numbers",
) -> list[dict[str, str]]:
    """Return the filters of each call that a list takes.

    :param params: The filters that each call has.
    :param chosen: The comma-delimited filters. None is no filter; an empty list finds none, without a call.
    :param numbers: The one of them that is asked for in portions.
    """
    lists = {name: list_filter(name, values) for name, values in chosen.items() if values is not None}
    if not all(lists.values()):
        return []
    portions = lists.pop(numbers, None)
    filters = dict(params) | {name: ",".join(values) for name, values in lists.items()}
    if portions is None:
        return [filters]
    return [filters | {numbers: portion} for portion in _portions(portions)]


def _portions(numbers: Sequence[str]) -> Iterator[str]:
    portion: list[str] = []
    length = 0
    for number in numbers:
        characters = len(quote(number, safe="")) + len("%2C")
        if portion and (len(portion) == _NUMBERS_PER_CALL or length + characters > _CHARACTERS_PER_CALL):
            yield ",".join(portion)
            portion, length = [], 0
        portion.append(number)
        length += characters
    yield ",".join(portion)
