"""One seller's account: orders, refunds and returns, and what marketplace and seller do with them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, Field

from airflow_provider_feedamp.sandbox import models
from airflow_provider_feedamp.sandbox.models import Json, Problem, Quantity, Refusal, bad_request, invalid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from airflow_provider_feedamp.sandbox.settings import SandboxClock, SandboxSettings

CLOSED_STATES = frozenset({"SHIPPED", "CANCELLED"})


@dataclass(slots=True)
class Stored:
    """What orders, refunds and returns have in common.

    Attributes are named by the filters that look at them: ``created_after`` compares ``created_at``.
    """

    mp_order_number: str
    sequence: int
    errors: list[Json] = field(default_factory=list, kw_only=True)

    def matches(self, filters: Mapping[str, Any]) -> bool:
        """Say whether it belongs to a list; bounds are inclusive, and find only what has happened."""
        for name, wanted in filters.items():
            about, _, kind = name.rpartition("_")
            if kind in ("after", "before"):
                at = getattr(self, f"{about}_at")
                fits = at is not None and (at >= wanted if kind == "after" else at <= wanted)
            elif kind == "errors":
                fits = bool(self.errors) is wanted
            elif kind == "numbers":
                fits = self.mp_order_number in wanted
            else:
                fits = getattr(self, "filter_status" if about == "fulfillment" else "status") in wanted
            if not fits:
                return False
        return True


@dataclass(slots=True)
class StoredOrder(Stored):
    """One order: the marketplace's JSON as it came, and FeedAMP's own state beside it."""

    imported_at: datetime
    raw: bytes
    marketplace_state: str
    quantities: dict[str, int]
    acknowledged: bool = False
    seller_updated_at: datetime | None = None
    shipments: dict[str, list[Json]] = field(default_factory=dict)
    cancellations: dict[str, list[Json]] = field(default_factory=dict)

    @property
    def body(self) -> Json:
        """What the marketplace placed; thousands of parsed orders would keep the garbage collector busy."""
        body: Json = json.loads(self.raw)
        return body

    def pending(self) -> dict[str, int]:
        """Return how much of each line is neither shipped nor cancelled."""
        entries = {
            line: (*self.shipments.get(line, ()), *self.cancellations.get(line, ()))
            for line in self.quantities
        }
        return {
            line: self.quantities[line] - sum(e["quantity"] for e in done) for line, done in entries.items()
        }

    @property
    def has_activity(self) -> bool:
        """Whether the seller shipped or cancelled anything."""
        return bool(self.shipments or self.cancellations)

    @property
    def all_done(self) -> bool:
        """Whether every quantity is shipped or cancelled."""
        return self.has_activity and not any(self.pending().values())

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

    def resource(self, body: Json | None = None) -> Json:
        """Return the order as the API shows it: what was placed, and over it what only FeedAMP sets.

        :param body: The placed order as parsed, if it is at hand.
        """
        body = self.body if body is None else body
        return {
            **body,
            "is_marketplace_fulfilled": bool(body.get("is_marketplace_fulfilled")),
            "fulfillments": self._lines(idle=False) if self.has_activity else [],
            "acknowledged": self.acknowledged,
            "status": self.status,
            "errors": self.errors,
        }

    def fulfillments(self) -> Json:
        """Return the answer of Get Fulfillments (A4.6); lines without activity are shown as ``PENDING``."""
        return {
            "status": _progress(self.has_activity, self.all_done),
            "is_marketplace_fulfilled": bool(self.body.get("is_marketplace_fulfilled")),
            "fulfillments": self._lines(idle=True),
        }

    def _lines(self, *, idle: bool) -> list[Json]:
        return [
            {
                "mp_line_number": line,
                "shipments": self.shipments.get(line, []),
                "cancellations": self.cancellations.get(line, []),
                "status": _progress(pending < self.quantities[line], pending == 0),
                "pending": {"quantity": pending},
            }
            for line, pending in self.pending().items()
            if idle or pending < self.quantities[line]
        ]

    def whole(self) -> Json:
        """Return the order with FeedAMP's times, and ``raw``, the body exactly as it was last sent."""
        times = {"imported_at": self.imported_at, "seller_updated_at": self.seller_updated_at}
        return {**self.resource(), **times, "raw": self.raw.decode("utf-8")}


def _progress(active: bool, done: bool) -> str:
    return ("COMPLETE" if done else "PARTIALLY_FULFILLED") if active else "PENDING"


@dataclass(slots=True)
class StoredRefund(Stored):
    """One refund, as its seller made it; its attributes are named as the fields that the API shows."""

    feedamp_refund_id: int
    created_at: datetime
    merchant_refund_lines: list[Json]
    notes: str | None
    completed: bool = False

    @property
    def status(self) -> str:
        """The refund's status (A6)."""
        return "PAUSED" if self.errors else "COMPLETE" if self.completed else "CREATED"

    @property
    def date_created(self) -> str:
        """The day of its creation, in UTC."""
        return self.created_at.date().isoformat()

    def resource(self) -> Json:
        """Return the refund as the API shows it."""
        return {name: getattr(self, name) for name in models.Refund.model_fields}

    def whole(self) -> Json:
        """Return the refund with the instant of its creation."""
        return {**self.resource(), "created_at": self.created_at}


@dataclass(slots=True)
class StoredReturn(Stored):
    """One return: the marketplace's JSON as it came, and beside it what the seller did."""

    mp_return_number: str
    requested_at: datetime
    raw: bytes
    body: Json
    seller_authorized: bool = False
    rma: str | None = None
    merchant_refund_lines: list[Json] = field(default_factory=list)
    completed: bool = False

    @property
    def status(self) -> str:
        """The return's status (A7)."""
        if self.completed:
            return "COMPLETED"
        if self.merchant_refund_lines:
            return "REFUNDED"
        preauthorized = all(each["preauthorized"] for each in self.body["return_lines"])
        return "AUTHORIZED" if self.seller_authorized or preauthorized else "AWAITING_AUTHORIZATION"

    def resource(self) -> Json:
        """Return it as the API shows it: what was asked for, and over it what only FeedAMP sets."""
        return {
            "request_date": self.requested_at.date().isoformat(),
            "respond_date": None,
            "shipping_address": None,
            "customer_email": None,
            "return_type": "SHIP",
            **{name: value for name, value in self.body.items() if value is not None},
            "mp_order_number": self.mp_order_number,
            "mp_return_number": self.mp_return_number,
            **self.refunds(),
        }

    def refunds(self) -> Json:
        """Return the answer of the lean endpoint (A7.5)."""
        return {name: getattr(self, name) for name in models.ReturnRefunds.model_fields}

    def whole(self) -> Json:
        """Return it with the instant of its first PUT, and ``raw``, the body exactly as it was last sent."""
        return {**self.resource(), "placed_at": self.requested_at, "raw": self.raw.decode("utf-8")}


Item = TypeVar("Item", StoredOrder, StoredRefund, StoredReturn)


class Book(dict[Any, Item]):
    """All that one seller has of one kind by its number, in the order in which it came.

    :param noun: What a 404 says there is none of.
    """

    def __init__(self, noun: str) -> None:
        super().__init__()
        self._noun = noun

    def __missing__(self, number: object) -> Item:
        """Refuse with a 404."""
        raise models.not_found(self._noun)

    def whole(self) -> list[Json]:
        """Return all with what the API does not show."""
        return [each.whole() for each in self.values()]


class RefundedLine(BaseModel, extra="allow", allow_inf_nan=False):
    """One line that a seller refunds; what is missing is filled from the order, other fields are kept."""

    mp_line_number: str
    refund_quantity: int | None = Field(default=None, ge=0)
    item_refund: float | None = None


class ReturnAmounts(BaseModel, extra="allow", allow_inf_nan=False):
    """The amounts of one return line; what is missing is filled from the return, other fields are kept."""

    mp_return_line_number: str
    principal_refund_amount: float | None = None
    shipping_refund_amount: float | None = None


class SellerAccount:
    """One seller's account: nothing in it can be reached from another seller's token.

    Its first half is the marketplace's, called by the endpoints. Its second half is the seller's, called by
    the control surface with the fields of a JSON body. Whatever does not fit raises :class:`Refusal`.

    :param settings: The sandbox's switches.
    :param clock: The sandbox's time.
    :param refund_ids: FeedAMP's own numbers: no two sellers share one.
    """

    def __init__(self, settings: SandboxSettings, clock: SandboxClock, refund_ids: Iterator[int]) -> None:
        self.orders: Book[StoredOrder] = Book("order")
        self.refunds: Book[StoredRefund] = Book("refund")
        self.returns: Book[StoredReturn] = Book("return")
        self._settings = settings
        self._clock = clock
        self._refund_ids = refund_ids

    def place_order(
        self, number: str, order: models.NewOrder, body: Json, raw: bytes
    ) -> tuple[StoredOrder, bool]:
        """Insert or update an order (A4.4); return it, and whether it is new."""
        lines = order.order_lines
        found = _repeated("order_lines[{}].mp_line_number", [each.mp_line_number for each in lines])
        if order.mp_order_number != number:
            found.append(invalid("'mp_order_number' differs from the one in the path"))
        self._refuse(found, body, models.NewOrder)
        state, quantities = order.marketplace_state, {each.mp_line_number: each.quantity for each in lines}
        known = self.orders.get(number)
        if known is None:
            known = StoredOrder(number, len(self.orders), self._clock.now(), raw, state, quantities)
            self.orders[number] = known
            return known, True
        old = known.marketplace_state
        if self._settings.strict_transitions and old in CLOSED_STATES and state != old:
            raise bad_request(f"'marketplace_state' cannot leave {old}")
        left = known.pending() if known.has_activity else {}
        if any(quantities.get(line, 0) < known.quantities[line] - amount for line, amount in left.items()):
            raise bad_request("'order_lines' has less than the seller shipped or cancelled")
        known.raw, known.marketplace_state, known.quantities = raw, state, quantities
        return known, False

    def place_return(
        self, order: StoredOrder, number: str, asked: models.NewReturn, body: Json, raw: bytes
    ) -> tuple[StoredReturn, bool]:
        """Create a return, or replace it (A7.4): freely before the seller has acted, else only unless strict.

        The same body again is never refused, so that a repeated PUT is harmless.
        """
        lines = [each.mp_return_line_number for each in asked.return_lines]
        found = _repeated("return_lines[{}].mp_return_line_number", lines)
        if asked.mp_order_number not in (None, order.mp_order_number):
            found.append(invalid("'mp_order_number' differs from the one in the path"))
        if asked.return_type == "IN_STORE" and not self._settings.seller_on_v2:
            found.append(invalid("'return_type' IN_STORE needs a seller on V2"))
        numbers = [each.mp_order_line_number for each in asked.return_lines]
        found += _no_lines("return_lines[{}].mp_order_line_number", numbers, order)
        self._refuse(found, body, models.NewReturn)
        key = order.mp_order_number, number
        known = self.returns.get(key)
        if known is None:
            now = self._clock.now()
            known = StoredReturn(order.mp_order_number, len(self.returns), number, now, raw, body)
            self.returns[key] = known
            return known, True
        # The order's number may be in the body or not: it asks for the same.
        named = {"mp_order_number": order.mp_order_number}
        if {**named, **known.body} != {**named, **body}:
            acted = known.seller_authorized or known.merchant_refund_lines or known.completed
            if self._settings.strict_transitions and acted:
                raise bad_request(f"the return is {known.status} and cannot change any more")
            if not {each["mp_return_line_number"] for each in known.merchant_refund_lines} <= set(lines):
                raise bad_request("'return_lines' lacks a line for which there are amounts")
            known.raw, known.body = raw, body
        return known, False

    def report_order_errors(
        self, order: StoredOrder, errors: Sequence[models.OrderError], body: list[Json]
    ) -> None:
        """Append the marketplace's complaints to an order (A4.7)."""
        numbers = [each.mp_line_number for each in errors]
        self._refuse(_no_lines("[{}].mp_line_number", numbers, order), body, models.OrderError)
        order.errors.extend(body)

    def report_errors(self, about: StoredRefund | StoredReturn, body: list[Json]) -> None:
        """Append the marketplace's complaints: they pause a refund (A6.5), and leave a return (A7.7)."""
        self._refuse([], body, models.ReportedError)
        if self._settings.strict_transitions and about.completed:
            raise bad_request(f"it is {about.status}")
        about.completed = about.completed and isinstance(about, StoredReturn)
        about.errors.extend(body)

    def complete(self, what: StoredRefund | StoredReturn) -> None:
        """Note that the marketplace has processed it (A6.4, A7.6); a second time changes nothing."""
        ready = ("CREATED", "COMPLETE", "REFUNDED", "COMPLETED")
        if self._settings.strict_transitions and what.status not in ready:
            raise bad_request(f"it is {what.status}: the seller has to act first")
        what.completed = True
        what.errors.clear()

    def acknowledge(self, *, mp_order_number: str) -> Json:
        """Let the seller confirm an order."""
        order = self._open(mp_order_number)
        order.acknowledged = True
        return self._touched(order)

    def ship(
        self,
        *,
        mp_order_number: str,
        mp_line_number: str | None = None,
        quantity: Quantity | None = None,
        carrier: str = "UPS",
        tracking_number: str | None = None,
        tracking_url: str | None = None,
        shipped_date: str | None = None,
    ) -> Json:
        """Let the seller ship one line or all that is pending; what is not given is made up, but the URL."""
        order = self._open(mp_order_number)
        shipment = {
            "carrier": carrier,
            "tracking_number": f"1Z{order.sequence:016d}" if tracking_number is None else tracking_number,
            "shipped_date": shipped_date or self._clock.now().date().isoformat(),
            **({} if tracking_url is None else {"tracking_url": tracking_url}),
        }
        return self._enter(order, order.shipments, mp_line_number, quantity, shipment)

    def cancel(
        self,
        *,
        mp_order_number: str,
        mp_line_number: str | None = None,
        quantity: Quantity | None = None,
        reason: str = "out_of_stock",
    ) -> Json:
        """Let the seller cancel one line or all that is pending."""
        order = self._open(mp_order_number)
        return self._enter(order, order.cancellations, mp_line_number, quantity, {"reason": reason})

    def resolve_errors(self, *, mp_order_number: str) -> Json:
        """Let the seller resolve an order's errors, which presumably clears them."""
        order = self.orders[mp_order_number]
        order.errors.clear()
        return self._touched(order)

    def create_refund(
        self,
        *,
        mp_order_number: str,
        lines: list[RefundedLine] | None = None,
        notes: str | None = None,
        reason: str = "CUSTOMER_CANCELLED",
    ) -> Json:
        """Let the seller refund lines of an order; amounts may be too high, for the marketplace to report."""
        # Money does not pass through binary fractions.
        body = json.loads(self.orders[mp_order_number].raw, parse_float=Decimal)
        ordered = {each["mp_line_number"]: each for each in body["order_lines"]}
        given = _given(lines, "mp_line_number", ordered, default=list(ordered)[:1])
        if not self._settings.seller_on_v2 and len(given) != 1:
            raise bad_request("a seller on V1 refunds one line at a time")
        filled = []
        for each in given:
            line = ordered[each["mp_line_number"]]
            quantity = each.get("refund_quantity", line["quantity"])
            total = float(Decimal(line.get("unit_price") or 0) * quantity)
            if not math.isfinite(total):
                raise bad_request("the line costs more than a number can hold")
            nothing = dict.fromkeys(models.RefundLine.model_fields, 0)
            whole = {"currency": body["currency"], "refund_quantity": quantity, "item_refund": total}
            filled.append({**nothing, **whole, "reason": reason, **each})
        number, now = next(self._refund_ids), self._clock.now()
        made = StoredRefund(mp_order_number, len(self.refunds), number, now, filled, notes)
        self.refunds[str(number)] = made
        return made.whole()

    def resolve_refund_errors(self, *, feedamp_refund_id: int) -> Json:
        """Let the seller resolve a refund's errors, which makes it ready to be processed again."""
        refund = self.refunds[str(feedamp_refund_id)]
        refund.errors.clear()
        return refund.whole()

    def authorize_return(
        self,
        *,
        mp_order_number: str,
        mp_return_number: str,
        rma: Annotated[str, Field(min_length=1, max_length=128)] | None = None,
    ) -> Json:
        """Let the seller authorise a return under its own number or a made-up one."""
        found = self.returns[mp_order_number, mp_return_number]
        if found.status not in ("AWAITING_AUTHORIZATION", "AUTHORIZED"):
            raise bad_request(f"the return is {found.status} already")
        found.seller_authorized = True
        found.rma = rma or found.rma or f"RMA-{1001 + found.sequence}"
        return found.whole()

    def enter_return_amounts(
        self, *, mp_order_number: str, mp_return_number: str, lines: list[ReturnAmounts] | None = None
    ) -> Json:
        """Let the seller enter what is refunded, by default what was asked for; it clears the errors."""
        found = self.returns[mp_order_number, mp_return_number]
        if found.status not in ("AUTHORIZED", "REFUNDED"):
            raise bad_request(f"the return is {found.status}: it must be AUTHORIZED or REFUNDED")
        key, principal, shipping = models.ReturnRefundLine.model_fields
        asked = {each[key]: each["requested_refund_principal"] for each in found.body["return_lines"]}
        given = _given(lines, key, asked, default=list(asked))
        found.merchant_refund_lines = [{principal: asked[each[key]], shipping: 0, **each} for each in given]
        found.errors.clear()
        return found.whole()

    def _refuse(self, found: list[Problem], body: Any, model: type[models.Shape]) -> None:
        if self._settings.strict_fields:
            found += models.unknown_fields(body, model)
        if found:
            raise Refusal(400, *found)

    def _open(self, number: str) -> StoredOrder:
        order = self.orders[number]
        if order.marketplace_state == "PENDING":
            raise bad_request("the order is PENDING: the seller cannot act on it yet")
        if order.marketplace_state in CLOSED_STATES:
            raise bad_request("the marketplace has closed the order")
        return order

    def _touched(self, order: StoredOrder) -> Json:
        order.seller_updated_at = self._clock.now()
        return order.whole()

    def _enter(
        self,
        order: StoredOrder,
        kept: dict[str, list[Json]],
        line: str | None,
        quantity: int | None,
        what: Json,
    ) -> Json:
        """Enter what the seller does with a quantity of a line, or with all that is pending."""
        pending = order.pending()
        if line is not None and line not in pending:
            raise bad_request("the order has no such line")
        if line is None and quantity is not None:
            raise bad_request("a quantity needs its line")
        portions = pending if line is None else {line: pending[line] if quantity is None else quantity}
        portions = {each: amount for each, amount in portions.items() if amount > 0}
        if not portions or any(amount > pending[each] for each, amount in portions.items()):
            raise bad_request("the order has not that much pending")
        for each, amount in portions.items():
            kept.setdefault(each, []).append({"quantity": amount, **what})
        return self._touched(order)


def _repeated(place: str, numbers: list[str]) -> list[Problem]:
    """Return the problems of lines whose number an earlier line has."""
    seen: set[str] = set()
    found = []
    for index, number in enumerate(numbers):
        if number in seen:
            found.append(invalid(f"'{place.format(index)}' is on an earlier line"))
        seen.add(number)
    return found


def _no_lines(place: str, numbers: Iterable[str | None], order: StoredOrder) -> list[Problem]:
    """Return the problems of numbers that no line of the order has."""
    return [
        invalid(f"'{place.format(index)}' is not a line of the order")
        for index, number in enumerate(numbers)
        if number is not None and number not in order.quantities
    ]


def _given(
    lines: Sequence[BaseModel] | None, key: str, known: Mapping[str, Any], default: list[str]
) -> list[Json]:
    """Return the lines that a seller gives as they were given, or those that go without saying."""
    given = [{key: number} for number in default]
    if lines is not None:
        given = [line.model_dump(exclude_none=True) for line in lines]
    numbers = [each[key] for each in given]
    if not numbers or len(set(numbers)) != len(numbers) or not set(numbers) <= known.keys():
        raise bad_request(f"'{key}' must name different lines that exist, at least one")
    return given
