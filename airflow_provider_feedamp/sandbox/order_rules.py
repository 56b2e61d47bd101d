"""What FeedAMP checks in the body of Place Order (feedamp-api.md A4.4, A4.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_feedamp.sandbox.fields import (
    Check,
    amount,
    any_text,
    boolean,
    currency,
    field_problems,
    filled_list,
    line_problems,
    mapping,
    not_an_object,
    number,
    one_of,
    quantity,
    text,
    unknown_problems,
    utc_instant,
)
from airflow_provider_feedamp.sandbox.refusal import INVALID_VALUE, Problem, problem

if TYPE_CHECKING:
    from collections.abc import Mapping

MARKETPLACE_STATES = ("PENDING", "AWAITING_SHIPMENT", "SHIPPED", "CANCELLED")

_REQUIRED: Mapping[str, Check] = {
    "mp_order_number": number,
    "sales_channel": text,
    "customer": mapping,
    "purchase_date": utc_instant,
    "currency": currency,
    "shipping_address": mapping,
    "order_lines": filled_list,
    "marketplace_state": one_of(MARKETPLACE_STATES),
}
_OPTIONAL: Mapping[str, Check] = {
    "location": mapping,
    "delivery_notes": any_text,
    "earliest_ship_date": utc_instant,
    "latest_ship_date": utc_instant,
    "latest_delivery_date": utc_instant,
    "earliest_delivery_date": utc_instant,
    "is_marketplace_fulfilled": boolean,
}
_LINE_REQUIRED: Mapping[str, Check] = {"mp_line_number": number, "sku": text, "quantity": quantity}
_LINE_OPTIONAL: Mapping[str, Check] = {"unit_price": amount}


def order_problems(body: object, order_number: str, *, strict_fields: bool) -> list[Problem]:
    """Return all that is wrong with the body of a Place Order; names of fields, never their content.

    :param body: The parsed body.
    :param order_number: The order number in the path.
    :param strict_fields: Whether unknown and read-only fields are refused.
    """
    if not isinstance(body, dict):
        return not_an_object()
    found = list(field_problems(body, _REQUIRED, _OPTIONAL))
    found.extend(line_problems(body, "order_lines", _LINE_REQUIRED, _LINE_OPTIONAL, "mp_line_number"))
    if not found and body["mp_order_number"] != order_number:
        found.append(problem(INVALID_VALUE, "'mp_order_number' differs from the one in the path"))
    if strict_fields:
        found.extend(unknown_problems(body, _REQUIRED.keys() | _OPTIONAL.keys()))
    return found
