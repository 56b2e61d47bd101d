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
from tests.airflow_runs import PATIENCE, AirflowHome, make_airflow
from tests.house import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = [pytest.mark.processes, pytest.mark.timeout(3 * PATIENCE)]

DAG_FILE = ROOT / "tests" / "dags" / "token.py"


def records(home: AirflowHome) -> dict[str, str]:
    with closing(sqlite3.connect(home.database)) as database:
        query = "SELECT key, val FROM variable WHERE key LIKE 'feedamp_token_%'"
        return dict(database.execute(query).fetchall())


@pytest.mark.parametrize(
    ("own", "other"),
    [
        ({}, {"AIRFLOW__CORE__FERNET_KEY": Fernet.generate_key().decode()}),
        (
            {"AIRFLOW__FEEDAMP__ENCRYPTION_KEY": Fernet.generate_key().decode()},
            {"AIRFLOW__FEEDAMP__ENCRYPTION_KEY": Fernet.generate_key().decode()},
        ),
    ],
    ids=["Airflow's key", "our own key"],
)
def test_its_task_fails_for_a_retry_and_the_live_record_stays(
    tmp_path_factory: pytest.TempPathFactory, own: Mapping[str, str], other: Mapping[str, str]
) -> None:
    """Seen before: the record was overwritten by the connection's first token, which was long spent."""
    folder = tmp_path_factory.mktemp("dags")
    file = folder / DAG_FILE.name
    shutil.copy(DAG_FILE, file)
    if not own and ("3", "0") <= tuple(version("apache-airflow").split(".")[:2]) < ("3", "3"):
        pytest.skip("an API server without the key reads its own canary: the limit of Airflow 3.0 to 3.2")
    with serve(SandboxSettings(rotation="revoke_family")) as sandbox:
        home = make_airflow(tmp_path_factory, folder, {"feedamp_default": sandbox.connection("acme")})
        home.run({file: {}}, settings=own)
        before, posts = records(home), sandbox.control.counters()["token_posts"]
        told, output = home.run({file: {}}, settings={**own, **other})

        assert (told["token.py"]["state"], posts) == ("failed", 1)
        assert "Nothing was spent" in output
        assert (records(home), sandbox.control.counters()["token_posts"]) == (before, posts)
        told, _ = home.run({file: {}}, settings=own)
        assert told["token.py"]["state"] == "success"
        [live] = sandbox.control.refresh_tokens("acme")
        # What Airflow exports it has decrypted; what we have encrypted it cannot.
        exported = home.path / "variables.json"
        home.call("airflow", "variables", "export", str(exported), settings=own)
        assert (live in exported.read_text()) is not bool(own)
