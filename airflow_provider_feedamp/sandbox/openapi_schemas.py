"""The shapes of requests and answers for the OpenAPI description (feedamp-api.md A4 to A8)."""

from __future__ import annotations

from typing import Any

from airflow_provider_feedamp.sandbox.fields import MAX_NUMBER_LENGTH
from airflow_provider_feedamp.sandbox.order_rules import MARKETPLACE_STATES
from airflow_provider_feedamp.sandbox.refunds import REFUND_STATUSES
from airflow_provider_feedamp.sandbox.return_queries import RETURN_STATUSES
from airflow_provider_feedamp.sandbox.return_rules import RETURN_TYPES

Json = dict[str, Any]

TEXT: Json = {"type": "string"}
FILLED: Json = {"type": "string", "minLength": 1}
NUMBER: Json = {"type": "string", "minLength": 1, "maxLength": MAX_NUMBER_LENGTH}
INTEGER: Json = {"type": "integer"}
QUANTITY: Json = {"type": "integer", "minimum": 1}
AMOUNT: Json = {"type": "number"}
BOOLEAN: Json = {"type": "boolean"}
INSTANT: Json = {"type": "string", "format": "date-time", "description": "UTC, written with Z"}
DAY: Json = {"type": "string", "format": "date"}
CURRENCY: Json = {"type": "string", "pattern": "^[A-Z]{3}$", "description": "ISO 4217"}
ANYTHING: Json = {"type": "object"}
ORDER_STATUSES = ("PENDING", "ORDERED", "IN_PROGRESS", "CANCELLED", "FULFILLED", "COMPLETE")
FULFILLMENT_STATUSES = ("PENDING", "PARTIALLY_FULFILLED", "COMPLETE")


def ref(name: str) -> Json:
    """Return a reference to one of :data:`SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def choice(*values: str) -> Json:
    """Return the schema of a closed vocabulary."""
    return {"type": "string", "enum": list(values)}


def list_of(schema: Json, least: int = 0) -> Json:
    """Return the schema of a list."""
    return {"type": "array", "items": schema, **({"minItems": least} if least else {})}


def nullable(schema: Json) -> Json:
    """Return the schema of a value that can be null."""
    return {"anyOf": [schema, {"type": "null"}]}


def shape(required: Json, optional: Json | None = None, *parts: str) -> Json:
    """Return the schema of an object, which may always have further fields.

    :param required: Schemas of the fields that are always there.
    :param optional: Schemas of the fields that may be missing.
    :param parts: Names of schemas that it also satisfies.
    """
    own: Json = {"type": "object", "properties": {**required, **(optional or {})}, "required": [*required]}
    return {"allOf": [*map(ref, parts), own]} if parts else own


def answer(text: str, schema: Json) -> Json:
    """Return one answer with a JSON body."""
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def listed(values: frozenset[str]) -> Json:
    """Return the schema of a comma-delimited list of a closed vocabulary."""
    return {"type": "array", "items": choice(*sorted(values)), "minItems": 1}


def list_page(name: str, schema: str) -> Json:
    """Return the answer of a list."""
    cursor = {"next_cursor": nullable({"type": "string"})}
    return {"200": answer("One page", shape({name: list_of(ref(schema))}, cursor))}


def written(schema: Json) -> Json:
    """Return the answers of a write: the settings decide which of them it is."""
    return {
        "200": answer("Done", schema),
        "201": answer("Created", schema),
        "204": {"description": "Done, without a body (setting write_status)"},
    }


_ORDER: Json = {
    "mp_order_number": NUMBER,
    "sales_channel": FILLED,
    "customer": ANYTHING,
    "purchase_date": INSTANT,
    "currency": CURRENCY,
    "shipping_address": ANYTHING,
    "order_lines": list_of(ref("OrderLine"), 1),
    "marketplace_state": choice(*MARKETPLACE_STATES),
}
_ORDER_OPTIONAL: Json = {
    "location": nullable(ANYTHING),
    "delivery_notes": nullable(TEXT),
    "earliest_ship_date": nullable(INSTANT),
    "latest_ship_date": nullable(INSTANT),
    "latest_delivery_date": nullable(INSTANT),
    "earliest_delivery_date": nullable(INSTANT),
    "is_marketplace_fulfilled": nullable(BOOLEAN),
}
_LINE_FULFILLMENT: Json = {
    "mp_line_number": NUMBER,
    "shipments": list_of(ref("Shipment")),
    "cancellations": list_of(shape({"quantity": QUANTITY, "reason": TEXT})),
    "status": choice(*FULFILLMENT_STATUSES),
    "pending": shape({"quantity": INTEGER}),
}
_REFUND: Json = {
    "feedamp_refund_id": INTEGER,
    "mp_order_number": NUMBER,
    "notes": nullable(TEXT),
    "status": choice(*sorted(REFUND_STATUSES)),
    "date_created": DAY,
    "merchant_refund_lines": list_of(ref("RefundLine")),
    "errors": list_of(ref("Error")),
}
_REFUND_LINE: Json = {
    "mp_line_number": NUMBER,
    "currency": CURRENCY,
    "refund_quantity": INTEGER,
    "item_refund": AMOUNT,
    "item_tax_refund": AMOUNT,
    "shipping_refund": AMOUNT,
    "shipping_tax_refund": AMOUNT,
    "discount_refund": AMOUNT,
    "reason": TEXT,
}
_RETURN_LINE: Json = {
    "mp_return_line_number": NUMBER,
    "mp_order_line_number": NUMBER,
    "sku": FILLED,
    "quantity": QUANTITY,
    "currency": CURRENCY,
    "requested_refund_principal": AMOUNT,
    "reason": TEXT,
    "preauthorized": BOOLEAN,
}
_RETURN_LINE_OPTIONAL: Json = {
    "product_name": nullable(TEXT),
    "unit_price": nullable(AMOUNT),
    "tax": nullable(AMOUNT),
    "requested_refund_tax": nullable(AMOUNT),
    "carrier": nullable(TEXT),
    "tracking_number": nullable(TEXT),
}
_RETURN_REFUNDS: Json = {
    "status": choice(*sorted(RETURN_STATUSES)),
    "rma": nullable(NUMBER),
    "merchant_refund_lines": list_of(ref("ReturnRefundLine")),
    "errors": list_of(ref("Error")),
}
_RETURN_OPTIONAL: Json = {
    "request_date": nullable(DAY),
    "respond_date": nullable(DAY),
    "shipping_address": nullable(ANYTHING),
    "customer_email": nullable(TEXT),
    "return_type": nullable(choice(*RETURN_TYPES)),
}

#: The named schemas of the description.
SCHEMAS: dict[str, Json] = {
    "NewOrder": shape(_ORDER, _ORDER_OPTIONAL),
    "OrderLine": shape(
        {"mp_line_number": NUMBER, "sku": FILLED, "quantity": QUANTITY}, {"unit_price": nullable(AMOUNT)}
    ),
    "Order": shape(
        {
            "is_marketplace_fulfilled": BOOLEAN,
            "fulfillments": list_of(ref("LineFulfillment")),
            "acknowledged": BOOLEAN,
            "status": choice(*ORDER_STATUSES),
            "errors": list_of(ref("OrderError")),
        },
        None,
        "NewOrder",
    ),
    "LineFulfillment": shape(_LINE_FULFILLMENT),
    "Shipment": shape(
        {"quantity": QUANTITY, "carrier": TEXT, "tracking_number": TEXT, "shipped_date": TEXT},
        {"tracking_url": TEXT},
    ),
    "Fulfillments": shape(
        {
            "status": choice(*FULFILLMENT_STATUSES),
            "is_marketplace_fulfilled": BOOLEAN,
            "fulfillments": list_of(ref("LineFulfillment")),
        }
    ),
    "Error": shape({"code": FILLED, "message": TEXT}),
    "OrderError": shape(
        {"code": FILLED, "message": TEXT},
        {"mp_line_number": nullable(NUMBER), "debug": nullable(list_of(ANYTHING))},
    ),
    "Refund": shape(_REFUND),
    "RefundLine": shape(_REFUND_LINE),
    "NewReturn": shape(
        {"return_lines": list_of(ref("ReturnLine"), 1)},
        {"mp_order_number": nullable(NUMBER), **_RETURN_OPTIONAL},
    ),
    "ReturnLine": shape(_RETURN_LINE, _RETURN_LINE_OPTIONAL),
    "ReturnRefundLine": shape(
        {"mp_return_line_number": NUMBER, "principal_refund_amount": AMOUNT, "shipping_refund_amount": AMOUNT}
    ),
    "ReturnRefunds": shape(_RETURN_REFUNDS),
    "Return": shape(
        {"mp_order_number": NUMBER, "mp_return_number": NUMBER, **_RETURN_OPTIONAL},
        None,
        "NewReturn",
        "ReturnRefunds",
    ),
    "TokenRequest": shape(
        {
            "grant_type": choice("authorization_code", "refresh_token"),
            "client_id": FILLED,
            "client_secret": FILLED,
        },
        {"code": TEXT, "refresh_token": TEXT},
    ),
    "Tokens": shape({"access_token": TEXT, "token_type": TEXT, "refresh_token": TEXT, "expires_in": INTEGER}),
    "TokenError": shape({"error": TEXT}, {"error_description": TEXT}),
    "Problems": list_of(ref("Error"), 1),
}
