"""The orders of one seller without HTTP: what the marketplace placed and what the seller did with it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.sandbox.error_rules import reported_errors
from airflow_provider_feedamp.sandbox.json_body import read_json
from airflow_provider_feedamp.sandbox.order_rules import order_problems
from airflow_provider_feedamp.sandbox.refusal import INVALID_VALUE, Refusal, bad_request, not_found

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from airflow_provider_feedamp.sandbox.clock import SandboxClock
    from airflow_provider_feedamp.sandbox.order_queries import OrderQuery
    from airflow_provider_feedamp.sandbox.settings import SandboxSettings

CLOSED_STATES = frozenset({"SHIPPED", "CANCELLED"})


@dataclass(slots=True)
class StoredOrder:
    """One order: the marketplace's JSON as it came, and FeedAMP's own state beside it."""

    number: str
    sequence: int
    imported_at: datetime
    raw: bytes
    marketplace_state: str
    quantities: dict[str, int]
    acknowledged: bool = False
    seller_updated_at: datetime | None = None
    shipments: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    cancellations: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)

    def pending(self, line: str) -> int:
        """Return how much of a line is neither shipped nor cancelled."""
        done = (*self.shipments.get(line, ()), *self.cancellations.get(line, ()))
        accounted: int = sum(entry["quantity"] for entry in done)
        return self.quantities[line] - accounted

    @property
    def has_activity(self) -> bool:
        """Whether the seller shipped or cancelled anything."""
        return bool(self.shipments or self.cancellations)

    @property
    def all_done(self) -> bool:
        """Whether every quantity is shipped or cancelled."""
        return self.has_activity and all(self.pending(line) == 0 for line in self.quantities)

    @property
    def status(self) -> str:
        """FeedAMP's order status (A3.2), derived from everything else."""
        if self.marketplace_state in CLOSED_STATES:
            return "COMPLETE"
        if self.all_done:
            return "FULFILLED" if self.shipments else "CANCELLED"
        if self.acknowledged or self.has_activity:
            return "IN_PROGRESS"
        return "PENDING" if self.marketplace_state == "PENDING" else "ORDERED"

    @property
    def filter_status(self) -> str | None:
        """Which value of the ``fulfillment_status`` filter finds the order (A3.3), if any does."""
        if self.marketplace_state == "AWAITING_SHIPMENT":
            return "PARTIALLY_FULFILLED" if self.has_activity else "UNFULFILLED"
        return "COMPLETE" if self.marketplace_state in CLOSED_STATES and self.all_done else None

    def resource(self) -> dict[str, Any]:
        """Return the order as the API shows it: what was placed, and over it what only FeedAMP sets."""
        body: dict[str, Any] = json.loads(self.raw)
        return {
            **body,
            "is_marketplace_fulfilled": bool(body.get("is_marketplace_fulfilled")),
            "fulfillments": list(self._line_fulfillments(only_active=True)),
            "acknowledged": self.acknowledged,
            "status": self.status,
            "errors": self.errors,
        }

    def fulfillments(self) -> dict[str, Any]:
        """Return the answer of Get Fulfillments (A4.6); lines without activity are shown as ``PENDING``."""
        status = "COMPLETE" if self.all_done else "PARTIALLY_FULFILLED" if self.has_activity else "PENDING"
        return {
            "status": status,
            "is_marketplace_fulfilled": bool(json.loads(self.raw).get("is_marketplace_fulfilled")),
            "fulfillments": list(self._line_fulfillments(only_active=False)),
        }

    def _line_fulfillments(self, *, only_active: bool) -> Iterator[dict[str, Any]]:
        for line in self.quantities:
            shipments, cancellations = self.shipments.get(line, []), self.cancellations.get(line, [])
            active, pending = bool(shipments or cancellations), self.pending(line)
            if only_active and not active:
                continue
            yield {
                "mp_line_number": line,
                "shipments": shipments,
                "cancellations": cancellations,
                "status": ("PARTIALLY_FULFILLED" if pending else "COMPLETE") if active else "PENDING",
                "pending": {"quantity": pending},
            }


class OrderBook:
    """All orders of one seller, in the order in which they were first placed."""

    def __init__(self, settings: SandboxSettings, clock: SandboxClock) -> None:
        self._settings = settings
        self._clock = clock
        self._orders: list[StoredOrder] = []
        self._by_number: dict[str, StoredOrder] = {}

    def __len__(self) -> int:
        return len(self._orders)

    def get(self, number: str) -> StoredOrder:
        """Return one order.

        :raises Refusal: 404.
        """
        order = self._by_number.get(number)
        if order is None:
            what = "order"
            raise not_found(what)
        return order

    def candidates(self, query: OrderQuery, sequence: int) -> Iterator[StoredOrder]:
        """Return the orders from a place in the sequence on among which a list's page is to be found."""
        return self.since(sequence) if query.numbers is None else iter(self.named(query.numbers, sequence))

    def since(self, sequence: int) -> Iterator[StoredOrder]:
        """Yield the orders from a place in the sequence on."""
        for index in range(sequence, len(self._orders)):
            yield self._orders[index]

    def named(self, numbers: Iterable[str], sequence: int) -> list[StoredOrder]:
        """Return the orders with these numbers from a place in the sequence on."""
        found = {self._by_number[number].sequence for number in numbers if number in self._by_number}
        return [self._orders[index] for index in sorted(found) if index >= sequence]

    def place(self, number: str, raw: bytes) -> tuple[StoredOrder, bool]:
        """Insert an order, or update it if it is known.

        :param number: The order number in the path.
        :param raw: The body as it came.
        :return: The order, and whether it is new.
        :raises Refusal: 400 with all problems.
        """
        body = read_json(raw)
        problems = order_problems(body, number, strict_fields=self._settings.strict_fields)
        if problems or not isinstance(body, dict):
            raise Refusal(400, problems)
        state: str = body["marketplace_state"]
        quantities = {line["mp_line_number"]: line["quantity"] for line in body["order_lines"]}
        known = self._by_number.get(number)
        if known is None:
            order = StoredOrder(number, len(self._orders), self._clock.now(), raw, state, quantities)
            self._orders.append(order)
            self._by_number[number] = order
            return order, True
        self._check_update(known, state, quantities)
        known.raw, known.marketplace_state, known.quantities = raw, state, quantities
        return known, False

    def report_errors(self, number: str, raw: bytes) -> None:
        """Append the marketplace's complaints to an order.

        :raises Refusal: 404, or 400 with all problems.
        """
        order = self.get(number)
        strict = self._settings.strict_fields
        order.errors.extend(reported_errors(raw, order.quantities, strict_fields=strict))

    def _check_update(self, known: StoredOrder, state: str, quantities: dict[str, int]) -> None:
        old = known.marketplace_state
        if self._settings.strict_transitions and old in CLOSED_STATES and state != old:
            raise bad_request(INVALID_VALUE, f"'marketplace_state' cannot leave {old}")
        for line in known.shipments.keys() | known.cancellations.keys():
            done = known.quantities[line] - known.pending(line)
            if quantities.get(line, 0) < done:
                raise bad_request(
                    INVALID_VALUE, "'order_lines' has less than the seller shipped or cancelled"
                )
