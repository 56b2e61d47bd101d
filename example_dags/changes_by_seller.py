"""Ask what all sellers have changed in one DAG; another one runs once for each of them (Airflow 3.3).

Needs the connection ``feedamp_default``, and sellers who were authorised (``feedamp sellers authorize``).
Give the first DAG a schedule, such as every ten minutes; the second one runs by itself.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.sdk import DAG, Asset, PartitionedAssetTimetable, task

from airflow_provider_feedamp.operators.changed_orders import FeedAmpChangedOrdersOperator

# [START howto_changes_by_seller]
changes = Asset("feedamp://feedamp_default/changes")

with DAG(
    dag_id="feedamp_changes_by_seller",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["example", "feedamp"],
) as dag:

    @task
    def sellers() -> list[str]:
        """Return the sellers whose tokens are in the store."""
        from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

        return FeedAmpHook().sellers()

    FeedAmpChangedOrdersOperator.partial(
        task_id="changed_orders",
        start="2026-01-01T00:00:00Z",
        partition_by_seller=True,
        outlets=[changes],
    ).expand(seller=sellers())

with DAG(
    dag_id="feedamp_one_seller",
    schedule=PartitionedAssetTimetable(assets=changes),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["example", "feedamp"],
) as one_seller:

    @task(multiple_outputs=False)  # a seller's name is no name for an XCom
    def forward(**context: Any) -> dict[str, list[str]]:
        """Return the orders of the one seller that this run is for."""
        events = [event for some in context["triggering_asset_events"].values() for event in some]
        numbers = {
            order["mp_order_number"]
            for event in events
            for order in event.source_task_instance.xcom_pull()
        }  # fmt: skip
        return {context["dag_run"].partition_key: sorted(numbers)}

    forward()
# [END howto_changes_by_seller]
