"""Forward what sellers have shipped and cancelled since the last run, and close what is done.

Needs the connection ``feedamp_default``. Give the DAG a schedule, such as every ten minutes.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_feedamp.operators.changed_orders import FeedAmpChangedOrdersOperator

with DAG(
    dag_id="feedamp_incremental_polling",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["example", "feedamp"],
    params={
        "seller": Param("hooli", type="string", description="The seller named in the connection"),
        "start": Param(
            "", type="string", description="Where the first run begins, such as 2026-11-01T00:00:00Z"
        ),
    },
) as dag:
    # [START howto_incremental_polling]
    changed = FeedAmpChangedOrdersOperator(
        task_id="changed_orders",
        seller="{{ params.seller }}",
        start="{{ params.start }}",
    )

    @task(multiple_outputs=False)  # an order number is no name for an XCom
    def forward(orders: Any, **context: Any) -> dict[str, str]:
        """Read what became of each order, and return how far it is."""
        from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

        api = FeedAmpHook(seller=context["params"]["seller"]).client.orders
        progress = {}
        for order in orders:
            found = api.fulfillments(order["mp_order_number"])
            # Here the marketplace takes over shipments and cancellations; it may get the same ones again.
            progress[order["mp_order_number"]] = found["status"]
        return progress

    forward(changed.output)
    # [END howto_incremental_polling]
