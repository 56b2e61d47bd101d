"""The seller's half of refunds and returns, which the control surface plays."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.sandbox.refusal import INVALID_VALUE, bad_request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_feedamp.sandbox.orders import OrderBook
    from airflow_provider_feedamp.sandbox.refunds import RefundBook, StoredRefund
    from airflow_provider_feedamp.sandbox.returns import ReturnBook, StoredReturn
    from airflow_provider_feedamp.sandbox.settings import SandboxSettings

Line = dict[str, Any]


class AfterSale:
    """What one seller can do with its refunds and returns.

    Amounts are taken as the seller gives them, too high ones as well: the marketplace reports those.
    """

    def __init__(
        self, settings: SandboxSettings, orders: OrderBook, refunds: RefundBook, returns: ReturnBook
    ) -> None:
        self._settings = settings
        self._orders = orders
        self._refunds = refunds
        self._returns = returns

    def create_refund(
        self,
        order_number: str,
        lines: Sequence[Line] | None = None,
        *,
        notes: str | None = None,
        reason: str = "CUSTOMER_CANCELLED",
    ) -> StoredRefund:
        """Refund lines of an order.

        :param order_number: The order.
        :param lines: What is refunded by line, missing fields are filled; None for all of the first line.
        :param notes: Text for the customer.
        :param reason: Reason of the lines that give none.
        :raises Refusal: 404, or 400 for a line that is not the order's, and for several lines of a V1 seller.
        """
        order = self._orders.get(order_number)
        body = json.loads(order.raw, parse_float=Decimal)
        ordered = {each["mp_line_number"]: each for each in body["order_lines"]}
        if lines is None:
            lines = [{"mp_line_number": next(iter(ordered))}]
        if not self._settings.seller_on_v2 and len(lines) != 1:
            raise bad_request(INVALID_VALUE, "a seller on V1 refunds one line at a time")
        _check_lines(lines, "mp_line_number", ordered)
        filled = [
            _refund_line(each, ordered[each["mp_line_number"]], body["currency"], reason) for each in lines
        ]
        return self._refunds.create(order_number, filled, notes)

    def resolve_refund_errors(self, refund_id: str) -> StoredRefund:
        """Resolve a refund's errors, which makes it ready to be processed again.

        :raises Refusal: 404.
        """
        refund = self._refunds.by_id(refund_id)
        refund.errors.clear()
        return refund

    def authorize_return(self, order_number: str, number: str, rma: str | None = None) -> StoredReturn:
        """Authorise a return, or give a preauthorised one its number.

        :param order_number: The order.
        :param number: The return.
        :param rma: The seller's own number; made from the return's place in the book when None.
        :raises Refusal: 404, or 400 when amounts are entered or the return is complete.
        """
        found = self._returns.get(order_number, number)
        if found.status not in ("AWAITING_AUTHORIZATION", "AUTHORIZED"):
            raise bad_request(INVALID_VALUE, f"the return is {found.status} already")
        found.seller_authorized = True
        found.rma = rma or found.rma or f"RMA-{1001 + found.sequence}"
        return found

    def enter_return_amounts(
        self, order_number: str, number: str, lines: Sequence[Line] | None = None
    ) -> StoredReturn:
        """Enter what is refunded; entering it again replaces the amounts and clears the errors.

        :param order_number: The order.
        :param number: The return.
        :param lines: The amounts by return line; None for the principal that was asked for.
        :raises Refusal: 404, or 400 for one not authorised or complete, or for a strange line.
        """
        found = self._returns.get(order_number, number)
        if found.status not in ("AUTHORIZED", "REFUNDED"):
            raise bad_request(
                INVALID_VALUE, f"the return is {found.status}: it must be AUTHORIZED or REFUNDED"
            )
        if lines is None:
            lines = [{"mp_return_line_number": each} for each in found.requested]
        _check_lines(lines, "mp_return_line_number", found.requested)
        found.amounts = [_amount_line(each, found.requested) for each in lines]
        found.errors.clear()
        return found


def _check_lines(lines: Sequence[Line], key: str, known: Mapping[str, Any]) -> None:
    numbers = [each[key] for each in lines]
    if not numbers or len(set(numbers)) != len(numbers) or not set(numbers) <= known.keys():
        raise bad_request(INVALID_VALUE, f"'{key}' must name different lines that exist, at least one")


def _refund_line(given: Line, ordered: Line, currency: str, reason: str) -> Line:
    """Return a refund's line; what is not given is the whole line at its unit price, and no more."""
    quantity: int = given["refund_quantity"] if "refund_quantity" in given else ordered["quantity"]
    total = float(Decimal(ordered.get("unit_price") or 0) * quantity)
    if not math.isfinite(total):
        raise bad_request(INVALID_VALUE, "the line costs more than a number can hold")
    return {
        "mp_line_number": given["mp_line_number"],
        "currency": currency,
        "refund_quantity": quantity,
        "item_refund": total,
        "item_tax_refund": 0,
        "shipping_refund": 0,
        "shipping_tax_refund": 0,
        "discount_refund": 0,
        "reason": reason,
        **given,
    }


def _amount_line(given: Line, requested: Mapping[str, Any]) -> Line:
    number = given["mp_return_line_number"]
    return {
        "mp_return_line_number": number,
        "principal_refund_amount": requested[number],
        "shipping_refund_amount": 0,
        **given,
    }
