"""Opaque cursors: each remembers its seller, the filters it was made with and where the next page begins."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from airflow_provider_feedamp.sandbox.refusal import INVALID_QUERY, bad_request

PAGE_SIZES = range(10, 51)
DEFAULT_PAGE_SIZE = 20


@dataclass(frozen=True, slots=True)
class Page:
    """Where a list stands: what was asked for and from which place on."""

    query: Any
    position: int
    size: int


class CursorBook:
    """Hand out cursors and take them back.

    Filters are bound into the cursor and need not be repeated (a guess). A cursor can be used again, so that
    a repeated GET sees the same page, and only by the seller and the list that it was made for.
    """

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._pages: dict[str, tuple[str, str, Page]] = {}

    def issue(self, seller: str, resource: str, page: Page) -> str:
        """Return a new cursor for the page."""
        text = f"{self._seed}\0cursor\0{len(self._pages)}"
        cursor = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:24]
        self._pages[cursor] = (seller, resource, page)
        return cursor

    def open(self, cursor: str, seller: str, resource: str) -> Page:
        """Return the page that a cursor stands for.

        :raises Refusal: 400 when it is not a cursor of this seller's list.
        """
        owner, kind, page = self._pages.get(cursor, (None, None, None))
        if page is None or (owner, kind) != (seller, resource):
            raise bad_request(INVALID_QUERY, "'cursor' is not valid")
        return page


def page_size(text: str | None) -> int | None:
    """Read the ``page_size`` parameter.

    :raises Refusal: 400 when it is not a number from 10 to 50.
    """
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 4 and int(text) in PAGE_SIZES):
        raise bad_request(INVALID_QUERY, f"'page_size' must be {PAGE_SIZES[0]} to {PAGE_SIZES[-1]}")
    return int(text)


def cursor_field(cursor: str | None, style: str) -> dict[str, Any]:
    """Return the ``next_cursor`` part of a list's answer; the end of a list is shown in the given style."""
    if cursor is not None:
        return {"next_cursor": cursor}
    return {} if style == "missing" else {"next_cursor": "" if style == "empty" else None}
