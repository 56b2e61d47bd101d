"""Adding up amounts of money, without a binary float in between."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.exceptions import ApiError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: The amounts of a refund's line that go to the customer. ``discount_refund`` is not among them: nothing says
#: whether it is to be added or taken off.
REFUND_AMOUNTS = ("item_refund", "item_tax_refund", "shipping_refund", "shipping_tax_refund")


def refund_total(refund: Mapping[str, Any], amounts: Sequence[str] = REFUND_AMOUNTS) -> dict[str, Decimal]:
    """Return the sum of a refund's lines for each currency.

    :param refund: The refund as FeedAMP gave it.
    :param amounts: The fields of a line to add up.
    :raises ApiError: An amount is not a number.
    """
    totals: dict[str, Decimal] = {}
    for line in refund.get("merchant_refund_lines") or ():
        currency = str(line.get("currency") or "")
        for name in amounts:
            totals[currency] = totals.get(currency, Decimal(0)) + decimal(line.get(name), name)
    return totals


def decimal(value: object, name: str) -> Decimal:
    """Return an amount with the digits that it is written with; None is nothing.

    :param value: A number as parsed from JSON, or a number written as text.
    :param name: The field, for the error.
    :raises ApiError: It is not a number.
    """
    try:
        if value is None:
            return Decimal(0)
        if isinstance(value, int | float | str | Decimal) and not isinstance(value, bool):
            # A float's text has the digits that FeedAMP sent; the float itself is a little beside them.
            number = Decimal(str(value))
            if number.is_finite():
                return number
    except InvalidOperation:
        pass
    raise ApiError(f"FeedAMP gave an amount that is not a number: {name}.")
