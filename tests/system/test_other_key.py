"""A worker with another Fernet key than the one that a seller's record was written with."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest
from cryptography.fernet import Fernet

from airflow_provider_feedamp.sandbox.server import serve
from airflow_provider_feedamp.sandbox.settings import SandboxSettings
from tests.airflow_runs import FERNET_KEY, PATIENCE, make_airflow
from tests.house import ROOT

if TYPE_CHECKING:
    from tests.airflow_runs import AirflowHome

pytestmark = [pytest.mark.processes, pytest.mark.timeout(3 * PATIENCE)]

DAG_FILE = ROOT / "tests" / "dags" / "token.py"
OWN = {"AIRFLOW__FEEDAMP__ENCRYPTION_KEY": Fernet.generate_key().decode()}
OTHERS = ["AIRFLOW__FEEDAMP__ENCRYPTION_KEY", "AIRFLOW__CORE__FERNET_KEY"]
if ("3", "0") <= tuple(version("apache-airflow").split(".")[:2]) < ("3", "3"):
    OTHERS.pop()  # an API server without the key reads its own canary: the limit of Airflow 3.0 to 3.2


def records(home: AirflowHome) -> dict[str, str]:
    with closing(sqlite3.connect(home.database)) as database:
        query = "SELECT key, val FROM variable WHERE key LIKE 'feedamp_token_%'"
        return dict(database.execute(query).fetchall())


def test_its_task_fails_for_a_retry_and_the_live_record_stays(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Seen before: the record was overwritten by the connection's first token, which was long spent."""
    folder = tmp_path_factory.mktemp("dags")
    file = folder / DAG_FILE.name
    shutil.copy(DAG_FILE, file)
    with serve(SandboxSettings(rotation="revoke_family")) as sandbox:
        home = make_airflow(tmp_path_factory, folder, {"feedamp_default": sandbox.connection("hooli")})
        home.run({file: {}}, settings=OWN)
        before = records(home)
        assert sandbox.control.counters()["token_posts"] == 1

        for name in OTHERS:
            other = {name: Fernet.generate_key().decode()}
            told, output = home.run({file: {}}, settings={**OWN, **other})

            assert told["token.py"]["state"] == "failed", name
            assert "Nothing was spent" in output, name
            assert (records(home), sandbox.control.counters()["token_posts"]) == (before, 1), name
        told, _ = home.run({file: {}}, settings=OWN)
        assert told["token.py"]["state"] == "success"
        [live] = sandbox.control.refresh_tokens("hooli")
    [value] = before.values()
    by_airflow, own = Fernet(FERNET_KEY), Fernet(OWN["AIRFLOW__FEEDAMP__ENCRYPTION_KEY"])
    # What Airflow decrypts for whoever may see Variables is still encrypted by us.
    sealed = by_airflow.decrypt(value.encode())
    assert live not in sealed.decode()
    assert live in own.decrypt(sealed).decode()
