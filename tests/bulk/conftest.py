from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.api.client import OrdersApi
from airflow_provider_feedamp.api.http import Http, Transport
from airflow_provider_feedamp.api.wire import Response, Wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_feedamp.api.wire import Request

BASE_URL = "http://127.0.0.1:9/api/v1"


class OneToken:
    def token(self) -> str:
        return "an-access-token"

    def replace(self, refused: str) -> str:
        return refused

    def accepted(self, token: str) -> None:
        pass


class FeedAmpEdge:
    """What stands where FeedAMP would: it keeps what arrives and answers as it was told."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.answers: dict[str, tuple[int, Any]] = {}
        self.failures: dict[str, Exception] = {}

    @property
    def numbers(self) -> list[str]:
        return [json.loads(body)["mp_order_number"] for body in self.bodies]

    def exchange(self, request: Request) -> Response:
        body = request.body or b""
        number = json.loads(body)["mp_order_number"]
        if number in self.failures:
            raise self.failures[number]
        known = number in self.numbers
        self.bodies.append(body)
        status, answer = self.answers.get(number, (200 if known else 201, json.loads(body)))
        content = b"" if answer is None else json.dumps(answer).encode()
        return Response(status, {"Content-Type": "application/json"}, content)


@pytest.fixture
def edge() -> FeedAmpEdge:
    return FeedAmpEdge()


@pytest.fixture
def api(edge: FeedAmpEdge, monkeypatch: pytest.MonkeyPatch) -> OrdersApi:
    monkeypatch.setattr(Wire, "exchange", lambda _, request: edge.exchange(request))
    return OrdersApi(Transport(Http(BASE_URL, OneToken(), retries=0)))


@pytest.fixture
def make_order() -> Callable[..., dict[str, Any]]:
    """Return a good order with the given number and changes."""

    def make(number: str = "A-1", **changes: Any) -> dict[str, Any]:
        order: dict[str, Any] = {
            "mp_order_number": number,
            "sales_channel": "US",
            "customer": {"full_name": "Jane Secretname"},
            "purchase_date": "2024-05-01T23:52:01Z",
            "currency": "USD",
            "shipping_address": {"full_name": "Jane Secretname", "address1": "1 Hidden Street"},
            "order_lines": [{"mp_line_number": "1", "sku": "S-1", "quantity": 2, "unit_price": 1.5}],
            "marketplace_state": "AWAITING_SHIPMENT",
        }
        return order | changes

    return make
