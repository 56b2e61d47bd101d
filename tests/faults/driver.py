"""A process that has Airflow loaded and forks workers on demand: real processes without Airflow's start-up.

It reads one JSON list of jobs per line, runs each job in a process of its own, all at the same time, and
answers with one line: how each process ended and what it returned. It has no cache and no open store itself,
so each worker begins as a new process does.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

#: Loaded before any fork.
_MODULES = (
    "tests.faults.worker",
    "airflow_provider_feedamp.hooks.feedamp",
    "airflow_provider_feedamp.tokens.custodian",
    "airflow_provider_feedamp.tokens.sql_store",
)
#: Seconds between two forks, so that all begin on their feet.
_STAGGER = 0.08


def main() -> None:
    """Serve until the input ends."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what Airflow and the workers print is not an answer
    warm_up()
    for line in sys.stdin:
        channel.write(json.dumps(run_all(json.loads(line))) + "\n")


def warm_up() -> None:
    """Load what each worker would load; no connection is opened."""
    from airflow import models
    from airflow.providers.common.compat.sdk import BaseHook
    from sqlalchemy.orm import configure_mappers

    load: Any = models.import_all_models
    load()
    configure_mappers()
    for name in [name for name in os.environ if name.startswith("AIRFLOW_CONN_")]:
        connection: Any = BaseHook.get_connection(name.removeprefix("AIRFLOW_CONN_").lower())
        connection.get_hook().get_sqlalchemy_engine()
    for name in _MODULES:
        importlib.import_module(name)


def run_all(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run the jobs, each in its own process, and return how they ended."""
    context = multiprocessing.get_context("fork")
    running = []
    for job in jobs:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=run, args=(job, theirs))
        process.start()
        theirs.close()
        running.append((process, ours))
        time.sleep(_STAGGER)
    ended = []
    for process, pipe in running:
        try:
            result = pipe.recv()
        except EOFError:
            result = None
        process.join()
        ended.append({"exit": process.exitcode, "result": result})
    return ended


def run(job: dict[str, Any], pipe: Connection) -> None:
    """Do one job; this is the worker process."""
    try:
        module = importlib.import_module(job.get("module", "tests.faults.worker"))
        result = getattr(module, job["do"])(job)
    except BaseException:
        traceback.print_exc()
        raise
    pipe.send(result)


if __name__ == "__main__":
    main()
