"""A real Airflow with its pages, on the loopback, for tests that look at it with a browser."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import pytest
from cryptography.fernet import Fernet

from scripts.processes import started
from tests.airflow_parts import LOOPBACK
from tests.airflow_runs import FERNET_KEY, PATIENCE, AirflowHome
from tests.databases import free_port
from tests.house import ROOT

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping

    from playwright.sync_api import Page, Route

#: The people who can log in, and their roles in Airflow's simple auth manager.
USERS = {"admin": "ADMIN", "viewer": "VIEWER"}
PASSWORD = "only-for-tests"
#: The Airflow 2 that the matrix has made.
AIRFLOW_2 = ROOT / ".matrix" / "2.11-3.11" / "bin" / "python"


@dataclass(frozen=True, slots=True)
class Deployment:
    """An Airflow that serves its pages.

    :param url: Where, without a slash at the end.
    :param home: Its home, with its logs and its database.
    """

    url: str
    home: AirflowHome

    def connection(self, conn_id: str) -> dict[str, Any]:
        """Return a connection as it is stored, with its secrets and its extras."""
        query = "select conn_type, host, login, password, extra from connection where conn_id = ?"

        with closing(sqlite3.connect(self.home.database)) as database:
            database.row_factory = sqlite3.Row
            found = dict(database.execute(query, (conn_id,)).fetchone())
        for name in ("password", "extra"):
            found[name] = Fernet(FERNET_KEY).decrypt(found[name].encode()).decode()
        return found | {"extra": json.loads(found["extra"])}


class Seen:
    """What a page gets from its server from now on.

    :param page: The page.
    """

    def __init__(self, page: Page) -> None:
        #: Addresses and the texts that came from there.
        self.bodies: list[tuple[str, str]] = []
        page.route("**/*", self._pass_on)

    def found(self, *texts: str) -> list[str]:
        """Return the addresses whose answers hold one of the texts."""
        assert self.bodies
        return [url for url, body in self.bodies if any(text in body for text in texts)]

    def _pass_on(self, route: Route) -> None:
        if route.request.resource_type not in ("document", "fetch", "xhr"):
            route.continue_()
            return
        answer = route.fetch(max_redirects=0)
        self.bodies.append((answer.url, answer.text()))
        route.fulfill(response=answer)


@contextmanager
def airflow_3(
    home: AirflowHome, *, parts: bool = True, more: Mapping[str, str] | None = None
) -> Iterator[Deployment]:
    """Run an Airflow 3; when the block is left, it and all that it started have ended.

    :param home: Its home, with a database that is migrated.
    :param parts: Whether it runs DAGs too: scheduler, DAG processor and triggerer.
    :param more: More environment variables.
    """
    port = free_port()
    url = f"http://{LOOPBACK}:{port}"
    passwords = home.path / "passwords.json"
    passwords.write_text(json.dumps(dict.fromkeys(USERS, PASSWORD)), encoding="utf-8")
    settings = {
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API_AUTH__JWT_SECRET": "only-for-tests-" * 5,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__PARALLELISM": "1",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{who}:{role}" for who, role in USERS.items()),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
    }
    commands = [["api-server", "--host", LOOPBACK, "--port", str(port), "--workers", "1"]]
    if parts:
        commands += [["dag-processor"], *([name, "--skip-serve-logs"] for name in ("scheduler", "triggerer"))]
    with _running(home, commands, {**settings, **(more or {})}) as processes:
        _wait_for(f"{url}/api/v2/version", processes, home)
        yield Deployment(url, home)


@contextmanager
def airflow_2(home: AirflowHome) -> Iterator[Deployment]:
    """Run the web server of an Airflow 2 that takes everybody for an administrator.

    :param home: Its home, with a database that is migrated.
    """
    port = free_port()
    (home.path / "webserver_config.py").write_text("AUTH_ROLE_PUBLIC = 'Admin'\n", encoding="utf-8")
    command = ["webserver", "--hostname", LOOPBACK, "--port", str(port), "--workers", "1"]
    # With one thread it would wait for a connection that the browser has opened in advance and not used yet.
    settings = {"AIRFLOW__WEBSERVER__SECRET_KEY": PASSWORD * 3, "GUNICORN_CMD_ARGS": "--threads=8"}
    with _running(home, [command], settings) as processes:
        _wait_for(f"http://{LOOPBACK}:{port}/health", processes, home)
        yield Deployment(f"http://{LOOPBACK}:{port}", home)


@contextmanager
def _running(
    home: AirflowHome, commands: list[list[str]], more: Mapping[str, str]
) -> Iterator[list[subprocess.Popen[bytes]]]:
    # Programs of the same environment are found by name: gunicorn, and Airflow's own for tasks.
    path = f"{Path(home.python).parent}{os.pathsep}{os.environ['PATH']}"
    settings = home.settings({"PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **more})
    with ExitStack() as stack:
        processes = []
        for command in commands:
            output = stack.enter_context((home.path / f"{command[0]}.log").open("ab"))
            processes.append(
                stack.enter_context(
                    # A file that a task names without a folder is in the home.
                    started([home.python, "-m", "airflow", *command], settings, output, home.path)
                )
            )
        yield processes


def _wait_for(url: str, processes: list[subprocess.Popen[bytes]], home: AirflowHome) -> None:
    opener = build_opener(ProxyHandler({}))  # the environment may name a proxy
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and all(process.poll() is None for process in processes):
        try:
            with opener.open(url, timeout=10):
                return
        except (URLError, TimeoutError, ConnectionError):
            time.sleep(0.2)
    logs = "\n".join(path.read_text(errors="replace")[-4000:] for path in home.path.glob("*.log"))
    pytest.fail(f"Airflow does not serve {url}\n{logs}")
