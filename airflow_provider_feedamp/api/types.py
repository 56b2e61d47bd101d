"""The words of the FeedAMP Order Source API as Python types, and its amounts of money."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final, NotRequired, Protocol, TypedDict

from airflow_provider_feedamp.exceptions import ApiError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class TokenSource(Protocol):
    """Where the client gets its access tokens from; it does not know how they are obtained or kept."""

    def token(self) -> str:
        """Return an access token that can be used now."""

    def replace(self, refused: str) -> str:
        """Return the access token to use instead of one that FeedAMP answered with 401.

        :param refused: The access token that was sent and refused.
        :raises TokenError: There is no other token to be had.
        """

    def accepted(self, token: str) -> None:
        """Take note that FeedAMP has answered a call with this access token, other than with 401."""


class MarketplaceState(StrEnum):
    """The state of an order as the marketplace sets it."""

    #: Awaiting payment or the end of the cancellation window; the seller must not fulfil yet.
    PENDING = "PENDING"
    #: Paid and past any cancellation window; the seller has to fulfil.
    AWAITING_SHIPMENT = "AWAITING_SHIPMENT"
    #: The marketplace has all fulfilments and regards the order as complete.
    SHIPPED = "SHIPPED"
    #: Cancelled by the marketplace, or the seller cancelled everything and the marketplace took note.
    CANCELLED = "CANCELLED"


class OrderStatus(StrEnum):
    """The ``status`` of an order as FeedAMP sets it; an answer may hold values that are not listed here."""

    PENDING = "PENDING"
    ORDERED = "ORDERED"
    IN_PROGRESS = "IN_PROGRESS"
    #: The seller cancelled everything (which is not the marketplace's ``CANCELLED``).
    CANCELLED = "CANCELLED"
    #: The seller shipped everything, or shipped some and cancelled the rest.
    FULFILLED = "FULFILLED"
    #: The marketplace closed the order with ``SHIPPED`` or ``CANCELLED``.
    COMPLETE = "COMPLETE"


class FulfillmentFilter(StrEnum):
    """Values of the ``fulfillment_status`` filter on the list of orders.

    An order that the seller has shipped completely and the marketplace has not closed yet stands under
    ``PARTIALLY_FULFILLED``; ``COMPLETE`` finds only orders that the marketplace has closed already.
    """

    UNFULFILLED = "UNFULFILLED"
    PARTIALLY_FULFILLED = "PARTIALLY_FULFILLED"
    COMPLETE = "COMPLETE"


class FulfillmentStatus(StrEnum):
    """The ``status`` of an order's fulfilments; an answer may hold values that are not listed here."""

    PENDING = "PENDING"
    PARTIALLY_FULFILLED = "PARTIALLY_FULFILLED"
    #: Every quantity is shipped or cancelled.
    COMPLETE = "COMPLETE"


class RefundStatus(StrEnum):
    """The ``status`` of a seller's refund; an answer may hold values that are not listed here."""

    CREATED = "CREATED"
    #: The marketplace reported errors. When the seller has resolved them, it is ``CREATED`` again.
    PAUSED = "PAUSED"
    COMPLETE = "COMPLETE"


class ReturnStatus(StrEnum):
    """The ``status`` of a customer's return; ``REFUNDED`` means that the seller has entered the amounts."""

    AWAITING_AUTHORIZATION = "AWAITING_AUTHORIZATION"
    AUTHORIZED = "AUTHORIZED"
    REFUNDED = "REFUNDED"
    COMPLETED = "COMPLETED"


class ReturnType(StrEnum):
    """How the customer gives the items back, if at all; ``IN_STORE`` is for sellers on FeedAMP's API V2."""

    SHIP = "SHIP"
    NO_RETURN = "NO_RETURN"
    IN_STORE = "IN_STORE"


#: The only error codes for orders, refunds and returns that FeedAMP's pages show; others may be sent too.
INVALID_TRACKING_NUMBER: Final = "INVALID_TRACKING_NUMBER"
EXCESS_ITEM_REFUND: Final = "EXCESS_ITEM_REFUND"
EXCESS_REFUND: Final = "EXCESS_REFUND"


#: In the types of what is sent, a field that is checked has the name of its rule (see ``checks.py``). It has
#: to be there, unless it is marked with this.
IF_GIVEN: Final = "if given"


class OrderLine(TypedDict, total=False):
    """One line of an order; the form of taxes and discounts is not documented and passes through."""

    mp_line_number: Annotated[str, "number"]
    sku: Annotated[str, "text"]
    product_name: str
    quantity: Annotated[int, "quantity"]
    unit_price: Annotated[float, "price", IF_GIVEN]
    shipping_method: str
    shipping_price: float
    taxes: list[dict[str, Any]]
    discounts: list[dict[str, Any]]


class ReportedError(TypedDict):
    """What the marketplace reports about a refund or a return that it cannot process."""

    code: str
    message: str


class OrderError(ReportedError):
    """What the marketplace reports about fulfilment data that it cannot process."""

    mp_line_number: NotRequired[str]
    debug: NotRequired[list[dict[str, Any]]]


class Shipment(TypedDict, total=False):
    """A quantity that the seller shipped; one tracking number may stand on several lines."""

    quantity: int
    carrier: str
    tracking_number: str
    tracking_url: str
    #: A date, ``YYYY-MM-DD``; be ready for a time behind it.
    shipped_date: str


class Cancellation(TypedDict, total=False):
    """A quantity that the seller cancelled; the reason is an open list of words."""

    quantity: int
    reason: str


class Pending(TypedDict, total=False):
    """The quantity of a line that is neither shipped nor cancelled."""

    quantity: int


class LineFulfillment(TypedDict, total=False):
    """What has become of one order line so far."""

    mp_line_number: str
    status: str
    shipments: list[Shipment]
    cancellations: list[Cancellation]
    pending: Pending


class Fulfillments(TypedDict, total=False):
    """What has become of an order so far, line by line."""

    status: str
    is_marketplace_fulfilled: bool
    fulfillments: list[LineFulfillment]


class Order(TypedDict, total=False):
    """An order as FeedAMP gives it; it may hold fields that are not listed here."""

    mp_order_number: Annotated[str, "order number"]
    sales_channel: Annotated[str, "text"]
    customer: Annotated[dict[str, Any], "object"]
    purchase_date: Annotated[str, "instant"]
    currency: Annotated[str, "currency"]
    shipping_address: Annotated[dict[str, Any], "object"]
    order_lines: Annotated[list[OrderLine], "lines"]
    marketplace_state: Annotated[str, "state"]
    location: dict[str, Any]
    delivery_notes: str
    earliest_ship_date: Annotated[str, "instant", IF_GIVEN]
    latest_ship_date: Annotated[str, "instant", IF_GIVEN]
    earliest_delivery_date: Annotated[str, "instant", IF_GIVEN]
    latest_delivery_date: Annotated[str, "instant", IF_GIVEN]
    is_marketplace_fulfilled: bool
    fulfillments: list[LineFulfillment]
    acknowledged: bool
    status: str
    errors: list[OrderError]


@dataclass(frozen=True, slots=True)
class PlacedOrder:
    """An order that FeedAMP has taken."""

    mp_order_number: str
    #: True when the order is new to FeedAMP (201), False when it was known (200), None when nothing says so.
    inserted: bool | None
    #: The order as FeedAMP holds it now, where the answer had it; it names a person, so ``repr`` hides it.
    order: Order | None = field(repr=False)
    #: Whether the answer, a success, names errors all the same.
    has_errors: bool = False


class RefundLine(TypedDict, total=False):
    """What the seller refunds of one order line."""

    mp_line_number: str
    currency: str
    refund_quantity: int
    item_refund: float
    item_tax_refund: float
    shipping_refund: float
    shipping_tax_refund: float
    discount_refund: float
    reason: str


class Refund(TypedDict, total=False):
    """A refund that a seller asks for, with its unresolved errors; it may hold fields not listed here."""

    feedamp_refund_id: int
    mp_order_number: str
    notes: str | None
    status: str
    date_created: str
    merchant_refund_lines: list[RefundLine]
    errors: list[ReportedError]


class ReturnLine(TypedDict, total=False):
    """What the customer gives back of one order line."""

    mp_return_line_number: Annotated[str, "number"]
    mp_order_line_number: Annotated[str, "number"]
    sku: str
    quantity: Annotated[int, "quantity"]
    currency: str
    requested_refund_principal: float
    reason: str
    #: The seller need not authorise this line.
    preauthorized: Annotated[bool, "yes or no", IF_GIVEN]
    product_name: str
    unit_price: float
    tax: float
    requested_refund_tax: float
    carrier: str
    tracking_number: str


class ReturnRefundLine(TypedDict, total=False):
    """What the seller refunds of one return line; the names are not those of a refund's line."""

    mp_return_line_number: str
    principal_refund_amount: float
    shipping_refund_amount: float


class ReturnRefunds(TypedDict, total=False):
    """How far the seller is with a return, and the amounts to refund."""

    status: str
    rma: str
    merchant_refund_lines: list[ReturnRefundLine]
    errors: list[ReportedError]


class Return(ReturnRefunds, total=False):
    """A customer's return; it may hold fields that are not listed here."""

    mp_return_number: str
    mp_order_number: str
    request_date: Annotated[str, "date", IF_GIVEN]
    #: The day by which the seller has to release the money, ``YYYY-MM-DD``.
    respond_date: Annotated[str, "date", IF_GIVEN]
    return_type: Annotated[str, "return type", IF_GIVEN]
    shipping_address: Annotated[dict[str, Any], "object", IF_GIVEN]
    customer_email: str
    return_lines: Annotated[list[ReturnLine], "lines"]


@dataclass(frozen=True, slots=True)
class CreatedReturn:
    """A return that FeedAMP has taken."""

    mp_order_number: str
    mp_return_number: str
    #: True when the return is new to FeedAMP (201), False when it was known (200), None when nothing says so.
    inserted: bool | None
    #: The return as FeedAMP holds it now, where the answer had it; it names a person, so ``repr`` hides it.
    return_: Return | None = field(repr=False)


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
            totals[currency] = totals.get(currency, Decimal(0)) + _amount(line.get(name), name)
    return totals


def _amount(value: object, name: str) -> Decimal:
    """Return an amount with the digits that it is written with; None is nothing."""
    if value is None:
        return Decimal(0)
    if isinstance(value, int | float | str | Decimal) and not isinstance(value, bool):
        with suppress(InvalidOperation):
            # A float's text has the digits that FeedAMP sent; the float itself is a little beside them.
            number = Decimal(str(value))
            if number.is_finite():
                return number
    raise ApiError(f"FeedAMP gave an amount that is not a number: {name}.")
