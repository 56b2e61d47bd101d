"""A DAG that runs when the seller hooli has shipped or cancelled something."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_feedamp.assets import feedamp_asset

with DAG(
    dag_id="on_shipments",
    schedule=[feedamp_asset("hooli", "fulfillments")],
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    is_paused_upon_creation=False,
) as dag:

    @task
    def numbers(**context: Any) -> list[str]:
        """Return the order numbers of the events that this run is for."""
        events = [event for events in context["triggering_asset_events"].values() for event in events]
        return [entry["mp_order_number"] for event in events for entry in event.extra["payload"]["entries"]]

    numbers()
