"""The order endpoints of the FeedAMP Order Source API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from airflow_provider_feedamp.api.checks import check_order
from airflow_provider_feedamp.api.http import an_object
from airflow_provider_feedamp.api.lists import (
    LARGEST_PAGE,
    calls_for,
    instant_filter,
    listed,
    page_size_filter,
)
from airflow_provider_feedamp.api.reporting import report_errors
from airflow_provider_feedamp.api.types import Fulfillments, MarketplaceState, Order, PlacedOrder
from airflow_provider_feedamp.api.unverified import Unverified
from airflow_provider_feedamp.exceptions import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from airflow_provider_feedamp.api.http import Transport


class OrdersApi:
    """Orders of one seller's account: list, read and place them, and see what the seller did.

    :param transport: Sends the calls.
    :param unverified: What is not documented, guessed.
    """

    def __init__(self, transport: Transport, unverified: Unverified | None = None) -> None:
        self._transport = transport
        self._unverified = unverified or Unverified()

    def authorise(self) -> None:
        """Obtain the access token now, so that threads that begin together need not do so all at once.

        :raises TokenError: There is none to be had.
        """
        self._transport.authorise()

    def get(self, mp_order_number: str) -> Order:
        """Return one order.

        :param mp_order_number: The marketplace's order number.
        :raises NotFoundError: The seller's account has no such order.
        """
        what = f"reading order {mp_order_number!r}"
        answer = self._transport.request("GET", ("orders", mp_order_number), what=what)
        return cast("Order", an_object(answer, what))

    def place(self, order: Mapping[str, Any], *, body: bytes | None = None) -> PlacedOrder:
        """Insert an order, or update it when FeedAMP knows its number.

        :param order: The order; it is checked before it is sent.
        :param body: The same order as the JSON that it was read from, sent byte for byte (so that its numbers
            stay as they are written). By default the order is written as JSON anew.
        :raises InputError: The order cannot be placed as it is; nothing was sent.
        :raises BadRequestError: FeedAMP refused the order.
        """
        check_order(order)
        return self._put(order["mp_order_number"], order, body)

    def set_state(
        self,
        mp_order_number: str,
        state: MarketplaceState | str,
        *,
        read_only: Collection[str] | None = None,
    ) -> PlacedOrder:
        """Change the marketplace state of an order that FeedAMP holds.

        FeedAMP has no partial update: the order is read, what FeedAMP sets itself is left out, and the rest
        is put back with the new state. What the seller does between the two calls is not lost, since it
        stands in the fields that are left out.

        :param mp_order_number: The marketplace's order number.
        :param state: The new state.
        :param read_only: The fields to leave out, should FeedAMP refuse to take back more than is documented.
            Default: those of :class:`Unverified`.
        """
        try:
            state = MarketplaceState(state)
        except ValueError as error:
            states = ", ".join(MarketplaceState)
            raise InputError(
                f"The marketplace state of order {mp_order_number!r} must be one of {states}."
            ) from error
        if read_only is None:
            read_only = self._unverified.read_only_order_fields
        held = self.get(mp_order_number)
        order = {name: value for name, value in held.items() if name not in read_only}
        return self._put(mp_order_number, order | {"marketplace_state": state.value}, None)

    def fulfillments(self, mp_order_number: str) -> Fulfillments:
        """Return what the seller has shipped and cancelled of an order.

        :param mp_order_number: The marketplace's order number.
        :raises NotFoundError: The seller's account has no such order.
        """
        what = f"reading the fulfilments of order {mp_order_number!r}"
        answer = self._transport.request("GET", ("orders", mp_order_number, "fulfillments"), what=what)
        return cast("Fulfillments", an_object(answer, what))

    def report_errors(self, mp_order_number: str, errors: Sequence[Mapping[str, Any]]) -> None:
        """Report fulfilment data that the marketplace could not process.

        FeedAMP may append what it gets twice. When nobody knows whether the call has arrived, the order is
        read, and what does not stand there is sent once more.

        :param mp_order_number: The marketplace's order number.
        :param errors: At least one :class:`OrderError`, each with ``code`` and ``message``.
        """
        report_errors(
            self._transport,
            ["orders", mp_order_number],
            errors,
            of=f"order {mp_order_number!r}",
            read=lambda: self.get(mp_order_number),
        )

    def list(
        self,
        *,
        mp_order_numbers: Sequence[str] | None = None,
        fulfillment_status: Sequence[str] | None = None,
        imported_after: datetime | None = None,
        seller_updated_after: datetime | None = None,
        has_errors: bool | None = None,
        page_size: int = LARGEST_PAGE,
    ) -> Iterator[Order]:
        """Return the orders that match all filters, each once, page by page as they are asked for.

        :param mp_order_numbers: Only these orders; as in the next filter, an empty list finds none.
        :param fulfillment_status: Only orders in one of these states, see :class:`FulfillmentFilter`.
        :param imported_after: Only orders that came to FeedAMP at or after this instant (with a zone).
        :param seller_updated_after: Only orders the seller changed at or after this instant (with a zone).
        :param has_errors: True for orders with errors, False for orders without, None for both.
        :param page_size: Orders per call, 10 to 50.
        :raises InputError: A filter cannot be sent; raised at once, not when the first order is taken.
        """
        params = {"page_size": page_size_filter(page_size)}
        if imported_after is not None:
            params["imported_after"] = instant_filter("imported_after", imported_after)
        if seller_updated_after is not None:
            params["seller_updated_after"] = instant_filter("seller_updated_after", seller_updated_after)
        if has_errors is not None:
            params["has_errors"] = "true" if has_errors else "false"
        chosen = {"mp_order_numbers": mp_order_numbers, "fulfillment_status": fulfillment_status}
        found = listed(self._transport, "orders", calls_for(params, chosen), key=("mp_order_number",))
        return cast("Iterator[Order]", found)

    def _put(self, number: str, order: Mapping[str, Any], body: bytes | None) -> PlacedOrder:
        json = dict(order) if body is None else None
        what = f"placing order {number!r}"
        status, held = self._transport.request("PUT", ("orders", number), json=json, body=body, what=what)
        # The body of this answer is not documented; what is not an order is not passed on as one.
        answer = held if isinstance(held, dict) else {}
        known = cast("Order", answer) if "mp_order_number" in answer else None
        return PlacedOrder(number, self._unverified.is_new(status), known, bool(answer.get("errors")))
