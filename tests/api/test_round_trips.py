"""What is placed is what is read back: odd texts, huge and empty fields, numbers of any length."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import requests
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_feedamp.api.client import FeedAmpClient
from airflow_provider_feedamp.api.http import Http
from airflow_provider_feedamp.api.types import refund_total
from airflow_provider_feedamp.sandbox.server import serve
from tests.api.edge import LINE, ORDER, Tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_feedamp.sandbox.control import SandboxControl

pytestmark = pytest.mark.once
settings.register_profile("round trips", max_examples=25, deadline=None, database=None)
few = settings(settings.get_profile("round trips"))

#: Any Unicode but halves of characters, which UTF-8 does not have.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
NUMBERS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=128).filter(
    lambda number: bool(number.strip()) and number not in {".", ".."}
)
#: Decimals as JSON writes them, with as many digits as a number of JSON keeps on its way through a float.
AMOUNTS = st.from_regex(r"-?(0|[1-9][0-9]{0,9})\.[0-9]{1,5}(e[+-]?[0-9])?", fullmatch=True)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**40), 10**40) | AMOUNTS.map(float) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=4)
LONG = "\N{PILE OF POO}é\u0000\u202e" * 20_000
ERRORS = st.lists(
    st.fixed_dictionaries({"code": TEXTS.filter(str.strip), "message": TEXTS.filter(str.strip)}),
    min_size=1,
    max_size=3,
)


def order(number: str, **fields: Any) -> dict[str, Any]:
    return ORDER | {"mp_order_number": number, "order_lines": [LINE.copy()]} | fields


def return_line(**fields: Any) -> dict[str, Any]:
    return {
        "mp_return_line_number": "R-1",
        "mp_order_line_number": "1",
        "sku": "S",
        "quantity": 1,
        "currency": "USD",
        "requested_refund_principal": 9.99,
        "reason": "",
        "preauthorized": False,
        **fields,
    }


@pytest.fixture(scope="module")
def control_and_client() -> Iterator[tuple[SandboxControl, FeedAmpClient]]:
    with serve() as sandbox:
        asked = {
            "grant_type": "refresh_token",
            "client_id": "demo-client",
            "client_secret": "demo-secret",
            "refresh_token": sandbox.control.refresh_tokens("hooli")[0],
        }
        token = requests.post(f"{sandbox.base_url}/access_token", json=asked, timeout=10).json()
        http = Http(sandbox.base_url, Tokens(token["access_token"]))
        yield sandbox.control, FeedAmpClient(http)


@pytest.fixture(scope="module")
def control(control_and_client: tuple[SandboxControl, FeedAmpClient]) -> SandboxControl:
    return control_and_client[0]


@pytest.fixture(scope="module")
def client(control_and_client: tuple[SandboxControl, FeedAmpClient]) -> FeedAmpClient:
    return control_and_client[1]


def part(of: Any, like: dict[str, Any]) -> dict[str, Any]:
    """Return those fields of an answer that were sent."""
    return {name: of.get(name) for name in like}


@few
@given(NUMBERS, OBJECTS, OBJECTS, TEXTS, OBJECTS)
@example("/", {}, {}, "", {})
@example("%2F%", {"": ""}, {"": {}}, LONG, {"": []})
@example("#?&=+;", {"full_name": LONG}, {}, "\r\n\t", {"x": 10**40})
def test_an_order_is_read_as_it_was_placed(
    client: FeedAmpClient, number: str, customer: Any, address: Any, notes: str, unknown: Any
) -> None:
    placed = order(
        number, customer=customer, shipping_address=address, delivery_notes=notes, x_unknown=unknown
    )
    client.orders.place(placed)
    assert part(client.orders.get(number), placed) == placed


@few
@given(AMOUNTS, st.integers(1, 10**30))
@example("59.990", 1)
@example("0.000001", 1)
@example("-0.0", 1)
@example("123456789012345", 1)
def test_numbers_that_are_sent_as_they_were_written_keep_their_digits(
    client: FeedAmpClient, price: str, quantity: int
) -> None:
    placed = order("numbers")
    placed["order_lines"][0] |= {"unit_price": "PRICE", "quantity": quantity}
    body = json.dumps(placed).replace('"PRICE"', price)
    client.orders.place(json.loads(body), body=body.encode())

    line = client.orders.get("numbers")["order_lines"][0]

    assert Decimal(str(line["unit_price"])) == Decimal(price)
    assert line["quantity"] == quantity


@few
@given(AMOUNTS.map(Decimal))
def test_a_decimal_from_a_database_arrives_with_its_digits(client: FeedAmpClient, price: Decimal) -> None:
    placed = order("decimal")
    placed["order_lines"][0]["unit_price"] = price
    client.orders.place(placed)
    line = client.orders.get("decimal")["order_lines"][0]
    assert Decimal(str(line["unit_price"])) == price


@few
@given(NUMBERS, OBJECTS, TEXTS, AMOUNTS.map(float))
def test_a_change_of_state_changes_nothing_else(
    client: FeedAmpClient, number: str, customer: Any, notes: str, price: float
) -> None:
    placed = order(number, customer=customer, delivery_notes=notes, is_marketplace_fulfilled=False)
    placed["order_lines"][0]["unit_price"] = price
    client.orders.place(placed)
    before = client.orders.get(number)
    client.orders.set_state(number, "SHIPPED")
    after: dict[str, Any] = dict(client.orders.get(number))
    assert after | {"marketplace_state": "AWAITING_SHIPMENT", "status": before["status"]} == before


@few
@given(NUMBERS, NUMBERS, st.dictionaries(TEXTS, VALUES, max_size=3), TEXTS, AMOUNTS.map(float))
@example("/", "/", {}, "", 0.1)
@example("A%2F1", "%", {"address1": LONG}, LONG, 0.0)
def test_a_return_is_read_as_it_was_created(
    client: FeedAmpClient, number: str, return_number: str, address: Any, reason: str, amount: float
) -> None:
    client.orders.place(order(number))
    line = return_line(reason=reason, requested_refund_principal=amount, x_unknown=address)
    new = {"return_lines": [line], "shipping_address": address, "customer_email": reason}
    client.returns.create(number, return_number, new)

    held = client.returns.get(number, return_number)

    assert part(held, new) == new
    assert (held["mp_order_number"], held["mp_return_number"]) == (number, return_number)
    assert held in client.returns.of_order(number)


@few
@given(NUMBERS, AMOUNTS.map(float), AMOUNTS.map(float))
def test_the_amounts_of_a_return_are_read_as_the_seller_entered_them(
    client: FeedAmpClient, control: SandboxControl, number: str, principal: float, shipping: float
) -> None:
    client.orders.place(order("with a return"))
    client.returns.create("with a return", number, {"return_lines": [return_line(preauthorized=True)]})
    line = {"mp_return_line_number": "R-1"}
    amounts = {"principal_refund_amount": principal, "shipping_refund_amount": shipping}
    control.enter_return_amounts("hooli", "with a return", number, [line | amounts])
    [read] = client.returns.refunds("with a return", number)["merchant_refund_lines"]
    assert read == line | amounts


@few
@given(NUMBERS, TEXTS, TEXTS, AMOUNTS, AMOUNTS)
@example("/", "", LONG, "0.10", "0.20")
def test_a_refund_is_read_as_the_seller_made_it(
    client: FeedAmpClient, control: SandboxControl, number: str, notes: str, reason: str, item: str, tax: str
) -> None:
    client.orders.place(order(number))
    line = {"mp_line_number": "1", "refund_quantity": 1, "reason": reason or "OTHER"}
    line |= {"item_refund": float(item), "item_tax_refund": float(tax)}
    made = control.create_refund("hooli", number, [line], notes=notes)

    refund = client.refunds.get(number, made["feedamp_refund_id"])

    assert (refund["mp_order_number"], refund["notes"]) == (number, notes)
    assert part(refund["merchant_refund_lines"][0], line) == line
    assert refund_total(refund) == {"USD": Decimal(item) + Decimal(tax)}
    assert refund in client.refunds.of_order(number)


@few
@given(ERRORS)
def test_errors_are_read_as_they_were_reported(
    client: FeedAmpClient, control: SandboxControl, errors: list[dict[str, str]]
) -> None:
    client.orders.place(order("with errors"))
    refund = control.create_refund("hooli", "with errors")["feedamp_refund_id"]
    client.refunds.report_errors("with errors", refund, errors)
    assert client.refunds.get("with errors", refund)["errors"] == errors
    client.orders.report_errors("with errors", errors)
    held = client.orders.get("with errors")["errors"][-len(errors) :]
    assert [part(error, errors[0]) for error in held] == errors
