"""Imports that end half way in their first try: FeedAMP fails, SIGTERM arrives, the time is over."""

from __future__ import annotations

import os
import signal
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_feedamp.operators.orders import FeedAmpPlaceOrdersOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

FOLDER = os.environ.get("IMPORT_RETRIES_FOLDER", "")


class InterruptedOperator(FeedAmpPlaceOrdersOperator):
    """Ends with an exception that ``dag.test()`` of Airflow 2 survives, unlike those of its handlers."""

    def execute(self, context: Context) -> Any:
        try:
            return super().execute(context)
        except Exception:
            raise
        except BaseException as error:
            message = "interrupted"
            raise RuntimeError(message) from error


class TerminatedOperator(InterruptedOperator):
    """Gets a SIGTERM in its first try, once FeedAMP holds ten orders."""

    def execute(self, context: Context) -> Any:
        if context["ti"].try_number == 1:
            threading.Thread(target=self._terminate, daemon=True).start()
        return super().execute(context)

    def _terminate(self) -> None:
        from airflow_provider_feedamp.sandbox.control import SandboxControl

        control = SandboxControl(os.environ["IMPORT_RETRIES_SANDBOX"])
        while len(control.orders(str(self.seller))) < 10:
            """FeedAMP is slow."""
        os.kill(os.getpid(), signal.SIGTERM)


with DAG(
    dag_id="feedamp_import_retries",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args={
        "retries": 5,
        "retry_delay": timedelta(0),
        "source": f"{FOLDER}/orders.ndjson",
        "max_failures": None,
        "max_workers": 2,
    },
) as dag:
    tasks = [
        FeedAmpPlaceOrdersOperator(
            task_id="feedamp_fails",
            seller="hooli",
            rejects=f"{FOLDER}/hooli.ndjson",
            feedamp_conn_id="feedamp_hooli",
        ),
        TerminatedOperator(
            task_id="is_terminated",
            seller="globex",
            rejects=f"{FOLDER}/globex.ndjson",
            feedamp_conn_id="feedamp_globex",
        ),
        InterruptedOperator(
            task_id="runs_out_of_time",
            seller="initech",
            rejects=f"{FOLDER}/initech.ndjson",
            feedamp_conn_id="feedamp_initech",
            execution_timeout=timedelta(seconds=2),
        ),
    ]
    tasks[0] >> tasks[1] >> tasks[2]
