"""A person marks an export as failed in a real Airflow, and nothing of it is left."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_feedamp.sandbox.server import serve
from tests.airflow_parts import add_connection, whole_airflow
from tests.airflow_runs import make_airflow
from tests.sandbox.caller import Caller

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 240  # Seconds; some 30 are enough on a free machine.
pytestmark = [pytest.mark.faults, pytest.mark.timeout(3 * PATIENCE)]

DAGS = Path(__file__).parents[1] / "dags"
ORDERS = 300  # At half a second each, they last longer than Airflow takes to see the mark.


def until(happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, f"waited {PATIENCE} s for: {what}"
        time.sleep(0.2)


def test_an_export_that_is_marked_as_failed_ends_between_two_orders_and_leaves_no_part(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    dags = tmp_path_factory.mktemp("dags")
    (dags / "export.py").write_text((DAGS / "export.py").read_text(encoding="utf-8"), encoding="utf-8")
    home = make_airflow(tmp_path_factory, dags, {})

    def logs() -> str:
        return "\n".join(path.read_text(errors="replace") for path in (home.path / "logs").rglob("attempt=*"))

    with serve() as feedamp:
        for number in range(ORDERS):
            Caller(feedamp, "hooli").place(f"A{number}")
        feedamp.control.fault("slow", on="get_fulfillments", seconds=0.5, times=None)
        connection = feedamp.connection("hooli")
        add_connection(home, "feedamp_default", connection, json.dumps(connection["extra"]))
        with whole_airflow(home, {"AIRFLOW_VAR_EXPORT_FOLDER": str(tmp_path)}):
            until(lambda: bool(list(tmp_path.iterdir())), "the export has begun")
            time.sleep(2)
            with closing(sqlite3.connect(home.database, timeout=30)) as database, database:
                database.execute("update task_instance set state = 'failed', end_date = current_timestamp")
            until(lambda: not list(tmp_path.iterdir()), "nothing is left of it")
            until(lambda: "nothing is kept" in logs(), "the account")

    assert "Stopped before the end, after " in logs()
    assert "the export was told to stop before its end" in logs()
    assert home.tasks("feedamp_export")["export"].state == "failed"
