"""Filters of the list endpoints, checked and written as FeedAMP reads them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_provider_feedamp.exceptions import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The bounds of ``page_size``. We ask for full pages: list calls are what FeedAMP wants few of.
SMALLEST_PAGE, LARGEST_PAGE = 10, 50


def page_size_filter(size: int) -> str:
    """Return ``page_size`` as it is sent."""
    if type(size) is int and SMALLEST_PAGE <= size <= LARGEST_PAGE:
        return str(size)
    message = f"page_size must be a whole number from {SMALLEST_PAGE} to {LARGEST_PAGE}, not {size!r}."
    raise InputError(message)


def instant_filter(name: str, instant: datetime) -> str:
    """Return an instant in UTC, so that FeedAMP reads it without doubt.

    Fractions of a second are cut off; these filters mean "at or after", so that nothing is missed by that.
    """
    if isinstance(instant, datetime) and instant.utcoffset() is not None:
        return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    message = f"{name} must be a datetime with a time zone; FeedAMP reads one without as New York's time."
    raise InputError(message)


def list_filter(name: str, values: Sequence[str]) -> list[str]:
    """Return the values of a comma-delimited filter, each once."""
    if isinstance(values, str) or not all(isinstance(value, str) and value.strip() for value in values):
        message = f"{name} must be a list of texts that are not blank."
        raise InputError(message)
    for value in values:
        if "," in value:
            message = f"{name} holds {value!r}, but FeedAMP separates values by commas; read it by itself."
            raise InputError(message)
    return list(dict.fromkeys(values))
