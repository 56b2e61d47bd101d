"""An import whose process says its id, for somebody who kills it."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_feedamp.operators.orders import FeedAmpPlaceOrdersOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

FOLDER = os.environ.get("IMPORT_KILLED_FOLDER", "")


class KilledOperator(FeedAmpPlaceOrdersOperator):
    """Writes its process id down, and saves checkpoints more often, as this import is short."""

    def execute(self, context: Context) -> Any:
        from airflow_provider_feedamp.bulk import place

        place.SAVE_EVERY = 1.0
        partial = Path(FOLDER, "pid.partial")
        partial.write_text(str(os.getpid()))
        partial.rename(Path(FOLDER, "pid"))
        return super().execute(context)


with DAG(
    dag_id="feedamp_import_killed",
    schedule="@once",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    is_paused_upon_creation=False,
) as dag:
    KilledOperator(
        task_id="place_orders",
        source=os.environ.get("IMPORT_KILLED_SOURCE", ""),
        rejects=f"{FOLDER}/rejects.ndjson",
        max_failures=None,
        retries=5,
        retry_delay=timedelta(0),
    )
