"""A DAG runs because a seller has shipped something, in an Airflow with all its parts."""

from __future__ import annotations

import shutil
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
from tests.house import ROOT
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
        marketplace = Caller(sandbox, "hooli")  # it uses up a refresh token, before the connection gets one
        home = make_airflow(tmp_path_factory, DAGS, {"feedamp_default": sandbox.connection("hooli")})

        def ship(number: str) -> None:
            marketplace.place(number)
            sandbox.control.ship("hooli", number)

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


@pytest.mark.skipif(AIRFLOW < (3, 3), reason="assets have partitions from Airflow 3.3 on")
def test_a_dag_runs_once_for_each_seller_who_has_changed_something(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    dags = tmp_path_factory.mktemp("dags")
    shutil.copy(ROOT / "example_dags" / "changes_by_seller.py", dags)
    shipped = {"hooli": ["A/1 ü%", "A2"], "globex, ü": ["G1"]}
    with serve() as sandbox:
        sandbox.control.connect("globex, ü")
        sandbox.control.connect("idle")
        for seller, numbers in shipped.items():
            marketplace = Caller(sandbox, seller)
            for number in numbers:
                marketplace.place(number)
                sandbox.control.ship(seller, number)
        home = make_airflow(tmp_path_factory, dags, {"feedamp_default": sandbox.connection("hooli")})
        codes = {seller: sandbox.control.authorize(seller) for seller in ("globex, ü", "idle")}
        home.run({}, codes=codes)

        def returned() -> dict[str, list[str]]:
            found = home.returned_by_runs("feedamp_one_seller")
            return {seller: numbers for each in found for seller, numbers in each.items()}

        settings = {"AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False"}
        with whole_airflow(home, settings):
            known = "select dag_id from dag where is_stale = 0"
            until("both DAGs are known", lambda: len(home._select(known)) == 2, home)
            home.call("airflow", "dags", "trigger", "feedamp_changes_by_seller")
            until("a run for each seller", lambda: len(returned()) == len(shipped), home)
            until("all events are seen", lambda: len(events(home)) == len(shipped) + 1, home)

    assert returned() == shipped
    # The one who has changed nothing starts no run.
    assert len(home.returned_by_runs("feedamp_one_seller")) == len(shipped)
    assert events(home) == {
        ("hooli", '{"seller": "hooli", "changed": 2}'),
        ("globex, ü", '{"seller": "globex, \\u00fc", "changed": 1}'),
        (None, '{"seller": "idle", "changed": 0}'),
    }


def events(home: AirflowHome) -> set[tuple[str | None, str]]:
    return {(key, extra) for key, extra in home._select("select partition_key, extra from asset_event")}
