"""Reading the parameters of lists (feedamp-api.md A5): comma-delimited lists, booleans, New York time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from airflow_provider_feedamp.sandbox.refusal import INVALID_QUERY, bad_request

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DEFAULT_ZONE = ZoneInfo("America/New_York")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def query_parameters(
    pairs: Iterable[tuple[str, str]], known: frozenset[str], *, strict: bool
) -> dict[str, str]:
    """Return the query's parameters by name.

    :param pairs: Names and values as they came.
    :param known: The names that the endpoint documents.
    :param strict: Whether any other name is refused; otherwise it is ignored.
    :raises Refusal: 400 for a repeated parameter: lists are comma-delimited.
    """
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values:
            raise bad_request(INVALID_QUERY, f"'{name}' is given twice: lists are comma-delimited")
        if name in known:
            values[name] = value
        elif strict:
            raise bad_request(INVALID_QUERY, f"'{name}' is not a parameter of this list")
    return values


def instant(parameters: Mapping[str, str], name: str) -> datetime | None:
    """Read an ISO 8601 instant; without a zone it is New York time.

    :raises Refusal: 400; so for an offset whose plus sign was not escaped and arrives as a space.
    """
    text = parameters.get(name)
    if text is None:
        return None
    try:
        value = datetime.fromisoformat(text)
        return (value if value.tzinfo else value.replace(tzinfo=DEFAULT_ZONE)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise bad_request(INVALID_QUERY, f"'{name}' must be an ISO 8601 instant") from error


def names(parameters: Mapping[str, str], name: str) -> frozenset[str] | None:
    """Read a comma-delimited list.

    :raises Refusal: 400 when an entry is empty.
    """
    text = parameters.get(name)
    if text is None:
        return None
    entries = frozenset(text.split(","))
    if "" in entries:
        raise bad_request(INVALID_QUERY, f"'{name}' has an empty entry")
    return entries


def choices(parameters: Mapping[str, str], name: str, allowed: frozenset[str]) -> frozenset[str] | None:
    """Read a comma-delimited list of a closed vocabulary.

    :raises Refusal: 400 when an entry is not of it.
    """
    entries = names(parameters, name)
    if entries is not None and not entries <= allowed:
        raise bad_request(INVALID_QUERY, f"'{name}' must be of {', '.join(sorted(allowed))}")
    return entries


def boolean(parameters: Mapping[str, str], name: str) -> bool | None:
    """Read a boolean.

    :raises Refusal: 400 when it is none of ``true``, ``false``, ``1``, ``0``.
    """
    text = parameters.get(name)
    if text is None:
        return None
    if text.lower() not in _BOOLEANS:
        raise bad_request(INVALID_QUERY, f"'{name}' must be true or false")
    return _BOOLEANS[text.lower()]


def within(value: datetime | None, after: datetime | None, before: datetime | None) -> bool:
    """Say whether an instant lies between two bounds, each of them inclusive and each optional."""
    if value is None:
        return after is None and before is None
    return (after is None or value >= after) and (before is None or value <= before)
