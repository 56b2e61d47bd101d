"""What sensors and triggers wait for. Both ask the same object, so that no decision is made twice.

Each condition is plain data that JSON can carry, asks FeedAMP when ``met`` is called, and keeps nothing but
the lines that it has logged already: it is asked every minute.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

from airflow_provider_feedamp.api.types import (
    FulfillmentFilter,
    FulfillmentStatus,
    OrderStatus,
    RefundStatus,
    ReturnStatus,
)
from airflow_provider_feedamp.exceptions import InputError, NotFoundError, ReturnOverdueError, counted

if TYPE_CHECKING:
    from airflow_provider_feedamp.api.client import FeedAmpClient
    from airflow_provider_feedamp.api.types import Order


log = logging.getLogger(__name__)

#: How many identifiers a message or a line of the log names.
NAMED: Final = 10


class Condition(Protocol):
    """Something to wait for."""

    def met(self, client: FeedAmpClient) -> list[Any] | None:
        """Ask FeedAMP.

        :return: The identifiers of what was waited for, or None: not yet.
        """


def _log_once(logged: set[str], level: int, text: str) -> None:
    if text not in logged:
        logged.add(text)
        log.log(level, text)


def plain(condition: Any) -> dict[str, Any]:
    """Return the arguments that make the same condition again, as JSON has them."""
    arguments = {each.name: getattr(condition, each.name) for each in fields(condition) if each.init}
    result: dict[str, Any] = json.loads(json.dumps(arguments))
    return result


def named(values: Sequence[str]) -> str:
    """Return the first of some identifiers, and how many more there are."""
    shown = ", ".join(values[:NAMED])
    return shown if len(values) <= NAMED else f"{shown} and {len(values) - NAMED} more"


def _is_list(values: object) -> bool:
    return isinstance(values, Sequence) and not isinstance(values, str | bytes)


def _check_texts(name: str, values: Sequence[Any]) -> None:
    if not _is_list(values) or not all(isinstance(value, str) and value.strip() for value in values):
        raise InputError(f"{name} must be a list of texts that are not blank.")


def _check_until(until: str) -> None:
    if until not in ("complete", "started"):
        raise InputError(f"until must be 'complete' or 'started', not {until!r}.")


def _instant(name: str, text: str) -> datetime:
    """Return an instant from ISO 8601; one without an offset FeedAMP would take for New York's time."""
    try:
        instant = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        instant = None
    if instant is None or instant.utcoffset() is None:
        raise InputError(
            f"{name} must be an instant in ISO 8601 with an offset, as 2026-01-31T12:00:00Z, not {text!r}."
        )
    return instant


#: The seller has nothing left to do with an order of these; the marketplace may still have to close it.
_ENDED: Final = frozenset({OrderStatus.FULFILLED, OrderStatus.CANCELLED, OrderStatus.COMPLETE})
_OPEN: Final = frozenset({OrderStatus.PENDING, OrderStatus.ORDERED, OrderStatus.IN_PROGRESS})


@dataclass(frozen=True, slots=True)
class FulfilledOrders:
    """All given orders are shipped or cancelled by the seller (or closed by the marketplace).

    An order that the marketplace fulfils itself never gets fulfilments from the seller: it counts as done,
    and the log names it. ``fulfillment_status=COMPLETE`` is never asked for: it finds only orders that the
    marketplace has closed, see :class:`~airflow_provider_feedamp.api.types.FulfillmentFilter`.

    :param mp_order_numbers: The orders; none at all is done at once.
    :param until: ``complete``, or ``started``: each has at least one shipment or cancellation.
    """

    mp_order_numbers: Sequence[str]
    until: str = "complete"
    _logged: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_texts("mp_order_numbers", self.mp_order_numbers)
        _check_until(self.until)

    def met(self, client: FeedAmpClient) -> list[Any] | None:
        """Return the order numbers once all are done.

        :raises NotFoundError: The seller's account does not have one of them.
        """
        numbers = list(dict.fromkeys(self.mp_order_numbers))
        orders = self._read(client, numbers)
        waiting = [number for number in numbers if not self._done(client, number, orders[number])]
        if not waiting:
            return numbers
        state = "fulfilled" if self.until == "complete" else "begun"
        of = f"{len(waiting)} of {len(numbers)}"
        _log_once(self._logged, logging.INFO, f"Orders not {state} yet, {of}: {named(waiting)}")
        return None

    def _read(self, client: FeedAmpClient, numbers: list[str]) -> dict[str, Order]:
        """Return the orders; many are asked for with few list calls."""
        listed = [number for number in numbers if "," not in number] if len(numbers) > 1 else []
        found: dict[str, Order] = {}
        if listed:
            orders = client.orders.list(mp_order_numbers=listed)
            found = {str(order.get("mp_order_number")): order for order in orders}
        unknown: list[str] = []
        # What a list leaves out is asked for by itself: nothing says that a list knows the newest orders.
        for number in numbers:
            if number in found:
                continue
            try:
                found[number] = client.orders.get(number)
            except NotFoundError:
                unknown.append(number)
            if len(unknown) >= NAMED:
                break
        if unknown:
            raise NotFoundError(
                f"Not in the seller's account: {named(unknown)}. Is it the right seller, and have the orders "
                "to wait for been placed?",
                status=404,
            )
        return found

    def _done(self, client: FeedAmpClient, number: str, order: Order) -> bool:
        status = order.get("status")
        if status in _ENDED or (self.until == "started" and _touched(order.get("fulfillments"))):
            return True
        if order.get("is_marketplace_fulfilled") is True:
            text = f"Order {number!r} is fulfilled by the marketplace itself: nothing to wait for"
            _log_once(self._logged, logging.INFO, text)
            return True
        if status in _OPEN:
            return False
        _log_once(
            self._logged,
            logging.WARNING,
            f"Order {number!r} has the status {status!r}, which is not known here",
        )
        fulfilled = client.orders.fulfillments(number)
        complete = fulfilled.get("status") == FulfillmentStatus.COMPLETE
        return complete or (self.until == "started" and _touched(fulfilled.get("fulfillments")))


@dataclass(frozen=True, slots=True)
class SellerActivity:
    """A seller has shipped or cancelled something since an instant, of any order that is not closed yet.

    :param since: ISO 8601 with an offset.
    :param until: ``started``, or ``complete``: only orders with which the seller is through count.
    """

    since: str
    until: str = "started"

    def __post_init__(self) -> None:
        _instant("since", self.since)
        _check_until(self.until)

    def met(self, client: FeedAmpClient) -> list[Any] | None:
        """Return the numbers of those orders once there is one."""
        # This filter finds shipped orders that are not closed, too; COMPLETE finds closed ones only.
        orders = client.orders.list(
            seller_updated_after=_instant("since", self.since),
            fulfillment_status=[FulfillmentFilter.PARTIALLY_FULFILLED],
        )
        numbers = [
            order["mp_order_number"]
            for order in orders
            if self.until == "started" or order.get("status") in _ENDED
        ]
        return numbers or None


@dataclass(frozen=True, slots=True)
class RefundsToProcess:
    """There are refunds that the marketplace has to process.

    A refund keeps its date of creation while it is paused, so the status says what is to be done, and a date
    alone never does.

    :param mp_order_numbers: Only refunds of these orders; none at all is done at once. Default: of any.
    :param created_after: Only refunds created at or after this instant, ISO 8601 with an offset.
    """

    mp_order_numbers: Sequence[str] | None = None
    created_after: str | None = None

    def __post_init__(self) -> None:
        if self.mp_order_numbers is not None:
            _check_texts("mp_order_numbers", self.mp_order_numbers)
        if self.created_after is not None:
            _instant("created_after", self.created_after)

    def met(self, client: FeedAmpClient) -> list[Any] | None:
        """Return order number and refund id of each once there is one."""
        if self.mp_order_numbers is not None and not self.mp_order_numbers:
            return []
        refunds = client.refunds.list(
            mp_order_numbers=self.mp_order_numbers,
            refund_status=[RefundStatus.CREATED],
            created_after=None
            if self.created_after is None
            else _instant("created_after", self.created_after),
        )
        names = ("mp_order_number", "feedamp_refund_id")
        return [{name: refund.get(name) for name in names} for refund in refunds] or None


def _touched(lines: object) -> bool:
    """Say whether a seller has shipped or cancelled something."""
    listed = lines if isinstance(lines, list) else []
    return any(
        line.get("shipments") or line.get("cancellations") for line in listed if isinstance(line, dict)
    )


#: How far a return can be, in this order.
_STEPS: Final = tuple(ReturnStatus)
#: FeedAMP does not say whose day ``respond_date`` is. Every day ends last twelve hours behind UTC.
_LAST_ZONE: Final = timedelta(hours=12)
_RETURN_KEY: Final = ("mp_order_number", "mp_return_number")


@dataclass(frozen=True, slots=True)
class ReturnsInStatus:
    """All given returns have reached a status, or one behind it.

    :param returns: Each with ``mp_order_number`` and ``mp_return_number``; none at all is done at once.
    :param status: One of ``ReturnStatus``.
    :param respond_dates: The day by which the seller has to respond, for each return (None: not known);
        :meth:`dated` reads them. Default: no deadline.
    """

    returns: Sequence[Mapping[str, str]]
    status: str = ReturnStatus.REFUNDED
    respond_dates: Sequence[str | None] | None = None
    _logged: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not _is_list(self.returns) or not all(isinstance(each, Mapping) for each in self.returns):
            raise InputError(f"returns must be a list of objects with {' and '.join(_RETURN_KEY)}.")
        for name in _RETURN_KEY:
            _check_texts(f"{name} in returns", [each.get(name) for each in self.returns])
        if self.status not in _STEPS:
            raise InputError(f"status must be one of {', '.join(_STEPS)}, not {self.status!r}.")

    def dated(self, client: FeedAmpClient) -> ReturnsInStatus:
        """Return the same condition with the deadlines that the returns have."""
        held = [client.returns.get(*_numbers_of(each)) for each in self.returns]
        return replace(self, respond_dates=[_text_or_none(each.get("respond_date")) for each in held])

    def met(self, client: FeedAmpClient) -> list[Any] | None:
        """Return the numbers, status and error codes of the returns once all have reached the status.

        :raises ReturnOverdueError: A return has not, and its ``respond_date`` is over anywhere on earth.
        :raises NotFoundError: There is no such return.
        """
        reached: list[dict[str, Any]] = []
        waiting: list[str] = []
        overdue: list[str] = []
        for index, each in enumerate(self.returns):
            known = self.respond_dates[index] if self.respond_dates else None
            held: Mapping[str, Any] = client.returns.refunds(*_numbers_of(each))
            late = not self._reached(each, held) and _over_everywhere(known)
            if late:  # the date that we know may have been moved
                held = client.returns.get(*_numbers_of(each))
                late = _over_everywhere(_text_or_none(held.get("respond_date")) or known)
            errors, status = held.get("errors"), str(held.get("status"))
            listed = errors if isinstance(errors, list) else []
            codes = [str(error.get("code")) for error in listed if isinstance(error, Mapping)]
            if not self._reached(each, held):
                shown = ", ".join([status, *codes])
                (overdue if late else waiting).append(f"{each['mp_return_number']} ({shown})")
                continue
            if codes:  # what the marketplace reported, and nobody resolved
                text = f"Return {each['mp_return_number']!r} has unresolved errors: {named(codes)}"
                _log_once(self._logged, logging.WARNING, text)
            numbers = {name: each[name] for name in _RETURN_KEY}
            reached.append(numbers | {"status": status, "errors": codes})
        if overdue:
            raise ReturnOverdueError(
                f"The respond_date of {counted(len(overdue), 'returns')} is over without reaching "
                f"{self.status}: {named(overdue)}. Ask the seller, or wait on with "
                "respond_date_is_deadline=False."
            )
        if waiting:
            of = f"{len(waiting)} of {len(self.returns)}"
            _log_once(self._logged, logging.INFO, f"Returns not {self.status} yet, {of}: {named(waiting)}")
            return None
        return reached

    def _reached(self, each: Mapping[str, str], held: Mapping[str, Any]) -> bool:
        status = held.get("status")
        if status in _STEPS:
            return _STEPS.index(ReturnStatus(status)) >= _STEPS.index(ReturnStatus(self.status))
        text = f"Return {each['mp_return_number']!r} has the status {status!r}, which is not known here"
        _log_once(self._logged, logging.WARNING, text)
        return False


def _numbers_of(each: Mapping[str, str]) -> tuple[str, str]:
    return each["mp_order_number"], each["mp_return_number"]


def _over_everywhere(day: str | None) -> bool:
    """Say whether a day is over everywhere; what cannot be read as a day never is."""
    try:
        after = date.fromisoformat((day or "")[:10]) + timedelta(days=1)
    except (ValueError, OverflowError):
        return False
    return datetime.now(UTC) >= datetime(after.year, after.month, after.day, tzinfo=UTC) + _LAST_ZONE


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None
