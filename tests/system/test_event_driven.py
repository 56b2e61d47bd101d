"""A DAG runs because a seller has shipped something, in an Airflow with all its parts."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_feedamp.sandbox.server import serve
from tests.airflow_parts import whole_airflow
from tests.airflow_runs import PATIENCE, AirflowHome, make_airflow
from tests.sandbox.caller import Caller

if TYPE_CHECKING:
    from collections.abc import Callable

AIRFLOW = tuple(int(part) for part in version("apache-airflow").split(".")[:2])
pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(3 * PATIENCE),
    pytest.mark.skipif(AIRFLOW < (3, 0), reason="Airflow 2 has no watchers"),
]

PARSES = 4
DAGS = Path(__file__).parents[1] / "event_dags"


def told(home: AirflowHome) -> list[str]:
    """Return the numbers that the runs were told, in the order of the runs."""
    return [number for numbers in home.returned_by_runs("on_shipments") for number in numbers]


def seen_while_parsing(home: AirflowHome) -> set[tuple[int, str]]:
    """Return the watchers that there are while both files are parsed several times."""
    watchers: set[tuple[int, str]] = set()
    parses: set[tuple[str, str]] = set()

    def parsed() -> bool:
        with closing(sqlite3.connect(home.database)) as database:
            watchers.update(database.execute("select id, created_date from trigger"))
            parses.update(database.execute("select dag_id, last_parsed_time from dag"))
        return min(Counter(dag_id for dag_id, _ in parses).values()) > PARSES

    until(f"{PARSES} parses of each file", parsed, home)
    return watchers


def until(what: str, holds: Callable[[], bool], home: AirflowHome) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            logs = "\n".join(path.read_text(errors="replace")[-4000:] for path in home.path.glob("*.log"))
            pytest.fail(f"waited {PATIENCE} s for: {what}\n{logs}")
        time.sleep(0.3)  # other processes work, and nothing tells when they are done


def test_a_dag_runs_when_the_seller_ships_and_a_killed_triggerer_goes_on_where_it_was(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with serve() as sandbox:
        marketplace = Caller(sandbox, "acme")  # it uses up a refresh token, before the connection gets one
        home = make_airflow(tmp_path_factory, DAGS, {"feedamp_default": sandbox.connection("acme")})

        def ship(number: str) -> None:
            marketplace.place(number)
            sandbox.control.ship("acme", number)

        settings = {
            "AIRFLOW__FEEDAMP__WATCH_INTERVAL": "1",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "2",
        }
        with whole_airflow(home, settings) as airflow:
            ship("A/1 ü%")
            until("a run for the first shipment", lambda: told(home) == ["A/1 ü%"], home)
            ship("A2")
            until("a run for the second shipment", lambda: told(home) == ["A/1 ü%", "A2"], home)
            watchers = seen_while_parsing(home)
            airflow.kill("triggerer")
            ship("A3")
            airflow.start("triggerer", "--skip-serve-logs")
            until("a run for what was shipped meanwhile", lambda: "A3" in told(home), home)

    assert len(watchers) == 1
    # Only from 3.3 on has the trigger a place for its mark; before, it begins again some time ago.
    remembered = [] if AIRFLOW >= (3, 3) else ["A/1 ü%", "A2"]
    assert sorted(told(home)) == sorted(["A/1 ü%", "A2", "A3", *remembered])
