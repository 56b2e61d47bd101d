"""A process that runs one trigger, and ends as the runner of Airflow's triggerer does: without its threads.

``python -m tests.triggers.runner dies`` leaves a signal to the system, as Airflow 3.0 does; ``notes`` looks
every tenth of a second whether one has come, and then cancels the trigger, as 3.1 to 3.3 do. The
trigger's event, if it fires, is written to the file that the second argument names.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from airflow_provider_feedamp.triggers.polling import FeedAmpPollingTrigger

NO_MORE = "2126-01-01T00:00:00+00:00"


async def run(handling: str, event: Path) -> None:
    told: list[int] = []
    for which in (signal.SIGINT, signal.SIGTERM):
        signal.signal(which, signal.SIG_DFL if handling == "dies" else lambda which, _: told.append(which))
    trigger = FeedAmpPollingTrigger(
        condition="FulfilledOrders",
        arguments={"mp_order_numbers": ["A"]},
        deadline=NO_MORE,
        poll_interval=0.1,
    )
    task = asyncio.create_task(trigger._outcome())
    while not (told or task.done()):
        await asyncio.sleep(0.1)
    if task.done():
        event.write_text(json.dumps(task.result()), encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], Path(sys.argv[2])))
    os._exit(0)
