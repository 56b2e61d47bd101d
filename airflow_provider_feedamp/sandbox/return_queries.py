"""The filters of Get returns: no page shows them, so they are those of refunds under likely names (A7.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_feedamp.sandbox.query_values import choices, instant, names, within

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from airflow_provider_feedamp.sandbox.returns import StoredReturn

RETURN_STATUSES = frozenset({"AWAITING_AUTHORIZATION", "AUTHORIZED", "REFUNDED", "COMPLETED"})
PARAMETERS = frozenset(
    {"mp_order_numbers", "return_status", "requested_after", "requested_before", "page_size", "cursor"}
)


@dataclass(frozen=True, slots=True)
class ReturnQuery:
    """What a list of returns was asked for; None means no condition."""

    numbers: frozenset[str] | None = None
    statuses: frozenset[str] | None = None
    requested_after: datetime | None = None
    requested_before: datetime | None = None

    def matches(self, each: StoredReturn) -> bool:
        """Say whether the return belongs to the list; the instant of its first PUT counts."""
        return (
            (self.numbers is None or each.order_number in self.numbers)
            and (self.statuses is None or each.status in self.statuses)
            and within(each.placed_at, self.requested_after, self.requested_before)
        )


def return_query(parameters: Mapping[str, str]) -> ReturnQuery:
    """Read the filters.

    :raises Refusal: 400 that names the parameter.
    """
    return ReturnQuery(
        numbers=names(parameters, "mp_order_numbers"),
        statuses=choices(parameters, "return_status", RETURN_STATUSES),
        requested_after=instant(parameters, "requested_after"),
        requested_before=instant(parameters, "requested_before"),
    )
