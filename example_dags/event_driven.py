"""Run when a seller has shipped or cancelled something, instead of asking on a schedule (Airflow 3).

Needs the connection ``feedamp_default`` and a running triggerer. On Airflow 2 nothing watches the account:
use ``feedamp_incremental_polling`` there.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_feedamp.assets import feedamp_asset

# [START howto_event_driven_schedule]
shipped = feedamp_asset("hooli", "fulfillments")

with DAG(
    dag_id="feedamp_event_driven",
    schedule=[shipped],
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["example", "feedamp"],
) as dag:
    # [END howto_event_driven_schedule]
    # [START howto_event_driven]
    @task(multiple_outputs=False)  # an order number is no name for an XCom
    def forward(**context: Any) -> dict[str, str]:
        """Read what became of the orders that the events name, and return how far they are."""
        from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

        events = [event for some in context.get("triggering_asset_events", {}).values() for event in some]
        numbers = {
            entry["mp_order_number"]
            for event in events
            for entry in event.extra["payload"]["entries"]
        }  # fmt: skip
        orders = FeedAmpHook(seller="hooli").client.orders
        return {number: orders.fulfillments(number)["status"] for number in sorted(numbers)}

    forward()
    # [END howto_event_driven]
