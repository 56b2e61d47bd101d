"""An export that makes one call per order; it waits for a person to mark it as failed."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_feedamp.transfers.object_storage import FeedAmpToObjectStorageOperator

with DAG(
    dag_id="feedamp_export",
    schedule="@once",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    is_paused_upon_creation=False,
) as dag:
    FeedAmpToObjectStorageOperator(
        task_id="export",
        resource="fulfillments",
        fulfillment_status=["UNFULFILLED"],
        destination="{{ var.value.export_folder }}/a.ndjson",
    )
