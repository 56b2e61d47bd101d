"""Refunds of which the second is being paid when the task gets a SIGTERM, in its first try."""

from __future__ import annotations

import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_feedamp.operators.refunds import FeedAmpProcessRefundsOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

PAID = Path(os.environ.get("REFUNDS_KILLED_FOLDER", ""), "paid")


def pay(refund: dict[str, Any]) -> None:
    """Write down whom the marketplace pays, and take a moment, as payments do."""
    with PAID.open("a") as paid:
        paid.write(f"{refund['feedamp_refund_id']}\n")
    if len(PAID.read_text().splitlines()) == 2:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)


class KilledOperator(FeedAmpProcessRefundsOperator):
    """Ends with an exception that ``dag.test()`` of Airflow 2 survives, unlike that of its handler."""

    def execute(self, context: Context) -> Any:
        try:
            return super().execute(context)
        except Exception:
            raise
        except BaseException as error:
            raise RuntimeError("terminated") from error
        finally:
            with PAID.open("a") as paid:
                paid.write("end of a try\n")


with DAG(
    dag_id="feedamp_refunds_killed",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
) as dag:
    KilledOperator(task_id="pay", process=pay, retries=1, retry_delay=timedelta(0))
