"""Walking through the pages of a list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_feedamp.api.http import objects_under
from airflow_provider_feedamp.exceptions import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

    from airflow_provider_feedamp.api.http import Transport

#: Pages in a row without an entry that was not there before: more are no list, but a circle.
_MOST_STALE = 10


class _Found(NamedTuple):
    """What a list is in words, the fields that identify an entry, and the entries so far."""

    what: str
    key: Sequence[str]
    seen: set[Hashable]

    def is_new(self, entry: Mapping[str, Any]) -> bool:
        """Whether an entry was not there before: nothing says that a list stands still while it is read."""
        values = tuple(entry.get(name) for name in self.key)
        # What cannot be told apart is all passed on: once too often is better than not at all.
        if not all(isinstance(value, str | int) for value in values):
            return True
        before = len(self.seen)
        self.seen.add(values)
        return len(self.seen) > before


def listed(
    transport: Transport, name: str, calls: Iterable[Mapping[str, str]], *, key: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield the entries of a list, each key once over all calls; a page is asked for when it is needed.

    :param name: The list's path below the base URL, and its name in the answer.
    :param calls: The filters of each call; more than one where a filter is too long for one call.
    :param key: The fields that identify an entry together.
    :raises UnreadableError: The pages do not come to an end.
    """
    seen: set[Hashable] = set()
    for params in calls:
        found = _Found(f"listing {name}", key, seen)
        yield from _pages(transport, (name,), params, found, listing=True)


def listed_of_order(
    transport: Transport, mp_order_number: str, name: str, *, key: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield what belongs to one order, each key once.

    :param name: ``refunds`` or ``returns``.
    :param key: The fields that identify an entry together.
    :raises UnreadableError: The pages do not come to an end.
    """
    what = f"listing the {name} of order {mp_order_number!r}"
    return _pages(transport, ("orders", mp_order_number, name), {}, _Found(what, key, set()), listing=False)


def _pages(
    transport: Transport, path: Sequence[str], params: Mapping[str, str], found: _Found, *, listing: bool
) -> Iterator[dict[str, Any]]:
    """Yield the new entries of all pages.

    The filters are sent along with each cursor, as nothing says that a cursor holds them. A list that leads
    in a circle is an error: to end there would pass for the whole list, and what is behind would be missed.
    """
    cursors: set[str] = set()
    params = dict(params)
    stale = 0
    while True:
        answer = transport.request("GET", path, params=params, what=found.what, listing=listing)
        new = [entry for entry in objects_under(path[-1], answer, found.what) if found.is_new(entry)]
        yield from new
        cursor = str(answer.body.get("next_cursor") or "")
        if not cursor:
            return
        stale = 0 if new else stale + 1
        wrong = "the same cursor for the second time" if cursor in cursors else ""
        if stale == _MOST_STALE:
            wrong = f"{stale} pages in a row without a new entry"
        if wrong:
            raise UnreadableError(
                f"FeedAMP answered {found.what} with {wrong}, so the list has no end. Try again later."
            )
        cursors.add(cursor)
        params["cursor"] = cursor
