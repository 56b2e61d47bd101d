"""A whole Airflow for tests: scheduler, triggerer and, from Airflow 3 on, execution API, on the loopback."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from contextlib import ExitStack, closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.processes import kill, send, started
from tests.airflow_runs import PATIENCE
from tests.databases import free_port

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping
    from typing import Any

    from tests.airflow_runs import AirflowHome

LOOPBACK = "127.0.0.1"
AIRFLOW_3 = int(version("apache-airflow").partition(".")[0]) >= 3


@contextmanager
def whole_airflow(home: AirflowHome, more: Mapping[str, str] | None = None) -> Iterator[Parts]:
    """Run the parts of an Airflow; when the block is left, they and all that they started have ended.

    :param more: More environment variables.
    """
    port = free_port()
    settings = home.settings(
        {
            "AIRFLOW__API__BASE_URL": f"http://{LOOPBACK}:{port}",
            "AIRFLOW__API_AUTH__JWT_SECRET": "only-for-tests-" * 5,
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{LOOPBACK}:{port}/execution/",
            "AIRFLOW__CORE__PARALLELISM": "1",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__TRIGGERER__DEFAULT_CAPACITY": "10",
            # So soon does a triggerer take over from one that was killed.
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # Airflow 2 starts tasks by name
            "PYTHONUNBUFFERED": "1",
            **(more or {}),
        }
    )
    with ExitStack() as stack:
        parts = Parts(home, settings, stack)
        parts.start("scheduler", "--skip-serve-logs")
        parts.start("triggerer", "--skip-serve-logs")
        if AIRFLOW_3:
            api = ("--host", LOOPBACK, "--port", str(port), "--workers", "1", "--apps", "execution")
            parts.start("api-server", *api)
            parts.start("dag-processor")
        try:
            yield parts
        finally:
            parts.end()


class Parts:
    """The parts of an Airflow that run, for tests that end one before the others."""

    def __init__(self, home: AirflowHome, settings: Mapping[str, str], stack: ExitStack) -> None:
        self._home = home
        self._settings = settings
        self._stack = stack
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self, part: str, *arguments: str, name: str | None = None, more: Mapping[str, str] | None = None
    ) -> None:
        """Start a part, or start it again.

        :param part: A command of Airflow's.
        :param arguments: What the command gets.
        :param name: What it is called here; its command by default.
        :param more: Environment variables for this part alone.
        """
        name = name or part
        output = self._stack.enter_context((self._home.path / f"{name}.log").open("ab"))
        command = [sys.executable, "-m", "airflow", part, *arguments]
        settings = {**self._settings, **(more or {})}
        self._running[name] = self._stack.enter_context(started(command, settings, output))

    def pid(self, name: str) -> int:
        """Return the process id of a part."""
        return self._running[name].pid

    def kill(self, name: str) -> None:
        """End a part with all that it started, without giving it time."""
        kill(self._running.pop(name))

    def end(self) -> None:
        """Ask all parts to end, so that the waits for them are one."""
        for process in self._running.values():
            send(process, signal.SIGTERM)

    def stop(self, part: str, *, group: bool) -> None:
        """Ask a part to end, and wait for it.

        :param group: Whether all that it started is asked as well, as the official image's init does.
        """
        process = self._running.pop(part)
        if group:
            send(process, signal.SIGTERM)
        else:
            process.terminate()
        process.wait(PATIENCE)


def add_connection(home: AirflowHome, conn_id: str, connection: Mapping[str, Any], extra: str) -> None:
    """Put a connection into the metadata database, unencrypted."""
    names = ("conn_type", "host", "login", "password")
    row = (conn_id, *(connection[name] for name in names), extra)
    with closing(sqlite3.connect(home.database)) as database:
        database.execute(
            "insert into connection (conn_id, conn_type, host, login, password, extra, is_encrypted, "
            "is_extra_encrypted) values (?, ?, ?, ?, ?, ?, 0, 0)",
            row,
        )
        database.commit()
