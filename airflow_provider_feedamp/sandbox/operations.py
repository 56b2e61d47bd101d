"""The 19 endpoints in words, for the OpenAPI description (feedamp-api.md A1)."""

from __future__ import annotations

from dataclasses import dataclass, field

from airflow_provider_feedamp.sandbox.openapi_schemas import (
    BOOLEAN,
    FILLED,
    NUMBER,
    Json,
    answer,
    choice,
    list_of,
    list_page,
    listed,
    ref,
    shape,
    written,
)
from airflow_provider_feedamp.sandbox.order_queries import FULFILLMENT_FILTERS
from airflow_provider_feedamp.sandbox.paging import DEFAULT_PAGE_SIZE, PAGE_SIZES
from airflow_provider_feedamp.sandbox.refunds import REFUND_STATUSES
from airflow_provider_feedamp.sandbox.return_queries import RETURN_STATUSES


@dataclass(frozen=True, slots=True)
class Operation:
    """One endpoint in words.

    :param number: Its number in the index of endpoints.
    :param name: Its name among routes, faults and counters.
    :param confidence: ``D`` documented, ``I`` inferred, ``U`` unknown.
    :param summary: FeedAMP's own name of it.
    :param text: What one should know.
    :param answers: Its successful answers by status.
    :param query: Schemas of its query parameters.
    :param path: Names of its path parameters.
    :param body: Schema of its body, if it has one.
    :param required: Query parameters that must be there.
    :param tag: The resource.
    """

    number: int
    name: str
    confidence: str
    summary: str
    text: str
    answers: Json
    query: Json = field(default_factory=dict)
    path: tuple[str, ...] = ()
    body: Json | None = None
    required: tuple[str, ...] = ()
    tag: str = "orders"


_BOUND = {"type": "string", "description": "ISO 8601, inclusive; New York time when it names no zone"}
_SIZE: Json = {
    "type": "integer",
    "minimum": PAGE_SIZES[0],
    "maximum": PAGE_SIZES[-1],
    "default": DEFAULT_PAGE_SIZE,
}
_PAGING: Json = {"page_size": _SIZE, "cursor": {**FILLED, "description": "next_cursor of the page before"}}
_NUMBERS: Json = {"type": "array", "items": {**NUMBER, "pattern": "^[^,]*$"}, "minItems": 1}
_ORDER = ("mp_order_number",)
_REFUND = (*_ORDER, "feedamp_refund_id")
_RETURN = (*_ORDER, "mp_return_number")
_REPORT = list_of(ref("Error"), 1)
_NOTHING: Json = {"type": "object"}

OPERATIONS = (
    Operation(
        1,
        "authorize",
        "D",
        "OAuth Authorization",
        "The seller's browser is sent here, and comes back to `redirect_url` with `code` "
        "and `state`. It is `redirect_url`, not OAuth's `redirect_uri`.",
        {
            "200": {"description": "A page to approve", "content": {"text/html": {}}},
            "302": {"description": "Back to redirect_url"},
        },
        {"response_type": choice("code"), "client_id": FILLED, "state": FILLED, "redirect_url": FILLED},
        required=("response_type", "client_id", "state", "redirect_url"),
        tag="oauth",
    ),
    Operation(
        2,
        "access_token",
        "D",
        "Access Token",
        "Both grants; each answer has a new refresh token. Whether the old one ends is "
        "unknown: setting `rotation`.",
        {"200": answer("Tokens", ref("Tokens"))},
        body=ref("TokenRequest"),
        tag="oauth",
    ),
    Operation(
        3,
        "list_orders",
        "D",
        "Get Orders",
        "A fully shipped order that is not closed stands under `PARTIALLY_FULFILLED`.",
        list_page("orders", "Order"),
        {
            "mp_order_numbers": _NUMBERS,
            "fulfillment_status": listed(FULFILLMENT_FILTERS),
            "imported_after": _BOUND,
            "seller_updated_after": _BOUND,
            "has_errors": BOOLEAN,
            **_PAGING,
        },
    ),
    Operation(
        4,
        "get_order",
        "D",
        "Get Order",
        "Not wrapped.",
        {"200": answer("The order", ref("Order"))},
        path=_ORDER,
    ),
    Operation(
        5,
        "place_order",
        "D",
        "Place Order",
        "Inserts or updates. Status and body of the answer are guessed.",
        written(ref("Order")),
        path=_ORDER,
        body=ref("NewOrder"),
    ),
    Operation(
        6,
        "get_fulfillments",
        "D",
        "Get Fulfillments",
        "Lines without activity are shown as `PENDING` (a guess).",
        {"200": answer("What the seller did", ref("Fulfillments"))},
        path=_ORDER,
    ),
    Operation(
        7,
        "report_order_errors",
        "D",
        "Report Errors",
        "Appends (a guess). The body is a list, even for one error.",
        written(_NOTHING),
        path=_ORDER,
        body=list_of(ref("OrderError"), 1),
    ),
    Operation(
        8,
        "list_refunds",
        "D",
        "Get Seller Initiated Refunds",
        "The instant of creation is compared, of which the answer shows only the date.",
        list_page("refunds", "Refund"),
        {
            "mp_order_numbers": _NUMBERS,
            "refund_status": listed(REFUND_STATUSES),
            "created_after": _BOUND,
            "created_before": _BOUND,
            **_PAGING,
        },
        tag="refunds",
    ),
    Operation(
        9,
        "get_order_refunds",
        "I",
        "Get Seller Initiated Refunds for an order",
        "Not paged.",
        {"200": answer("All refunds of the order", shape({"refunds": list_of(ref("Refund"))}))},
        path=_ORDER,
        tag="refunds",
    ),
    Operation(
        10,
        "get_refund",
        "D",
        "Get one refund",
        "Not wrapped.",
        {"200": answer("The refund", ref("Refund"))},
        path=_REFUND,
        tag="refunds",
    ),
    Operation(
        11,
        "complete_refund",
        "U",
        "Mark the refund as complete",
        "The last segment is a guess: setting `refund_complete_path`. A second call changes nothing.",
        written(_NOTHING),
        path=_REFUND,
        tag="refunds",
    ),
    Operation(
        12,
        "report_refund_errors",
        "D",
        "Report refund errors",
        "Pauses the refund until the seller resolves them.",
        written(_NOTHING),
        path=_REFUND,
        body=_REPORT,
        tag="refunds",
    ),
    Operation(
        13,
        "list_returns",
        "I",
        "Get returns",
        "The path is documented, the parameters are guesses.",
        list_page("returns", "Return"),
        {
            "mp_order_numbers": _NUMBERS,
            "return_status": listed(RETURN_STATUSES),
            "requested_after": _BOUND,
            "requested_before": _BOUND,
            **_PAGING,
        },
        tag="returns",
    ),
    Operation(
        14,
        "get_order_returns",
        "I",
        "Get returns for an order",
        "Not paged.",
        {"200": answer("All returns of the order", shape({"returns": list_of(ref("Return"))}))},
        path=_ORDER,
        tag="returns",
    ),
    Operation(
        15,
        "get_return",
        "D",
        "Get one return",
        "Not wrapped.",
        {"200": answer("The return", ref("Return"))},
        path=_RETURN,
        tag="returns",
    ),
    Operation(
        16,
        "create_return",
        "D",
        "Create a return",
        "`mp_order_number` may be left out of the body. What a second PUT does is guessed.",
        written(ref("Return")),
        path=_RETURN,
        body=ref("NewReturn"),
        tag="returns",
    ),
    Operation(
        17,
        "get_return_refunds",
        "D",
        "Get refunded amounts",
        "The lean endpoint to poll.",
        {"200": answer("Status and amounts", ref("ReturnRefunds"))},
        path=_RETURN,
        tag="returns",
    ),
    Operation(
        18,
        "complete_return",
        "U",
        "Mark the return as complete",
        "The last segment is a guess: setting `return_complete_path`. A second call changes nothing.",
        written(_NOTHING),
        path=_RETURN,
        tag="returns",
    ),
    Operation(
        19,
        "report_return_errors",
        "D",
        "Report return errors",
        "Keeps the status (a guess).",
        written(_NOTHING),
        path=_RETURN,
        body=_REPORT,
        tag="returns",
    ),
)
