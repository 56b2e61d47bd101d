"""Whole DAG runs at DEBUG leave no secret anywhere: not in the output, the task logs or the database."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from airflow_provider_feedamp.sandbox.server import RunningSandbox, serve
from tests.airflow_runs import PATIENCE, AirflowHome, make_airflow
from tests.house import ROOT
from tests.leaks import WRONG_SECRET, Secrets, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.processes, pytest.mark.timeout(2 * PATIENCE)]

DAGS = [
    ROOT / "example_dags" / "order_import.py",
    ROOT / "tests" / "dags" / "retries.py",
]
# At DEBUG, Airflow 3 prints each message between a task and its supervisor: what is to be masked, and
# the Variables that a task writes.
AIRFLOWS_OWN_MESSAGES = ("Sending request", "Received message from task runner")


@dataclass(frozen=True, slots=True)
class Run:
    """What is left after the runs."""

    home: AirflowHome
    sandbox: RunningSandbox
    output: str

    def task_logs(self) -> str:
        logs = [path for path in (self.home.path / "logs").rglob("*") if path.is_file()]
        return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in logs)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run an import, and tasks that fail for a refused token and for a refused client."""
    folder = tmp_path_factory.mktemp("dags")
    for file in DAGS:
        shutil.copy(file, folder)
    source = folder / "orders.ndjson"
    source.write_text("{}\n", encoding="utf-8")
    with serve(settings()) as sandbox:
        good, revoked = sandbox.connection("hooli"), sandbox.connection("globex")
        sandbox.control.revoke("globex")
        connections = {
            "feedamp_default": good,
            "feedamp_revoked": revoked,
            "feedamp_down": good | {"password": WRONG_SECRET},
        }
        home = make_airflow(tmp_path_factory, folder, connections)
        conf = {"order_import.py": {"source": str(source), "rejects": f"{folder}/rejects.ndjson"}}
        _, output = home.run(
            {folder / file.name: conf.get(file.name, {}) for file in DAGS},
            settings={"AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG"},
        )
        yield Run(home, sandbox, output)


def test_the_runs_had_secrets_to_leak(run: Run) -> None:
    assert run.home.tasks("feedamp_retries").keys() == {
        "works",
        "must_authorise_again",
        "token_endpoint_is_down",
    }
    assert run.home.tasks("feedamp_order_import")["place_orders"].state == "success"
    values = Secrets(run.sandbox).values()
    assert len(values["access"]) >= 1
    assert len(values["refresh"]) >= 3


def test_the_output_holds_no_secret(run: Run) -> None:
    lines = [
        line for line in run.output.splitlines() if not any(own in line for own in AIRFLOWS_OWN_MESSAGES)
    ]

    assert any("DEBUG" in line or "debug" in line for line in lines)
    assert Secrets(run.sandbox).found_in("\n".join(lines)) == []


def test_the_task_logs_hold_no_secret(run: Run) -> None:
    assert Secrets(run.sandbox).found_in(run.task_logs()) == []


def test_the_database_holds_no_secret_in_clear(run: Run) -> None:
    text = run.home.dump()

    assert "feedamp_token_" in text  # the records are there, encrypted
    assert Secrets(run.sandbox).found_in(text) == []


def test_what_tasks_return_and_render_holds_no_secret(run: Run) -> None:
    shown = [run.home.returned(dag_id) for dag_id in ("feedamp_order_import", "feedamp_retries")]

    assert "renewed" in json.dumps(shown)
    assert Secrets(run.sandbox).found_in(json.dumps(shown)) == []
