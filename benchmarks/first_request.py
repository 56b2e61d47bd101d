"""What a task that places one order costs, from the beginning of ``execute`` on.

``python -m benchmarks.first_request`` loads what a DAG file loads, and nothing else of this package.
"""

from __future__ import annotations

import json
import time

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_feedamp.operators.orders import FeedAmpPlaceOrdersOperator
from benchmarks.orders import order_line


def main() -> None:
    """Execute the operator and print seconds, processor seconds and the number of orders as JSON."""
    with DAG("benchmark"):
        task = FeedAmpPlaceOrdersOperator(task_id="place", orders=[json.loads(order_line(1))])
    began, cpu = time.perf_counter(), time.process_time()
    counts = task.execute({})
    cpu, seconds = time.process_time() - cpu, time.perf_counter() - began
    print(json.dumps({"orders": counts["placed"], "seconds": seconds, "cpu": cpu}))


if __name__ == "__main__":
    main()
