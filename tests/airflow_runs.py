"""A real Airflow for tests: a migrated SQLite database, DAG runs in a process of their own, their traces."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

from tests.house import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pytest

# Any key will do: 32 bytes in base64. A database copied from another home must be readable.
FERNET_KEY = "ZmVlZGFtcC10ZXN0cy1vbmx5LW5vdC1hLXNlY3JldCE="

#: Tasks of Airflow 3.0 have to encrypt tokens themselves: it logs the Variables that they set.
NEEDS_OWN_KEY = version("apache-airflow").startswith("3.0.")

# Airflow 3.4 calls the index of a mapped task otherwise, keeps the XComs of its own in another table, and
# keeps the earlier tries of a task beside the last one, which alone is in the working set.
if version("apache-airflow").startswith("3.4."):
    INDEX = "region_index"
    TASKS = "(select * from task_instance where working_set)"
    XCOM = f"xcom_v2 join {TASKS} as tries on tries.id = xcom_v2.task_instance_id"
else:
    INDEX, TASKS, XCOM = "map_index", "task_instance", "xcom"

# Seconds for one process of Airflow's: a few on a free machine, many on a crowded one.
PATIENCE = 300


class TaskEnd(NamedTuple):
    """How a task instance ended."""

    state: str
    tries: int


@dataclass(frozen=True, slots=True)
class AirflowHome:
    """A private Airflow, with what its runs have left.

    :param path: Its ``AIRFLOW_HOME``.
    :param dags: Its DAG folder.
    :param connections: Its connections, by id.
    :param python: The Python of the environment that Airflow is installed in.
    """

    path: Path
    dags: Path
    connections: Mapping[str, Mapping[str, Any]]
    python: str = sys.executable

    @property
    def database(self) -> Path:
        return self.path / "airflow.db"

    def settings(self, more: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of its processes: nobody's connections but its own."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        connections = {
            f"AIRFLOW_CONN_{name.upper()}": json.dumps(value) for name, value in self.connections.items()
        }
        return {
            **inherited,
            "AIRFLOW_HOME": str(self.path),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__FERNET_KEY": FERNET_KEY,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.database}",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.path / "logs"),
            **({"AIRFLOW__FEEDAMP__ENCRYPTION_KEY": FERNET_KEY} if NEEDS_OWN_KEY else {}),
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            **connections,
            **more,
        }

    def call(self, *arguments: str, settings: Mapping[str, str] | None = None) -> str:
        """Run a Python module in this Airflow and return all that it printed."""
        answer = subprocess.run(
            [self.python, "-m", *arguments],
            cwd=ROOT,
            env=self.settings(settings or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert answer.returncode == 0, answer.stdout
        return answer.stdout

    def run(
        self,
        files: Mapping[Path, Mapping[str, Any]],
        *,
        codes: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> tuple[dict[str, dict[str, Any]], str]:
        """Run DAG files with their run configurations.

        :param files: The configurations by file.
        :param codes: Authorisation codes by seller, to be exchanged beforehand.
        :param settings: More environment variables.
        :return: The report of ``tests.run_dags`` by file name, and all that was printed.
        """
        report = self.path / "report.json"
        asked = {
            "files": {str(file): conf for file, conf in files.items()},
            "codes": dict(codes or {}),
            "report": str(report),
        }
        output = self.call("tests.run_dags", json.dumps(asked), settings=settings)
        told = json.loads(report.read_text(encoding="utf-8"))
        return {file.name: told[str(file)] for file in files}, output

    def tasks(self, dag_id: str) -> dict[str, TaskEnd]:
        """Return how each task ended, by its id (with ``[index]`` if it was mapped)."""
        query = f"select task_id, {INDEX}, state, try_number from {TASKS} where dag_id = ?"  # noqa: S608
        return {
            _name(task, index): TaskEnd(state, tries)
            for task, index, state, tries in self._select(query, dag_id)
        }

    def returned(self, dag_id: str) -> dict[str, Any]:
        """Return what each task returned."""
        query = f"select task_id, {INDEX}, value from {XCOM} where dag_id = ? and key = 'return_value'"  # noqa: S608
        return {_name(task, index): json.loads(value) for task, index, value in self._select(query, dag_id)}

    def returned_by_runs(self, dag_id: str, key: str = "return_value") -> list[Any]:
        """Return what the tasks of a DAG have left in XCom under a key, in the order of pushing."""
        query = f"select value from {XCOM} where dag_id = ? and key like ? order by timestamp"  # noqa: S608
        return [json.loads(value) for (value,) in self._select(query, dag_id, key)]

    def dump(self) -> str:
        """Return the whole database as text, whatever table and column."""
        with closing(sqlite3.connect(self.database)) as connection:
            tables = [
                name for (name,) in connection.execute("select name from sqlite_master where type='table'")
            ]
            rows = [repr(row) for name in tables for row in connection.execute(f'select * from "{name}"')]  # noqa: S608
        return "\n".join(rows)

    def _select(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(query, values).fetchall()


def _name(task_id: str, map_index: int) -> str:
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"


def make_airflow(
    tmp_path_factory: pytest.TempPathFactory,
    dags: Path,
    connections: Mapping[str, Mapping[str, Any]],
    python: str = sys.executable,
) -> AirflowHome:
    """Make a private Airflow; its database is a copy of one that is migrated once per test session."""
    home = AirflowHome(tmp_path_factory.mktemp("airflow"), dags, connections, python)
    shutil.copy(migrated_database(tmp_path_factory.getbasetemp(), python), home.database)
    return home


@cache
def migrated_database(base: Path, python: str = sys.executable) -> Path:
    """Return a metadata database to copy, as ``airflow db migrate`` makes it; all workers share it.

    :param base: The base folder of this worker's temporary files.
    :param python: The Python of the environment that Airflow is installed in.
    """
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    home = AirflowHome(shared / f"migrated-airflow-{crc32(python.encode())}", shared, {}, python)
    home.path.mkdir(exist_ok=True)
    done = home.path / "done"
    with (home.path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # it ends with the file, and with a worker that dies
        if not done.exists():
            home.call("airflow", "db", "migrate")
            done.touch()
    return home.database
