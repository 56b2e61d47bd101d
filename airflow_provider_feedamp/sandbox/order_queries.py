"""The filters of Get Orders (feedamp-api.md A4.1): inclusive, and in New York time when no zone is given."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from airflow_provider_feedamp.sandbox.refusal import INVALID_QUERY, bad_request

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_provider_feedamp.sandbox.orders import StoredOrder

FULFILLMENT_FILTERS = frozenset({"UNFULFILLED", "PARTIALLY_FULFILLED", "COMPLETE"})
PARAMETERS = frozenset(
    {"mp_order_numbers", "fulfillment_status", "imported_after", "seller_updated_after", "has_errors"}
    | {"page_size", "cursor"}
)
DEFAULT_ZONE = ZoneInfo("America/New_York")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class OrderQuery:
    """What a list of orders was asked for; None means no condition."""

    numbers: frozenset[str] | None = None
    statuses: frozenset[str] | None = None
    imported_after: datetime | None = None
    seller_updated_after: datetime | None = None
    has_errors: bool | None = None

    def matches(self, order: StoredOrder) -> bool:
        """Say whether the order belongs to the list."""
        return (
            (self.numbers is None or order.number in self.numbers)
            and (self.statuses is None or order.filter_status in self.statuses)
            and (self.imported_after is None or order.imported_at >= self.imported_after)
            and (
                self.seller_updated_after is None
                or _on_or_after(order.seller_updated_at, self.seller_updated_after)
            )
            and (self.has_errors is None or bool(order.errors) is self.has_errors)
        )


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


def order_query(parameters: Mapping[str, str]) -> OrderQuery:
    """Read the filters.

    :raises Refusal: 400 that names the parameter.
    """
    statuses = _names(parameters, "fulfillment_status")
    if statuses is not None and not statuses <= FULFILLMENT_FILTERS:
        raise bad_request(
            INVALID_QUERY, f"'fulfillment_status' must be of {', '.join(sorted(FULFILLMENT_FILTERS))}"
        )
    return OrderQuery(
        numbers=_names(parameters, "mp_order_numbers"),
        statuses=statuses,
        imported_after=instant(parameters, "imported_after"),
        seller_updated_after=instant(parameters, "seller_updated_after"),
        has_errors=_boolean(parameters, "has_errors"),
    )


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


def _names(parameters: Mapping[str, str], name: str) -> frozenset[str] | None:
    text = parameters.get(name)
    if text is None:
        return None
    names = frozenset(text.split(","))
    if "" in names:
        raise bad_request(INVALID_QUERY, f"'{name}' has an empty entry")
    return names


def _boolean(parameters: Mapping[str, str], name: str) -> bool | None:
    text = parameters.get(name)
    if text is None:
        return None
    if text.lower() not in _BOOLEANS:
        raise bad_request(INVALID_QUERY, f"'{name}' must be true or false")
    return _BOOLEANS[text.lower()]


def _on_or_after(value: datetime | None, bound: datetime) -> bool:
    return value is not None and value >= bound
