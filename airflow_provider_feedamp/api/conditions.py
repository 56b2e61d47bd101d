"""What sensors and triggers wait for. Both ask the same object, so that no decision is made twice.

Each condition is plain data that JSON can carry, asks FeedAMP when ``met`` is called, and keeps nothing but
what it has said in the log already.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_feedamp.api.types import FulfillmentFilter, FulfillmentStatus, OrderStatus, RefundStatus
from airflow_provider_feedamp.api.waiting import NAMED, Notes, check_texts, instant_of, named
from airflow_provider_feedamp.exceptions import InputError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_feedamp.api.client import FeedAmpClient
    from airflow_provider_feedamp.api.types import Order

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
    _said: Notes = field(default_factory=Notes, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_texts("mp_order_numbers", self.mp_order_numbers)
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
        text = f"{len(waiting)} of {len(numbers)} orders are not {state} yet: {named(waiting)}"
        self._said.say(logging.INFO, text)
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
                f"The seller's account does not have all of the {len(numbers)} orders to wait for: "
                f"{named(unknown)}. Is it the right seller, and have they been placed?",
                status=404,
            )
        return found

    def _done(self, client: FeedAmpClient, number: str, order: Order) -> bool:
        status = order.get("status")
        if status in _ENDED or (self.until == "started" and _touched(order.get("fulfillments"))):
            return True
        if order.get("is_marketplace_fulfilled") is True:
            text = f"Order {number!r} is fulfilled by the marketplace itself: nothing to wait for"
            self._said.say(logging.INFO, text)
            return True
        if status in _OPEN:
            return False
        self._said.say(
            logging.WARNING, f"Order {number!r} has the status {status!r}, which is not known here"
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
        instant_of("since", self.since)
        _check_until(self.until)

    def met(self, client: FeedAmpClient) -> list[Any] | None:
        """Return the numbers of those orders once there is one."""
        # Shipped orders that are not closed stand here as well; under COMPLETE there are only closed ones.
        orders = client.orders.list(
            seller_updated_after=instant_of("since", self.since),
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
            check_texts("mp_order_numbers", self.mp_order_numbers)
        if self.created_after is not None:
            instant_of("created_after", self.created_after)

    def met(self, client: FeedAmpClient) -> list[Any] | None:
        """Return order number and refund id of each once there is one."""
        if self.mp_order_numbers is not None and not self.mp_order_numbers:
            return []
        after = None if self.created_after is None else instant_of("created_after", self.created_after)
        refunds = client.refunds.list(
            mp_order_numbers=self.mp_order_numbers,
            refund_status=[RefundStatus.CREATED],
            created_after=after,
        )
        names = ("mp_order_number", "feedamp_refund_id")
        return [{name: refund.get(name) for name in names} for refund in refunds] or None


def _touched(lines: object) -> bool:
    """Say whether a seller has shipped or cancelled something of the lines of an order."""
    listed = lines if isinstance(lines, list) else []
    return any(
        line.get("shipments") or line.get("cancellations") for line in listed if isinstance(line, dict)
    )


def _check_until(until: str) -> None:
    if until not in ("complete", "started"):
        raise InputError(f"until must be 'complete' or 'started', not {until!r}.")
