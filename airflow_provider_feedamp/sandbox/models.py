"""FeedAMP's words as pydantic models: what bodies and queries have to be, and what answers look like.

It is the sandbox's own reading of the vendor's pages (feedamp-api.md A3 to A8); the client has another.
Single fields are checked here. What depends on the order or on a setting is checked in ``accounts``.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema  # noqa: TC002 - pydantic reads it
from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

INCORRECT_TYPE = "FIELD_INCORRECT_DATA_TYPE"
INVALID_VALUE = "FIELD_INVALID_VALUE"
INVALID_PAYLOAD = "INVALID_PAYLOAD"
INVALID_QUERY = "INVALID_QUERY_PARAM"
MISSING_FIELD = "MISSING_REQUIRED_FIELD"
UNKNOWN_FIELD = "UNKNOWN_FIELD_PRESENT"
# The next two are guesses: FeedAMP's pages show no error body for 401 and 404.
UNAUTHORIZED = "UNAUTHORIZED"
NOT_FOUND = "NOT_FOUND"

NEW_YORK = ZoneInfo("America/New_York")

Json = dict[str, Any]


class Problem(BaseModel):
    """One entry of an error body."""

    code: str
    message: str


class Refusal(Exception):
    """An answer other than success.

    :param status: HTTP status.
    :param problems: What does not fit; never the content of an order.
    """

    def __init__(self, status: int, *problems: Problem) -> None:
        super().__init__(f"{status}: {[each.code for each in problems]}")
        self.status = status
        self.problems = problems


def invalid(words: str) -> Problem:
    """Return the problem of a value that does not fit."""
    return Problem(code=INVALID_VALUE, message=words)


def bad_request(words: str, code: str = INVALID_VALUE) -> Refusal:
    """Return a 400 with one problem."""
    return Refusal(400, Problem(code=code, message=words))


def not_found(noun: str) -> Refusal:
    """Return a 404 that says what there is none of."""
    return Refusal(404, Problem(code=NOT_FOUND, message=f"{noun} not found"))


def _real(text: str) -> str:
    """Check that a date exists; its form is checked by a pattern before."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise PydanticCustomError(INVALID_VALUE, "must be a date that exists") from None
    return text


def _amount(value: object) -> object:
    """Check a number and leave it as it came: a float would not hold a price of 400 digits."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PydanticCustomError(INCORRECT_TYPE, "must be a number")
    return value


Filled = Annotated[str, Field(min_length=1)]
Number = Annotated[str, Field(min_length=1, max_length=128)]
Currency = Annotated[str, Field(pattern="^[A-Z]{3}$", description="ISO 4217")]
_UTC = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z$"
UtcInstant = Annotated[
    str, Field(pattern=_UTC, json_schema_extra={"format": "date-time"}), AfterValidator(_real)
]
_DAY = r"^\d{4}-\d\d-\d\d$"
Day = Annotated[str, Field(pattern=_DAY, json_schema_extra={"format": "date"}), AfterValidator(_real)]
Amount = Annotated[Any, AfterValidator(_amount), WithJsonSchema({"type": "number"})]
Quantity = Annotated[int, Field(ge=1)]


class Shape(BaseModel):
    """An object of the API: values have exactly the type, and further fields are allowed."""

    model_config = ConfigDict(strict=True)


FulfillmentStatus = Literal["PENDING", "PARTIALLY_FULFILLED", "COMPLETE"]


class OrderLine(Shape):
    """What the sandbox knows of an order line (A4.5); taxes and discounts have no documented form."""

    mp_line_number: Number
    sku: Filled
    quantity: Quantity
    unit_price: Amount | None = None


class NewOrder(Shape):
    """The body of Place Order (A4.4)."""

    mp_order_number: Number
    sales_channel: Filled
    customer: Json
    purchase_date: UtcInstant
    currency: Currency
    shipping_address: Json
    order_lines: list[OrderLine] = Field(min_length=1)
    marketplace_state: Literal["PENDING", "AWAITING_SHIPMENT", "SHIPPED", "CANCELLED"]
    location: Json | None = None
    delivery_notes: str | None = None
    earliest_ship_date: UtcInstant | None = None
    latest_ship_date: UtcInstant | None = None
    latest_delivery_date: UtcInstant | None = None
    earliest_delivery_date: UtcInstant | None = None
    is_marketplace_fulfilled: bool | None = None


class LineFulfillment(Shape):
    """What the seller did with a line (A4.6)."""

    mp_line_number: Number
    shipments: list[Json]
    cancellations: list[Json]
    status: FulfillmentStatus
    pending: dict[Literal["quantity"], int]


class Fulfillments(Shape):
    """The answer of Get Fulfillments (A4.6)."""

    status: FulfillmentStatus
    is_marketplace_fulfilled: bool
    fulfillments: list[LineFulfillment]


class ReportedError(Shape):
    """One error that the marketplace reports of a refund or return (A6.5, A7.7)."""

    code: Filled
    message: str


class OrderError(ReportedError):
    """One error that it reports of an order (A4.7)."""

    mp_line_number: Number | None = None
    debug: list[Json] | None = None


class Order(NewOrder):
    """An order as the API shows it (A4.3)."""

    is_marketplace_fulfilled: bool
    fulfillments: list[LineFulfillment]
    acknowledged: bool
    status: Literal["PENDING", "ORDERED", "IN_PROGRESS", "CANCELLED", "FULFILLED", "COMPLETE"]
    errors: list[OrderError]


RefundStatus = Literal["CREATED", "PAUSED", "COMPLETE"]
ReturnStatus = Literal["AWAITING_AUTHORIZATION", "AUTHORIZED", "REFUNDED", "COMPLETED"]


class RefundLine(Shape):
    """One line of a refund (A6.3)."""

    mp_line_number: Number
    currency: Currency
    refund_quantity: int
    item_refund: Amount
    item_tax_refund: Amount
    shipping_refund: Amount
    shipping_tax_refund: Amount
    discount_refund: Amount
    reason: str


class Refund(Shape):
    """A refund as the API shows it (A6.3)."""

    feedamp_refund_id: int
    mp_order_number: Number
    notes: str | None
    status: RefundStatus
    date_created: Day
    merchant_refund_lines: list[RefundLine]
    errors: list[ReportedError]


class ReturnLine(Shape):
    """One line of a return (A7.3); the first eight keys of the examples are taken for required."""

    mp_return_line_number: Number
    mp_order_line_number: Number
    sku: Filled
    quantity: Quantity
    currency: Currency
    requested_refund_principal: Amount
    reason: str
    preauthorized: bool
    product_name: str | None = None
    unit_price: Amount | None = None
    tax: Amount | None = None
    requested_refund_tax: Amount | None = None
    carrier: str | None = None
    tracking_number: str | None = None


class NewReturn(Shape):
    """The body of Create a return (A7.4); it may leave the order's number out."""

    mp_order_number: Number | None = None
    return_lines: list[ReturnLine] = Field(min_length=1)
    request_date: Day | None = None
    respond_date: Day | None = None
    shipping_address: Json | None = None
    customer_email: str | None = None
    return_type: Literal["SHIP", "NO_RETURN", "IN_STORE"] | None = None


class ReturnRefundLine(Shape):
    """What the seller refunds of a return line (A7.5): other names than those of a refund."""

    mp_return_line_number: Number
    principal_refund_amount: Amount
    shipping_refund_amount: Amount


class ReturnRefunds(Shape):
    """The answer of the lean endpoint (A7.5)."""

    status: ReturnStatus
    rma: Number | None
    merchant_refund_lines: list[ReturnRefundLine]
    errors: list[ReportedError]


class Return(ReturnRefunds, NewReturn):
    """A return as the API shows it (A7.3)."""

    mp_order_number: Number
    mp_return_number: Number


class Authorization(Shape):
    """The query of the browser step (A2.1). The real page knows who is logged in; here it is a parameter."""

    response_type: Literal["code"]
    client_id: Filled
    state: Filled
    redirect_url: Annotated[str, Field(pattern="^https?://[^/?#]", description="A fully qualified URL")]
    sandbox_seller: str = ""


class TokenRequest(Shape):
    """The body of a token call (A2.2)."""

    grant_type: Literal["authorization_code", "refresh_token"]
    client_id: str
    client_secret: str = Field(repr=False)
    code: str | None = Field(default=None, repr=False)
    refresh_token: str | None = Field(default=None, repr=False)


class Tokens(Shape):
    """The answer of a token call (A2.2), and whose tokens they are, which is not shown."""

    access_token: str = Field(repr=False)
    token_type: str
    refresh_token: str = Field(repr=False)
    expires_in: int
    seller: SkipJsonSchema[str] = Field(exclude=True)


class TokenError(Shape):
    """OAuth's form of an error."""

    error: str
    error_description: str


def _instant(text: str) -> datetime:
    """Read an instant. An offset whose plus sign was not escaped arrives as a space, and is refused."""
    try:
        value = datetime.fromisoformat(text)
        return (value if value.tzinfo else value.replace(tzinfo=NEW_YORK)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise PydanticCustomError(INVALID_VALUE, "must be an ISO 8601 instant") from None


def _entries(values: Sequence[str]) -> frozenset[str]:
    """Read a comma-delimited list; FastAPI passes all values that the parameter has."""
    if len(values) != 1:
        raise PydanticCustomError(INVALID_VALUE, "is given twice: lists are comma-delimited")
    entries = frozenset(values[0].split(","))
    if "" in entries:
        raise PydanticCustomError(INVALID_VALUE, "has an empty entry")
    return entries


def _boolean(text: str) -> object:
    return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)


def _whole(text: str) -> object:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else text


_BOUND_WORDS = "ISO 8601, inclusive; New York time when it names no zone"
Bound = Annotated[
    datetime, BeforeValidator(_instant), WithJsonSchema({"type": "string", "description": _BOUND_WORDS})
]
# It is outermost, for FastAPI has to see that the parameter is a list.
_DELIMITED = BeforeValidator(_entries)
Numbers = Annotated[frozenset[Annotated[str, Field(pattern="^[^,]+$")]] | None, _DELIMITED]


class Page(Shape):
    """The parameters that all lists have."""

    mp_order_numbers: Numbers = None
    page_size: Annotated[int, BeforeValidator(_whole), Field(ge=10, le=50)] | None = Field(
        default=None, description="20 by default"
    )
    cursor: Filled | None = Field(default=None, description="next_cursor of the page before")


class OrderFilters(Page):
    """The query of Get Orders (A4.1)."""

    fulfillment_status: Annotated[
        frozenset[Literal["UNFULFILLED", "PARTIALLY_FULFILLED", "COMPLETE"]] | None, _DELIMITED
    ] = None
    imported_after: Bound | None = None
    seller_updated_after: Bound | None = None
    has_errors: Annotated[bool, BeforeValidator(_boolean)] | None = None


class RefundFilters(Page):
    """The query of Get Seller Initiated Refunds (A6.1)."""

    refund_status: Annotated[frozenset[RefundStatus] | None, _DELIMITED] = None
    created_after: Bound | None = None
    created_before: Bound | None = None


class ReturnFilters(Page):
    """The query of Get returns: no page shows it, so it is that of refunds under likely names (A7.1)."""

    return_status: Annotated[frozenset[ReturnStatus] | None, _DELIMITED] = None
    requested_after: Bound | None = None
    requested_before: Bound | None = None


def in_words(error: Mapping[str, Any]) -> tuple[str, str]:
    """Return the code of one of pydantic's errors, and the sentence that begins with the field's name.

    Neither has anything of the value in it, which may be personal.
    """
    kind, limits = error["type"], error.get("ctx", {})
    if kind.startswith("missing"):
        return MISSING_FIELD, "is required"
    if kind == "unexpected_keyword_argument":
        return UNKNOWN_FIELD, "cannot be set"
    if kind == "literal_error":
        choices = limits["expected"].replace("'", "").replace(" or ", ", ")
        return INVALID_VALUE, f"must be one of {choices}"
    if kind == "greater_than_equal":
        return INVALID_VALUE, f"must be at least {limits['ge']}"
    code = INCORRECT_TYPE if kind.endswith("_type") or kind == INCORRECT_TYPE else INVALID_VALUE
    return code, re.sub(r"^\w+ should\b", "must", error["msg"])


def problems(errors: Iterable[Mapping[str, Any]]) -> Iterator[Problem]:
    """Yield FastAPI's validation errors as problems: names of fields, never their content.

    :param errors: The errors of a request, whose ``loc`` begins with ``body``, ``query`` or ``path``.
    """
    for error in errors:
        part, *path = error["loc"]
        code, words = in_words(error)
        if error["type"] == "json_invalid" or not path:
            shape = (
                "JSON" if code == MISSING_FIELD or path else "what the endpoint takes: an object, or errors"
            )
            yield Problem(code=INVALID_PAYLOAD, message=f"the body is not {shape}")
            continue
        if part == "query":
            code = INVALID_QUERY
        elif error["input"] is None and isinstance(path[-1], str):
            code, words = MISSING_FIELD, "is required"
        yield Problem(code=code, message=f"'{where(path)}' {words}")


def where(path: Iterable[str | int]) -> str:
    """Return the place of a field in a body, as ``order_lines[0].sku``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def unknown_fields(body: Any, model: type[Shape], place: str = "") -> Iterator[Problem]:
    """Yield one problem for each field that cannot be set, of an object or of each in a list."""
    if isinstance(body, list):
        for index, each in enumerate(body):
            yield from unknown_fields(each, model, f"[{index}].")
    else:
        for name in sorted(body.keys() - model.model_fields.keys()):
            yield Problem(code=UNKNOWN_FIELD, message=f"'{place}{name}' cannot be set")
