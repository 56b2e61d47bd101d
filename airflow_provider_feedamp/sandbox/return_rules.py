"""What FeedAMP checks in the body of Create a return (feedamp-api.md A7.3, A7.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_feedamp.sandbox.fields import (
    Check,
    amount,
    any_text,
    boolean,
    currency,
    day,
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
)
from airflow_provider_feedamp.sandbox.refusal import INVALID_VALUE, Problem, problem

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

RETURN_TYPES = ("SHIP", "NO_RETURN", "IN_STORE")

_REQUIRED: Mapping[str, Check] = {"return_lines": filled_list}
_OPTIONAL: Mapping[str, Check] = {
    "mp_order_number": number,
    "request_date": day,
    "respond_date": day,
    "shipping_address": mapping,
    "customer_email": any_text,
    "return_type": one_of(RETURN_TYPES),
}
# The first eight keys of the documented examples; the others stand after them and are taken for optional.
_LINE_REQUIRED: Mapping[str, Check] = {
    "mp_return_line_number": number,
    "mp_order_line_number": number,
    "sku": text,
    "quantity": quantity,
    "currency": currency,
    "requested_refund_principal": amount,
    "reason": any_text,
    "preauthorized": boolean,
}
_LINE_OPTIONAL: Mapping[str, Check] = {
    "product_name": any_text,
    "unit_price": amount,
    "tax": amount,
    "requested_refund_tax": amount,
    "carrier": any_text,
    "tracking_number": any_text,
}


def return_problems(
    body: object,
    order_number: str,
    order_lines: Collection[str],
    *,
    strict_fields: bool,
    seller_on_v2: bool,
) -> list[Problem]:
    """Return all that is wrong with the body of a Create a return; names of fields, never their content.

    :param body: The parsed body.
    :param order_number: The order number in the path; the body may leave it out.
    :param order_lines: The numbers of the order's lines.
    :param strict_fields: Whether unknown and read-only fields are refused.
    :param seller_on_v2: Whether the seller's account takes returns to a store.
    """
    if not isinstance(body, dict):
        return not_an_object()
    found = list(field_problems(body, _REQUIRED, _OPTIONAL))
    found.extend(line_problems(body, "return_lines", _LINE_REQUIRED, _LINE_OPTIONAL, "mp_return_line_number"))
    if body.get("mp_order_number") not in (None, order_number):
        found.append(problem(INVALID_VALUE, "'mp_order_number' differs from the one in the path"))
    if body.get("return_type") == "IN_STORE" and not seller_on_v2:
        found.append(problem(INVALID_VALUE, "'return_type' IN_STORE needs a seller on V2"))
    found.extend(_strange_lines(body.get("return_lines"), order_lines))
    if strict_fields:
        found.extend(unknown_problems(body, _REQUIRED.keys() | _OPTIONAL.keys()))
    return found


def _strange_lines(lines: object, order_lines: Collection[str]) -> Iterator[Problem]:
    for index, line in enumerate(lines if isinstance(lines, list) else ()):
        named = line.get("mp_order_line_number") if isinstance(line, dict) else None
        if isinstance(named, str) and named not in order_lines:
            where = f"return_lines[{index}].mp_order_line_number"
            yield problem(INVALID_VALUE, f"'{where}' is not a line of the order")
