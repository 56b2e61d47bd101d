from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from cryptography.fernet import Fernet

from airflow_provider_feedamp.sandbox.server import serve
from airflow_provider_feedamp.sandbox.settings import SandboxSettings
from scripts.processes import end_group
from tests.tokens.conftest import _new_process, _plain_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_feedamp.sandbox.server import RunningSandbox

__all__ = ["_new_process", "_plain_environment"]

ROOT = Path(__file__).parents[2]
#: The Airflow connection of the SQL store in the workers.
CONN_ID = "tokens"
#: What a job returned; its keys depend on the job.
Result = Any


class Ended(NamedTuple):
    """How a worker process ended, and what it returned."""

    exit: int
    result: Any


@dataclass
class Deployment:
    """An Airflow deployment with a migrated metadata database, on which worker processes run."""

    process: subprocess.Popen[str]
    log: Path

    def run(self, *jobs: dict[str, Any]) -> list[Ended]:
        """Run each job in a process of its own, all at the same time."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(jobs) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            pytest.fail(f"the driver ended:\n{self.log.read_text()[-5000:]}")
        return [Ended(**each) for each in json.loads(answer)]

    def results(self, *jobs: dict[str, Any]) -> list[Result]:
        """Run jobs that have to come to their end."""
        ended = self.run(*jobs)
        if any(each.exit != 0 for each in ended):
            pytest.fail(f"{[each.exit for each in ended]}:\n{self.log.read_text()[-5000:]}")
        return [each.result for each in ended]


@pytest.fixture(scope="session")
def postgresql_if_any(request: pytest.FixtureRequest) -> str | None:
    """Return the connection to PostgreSQL, if this machine has one."""
    try:
        connection: str = request.getfixturevalue("postgresql").connection
    except pytest.skip.Exception:
        return None
    return connection


@pytest.fixture(scope="session")
def deployment(
    tmp_path_factory: pytest.TempPathFactory, postgresql_if_any: str | None
) -> Iterator[Deployment]:
    """Migrate a metadata database, and keep a process at hand that forks workers on it."""
    home = tmp_path_factory.mktemp("deployment")
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")} | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__FERNET_KEY": Fernet.generate_key().decode(),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__FEEDAMP__LOCK_WAIT": "180",  # a lease that a busy machine writes too late costs a minute
        "AIRFLOW__FEEDAMP__TOKEN_STORE_CONN_ID": CONN_ID,
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "PYTHONPATH": str(ROOT),
        "SCARF_ANALYTICS": "false",
        "no_proxy": "*",
    }
    if postgresql_if_any:
        env[f"AIRFLOW_CONN_{CONN_ID.upper()}"] = postgresql_if_any
    log = home / "log"
    with log.open("w") as output:
        migrate = [sys.executable, "-m", "airflow", "db", "migrate"]
        subprocess.run(migrate, env=env, stdout=output, stderr=output, check=True)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.driver"],
            env=env,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            start_new_session=True,
        )
        try:
            yield Deployment(process, log)
        finally:
            end_group(process)  # type: ignore[arg-type]


@pytest.fixture(params=["variable", "sql"])
def store(request: pytest.FixtureRequest, postgresql_if_any: str | None) -> str:
    """Run the test on the metadata database's Variables, and on PostgreSQL."""
    if request.param == "sql" and postgresql_if_any is None:
        request.getfixturevalue("postgresql")  # skips, or fails where CI runs
    name: str = request.param
    return name


@pytest.fixture
def strict() -> Iterator[RunningSandbox]:
    """Serve a FeedAMP that ends everything once a refresh token is used twice."""
    with serve(SandboxSettings(rotation="revoke_family")) as running:
        yield running


@pytest.fixture
def forgiving() -> Iterator[RunningSandbox]:
    """Serve a FeedAMP that takes a replaced refresh token for a while."""
    with serve(SandboxSettings(rotation="grace", grace_seconds=600)) as running:
        yield running
