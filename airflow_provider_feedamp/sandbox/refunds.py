"""The refunds that one seller has initiated, without HTTP (feedamp-api.md A6)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.sandbox.error_rules import reported_errors
from airflow_provider_feedamp.sandbox.query_values import choices, instant, names, within
from airflow_provider_feedamp.sandbox.refusal import INVALID_VALUE, bad_request, not_found

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from airflow_provider_feedamp.sandbox.clock import SandboxClock
    from airflow_provider_feedamp.sandbox.settings import SandboxSettings

REFUND_STATUSES = frozenset({"CREATED", "PAUSED", "COMPLETE"})
PARAMETERS = frozenset(
    {"mp_order_numbers", "refund_status", "created_after", "created_before", "page_size", "cursor"}
)


@dataclass(slots=True)
class StoredRefund:
    """One refund, as its seller made it."""

    feedamp_refund_id: int
    sequence: int
    order_number: str
    created_at: datetime
    lines: list[dict[str, Any]]
    notes: str | None = None
    completed: bool = False
    errors: list[dict[str, Any]] = field(default_factory=list)

    @property
    def status(self) -> str:
        """The refund's status (A6)."""
        if self.completed:
            return "COMPLETE"
        return "PAUSED" if self.errors else "CREATED"

    def resource(self) -> dict[str, Any]:
        """Return the refund as the API shows it: of its creation only the date, in UTC."""
        return {
            "feedamp_refund_id": self.feedamp_refund_id,
            "mp_order_number": self.order_number,
            "notes": self.notes,
            "status": self.status,
            "date_created": self.created_at.date().isoformat(),
            "merchant_refund_lines": self.lines,
            "errors": self.errors,
        }


@dataclass(frozen=True, slots=True)
class RefundQuery:
    """What a list of refunds was asked for; None means no condition."""

    numbers: frozenset[str] | None = None
    statuses: frozenset[str] | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None

    def matches(self, refund: StoredRefund) -> bool:
        """Say whether the refund belongs to the list; its instant counts, not only the date it shows."""
        return (
            (self.numbers is None or refund.order_number in self.numbers)
            and (self.statuses is None or refund.status in self.statuses)
            and within(refund.created_at, self.created_after, self.created_before)
        )


def refund_query(parameters: Mapping[str, str]) -> RefundQuery:
    """Read the filters.

    :raises Refusal: 400 that names the parameter.
    """
    return RefundQuery(
        numbers=names(parameters, "mp_order_numbers"),
        statuses=choices(parameters, "refund_status", REFUND_STATUSES),
        created_after=instant(parameters, "created_after"),
        created_before=instant(parameters, "created_before"),
    )


class RefundBook:
    """All refunds of one seller, in the order in which they were made."""

    def __init__(self, settings: SandboxSettings, clock: SandboxClock, ids: Iterator[int]) -> None:
        self._settings = settings
        self._clock = clock
        self._ids = ids
        self._refunds: list[StoredRefund] = []
        self._by_id: dict[str, StoredRefund] = {}

    def __len__(self) -> int:
        return len(self._refunds)

    def create(self, order_number: str, lines: list[dict[str, Any]], notes: str | None) -> StoredRefund:
        """Add a refund by the seller."""
        refund = StoredRefund(
            next(self._ids), len(self._refunds), order_number, self._clock.now(), lines, notes
        )
        self._refunds.append(refund)
        self._by_id[str(refund.feedamp_refund_id)] = refund
        return refund

    def candidates(self, _query: RefundQuery | None, sequence: int) -> Iterator[StoredRefund]:
        """Return the refunds from a place in the sequence on."""
        for index in range(sequence, len(self._refunds)):
            yield self._refunds[index]

    def of_order(self, order_number: str) -> list[StoredRefund]:
        """Return the refunds of one order."""
        return [refund for refund in self._refunds if refund.order_number == order_number]

    def by_id(self, refund_id: str) -> StoredRefund:
        """Return one refund.

        :raises Refusal: 404.
        """
        refund = self._by_id.get(refund_id)
        if refund is None:
            what = "refund"
            raise not_found(what)
        return refund

    def get(self, order_number: str, refund_id: str) -> StoredRefund:
        """Return one refund of one order.

        :raises Refusal: 404, also for a refund of another order.
        """
        refund = self.by_id(refund_id)
        if refund.order_number != order_number:
            what = "refund"
            raise not_found(what)
        return refund

    def complete(self, order_number: str, refund_id: str) -> None:
        """Take note that the marketplace has processed a refund; a second time changes nothing.

        :raises Refusal: 404, or 400 for a paused refund when transitions are strict.
        """
        refund = self.get(order_number, refund_id)
        if self._settings.strict_transitions and refund.status == "PAUSED":
            raise bad_request(INVALID_VALUE, "the refund is PAUSED: the seller has to resolve its errors")
        refund.completed = True
        refund.errors.clear()

    def report_errors(self, order_number: str, refund_id: str, raw: bytes) -> None:
        """Append the marketplace's complaints, whatever they are; they pause the refund.

        :raises Refusal: 404, or 400 with all problems, or when transitions are strict and it is complete.
        """
        refund = self.get(order_number, refund_id)
        errors = reported_errors(raw, None, strict_fields=self._settings.strict_fields)
        if self._settings.strict_transitions and refund.completed:
            raise bad_request(INVALID_VALUE, "the refund is COMPLETE")
        refund.completed = False
        refund.errors.extend(errors)
