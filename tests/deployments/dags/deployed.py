"""What a whole deployment is tried with; each DAG runs once, when a test takes it out of its pause."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_feedamp.operators.access_token import FeedAmpAccessTokenOperator
from airflow_provider_feedamp.operators.orders import FeedAmpPlaceOrdersOperator
from airflow_provider_feedamp.sensors.orders import FeedAmpFulfillmentSensor

SELLERS = ("hooli", "globex", "initech", "umbrella")
TASKS = 40
ONCE: dict[str, Any] = {
    "schedule": "@once",
    "start_date": datetime(2026, 1, 1, tzinfo=UTC),
    "catchup": False,
    "is_paused_upon_creation": True,
}
RETRIES = {"retries": 2, "retry_delay": timedelta(0)}


def order(number: str) -> dict[str, Any]:
    """Return an order of one line."""
    return {
        "mp_order_number": number,
        "sales_channel": "US",
        "customer": {"full_name": "Jane A. Smith"},
        "purchase_date": "2026-05-01T23:52:01Z",
        "currency": "USD",
        "shipping_address": {"full_name": "Jane A. Smith", "city": "Springfield", "country_code": "USA"},
        "order_lines": [{"mp_line_number": "L1", "sku": "SKU-1", "quantity": 1, "unit_price": 1.10}],
        "marketplace_state": "AWAITING_SHIPMENT",
    }


with DAG(dag_id="crowd", default_args={"feedamp_conn_id": "crowd", **RETRIES}, **ONCE):
    FeedAmpPlaceOrdersOperator.partial(task_id="place").expand_kwargs(
        [{"seller": SELLERS[n % len(SELLERS)], "orders": [order(f"A{n}")]} for n in range(TASKS)]
    )

with DAG(dag_id="killed", default_args=RETRIES, **ONCE):
    # Each has a worker of its own, which is killed while the task renews a token.
    for kind in ("unread", "replaced"):
        FeedAmpAccessTokenOperator(task_id=kind, feedamp_conn_id=kind, seller="hooli", queue=kind)

with DAG(dag_id="deferred", **ONCE):
    FeedAmpFulfillmentSensor(
        task_id="wait",
        feedamp_conn_id="deferred",
        seller="hooli",
        mp_order_numbers=["A"],
        deferrable=True,
        poke_interval=1,
        timeout=600,
    )
