"""Hold orders until their buyers cannot cancel any more, then release those that are still wanted.

Needs the connection ``feedamp_default``. Trigger it with a file of orders in the state ``PENDING``, one per
line, and the numbers of those that were cancelled meanwhile, which stand for the marketplace's own system.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, ObjectStoragePath, Param, task
from airflow.providers.standard.sensors.date_time import DateTimeSensor

from airflow_provider_feedamp.operators.order_states import FeedAmpSetOrderStateOperator
from airflow_provider_feedamp.operators.orders import FeedAmpPlaceOrdersOperator

with DAG(
    dag_id="feedamp_order_hold",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["example", "feedamp"],
    params={
        "source": Param("orders.ndjson", type="string", description="File with the orders, all PENDING"),
        "hold_minutes": Param(30, type="number", description="How long buyers may cancel"),
        "cancelled": Param([], type="array", description="Order numbers that were cancelled meanwhile"),
        "seller": Param("hooli", type="string", description="The seller named in the connection"),
    },
) as dag:
    # [START howto_order_hold]
    place = FeedAmpPlaceOrdersOperator(
        task_id="place_pending",
        seller="{{ params.seller }}",
        source="{{ params.source }}",
    )

    hold = DateTimeSensor(
        task_id="hold",
        target_time="{{ dag_run.start_date + macros.timedelta(minutes=params.hold_minutes) }}",
        mode="reschedule",  # takes no worker while it waits
    )

    @task(multiple_outputs=True)
    def ask_again(**context: Any) -> dict[str, list[str]]:
        """Ask the marketplace who still wants their order; here a parameter answers."""
        import json

        params = context["params"]
        lines = ObjectStoragePath(params["source"]).read_bytes().splitlines()
        numbers = [json.loads(line)["mp_order_number"] for line in lines]
        gone = set(params["cancelled"])
        return {
            "wanted": [number for number in numbers if number not in gone],
            "cancelled": [number for number in numbers if number in gone],
        }

    answer: Any = ask_again()

    release = FeedAmpSetOrderStateOperator(
        task_id="release",
        seller="{{ params.seller }}",
        mp_order_numbers=answer["wanted"],
        state="AWAITING_SHIPMENT",
    )

    cancel = FeedAmpSetOrderStateOperator(
        task_id="cancel",
        seller="{{ params.seller }}",
        mp_order_numbers=answer["cancelled"],
        state="CANCELLED",
    )

    place >> hold >> answer >> [cancel, release]
    # [END howto_order_hold]
