"""Wait until a seller has fulfilled some orders, pass the parcels on, and close the orders.

Needs the connection ``feedamp_default``. Trigger it with the order numbers. What the marketplace cannot
process is reported to the seller; such an order stays open, and the next run with its number looks again.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_feedamp.operators.fulfillments import FeedAmpReadFulfillmentsOperator
from airflow_provider_feedamp.operators.order_errors import FeedAmpReportOrderErrorsOperator
from airflow_provider_feedamp.operators.order_states import FeedAmpCloseOrdersOperator
from airflow_provider_feedamp.sensors.orders import FeedAmpFulfillmentSensor

SELLER = "{{ params.seller }}"

with DAG(
    dag_id="feedamp_fulfillment_sync",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["example", "feedamp"],
    params={
        "mp_order_numbers": Param([], type="array", description="The orders to wait for"),
        "seller": Param("hooli", type="string", description="The seller named in the connection"),
    },
) as dag:
    # [START howto_fulfillment_sensor]
    wait = FeedAmpFulfillmentSensor(
        task_id="wait",
        seller=SELLER,
        mp_order_numbers="{{ params.mp_order_numbers | tojson }}",
        deferrable=True,  # a wait of days holds no worker
        poke_interval=60,
        timeout=timedelta(days=7),
    )
    # [END howto_fulfillment_sensor]

    # [START howto_fulfillment_sync]
    read = FeedAmpReadFulfillmentsOperator(task_id="read", seller=SELLER, mp_order_numbers=wait.output)

    @task(multiple_outputs=True)
    def forward(fulfillments: Any) -> dict[str, list[Any]]:
        """Hand everything to your marketplace here, and sort out what it refuses."""
        errors = [
            {
                "mp_order_number": order["mp_order_number"],
                "mp_line_number": line["mp_line_number"],
                "code": "INVALID_TRACKING_NUMBER",
                "message": "The parcel has no tracking number.",
            }
            for order in fulfillments
            for line in order["fulfillments"]
            for shipment in line.get("shipments") or []
            if not shipment.get("tracking_number")
        ]
        refused = {error["mp_order_number"] for error in errors}
        numbers = [order["mp_order_number"] for order in fulfillments]
        return {"fine": [number for number in numbers if number not in refused], "errors": errors}

    forwarded: Any = forward(read.output)
    close = FeedAmpCloseOrdersOperator(task_id="close", seller=SELLER, mp_order_numbers=forwarded["fine"])
    report = FeedAmpReportOrderErrorsOperator(task_id="report", seller=SELLER, errors=forwarded["errors"])
    # [END howto_fulfillment_sync]
