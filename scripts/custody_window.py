"""Measure how long a new refresh token is in one worker's memory only: `python -m scripts.custody_window`.

The window opens when FeedAMP (here: the sandbox) has replaced the refresh token, and closes when the store
has acknowledged the new one. A worker that is killed in between loses it. Each process renews a few times
only, as Airflow's tasks do. PostgreSQL and MariaDB come from scripts/databases.sh.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet

from scripts.versions import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from airflow_provider_feedamp.stores.base import TokenStore

#: Renewals in each process: a task makes few.
_EACH = 4
_PREFIX = "window "


@dataclasses.dataclass(frozen=True)
class Setting:
    """One store on one database."""

    name: str
    store: str
    env: dict[str, str]


def main() -> None:
    """Measure all stores and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--renewals", type=int, default=200, help="renewals for each store")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure, arguments.renewals)
        return
    print(f"{os.cpu_count()} cores, {arguments.renewals} renewals each, milliseconds\n")
    print("| store | median | p99 | longest |\n|---|---|---|---|")
    with ExitStack() as stack:
        for setting in settings(stack):
            windows = [each * 1000 for each in run(setting, arguments.renewals)]
            p99 = statistics.quantiles(windows, n=100, method="inclusive")[98]
            middle = statistics.median(windows)
            print(f"| {setting.name} | {middle:.1f} | {p99:.1f} | {max(windows):.1f} |", flush=True)


def settings(stack: ExitStack) -> Iterator[Setting]:
    """Start each database in turn, and say what to measure on it."""
    from tests.databases import MariadbServer, PostgresqlServer, served

    home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    yield Setting("`memory`", "memory", base(home, "memory"))
    yield migrated(Setting("`variable`, SQLite", "variable", base(home, "variable-sqlite")))
    file = json.dumps({"conn_type": "sqlite", "host": str(home / "tokens.db")})
    yield Setting("`sql`, SQLite", "sql", base(home, "sql") | {"AIRFLOW_CONN_TOKENS": file})
    postgresql = stack.enter_context(served(PostgresqlServer))
    fields = json.loads(postgresql.connection)
    url = "postgresql+psycopg2://{login}:{password}@{host}:{port}/{schema}".format(**fields)
    database = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url}
    yield migrated(Setting("`variable`, PostgreSQL", "variable", base(home, "variable-pg") | database))
    yield Setting(
        "`sql`, PostgreSQL", "sql", base(home, "sql") | {"AIRFLOW_CONN_TOKENS": postgresql.connection}
    )
    mariadb = stack.enter_context(served(MariadbServer))
    yield Setting("`sql`, MariaDB", "sql", base(home, "sql") | {"AIRFLOW_CONN_TOKENS": mariadb.connection})


def base(home: Path, name: str) -> dict[str, str]:
    """Return the environment of an Airflow with a home of its own."""
    folder = home / name
    folder.mkdir(exist_ok=True)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW_")}
    return inherited | {
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__FERNET_KEY": Fernet.generate_key().decode(),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__FEEDAMP__TOKEN_STORE_CONN_ID": "tokens",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        "PYTHONPATH": str(ROOT),
        "SCARF_ANALYTICS": "false",
    }


def migrated(setting: Setting) -> Setting:
    """Make the metadata database of a setting."""
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    subprocess.run(command, env=setting.env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return setting


def run(setting: Setting, renewals: int) -> list[float]:
    """Measure one setting in a process of its own; return the windows in seconds."""
    command = [sys.executable, "-m", "scripts.custody_window"]
    options = ["--measure", setting.store, "--renewals", str(renewals)]
    done = subprocess.run(
        command + options, env=setting.env, cwd=ROOT, check=False, capture_output=True, text=True
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(_PREFIX)]
    if done.returncode or not lines:
        raise SystemExit(f"measuring {setting.name} failed:\n{done.stderr[-3000:]}")
    windows: list[float] = [window for line in lines for window in json.loads(line.removeprefix(_PREFIX))]
    return windows


def measure(store: str, renewals: int) -> None:
    """Be the measuring process: serve FeedAMP, and fork one worker after the other."""
    from airflow_provider_feedamp.sandbox.server import serve
    from airflow_provider_feedamp.sandbox.settings import SandboxSettings
    from tests.faults.driver import warm_up

    warm_up()  # each worker forks from here with Airflow loaded
    context = multiprocessing.get_context("fork")
    found: list[float] = []
    with serve(SandboxSettings(rotation="revoke_family")) as sandbox:
        grants = granted_at(sandbox)
        os.environ["AIRFLOW__FEEDAMP__TOKEN_STORE"] = store
        os.environ["AIRFLOW_CONN_FEEDAMP_DEFAULT"] = json.dumps(sandbox.connection("acme"))
        each = renewals if store == "memory" else _EACH  # what it keeps ends with the process
        for _ in range(-(-renewals // each)):
            ours, theirs = context.Pipe(duplex=False)
            worker = context.Process(target=renew, args=(theirs, each))
            worker.start()
            theirs.close()
            saved = ours.recv()
            worker.join()
            found += [end - start for start, end in zip(grants, saved, strict=True)]
            grants.clear()
    print(_PREFIX + json.dumps(found[:renewals]), flush=True)


def granted_at(sandbox: RunningSandbox) -> list[float]:
    """Return a list that takes the instants at which FeedAMP replaces a refresh token."""
    instants: list[float] = []
    desk = sandbox.state.tokens
    refresh = desk.refresh

    def timed(refresh_token: str) -> Any:
        grant = refresh(refresh_token)
        instants.append(time.monotonic())
        return grant

    desk.refresh = timed  # type: ignore[method-assign]
    return instants


def renew(pipe: Connection, times: int) -> None:
    """Be one worker: renew some times through the hook, and report when each new pair was saved."""
    from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

    hook = FeedAmpHook()
    timed = Timed(opened(hook._custodian.store))
    custodian = dataclasses.replace(hook._custodian, store=timed)
    for _ in range(times):
        record = custodian.record()
        if record is None or record.access_token is None:
            custodian.token()
        else:
            custodian.accepted(custodian.replace(record.access_token).value)
    pipe.send(timed.saved)


def opened(store: TokenStore) -> TokenStore:
    """Return the store; that on Variables without its settling time, which one worker alone needs not."""
    from airflow_provider_feedamp.stores.variable import Timing, VariableStore

    if isinstance(store, VariableStore):
        return VariableStore(timing=Timing(bound=10.0, settle=0.0))
    return store


class Timed:
    """A store that notes when it has acknowledged a write."""

    def __init__(self, store: TokenStore) -> None:
        self._store = store
        self.saved: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write(self, record: Any, *, expected: int | None) -> Any:
        """Write, and note the time if this was a new pair."""
        written = self._store.write(record, expected=expected)
        if record.access_token and record.state == "active" and record.attempt is None:
            self.saved.append(time.monotonic())
        return written


if __name__ == "__main__":
    main()
