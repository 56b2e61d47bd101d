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
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from airflow_provider_feedamp.sandbox.settings import SandboxClock, SandboxSettings

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
    shipments: dict[str, list[Json]] = field(default_factory=dict)
    cancellations: dict[str, list[Json]] = field(default_factory=dict)
    errors: list[Json] = field(default_factory=list)

    @property
    def body(self) -> Json:
        """What the marketplace placed; thousands of parsed orders would keep the garbage collector busy."""
        body: Json = json.loads(self.raw)
        return body

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

    def matches(self, asked: models.OrderFilters) -> bool:
        """Say whether the order belongs to a list."""
        return (
            (asked.mp_order_numbers is None or self.number in asked.mp_order_numbers)
            and (asked.fulfillment_status is None or self.filter_status in asked.fulfillment_status)
            and _within(self.imported_at, asked.imported_after)
            and _within(self.seller_updated_at, asked.seller_updated_after)
            and (asked.has_errors is None or bool(self.errors) is asked.has_errors)
        )

    def resource(self, body: Json | None = None) -> Json:
        """Return the order as the API shows it: what was placed, and over it what only FeedAMP sets.

        :param body: The placed order as parsed, if it is at hand.
        """
        body = self.body if body is None else body
        return {
            **body,
            "is_marketplace_fulfilled": bool(body.get("is_marketplace_fulfilled")),
            "fulfillments": list(self._lines()) if self.has_activity else [],
            "acknowledged": self.acknowledged,
            "status": self.status,
            "errors": self.errors,
        }

    def fulfillments(self) -> Json:
        """Return the answer of Get Fulfillments (A4.6); lines without activity are shown as ``PENDING``."""
        status = "COMPLETE" if self.all_done else "PARTIALLY_FULFILLED" if self.has_activity else "PENDING"
        return {
            "status": status,
            "is_marketplace_fulfilled": bool(self.body.get("is_marketplace_fulfilled")),
            "fulfillments": list(self._lines(idle=True)),
        }

    def _lines(self, *, idle: bool = False) -> Iterator[Json]:
        for line in self.quantities:
            shipments, cancellations = self.shipments.get(line, []), self.cancellations.get(line, [])
            active, pending = bool(shipments or cancellations), self.pending(line)
            if active or idle:
                yield {
                    "mp_line_number": line,
                    "shipments": shipments,
                    "cancellations": cancellations,
                    "status": ("PARTIALLY_FULFILLED" if pending else "COMPLETE") if active else "PENDING",
                    "pending": {"quantity": pending},
                }

    def whole(self) -> Json:
        """Return the order with FeedAMP's times, and ``raw``, the body exactly as it was last sent."""
        updated = self.seller_updated_at.isoformat() if self.seller_updated_at else None
        times = {"imported_at": self.imported_at.isoformat(), "seller_updated_at": updated}
        return {**self.resource(), **times, "raw": self.raw.decode("utf-8")}


@dataclass(slots=True)
class StoredRefund:
    """One refund, as its seller made it."""

    feedamp_refund_id: int
    sequence: int
    order_number: str
    created_at: datetime
    lines: list[Json]
    notes: str | None = None
    completed: bool = False
    errors: list[Json] = field(default_factory=list)

    @property
    def status(self) -> str:
        """The refund's status (A6)."""
        return "COMPLETE" if self.completed else "PAUSED" if self.errors else "CREATED"

    def matches(self, asked: models.RefundFilters) -> bool:
        """Say whether the refund belongs to a list; its instant counts, not only the date it shows."""
        return (
            (asked.mp_order_numbers is None or self.order_number in asked.mp_order_numbers)
            and (asked.refund_status is None or self.status in asked.refund_status)
            and _within(self.created_at, asked.created_after, asked.created_before)
        )

    def resource(self) -> Json:
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

    def whole(self) -> Json:
        """Return the refund with the instant of its creation."""
        return {**self.resource(), "created_at": self.created_at.isoformat()}


@dataclass(slots=True)
class StoredReturn:
    """One return: the marketplace's JSON as it came, and beside it what the seller did."""

    number: str
    order_number: str
    sequence: int
    placed_at: datetime
    raw: bytes
    body: Json
    seller_authorized: bool = False
    rma: str | None = None
    amounts: list[Json] = field(default_factory=list)
    completed: bool = False
    errors: list[Json] = field(default_factory=list)

    @property
    def status(self) -> str:
        """The return's status (A7)."""
        if self.completed:
            return "COMPLETED"
        if self.amounts:
            return "REFUNDED"
        authorized = self.seller_authorized or all(
            each["preauthorized"] for each in self.body["return_lines"]
        )
        return "AUTHORIZED" if authorized else "AWAITING_AUTHORIZATION"

    def matches(self, asked: models.ReturnFilters) -> bool:
        """Say whether the return belongs to a list; the instant of its first PUT counts."""
        return (
            (asked.mp_order_numbers is None or self.order_number in asked.mp_order_numbers)
            and (asked.return_status is None or self.status in asked.return_status)
            and _within(self.placed_at, asked.requested_after, asked.requested_before)
        )

    def resource(self) -> Json:
        """Return it as the API shows it: what was asked for, and over it what only FeedAMP sets."""
        return {
            "request_date": self.placed_at.date().isoformat(),
            "respond_date": None,
            "shipping_address": None,
            "customer_email": None,
            "return_type": "SHIP",
            **{name: value for name, value in self.body.items() if value is not None},
            "mp_order_number": self.order_number,
            "mp_return_number": self.number,
            **self.refunds(),
        }

    def refunds(self) -> Json:
        """Return the answer of the lean endpoint (A7.5)."""
        outcome = {"status": self.status, "rma": self.rma}
        return {**outcome, "merchant_refund_lines": self.amounts, "errors": self.errors}

    def whole(self) -> Json:
        """Return it with the instant of its first PUT, and ``raw``, the body exactly as it was last sent."""
        return {**self.resource(), "placed_at": self.placed_at.isoformat(), "raw": self.raw.decode("utf-8")}


Item = TypeVar("Item")


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
        lines = [each.mp_line_number for each in order.order_lines]
        found = list(_repeated("order_lines[{}].mp_line_number", lines))
        if order.mp_order_number != number:
            found.append(invalid("'mp_order_number' differs from the one in the path"))
        self._refuse(found, models.unknown_fields(body, models.NewOrder))
        quantities = {each.mp_line_number: each.quantity for each in order.order_lines}
        known = self.orders.get(number)
        if known is None:
            state, now = order.marketplace_state, self._clock.now()
            known = StoredOrder(number, len(self.orders), now, raw, state, quantities)
            self.orders[number] = known
            return known, True
        old = known.marketplace_state
        if self._settings.strict_transitions and old in CLOSED_STATES and order.marketplace_state != old:
            raise bad_request(f"'marketplace_state' cannot leave {old}")
        for line in known.shipments.keys() | known.cancellations.keys():
            if quantities.get(line, 0) < known.quantities[line] - known.pending(line):
                raise bad_request("'order_lines' has less than the seller shipped or cancelled")
        known.raw, known.marketplace_state, known.quantities = raw, order.marketplace_state, quantities
        return known, False

    def report_order_errors(self, number: str, errors: Sequence[models.OrderError], body: list[Json]) -> None:
        """Append the marketplace's complaints to an order (A4.7)."""
        order = self.orders[number]
        strange = _none_in(body) + [
            invalid(f"'[{index}].mp_line_number' is not a line of the order")
            for index, each in enumerate(errors)
            if each.mp_line_number is not None and each.mp_line_number not in order.quantities
        ]
        self._refuse(strange, _unknown_in_each(body, models.OrderError))
        order.errors.extend(body)

    def refund(self, order_number: str, refund_id: str) -> StoredRefund:
        """Return one refund of one order; a refund of another order is a 404 too."""
        found = self.refunds[refund_id]
        if found.order_number != order_number:
            raise models.not_found("refund")
        return found

    def complete_refund(self, order_number: str, refund_id: str) -> None:
        """Note that the marketplace has processed a refund; a second time changes nothing (A6.4)."""
        refund = self.refund(order_number, refund_id)
        if self._settings.strict_transitions and refund.status == "PAUSED":
            raise bad_request("the refund is PAUSED: the seller has to resolve its errors")
        refund.completed = True
        refund.errors.clear()

    def report_refund_errors(self, order_number: str, refund_id: str, body: list[Json]) -> None:
        """Append the marketplace's complaints, whatever they are; they pause the refund (A6.5)."""
        refund = self.refund(order_number, refund_id)
        self._refuse(_none_in(body), _unknown_in_each(body, models.ReportedError))
        if self._settings.strict_transitions and refund.completed:
            raise bad_request("the refund is COMPLETE")
        refund.completed = False
        refund.errors.extend(body)

    def place_return(
        self, order_number: str, number: str, asked: models.NewReturn, body: Json, raw: bytes
    ) -> tuple[StoredReturn, bool]:
        """Create a return, or replace it (A7.4): freely before the seller has acted, else only unless strict.

        The same body again is never refused, so that a repeated PUT is harmless.
        """
        order = self.orders[order_number]
        found = self._return_problems(order, number, asked)
        self._refuse(found, models.unknown_fields(body, models.NewReturn))
        key = order_number, number
        known = self.returns.get(key)
        if known is None:
            known = StoredReturn(number, order_number, len(self.returns), self._clock.now(), raw, body)
            self.returns[key] = known
            return known, True
        # The order's number may be in the body or not: it asks for the same.
        named = {"mp_order_number": order_number}
        if {**named, **known.body} != {**named, **body}:
            acted = known.seller_authorized or known.amounts or known.completed
            if self._settings.strict_transitions and acted:
                raise bad_request(f"the return is {known.status} and cannot change any more")
            lines = {each.mp_return_line_number for each in asked.return_lines}
            if not {each["mp_return_line_number"] for each in known.amounts} <= lines:
                raise bad_request("'return_lines' lacks a line for which there are amounts")
            known.raw, known.body = raw, body
        return known, False

    def complete_return(self, order_number: str, number: str) -> None:
        """Note that the marketplace has paid the customer; a second time changes nothing (A7.6)."""
        found = self.returns[order_number, number]
        if self._settings.strict_transitions and found.status not in ("REFUNDED", "COMPLETED"):
            raise bad_request(f"the return is {found.status}, not yet REFUNDED")
        found.completed = True
        found.errors.clear()

    def report_return_errors(self, order_number: str, number: str, body: list[Json]) -> None:
        """Append the marketplace's complaints; the status stays as it is (A7.7)."""
        found = self.returns[order_number, number]
        self._refuse(_none_in(body), _unknown_in_each(body, models.ReportedError))
        if self._settings.strict_transitions and found.completed:
            raise bad_request("the return is COMPLETED")
        found.errors.extend(body)

    def all_orders(self) -> list[Json]:
        """Return all orders of the seller with what the API does not show."""
        return [each.whole() for each in self.orders.values()]

    def all_refunds(self) -> list[Json]:
        """Return all refunds of the seller with what the API does not show."""
        return [each.whole() for each in self.refunds.values()]

    def all_returns(self) -> list[Json]:
        """Return all returns of the seller with what the API does not show."""
        return [each.whole() for each in self.returns.values()]

    def acknowledge(self, *, mp_order_number: str) -> Json:
        """Let the seller confirm an order."""
        order = self._open(mp_order_number)
        order.acknowledged = True
        return self._touched(order).whole()

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
        for line, amount in _portions(order, mp_line_number, quantity):
            order.shipments.setdefault(line, []).append({"quantity": amount, **shipment})
        return self._touched(order).whole()

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
        for line, amount in _portions(order, mp_line_number, quantity):
            order.cancellations.setdefault(line, []).append({"quantity": amount, "reason": reason})
        return self._touched(order).whole()

    def resolve_errors(self, *, mp_order_number: str) -> Json:
        """Let the seller resolve an order's errors, which presumably clears them."""
        order = self.orders[mp_order_number]
        order.errors.clear()
        return self._touched(order).whole()

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
        filled = [
            _refund_line(each, ordered[each["mp_line_number"]], body["currency"], reason) for each in given
        ]
        number = next(self._refund_ids)
        made = StoredRefund(number, len(self.refunds), mp_order_number, self._clock.now(), filled, notes)
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
        asked = {
            each["mp_return_line_number"]: each["requested_refund_principal"]
            for each in found.body["return_lines"]
        }
        found.amounts = [
            {
                "principal_refund_amount": asked[each["mp_return_line_number"]],
                "shipping_refund_amount": 0,
                **each,
            }
            for each in _given(lines, "mp_return_line_number", asked, default=list(asked))
        ]
        found.errors.clear()
        return found.whole()

    def _refuse(self, found: list[Problem], unknown: Iterator[Problem]) -> None:
        if self._settings.strict_fields:
            found = [*found, *unknown]
        if found:
            raise Refusal(400, found)

    def _return_problems(self, order: StoredOrder, number: str, asked: models.NewReturn) -> list[Problem]:
        lines = [each.mp_return_line_number for each in asked.return_lines]
        found = list(_repeated("return_lines[{}].mp_return_line_number", lines))
        if len(number) > 128:
            found.append(invalid("'mp_return_number' must have 1 to 128 characters"))
        if asked.mp_order_number not in (None, order.number):
            found.append(invalid("'mp_order_number' differs from the one in the path"))
        if asked.return_type == "IN_STORE" and not self._settings.seller_on_v2:
            found.append(invalid("'return_type' IN_STORE needs a seller on V2"))
        for index, each in enumerate(asked.return_lines):
            if each.mp_order_line_number not in order.quantities:
                found.append(
                    invalid(f"'return_lines[{index}].mp_order_line_number' is not a line of the order")
                )
        return found

    def _open(self, number: str) -> StoredOrder:
        order = self.orders[number]
        if order.marketplace_state == "PENDING":
            raise bad_request("the order is PENDING: the seller cannot act on it yet")
        if order.marketplace_state in CLOSED_STATES:
            raise bad_request("the marketplace has closed the order")
        return order

    def _touched(self, order: StoredOrder) -> StoredOrder:
        order.seller_updated_at = self._clock.now()
        return order


def _within(value: datetime | None, after: datetime | None, before: datetime | None = None) -> bool:
    """Say whether an instant lies between two bounds, each of them inclusive and each optional."""
    if value is None:
        return after is None and before is None
    return (after is None or value >= after) and (before is None or value <= before)


def _repeated(place: str, numbers: Sequence[str]) -> Iterator[Problem]:
    """Yield the lines whose number an earlier line has."""
    seen: set[str] = set()
    for index, number in enumerate(numbers):
        if number in seen:
            yield invalid(f"'{place.format(index)}' is on an earlier line")
        seen.add(number)


def _none_in(body: list[Json]) -> list[Problem]:
    """Return the problem of a report without errors: that there is such an order comes first."""
    return (
        []
        if body
        else [Problem(code=models.INVALID_PAYLOAD, message="the body must have at least one error")]
    )


def _unknown_in_each(body: list[Json], model: type[models.ReportedError]) -> Iterator[Problem]:
    for index, entry in enumerate(body):
        yield from models.unknown_fields(entry, model, f"[{index}].")


def _portions(order: StoredOrder, line: str | None, quantity: int | None) -> list[tuple[str, int]]:
    """Return how much of which lines an action covers."""
    if line is not None and line not in order.quantities:
        raise bad_request("the order has no such line")
    if line is None and quantity is not None:
        raise bad_request("a quantity needs its line")
    lines = [line] if line is not None else list(order.quantities)
    wanted = [(each, order.pending(each) if quantity is None else quantity) for each in lines]
    portions = [(each, amount) for each, amount in wanted if amount > 0]
    if not portions or any(amount > order.pending(each) for each, amount in portions):
        raise bad_request("the order has not that much pending")
    return portions


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


def _refund_line(given: Json, ordered: Json, currency: str, reason: str) -> Json:
    """Return a refund's line; what is not given is the whole line at its unit price, and no more."""
    quantity: int = given["refund_quantity"] if "refund_quantity" in given else ordered["quantity"]
    total = float(Decimal(ordered.get("unit_price") or 0) * quantity)
    if not math.isfinite(total):
        raise bad_request("the line costs more than a number can hold")
    nothing = dict.fromkeys(
        ("item_tax_refund", "shipping_refund", "shipping_tax_refund", "discount_refund"), 0
    )
    whole = {"currency": currency, "refund_quantity": quantity, "item_refund": total}
    return {**whole, **nothing, "reason": reason, **given}
