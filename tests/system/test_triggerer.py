"""A sensor waits in a real triggerer, which renews the token that ends meanwhile, and the task goes on."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_feedamp.sandbox.server import RunningSandbox, serve
from airflow_provider_feedamp.sandbox.settings import SandboxSettings
from tests.airflow_parts import add_connection, whole_airflow
from tests.airflow_runs import AirflowHome, TaskEnd, make_airflow
from tests.sandbox.caller import Caller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 240  # seconds; some 30 are enough on a free machine
pytestmark = [pytest.mark.once, pytest.mark.timeout(3 * PATIENCE)]

DAGS = Path(__file__).parents[1] / "dags"
DAG_ID = "feedamp_deferred"


@pytest.fixture
def feedamp() -> Iterator[RunningSandbox]:
    """A FeedAMP whose access tokens live for a second: each poll has to renew it and store the new one."""
    with serve(SandboxSettings(access_token_ttl=1)) as running:
        Caller(running, "acme").place("A")
        yield running


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory, feedamp: RunningSandbox) -> AirflowHome:
    """An Airflow with the connection in its metadata database and the tokens in its Variables."""
    folder = tmp_path_factory.mktemp("dags")
    (folder / "deferred.py").write_text((DAGS / "deferred.py").read_text(encoding="utf-8"), encoding="utf-8")
    home = make_airflow(tmp_path_factory, folder, {})
    connection = feedamp.connection("acme")
    add_connection(home, "feedamp_default", connection, json.dumps(connection["extra"]))
    return home


def until(happened: Callable[[], bool], what: str, home: AirflowHome) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > deadline:
            logs = "\n".join(path.read_text(errors="replace")[-4000:] for path in home.path.rglob("*.log"))
            pytest.fail(f"waited {PATIENCE} s for: {what}\n{logs}")
        time.sleep(0.3)


def test_a_deferred_sensor_resumes_and_the_triggerer_renews_the_token(
    home: AirflowHome, feedamp: RunningSandbox
) -> None:
    def state() -> TaskEnd:
        return home.tasks(DAG_ID).get("wait", TaskEnd("none", 0))

    def renewals() -> int:
        return int(feedamp.control.counters()["tokens"].get("refresh_token", {}).get("issued", 0))

    with whole_airflow(home):
        until(lambda: state().state == "deferred", "the sensor is deferred", home)
        before = renewals()
        until(lambda: renewals() >= before + 2, "the triggerer renews the token", home)
        feedamp.control.ship("acme", "A")
        until(lambda: state().state in ("success", "failed"), "the task goes on", home)

    assert state().state == "success"
    assert home.returned(DAG_ID) == {"wait": ["A"]}
    assert set(feedamp.control.counters()["tokens"]["refresh_token"]) == {"issued"}
