"""One page of a list, whatever it lists (feedamp-api.md A5)."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_feedamp.sandbox.answers import Answer
from airflow_provider_feedamp.sandbox.paging import (
    DEFAULT_PAGE_SIZE,
    CursorBook,
    Page,
    cursor_field,
    page_size,
)
from airflow_provider_feedamp.sandbox.query_values import query_parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from airflow_provider_feedamp.sandbox.gateway import Call


class Listed(Protocol):
    """What a list shows."""

    sequence: int

    def resource(self) -> dict[str, Any]:
        """Return it as the API shows it."""


class Book(Protocol):
    """Where a list looks."""

    def candidates(self, query: Any, sequence: int, /) -> Iterator[Listed]:
        """Return what may be on the page, from a place in the sequence on and in its order."""


def list_answer(
    call: Call,
    cursors: CursorBook,
    name: str,
    book: Book,
    read_query: Callable[[Mapping[str, str]], Any],
    known: frozenset[str],
) -> Answer:
    """Answer a list call: one page, and the cursor of the next one.

    :param call: The call.
    :param cursors: The sandbox's cursors.
    :param name: What is listed; the field that wraps the page.
    :param book: Where it is found.
    :param read_query: Reads the filters.
    :param known: The parameters that the list has.
    """
    parameters = query_parameters(call.query, known, strict=call.settings.strict_fields)
    size, seller = page_size(parameters.get("page_size")), call.account.seller
    if "cursor" in parameters:
        page = cursors.open(parameters["cursor"], seller, name)
    else:
        page = Page(read_query(parameters), 0, DEFAULT_PAGE_SIZE)
    size = size or page.size
    # One more than the page holds shows whether there is a next page.
    found = list(islice(filter(page.query.matches, book.candidates(page.query, page.position)), size + 1))
    following = None
    if len(found) > size:
        following = cursors.issue(seller, name, Page(page.query, found[size].sequence, size))
    shown = [each.resource() for each in found[:size]]
    return Answer(200, {name: shown, **cursor_field(following, call.settings.cursor_end)})
