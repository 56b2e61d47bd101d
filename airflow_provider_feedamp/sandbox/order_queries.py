"""The filters of Get Orders (feedamp-api.md A4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_feedamp.sandbox.query_values import boolean, choices, instant, names, within

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from airflow_provider_feedamp.sandbox.orders import StoredOrder

FULFILLMENT_FILTERS = frozenset({"UNFULFILLED", "PARTIALLY_FULFILLED", "COMPLETE"})
PARAMETERS = frozenset(
    {"mp_order_numbers", "fulfillment_status", "imported_after", "seller_updated_after", "has_errors"}
    | {"page_size", "cursor"}
)


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
            and within(order.imported_at, self.imported_after, None)
            and within(order.seller_updated_at, self.seller_updated_after, None)
            and (self.has_errors is None or bool(order.errors) is self.has_errors)
        )


def order_query(parameters: Mapping[str, str]) -> OrderQuery:
    """Read the filters.

    :raises Refusal: 400 that names the parameter.
    """
    return OrderQuery(
        numbers=names(parameters, "mp_order_numbers"),
        statuses=choices(parameters, "fulfillment_status", FULFILLMENT_FILTERS),
        imported_after=instant(parameters, "imported_after"),
        seller_updated_after=instant(parameters, "seller_updated_after"),
        has_errors=boolean(parameters, "has_errors"),
    )
