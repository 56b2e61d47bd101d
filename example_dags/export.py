"""Write what a seller's FeedAMP account holds to object storage, for a data warehouse to load.

Needs the connection ``feedamp_default``. Trigger it with the folder to write to: a local one, or any URL that
Airflow's object storage can write, such as ``s3://connection_id@bucket/feedamp``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_feedamp.transfers.object_storage import FeedAmpToObjectStorageOperator

with DAG(
    dag_id="feedamp_export",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["example", "feedamp"],
    params={
        "folder": Param("feedamp_export", type="string", description="Where the files go"),
        "since": Param("2026-01-01T00:00:00Z", type="string", description="An instant with a time zone"),
        "seller": Param("hooli", type="string", description="The seller named in the connection"),
    },
) as dag:
    # [START howto_export]
    orders = FeedAmpToObjectStorageOperator(
        task_id="orders",
        resource="orders",
        imported_after="{{ params.since }}",
        destination="{{ params.folder }}/{{ run_id }}/orders.ndjson.gz",
        seller="{{ params.seller }}",
    )

    fulfillments = FeedAmpToObjectStorageOperator(
        task_id="fulfillments",
        resource="fulfillments",
        seller_updated_after="{{ params.since }}",
        destination="{{ params.folder }}/{{ run_id }}/fulfillments.ndjson.gz",
        seller="{{ params.seller }}",
    )

    refunds = FeedAmpToObjectStorageOperator(
        task_id="refunds",
        resource="refunds",
        created_after="{{ params.since }}",
        destination="{{ params.folder }}/{{ run_id }}/refunds.ndjson.gz",
        seller="{{ params.seller }}",
    )

    @task
    def load(written: list[Any]) -> dict[str, int]:
        """Stand for the task that loads the files; it finds them under ``destination``."""
        return {file["resource"]: file["count"] for file in written}

    load([orders.output, fulfillments.output, refunds.output])
    # [END howto_export]
