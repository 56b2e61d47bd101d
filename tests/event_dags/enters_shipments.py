"""A DAG that enters shipments of elsewhere: it has the asset of the other file as an outlet."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_feedamp.assets import feedamp_asset

with DAG(
    dag_id="enters_shipments",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    is_paused_upon_creation=False,
) as dag:

    @task(outlets=[feedamp_asset("hooli", "fulfillments")])
    def enter() -> None:
        """Update the asset."""

    enter()
