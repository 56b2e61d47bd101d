from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_feedamp.api.client import FeedAmpClient
from tests.api.edge import Edge, Reply

if TYPE_CHECKING:
    from airflow_provider_feedamp.api.http import Http


def test_the_client_reaches_the_orders(http: Http, edge: Edge) -> None:
    edge.will_reply(Reply(200, {"mp_order_number": "600A"}))
    assert FeedAmpClient(http).orders.get("600A") == {"mp_order_number": "600A"}
    assert edge.received[0].target == "/api/v1/orders/600A"


def test_a_resource_is_made_once(http: Http) -> None:
    client = FeedAmpClient(http)
    assert client.orders is client.orders
