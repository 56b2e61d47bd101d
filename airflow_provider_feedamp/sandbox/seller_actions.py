"""The seller's half of an order's life, which the control surface plays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.sandbox.orders import CLOSED_STATES, OrderBook, StoredOrder
from airflow_provider_feedamp.sandbox.refusal import INVALID_VALUE, bad_request

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.clock import SandboxClock


class SellerActions:
    """What one seller can do with its orders; each action moves the order's seller-updated time."""

    def __init__(self, orders: OrderBook, clock: SandboxClock) -> None:
        self._orders = orders
        self._clock = clock

    def acknowledge(self, number: str) -> StoredOrder:
        """Confirm that the order was received.

        :raises Refusal: 404, or 400 when the order is not released or is closed.
        """
        order = self._open(number)
        order.acknowledged = True
        return self._touched(order)

    def ship(
        self,
        number: str,
        line: str | None = None,
        quantity: int | None = None,
        *,
        carrier: str = "UPS",
        tracking_number: str | None = None,
        tracking_url: str | None = None,
        shipped_date: str | None = None,
    ) -> StoredOrder:
        """Ship one line, or everything that is pending.

        :param number: The order.
        :param line: The line; None for all lines.
        :param quantity: How much of the line; None for all that is pending.
        :param carrier: Free text.
        :param tracking_number: Made from the order's place in the book when None.
        :param tracking_url: Left out of the answer when None.
        :param shipped_date: ``YYYY-MM-DD``; today by the sandbox's clock when None.
        :raises Refusal: 404, or 400 when the order is not open or has not that much pending.
        """
        order = self._open(number)
        shipment: dict[str, Any] = {
            "carrier": carrier,
            "tracking_number": f"1Z{order.sequence:016d}" if tracking_number is None else tracking_number,
            "shipped_date": shipped_date or self._clock.now().date().isoformat(),
        }
        if tracking_url is not None:
            shipment["tracking_url"] = tracking_url
        for each, amount in _portions(order, line, quantity):
            order.shipments.setdefault(each, []).append({"quantity": amount, **shipment})
        return self._touched(order)

    def cancel(
        self,
        number: str,
        line: str | None = None,
        quantity: int | None = None,
        *,
        reason: str = "out_of_stock",
    ) -> StoredOrder:
        """Cancel one line, or everything that is pending.

        :param number: The order.
        :param line: The line; None for all lines.
        :param quantity: How much of the line; None for all that is pending.
        :param reason: Free text; the seven documented reasons are lower case.
        :raises Refusal: 404, or 400 when the order is not open or has not that much pending.
        """
        order = self._open(number)
        for each, amount in _portions(order, line, quantity):
            order.cancellations.setdefault(each, []).append({"quantity": amount, "reason": reason})
        return self._touched(order)

    def resolve_errors(self, number: str) -> StoredOrder:
        """Clear the errors that the marketplace reported, as a seller's correction presumably does."""
        order = self._orders.get(number)
        order.errors.clear()
        return self._touched(order)

    def _open(self, number: str) -> StoredOrder:
        order = self._orders.get(number)
        if order.marketplace_state == "PENDING":
            raise bad_request(INVALID_VALUE, "the order is PENDING: the seller cannot act on it yet")
        if order.marketplace_state in CLOSED_STATES:
            raise bad_request(INVALID_VALUE, "the marketplace has closed the order")
        return order

    def _touched(self, order: StoredOrder) -> StoredOrder:
        order.seller_updated_at = self._clock.now()
        return order


def _portions(order: StoredOrder, line: str | None, quantity: int | None) -> list[tuple[str, int]]:
    """Return how much of which lines an action covers."""
    if line is not None and line not in order.quantities:
        raise bad_request(INVALID_VALUE, "the order has no such line")
    if line is None and quantity is not None:
        raise bad_request(INVALID_VALUE, "a quantity needs its line")
    lines = [line] if line is not None else list(order.quantities)
    wanted = [(each, order.pending(each) if quantity is None else quantity) for each in lines]
    portions = [(each, amount) for each, amount in wanted if amount > 0]
    if not portions or any(amount > order.pending(each) for each, amount in portions):
        raise bad_request(INVALID_VALUE, "the order has not that much pending")
    return portions
