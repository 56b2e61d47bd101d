"""Import a file of orders into a seller's FeedAMP account, and read back what arrived.

Needs the connection ``feedamp_default``. Trigger it with the order file (``.ndjson`` or ``.json``, also
``.gz``; any path or URL that Airflow's object storage opens) and the path for refused orders.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_feedamp.operators.access_token import FeedAmpAccessTokenOperator
from airflow_provider_feedamp.operators.orders import FeedAmpPlaceOrdersOperator

with DAG(
    dag_id="feedamp_order_import",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["example", "feedamp"],
    params={
        "source": Param("orders.ndjson", type="string", description="File with the orders to import"),
        "rejects": Param("rejects.ndjson", type="string", description="File for orders that are refused"),
        "seller": Param("hooli", type="string", description="The seller named in the connection"),
    },
) as dag:
    # [START howto_order_import]
    token = FeedAmpAccessTokenOperator(task_id="access_token", seller="{{ params.seller }}")

    place = FeedAmpPlaceOrdersOperator(
        task_id="place_orders",
        seller="{{ params.seller }}",
        source="{{ params.source }}",
        rejects="{{ params.rejects }}",
        max_failures=None,  # bad orders wait in the rejects file; the others go on
    )

    @task
    def read_back(placed: Any, **context: Any) -> dict[str, int]:
        """Count what FeedAMP now says about the orders of this run."""
        from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

        orders = FeedAmpHook(seller=context["params"]["seller"]).client.orders
        found = orders.list(imported_after=context["dag_run"].start_date)
        return dict(Counter(order["status"] for order in found))

    token >> place
    read_back(place.output)
    # [END howto_order_import]
