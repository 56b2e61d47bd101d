"""A sensor waits in a real triggerer, which renews the token that ends, also while it is stopped itself."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.fernet import Fernet

from airflow_provider_feedamp.sandbox.server import RunningSandbox, serve
from airflow_provider_feedamp.sandbox.settings import SandboxSettings
from tests.airflow_parts import add_connection, whole_airflow
from tests.airflow_runs import FERNET_KEY, AirflowHome, TaskEnd, make_airflow
from tests.sandbox.caller import Caller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 240  # seconds; some 30 are enough on a free machine
pytestmark = [pytest.mark.once, pytest.mark.faults, pytest.mark.timeout(3 * PATIENCE)]

DAGS = Path(__file__).parents[1] / "dags"
DAG_ID = "feedamp_deferred"
POST = 3.0  # seconds that FeedAMP takes to answer the renewal during which the triggerer is stopped


@pytest.fixture
def feedamp() -> Iterator[RunningSandbox]:
    """A FeedAMP whose access tokens live for a second: each poll has to renew it and store the new one."""
    settings = SandboxSettings(access_token_ttl=1, rotation="revoke_family")
    with serve(settings) as running:
        Caller(running, "hooli").place("A")
        yield running


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory, feedamp: RunningSandbox) -> AirflowHome:
    """An Airflow with the connection in its metadata database and the tokens in its Variables."""
    folder = tmp_path_factory.mktemp("dags")
    (folder / "deferred.py").write_text((DAGS / "deferred.py").read_text(encoding="utf-8"), encoding="utf-8")
    home = make_airflow(tmp_path_factory, folder, {})
    connection = feedamp.connection("hooli")
    add_connection(home, "feedamp_default", connection, json.dumps(connection["extra"]))
    return home


def until(happened: Callable[[], bool], what: str, home: AirflowHome) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > deadline:
            logs = "\n".join(path.read_text(errors="replace")[-4000:] for path in home.path.rglob("*.log"))
            pytest.fail(f"waited {PATIENCE} s for: {what}\n{logs}")
        time.sleep(0.3)


def test_a_deferred_sensor_resumes_and_a_triggerer_stopped_during_a_renewal_stores_the_new_token_first(
    home: AirflowHome, feedamp: RunningSandbox
) -> None:
    def state() -> TaskEnd:
        return home.tasks(DAG_ID).get("wait", TaskEnd("none", 0))

    def renewals() -> int:
        return int(feedamp.control.counters()["tokens"].get("refresh_token", {}).get("issued", 0))

    def kept() -> bool:
        """Whether the Variables hold the refresh token that FeedAMP takes."""
        with closing(sqlite3.connect(home.database)) as database:
            values = [value for (value,) in database.execute("select val from variable")]
        texts = [Fernet(FERNET_KEY).decrypt(value.encode()).decode() for value in values]
        return any(token in text for token in feedamp.control.refresh_tokens("hooli") for text in texts)

    with whole_airflow(home) as airflow:
        until(lambda: state().state == "deferred", "the sensor is deferred", home)
        before = renewals()
        until(lambda: renewals() >= before + 2 and kept(), "the triggerer renews the token", home)
        for group in (False, True):
            feedamp.control.fault("slow", on="token", seconds=POST, times=None)
            until(lambda: not kept(), "the triggerer renews the token", home)
            airflow.stop("triggerer", group=group)
            assert kept(), "group" if group else "supervisor"
            feedamp.control.clear_faults()
            airflow.start("triggerer", "--skip-serve-logs")
        feedamp.control.ship("hooli", "A")
        until(lambda: state().state in ("success", "failed"), "the task goes on", home)

    assert state().state == "success"
    assert home.returned(DAG_ID) == {"wait": ["A"]}
    assert set(feedamp.control.counters()["tokens"]["refresh_token"]) == {"issued"}
