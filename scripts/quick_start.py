"""Run README's "Five minutes" as they are written there: its commands, its DAG, the lines to expect.

`make package` runs them in an empty environment, the tests in one that has the provider already.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.processes import started
from scripts.versions import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PATIENCE = 900.0  # seconds; an installation is among it
CONNECTION = re.compile(r"^\s*(export AIRFLOW_CONN_FEEDAMP_DEFAULT='\{.*?\}')$", re.MULTILINE)
#: What a reader's environment keeps of ours: where packages come from, and the way out.
KEPT = ("LANG", "TZ", "PIP_", "SSL_", "HTTP", "http", "NO_PROXY", "no_proxy", "REQUESTS_CA_BUNDLE")
#: The commands name one port and one file: two runs at a time would disturb each other.
LOCK = Path(tempfile.gettempdir(), "feedamp-quick-start.lock")


def blocks() -> dict[str, list[str]]:
    """Return the code blocks of README's section by their language."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Five minutes")[1].split("\n## ")[0]
    found: dict[str, list[str]] = {}
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
        found.setdefault(language, []).append(text)
    return found


def run(venv: Path, *, install: bool = True, env: Mapping[str, str] | None = None) -> str:
    """Run the section, and say how it went.

    :param venv: The environment that a reader would have activated.
    :param install: Whether to run the installation too.
    :param env: Further variables, such as where pip finds what is not published yet.
    :raises SystemExit: if a command fails, or a line that README promises is missing.
    """
    code = blocks()
    (serve, test), (dag,), (expected,) = code["bash"], code["python"], code["text"]
    if not install:  # it is there already
        serve = "\n".join(line for line in serve.splitlines() if not line.startswith("pip install"))
    begun = time.monotonic()
    with alone(), tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "airflow")
        (home / "dags").mkdir(parents=True)
        (home / "dags" / "import_orders.py").write_text(dag, encoding="utf-8")
        kept = {name: value for name, value in os.environ.items() if name.startswith(KEPT)}
        environment = {
            **kept,
            "HOME": folder,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "PATH": f"{venv / 'bin'}:/usr/local/bin:/usr/bin:/bin",
            **(env or {}),
        }
        served = Path(folder, "sandbox.log")
        with served.open("wb") as log, started(["bash", "-euc", serve], environment, log) as server:
            connection = wait_for(served, server)
            installed = time.monotonic()
            output = shell(f"{connection}\n{test}", environment)
    missing = [line for line in expected.splitlines() if line.strip() not in output]
    if missing:
        raise SystemExit(f"README promises {missing}, and this came:\n{output[-5000:]}")
    return f"{time.monotonic() - begun:.0f} s, {installed - begun:.0f} of them until the sandbox served"


def wait_for(served: Path, server: subprocess.Popen[bytes]) -> str:
    """Return the line that a reader pastes, as soon as the sandbox has printed it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and server.poll() is None:
        text = served.read_text(encoding="utf-8", errors="replace")
        found = CONNECTION.search(text)
        if found and "Sample orders" in text:
            return found[1]
        time.sleep(0.1)
    raise SystemExit(f"the sandbox printed no connection:\n{served.read_text()[-3000:]}")


def shell(script: str, environment: Mapping[str, str]) -> str:
    """Run commands as a reader's shell would, and return all that they print."""
    answer = subprocess.run(
        ["bash", "-euc", script],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if answer.returncode:
        raise SystemExit(f"this ended with {answer.returncode}:\n{script}\n{answer.stdout[-5000:]}")
    return answer.stdout


@contextmanager
def alone() -> Iterator[None]:
    """Wait until no other run is under way, and hold others up."""
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
