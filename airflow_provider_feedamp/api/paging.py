"""Walking through the pages of a list."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.exceptions import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_feedamp.api.transport import Transport

log = logging.getLogger(__name__)


def entries(
    transport: Transport, name: str, params: Mapping[str, str], seen: set[str], *, key: str
) -> Iterator[dict[str, Any]]:
    """Yield the entries of all pages of a list, each key once.

    The filters are sent along with each cursor, as nothing says that a cursor holds them; and pages may
    overlap, as nothing says that a list stands still while it is read.

    :param name: The list's path below the base URL, and its name in the answer.
    :param params: Its filters.
    :param seen: Keys that were there before; those that are yielded are added.
    :param key: The field that identifies an entry.
    """
    what = f"listing {name}"
    cursors: set[str] = set()
    params = dict(params)
    while True:
        status, page = transport.request("GET", (name,), params=params, what=what)
        found = page.get(name) if isinstance(page, dict) else None
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            message = f"FeedAMP answered {what} with HTTP {status} and no list of {name}."
            raise ApiError(message, status=status)
        for entry in found:
            number = entry.get(key)
            if number is None or number not in seen:
                seen.add(number)
                yield entry
        cursor = str(page.get("next_cursor") or "")
        if not cursor:
            return
        if cursor in cursors:
            log.warning("FeedAMP gave a cursor for the second time while %s; the list ends here", what)
            return
        cursors.add(cursor)
        params["cursor"] = cursor
