"""The order endpoints of the FeedAMP Order Source API."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_feedamp.api.filters import LARGEST_PAGE, instant_filter, list_filter, page_size_filter
from airflow_provider_feedamp.api.order_check import LONGEST_NUMBER, check_order
from airflow_provider_feedamp.api.paging import entries
from airflow_provider_feedamp.api.types import (
    READ_ONLY_ORDER_FIELDS,
    Fulfillments,
    MarketplaceState,
    Order,
    PlacedOrder,
)
from airflow_provider_feedamp.exceptions import ApiError, InputError

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_provider_feedamp.api.transport import Answer, Transport

#: Order numbers in one list call, so that the URL stays within what servers take; more are asked for in turn.
_NUMBERS_PER_CALL = 50
_INSERTED = {201: True, 200: False}


class OrdersApi:
    """Orders of one seller's account: list, read and place them, and see what the seller did.

    :param transport: Sends the calls.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, mp_order_number: str) -> Order:
        """Return one order.

        :param mp_order_number: The marketplace's order number.
        :raises NotFoundError: The seller's account has no such order.
        """
        what = f"reading order {mp_order_number!r}"
        answer = self._transport.request("GET", ("orders", mp_order_number), what=what)
        return cast("Order", _object(answer, what))

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
        read_only: Collection[str] = READ_ONLY_ORDER_FIELDS,
    ) -> PlacedOrder:
        """Change the marketplace state of an order that FeedAMP holds.

        FeedAMP has no partial update: the order is read, what FeedAMP sets itself is left out, and the rest
        is put back with the new state. What the seller does between the two calls is not lost, since it
        stands in the fields that are left out.

        :param mp_order_number: The marketplace's order number.
        :param state: The new state.
        :param read_only: The fields to leave out, should FeedAMP refuse to take back more than is documented.
        """
        try:
            state = MarketplaceState(state)
        except ValueError as error:
            states = ", ".join(MarketplaceState)
            message = f"The marketplace state of order {mp_order_number!r} must be one of {states}."
            raise InputError(message) from error
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
        return cast("Fulfillments", _object(answer, what))

    def report_errors(self, mp_order_number: str, errors: Sequence[Mapping[str, Any]]) -> None:
        """Report fulfilment data that the marketplace could not process.

        FeedAMP may append what it gets twice, so this call is never repeated by itself.

        :param mp_order_number: The marketplace's order number.
        :param errors: At least one :class:`OrderError`, each with ``code`` and ``message``.
        """
        _check_errors(mp_order_number, errors)
        what = f"reporting errors of order {mp_order_number!r}"
        reported = [dict(error) for error in errors]
        self._transport.request("POST", ("orders", mp_order_number, "errors"), json=reported, what=what)

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
        numbers = None if mp_order_numbers is None else list_filter("mp_order_numbers", mp_order_numbers)
        if fulfillment_status is not None:
            statuses = list_filter("fulfillment_status", fulfillment_status)
            params["fulfillment_status"] = ",".join(statuses)
            if not statuses:
                return iter(())
        if numbers is None:
            return self._listed([params])
        starts = range(0, len(numbers), _NUMBERS_PER_CALL)
        chunks = (",".join(numbers[start : start + _NUMBERS_PER_CALL]) for start in starts)
        return self._listed([params | {"mp_order_numbers": chunk} for chunk in chunks])

    def _put(self, number: str, order: Mapping[str, Any], body: bytes | None) -> PlacedOrder:
        json = dict(order) if body is None else None
        what = f"placing order {number!r}"
        status, held = self._transport.request("PUT", ("orders", number), json=json, body=body, what=what)
        # The body of this answer is not documented; what is not an order is not passed on as one.
        known = isinstance(held, dict) and "mp_order_number" in held
        return PlacedOrder(number, _INSERTED.get(status), cast("Order", held) if known else None)

    def _listed(self, filters: Sequence[Mapping[str, str]]) -> Iterator[Order]:
        seen: set[str] = set()
        for params in filters:
            for order in entries(self._transport, "orders", params, seen, key="mp_order_number"):
                yield cast("Order", order)


def _object(answer: Answer, what: str) -> dict[str, Any]:
    if isinstance(answer.body, dict):
        return answer.body
    message = f"FeedAMP answered {what} with HTTP {answer.status} and no JSON object."
    raise ApiError(message, status=answer.status)


def _check_errors(mp_order_number: str, errors: Sequence[Mapping[str, Any]]) -> None:
    wrong = "" if errors else "there is none"
    for index, error in enumerate(errors):
        if not isinstance(error, Mapping):
            wrong = f"[{index}] is not an object"
            continue
        for name in ("code", "message"):
            value = error.get(name)
            if not isinstance(value, str) or not value.strip():
                wrong = f"[{index}].{name} must be text that is not blank"
        line = error.get("mp_line_number")
        if line is not None and not (isinstance(line, str) and 0 < len(line) <= LONGEST_NUMBER):
            wrong = f"[{index}].mp_line_number must be text of 1 to {LONGEST_NUMBER} characters"
    if wrong:
        message = f"The errors to report for order {mp_order_number!r} cannot be sent: {wrong}."
        raise InputError(message)
