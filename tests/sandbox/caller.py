"""A marketplace at the HTTP edge of the sandbox, as bare as can be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import requests

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox


def order(number: str = "600A", **changes: Any) -> dict[str, Any]:
    """Return an order with two lines, four pieces of the first and one of the second."""
    body = {
        "mp_order_number": number,
        "sales_channel": "US",
        "customer": {"full_name": "Jane A. Smith"},
        "purchase_date": "2024-05-01T23:52:01Z",
        "currency": "USD",
        "shipping_address": {"full_name": "Jane A. Smith", "city": "Springfield", "country_code": "USA"},
        "order_lines": [
            {"mp_line_number": "L1", "sku": "SKU-1", "quantity": 4, "unit_price": 59.99},
            {"mp_line_number": "L2", "sku": "SKU-2", "quantity": 1, "unit_price": 1.10},
        ],
        "marketplace_state": "AWAITING_SHIPMENT",
    }
    return {**body, **changes}


def return_line(number: str = "R1", line: str = "L1", **changes: Any) -> dict[str, Any]:
    body = {
        "mp_return_line_number": number,
        "mp_order_line_number": line,
        "sku": "SKU-1",
        "quantity": 1,
        "currency": "USD",
        "requested_refund_principal": 59.99,
        "reason": "Wrong color sent",
        "preauthorized": False,
    }
    return {**body, **changes}


def return_(*lines: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a return of one piece of the order's first line, or of the lines given."""
    return {"return_lines": list(lines) or [return_line()], **changes}


def raw_order(number: str = "600A", **changes: Any) -> bytes:
    return json.dumps(order(number, **changes)).encode()


class Caller:
    """Call the sandbox with one seller's tokens."""

    def __init__(self, sandbox: RunningSandbox, seller: str) -> None:
        self.sandbox, self.control = sandbox, sandbox.control
        self.seller = seller
        self.session = requests.Session()
        self.session.trust_env = False
        self.refresh_token = sandbox.control.refresh_tokens(seller)[-1]
        self.log_in()

    def log_in(self) -> None:
        answer = self.refresh().json()
        self.refresh_token = answer["refresh_token"]
        self.session.headers["Authorization"] = f"Bearer {answer['access_token']}"

    def token_fields(self, **changes: Any) -> dict[str, Any]:
        fields = {
            "grant_type": "refresh_token",
            "client_id": self.sandbox.state.settings.client_id,
            "client_secret": self.sandbox.state.settings.client_secret,
            "refresh_token": self.refresh_token,
            **changes,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def refresh(self, **changes: Any) -> requests.Response:
        return self.call("POST", "/access_token", json=self.token_fields(**changes))

    def call(self, method: str, path: str, **details: Any) -> requests.Response:
        details.setdefault("timeout", 30)
        return self.session.request(method, self.sandbox.base_url + path, **details)

    def place(self, number: str = "600A", **changes: Any) -> requests.Response:
        return self.call("PUT", f"/orders/{quote(number, safe='')}", json=order(number, **changes))

    def find(self, **parameters: Any) -> requests.Response:
        return self.call("GET", "/orders", params=parameters)

    def numbers(self, **parameters: Any) -> list[str]:
        return [each["mp_order_number"] for each in self.find(**parameters).json()["orders"]]
