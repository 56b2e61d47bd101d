"""Airflow as it is deployed: on PostgreSQL, with LocalExecutor or with Celery's workers, each kind once."""

from __future__ import annotations

import json
import signal
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil  # type: ignore[import-untyped]
import pytest
from cryptography.fernet import Fernet

from airflow_provider_feedamp.sandbox.server import serve
from airflow_provider_feedamp.sandbox.settings import SandboxSettings
from tests.airflow_parts import AIRFLOW_3, whole_airflow
from tests.airflow_runs import FERNET_KEY, AirflowHome, TaskEnd
from tests.databases import PASSWORD, USER, free_port, redis
from tests.deployments.dags.deployed import SELLERS
from tests.sandbox.caller import Caller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from tests.airflow_parts import Parts
    from tests.databases import PostgresqlServer

__all__ = ["redis"]

DAGS = Path(__file__).parent / "dags"
SQL = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
PATIENCE = 240  # seconds; a tenth of it is enough on a free machine
STRICT = {"rotation": "revoke_family", "access_token_ttl": 1}
#: How each local FeedAMP behaves, by its name, which is also the id of the connection to it. Access tokens
#: live for a second.
FEEDAMPS = {
    "crowd": {**STRICT, "sellers": SELLERS},
    "unread": STRICT,
    "replaced": {"rotation": "grace", "grace_seconds": 600, "access_token_ttl": 1},
    "deferred": STRICT,
}
SETTINGS = {
    "AIRFLOW__CORE__PARALLELISM": "8",
    # So soon is a worker that is gone missed, in the words of Airflow 3 and 2.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": "30",
    "AIRFLOW__SCHEDULER__ZOMBIE_DETECTION_INTERVAL": "5",
    # And so soon is a renewal of its given up.
    "AIRFLOW__FEEDAMP__LEASE_TTL": "30",
    "AIRFLOW__FEEDAMP__TOKEN_DEADLINE": "5",
}
#: What Celery's workers have of the deployment's secrets: nothing. The address is nobody's.
WORKER = {
    SQL: "postgresql+psycopg2://nobody:nothing@127.0.0.1:1/none",
    "AIRFLOW__CORE__FERNET_KEY": "",
    "AIRFLOW__API_AUTH__JWT_SECRET": "of-no-use-" * 5,
}


@dataclass(frozen=True)
class Deployment:
    """A whole Airflow on PostgreSQL, and the FeedAMPs that its connections lead to."""

    airflow: Parts
    home: AirflowHome
    database: str
    feedamps: Mapping[str, RunningSandbox]
    celery: bool

    def sql(self, statement: str, *values: str) -> list[tuple[Any, ...]]:
        """Run a statement in the metadata database and return the rows that it returns."""
        # Most cells of the matrix read this file, and have no driver.
        import psycopg2  # type: ignore[import-untyped]

        with (
            closing(psycopg2.connect(self.database)) as connection,
            connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(statement, values)
            return list(cursor.fetchall())

    def begin(self, dag_id: str) -> None:
        """Let a DAG run, as soon as Airflow knows it."""
        unpause = "update dag set is_paused = false where dag_id = %s returning dag_id"
        self.until(f"{dag_id} is parsed", lambda: self.sql(unpause, dag_id))

    def tasks(self, dag_id: str) -> dict[str, TaskEnd]:
        """Return how each task stands, by its id, with its index if it is mapped."""
        query = "select task_id, map_index, state, try_number from task_instance where dag_id = %s"
        return {
            task if index < 0 else f"{task}[{index}]": TaskEnd(state, tries)
            for task, index, state, tries in self.sql(query, dag_id)
        }

    def ended(self, dag_id: str) -> bool:
        """Say whether the DAG's run has ended."""
        return bool(
            self.sql("select 1 from dag_run where dag_id = %s and state in ('success', 'failed')", dag_id)
        )

    def kept(self, conn_id: str) -> bool:
        """Say whether the Variables hold a refresh token that this FeedAMP takes from hooli."""
        texts = [
            Fernet(FERNET_KEY).decrypt(value.encode()).decode()
            for (value,) in self.sql("select val from variable")
        ]
        live = self.feedamps[conn_id].control.refresh_tokens("hooli")
        return any(token in text for token in live for text in texts)

    def kill_worker_of(self, dag_id: str, task_id: str) -> None:
        """Kill the worker of a running task with all that it does, and let there be another one."""
        if self.celery:
            self.airflow.kill(task_id)
            start_worker(self.airflow, self.home, task_id)
            return
        query = "select pid from task_instance where dag_id = %s and task_id = %s"
        [(pid,)] = self.sql(query, dag_id, task_id)
        # From the task up: its supervisor, the executor's worker, the scheduler.
        chain = [psutil.Process(pid), *psutil.Process(pid).parents()]
        own = chain[: [process.pid for process in chain].index(self.airflow.pid("scheduler"))]
        assert len(own) >= 2, own
        for process in reversed(own):
            process.kill()

    def until(self, what: str, holds: Callable[[], object]) -> None:
        """Wait for something that another process does, which nothing tells."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > deadline:
                logs = "\n".join(
                    f"--- {path.name}\n{path.read_text(errors='replace')[-4000:]}"
                    for path in sorted(self.home.path.rglob("*.log"))
                )
                pytest.fail(f"waited {PATIENCE} s for: {what}\n{logs}")
            time.sleep(0.3)


@pytest.fixture(scope="session")
def _ends_in_order() -> Iterator[None]:
    """Let the tests end what they have started also when they are told to stop, as the matrix does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory, postgresql: PostgresqlServer) -> None:
    """Migrate the server's database, for the deployments to have copies of."""
    home = AirflowHome(tmp_path_factory.mktemp("migration"), DAGS, {})
    home.call("airflow", "db", "migrate", settings={SQL: url(postgresql, "feedamp")})


@pytest.fixture(scope="module", params=["LocalExecutor", "CeleryExecutor"])
def deployment(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    postgresql: PostgresqlServer,
    migrated: None,
    _ends_in_order: None,
) -> Iterator[Deployment]:
    """Deploy Airflow; all of it has ended after the last test of the module."""
    celery = request.param == "CeleryExecutor"
    if celery and not AIRFLOW_3:
        pytest.skip("Celery is tried on the newest Airflow")
    name = request.param.lower()
    postgresql.administer(f"CREATE DATABASE {name} TEMPLATE feedamp")
    settings = {**SETTINGS, SQL: url(postgresql, name), "AIRFLOW__CORE__EXECUTOR": request.param}
    if celery:
        broker = f"redis://127.0.0.1:{request.getfixturevalue('redis').port}"
        settings["AIRFLOW__CELERY__BROKER_URL"] = f"{broker}/0"
        settings["AIRFLOW__CELERY__RESULT_BACKEND"] = f"{broker}/1"
    home = AirflowHome(tmp_path_factory.mktemp(name), DAGS, {})
    with ExitStack() as stack:
        feedamps = {
            conn_id: stack.enter_context(serve(SandboxSettings.checked({**each, "seed": conn_id})))
            for conn_id, each in FEEDAMPS.items()
        }
        prepare(home, settings, feedamps)
        airflow = stack.enter_context(whole_airflow(home, settings))
        if celery:
            for queue in ("unread", "replaced"):
                start_worker(airflow, home, queue)
        yield Deployment(airflow, home, url(postgresql, name, driver=""), feedamps, celery)


def url(server: PostgresqlServer, database: str, driver: str = "+psycopg2") -> str:
    return f"postgresql{driver}://{USER}:{PASSWORD}@127.0.0.1:{server.port}/{database}"


def prepare(home: AirflowHome, settings: Mapping[str, str], feedamps: Mapping[str, RunningSandbox]) -> None:
    """Let Airflow have the connections and tokens of all sellers, whose access tokens end at once."""
    Caller(feedamps["deferred"], "hooli").place("A")
    asked = {
        conn_id: {
            "connection": feedamp.connection("hooli", refresh_token=None, seller=None),
            "codes": {seller: feedamp.control.authorize(seller) for seller in feedamp.control.sellers()},
        }
        for conn_id, feedamp in feedamps.items()
    }
    home.call("tests.deployments.prepare", json.dumps(asked), settings=settings)
    for conn_id in ("crowd", "unread", "replaced"):
        feedamps[conn_id].control.change(access_token_ttl=3600)


def start_worker(airflow: Parts, home: AirflowHome, queue: str) -> None:
    """Start a worker of Celery's, without a metadata database, and without the keys of the deployment."""
    airflow.start(
        *("celery", "worker", "--queues", f"{queue},default", "--concurrency", "4", "--skip-serve-logs"),
        *("--celery-hostname", f"{queue}-{free_port()}"),
        name=queue,
        more={"AIRFLOW_HOME": str(home.path / queue), **WORKER},
    )
