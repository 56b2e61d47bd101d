"""A sensor that waits in the triggerer until the order A is fulfilled."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_feedamp.sensors.orders import FeedAmpFulfillmentSensor

with DAG(
    dag_id="feedamp_deferred",
    schedule="@once",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    is_paused_upon_creation=False,
) as dag:
    FeedAmpFulfillmentSensor(
        task_id="wait", mp_order_numbers=["A"], deferrable=True, poke_interval=1, timeout=600
    )
