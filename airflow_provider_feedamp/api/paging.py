"""Walking through the pages of a list."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.api.answers import objects_under

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

    from airflow_provider_feedamp.api.transport import Transport

log = logging.getLogger(__name__)


def listed(
    transport: Transport, name: str, calls: Iterable[Mapping[str, str]], *, key: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield the entries of a list, each key once over all calls; a page is asked for when it is needed.

    :param name: The list's path below the base URL, and its name in the answer.
    :param calls: The filters of each call; more than one where a filter is too long for one call.
    :param key: The fields that identify an entry together.
    """
    seen: set[Hashable] = set()
    for params in calls:
        pages = _pages(transport, (name,), params, what=f"listing {name}", listing=True)
        yield from _new(pages, seen, key)


def listed_of_order(
    transport: Transport, mp_order_number: str, name: str, *, key: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield what belongs to one order, each key once.

    :param name: ``refunds`` or ``returns``.
    :param key: The fields that identify an entry together.
    """
    what = f"listing the {name} of order {mp_order_number!r}"
    return _new(
        _pages(transport, ("orders", mp_order_number, name), {}, what=what, listing=False), set(), key
    )


def _pages(
    transport: Transport, path: Sequence[str], params: Mapping[str, str], *, what: str, listing: bool
) -> Iterator[dict[str, Any]]:
    """Yield the entries of all pages.

    The filters are sent along with each cursor, as nothing says that a cursor holds them.
    """
    cursors: set[str] = set()
    params = dict(params)
    while True:
        answer = transport.request("GET", path, params=params, what=what, listing=listing)
        yield from objects_under(path[-1], answer, what)
        cursor = str(answer.body.get("next_cursor") or "")
        if not cursor:
            return
        if cursor in cursors:
            log.warning("FeedAMP gave a cursor for the second time while %s; the list ends here", what)
            return
        cursors.add(cursor)
        params["cursor"] = cursor


def _new(
    entries: Iterable[dict[str, Any]], seen: set[Hashable], key: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield what was not there before: nothing says that a list stands still while it is read."""
    for entry in entries:
        values = tuple(entry.get(name) for name in key)
        # What cannot be told apart is all passed on: once too often is better than not at all.
        if all(isinstance(value, str | int) for value in values):
            if values in seen:
                continue
            seen.add(values)
        yield entry
