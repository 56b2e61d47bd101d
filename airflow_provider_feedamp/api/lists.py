"""The list endpoints: filters, checked and written as FeedAMP reads them, and the walk through the pages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_feedamp.exceptions import ApiError, InputError, UnreadableError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

    from airflow_provider_feedamp.api.http import Http


#: The bounds of ``page_size``. We ask for full pages: list calls are what FeedAMP wants few of.
SMALLEST_PAGE, LARGEST_PAGE = 10, 50
#: Order numbers in one list call, and characters that they take in its URL: servers refuse long ones, the
#: strictest above 8000. More are asked for in turn.
_NUMBERS_PER_CALL = 50
_CHARACTERS_PER_CALL = 6500


def page_size_filter(size: int) -> str:
    """Return ``page_size`` as it is sent.

    :raises InputError: There is no such page.
    """
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
    :raises InputError: It has no time zone, or is too early or too late to be written.
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


def instant_filters(*, latest: bool = False, **instants: datetime | None) -> dict[str, str]:
    """Return the filters that are given, as :func:`instant_filter` writes each."""
    given = {name: instant for name, instant in instants.items() if instant is not None}
    return {name: instant_filter(name, instant, latest=latest) for name, instant in given.items()}


def list_filter(name: str, values: Sequence[str]) -> list[str]:
    """Return the values of a comma-delimited filter, each once.

    :param name: The filter, for the error.
    :raises InputError: They are no list of texts, or one cannot be sent.
    """
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
    :raises InputError: It is one.
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


#: Pages in a row without an entry that was not there before: more are no list, but a circle.
_MOST_STALE = 10


def listed(
    http: Http, name: str, calls: Iterable[Mapping[str, str]], *, key: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield the entries of a list, each key once over all calls; a page is asked for when it is needed.

    :param name: The list's path below the base URL, and its name in the answer.
    :param calls: The filters of each call; more than one where a filter is too long for one call.
    :param key: The fields that identify an entry together.
    :raises UnreadableError: The pages do not come to an end.
    """
    seen: set[Hashable] = set()
    for params in calls:
        yield from _pages(http, (name,), f"listing {name}", params, key, seen)


def listed_of_order(
    http: Http, mp_order_number: str, name: str, *, key: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield what belongs to one order, each key once.

    :param name: ``refunds`` or ``returns``.
    :param key: The fields that identify an entry together.
    :raises UnreadableError: The pages do not come to an end.
    """
    what = f"listing the {name} of order {mp_order_number!r}"
    return _pages(http, ("orders", mp_order_number, name), what, {}, key, set())


def _pages(
    http: Http,
    path: Sequence[str],
    what: str,
    params: Mapping[str, str],
    key: Sequence[str],
    seen: set[Hashable],
) -> Iterator[dict[str, Any]]:
    """Yield the entries of all pages that were not seen before.

    The filters are sent along with each cursor, as nothing says that a cursor holds them. A list that leads
    in a circle is an error: to end there would pass for the whole list, and what is behind would be missed.
    """
    cursors: set[str] = set()
    params = dict(params)
    stale = 0
    while True:
        # The pages of an order's own list do not keep to the pace of lists.
        answer = http.request("GET", path, params=params, what=what, listing=len(path) == 1)
        entries = answer.body.get(path[-1]) if isinstance(answer.body, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ApiError(
                f"FeedAMP answered {what} with HTTP {answer.status} and no list of {path[-1]}.",
                status=answer.status,
            )
        new = [entry for entry in entries if _is_new(entry, key, seen)]
        yield from new
        cursor = str(answer.body.get("next_cursor") or "")
        if not cursor:
            return
        stale = 0 if new else stale + 1
        if cursor in cursors or stale == _MOST_STALE:
            wrong = "the same cursor for the second time"
            if stale == _MOST_STALE:
                wrong = f"{stale} pages in a row without a new entry"
            raise UnreadableError(
                f"FeedAMP answered {what} with {wrong}, so the list has no end. Try again later."
            )
        cursors.add(cursor)
        params["cursor"] = cursor


def _is_new(entry: Mapping[str, Any], key: Sequence[str], seen: set[Hashable]) -> bool:
    """Whether an entry was not there before: nothing says that a list stands still while it is read."""
    values = tuple(entry.get(name) for name in key)
    # What cannot be told apart is all passed on: once too often is better than not at all.
    if not all(isinstance(value, str | int) for value in values):
        return True
    before = len(seen)
    seen.add(values)
    return len(seen) > before
