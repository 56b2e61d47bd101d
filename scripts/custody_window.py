"""Measure how long a kill can cost a seller's refresh token: `python -m scripts.custody_window`.

From the sending of a request to the moment when the store has acknowledged the new refresh token, a worker
that is killed loses it: FeedAMP goes on with what was sent. For each store and each length of a POST, workers
renew undisturbed, to see how long that is, and then others are killed at random moments of it. The sandbox
replaces the refresh token in the middle of the POST. PostgreSQL and MariaDB come from scripts/databases.sh.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet

from airflow_provider_feedamp.tokens.endpoint import TokenEndpoint
from scripts.versions import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from airflow_provider_feedamp.tokens.custodian import TokenCustodian
    from airflow_provider_feedamp.tokens.store import TokenStore

#: Seconds that FeedAMP takes for a POST.
_POSTS = (0.05, 0.5, 2.0)
_PREFIX = "window "


@dataclasses.dataclass(frozen=True)
class Setting:
    """One store on one database."""

    name: str
    env: dict[str, str]


def main() -> None:
    """Measure all stores and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--renewals", type=int, default=20, help="undisturbed renewals for each line")
    parser.add_argument("--kills", type=int, default=40, help="kills for each line")
    parser.add_argument("--measure", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure, arguments.renewals, arguments.kills)
        return
    print(
        f"{os.cpu_count()} cores, {arguments.renewals} renewals and {arguments.kills} kills for each line\n"
    )
    print("| store | POST | window: median | longest | tokens lost |\n|---|---|---|---|---|")
    with ExitStack() as stack:
        for setting in settings(stack):
            for post in _POSTS:
                found = run(setting, post, arguments.renewals, arguments.kills)
                windows = [each * 1000 for each in found["windows"]]
                print(
                    f"| {setting.name} | {post * 1000:.0f} ms | {statistics.median(windows):.0f} ms "
                    f"| {max(windows):.0f} ms | {found['lost']} of {arguments.kills} |",
                    flush=True,
                )


def settings(stack: ExitStack) -> Iterator[Setting]:
    """Start each database in turn, and say what to measure on it."""
    from tests.databases import MariadbServer, PostgresqlServer, served

    home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    yield migrated(Setting("`variable`, SQLite", base(home, "variable-sqlite", "variable")))
    file = json.dumps({"conn_type": "sqlite", "host": str(home / "tokens.db")})
    yield Setting("`sql`, SQLite", base(home, "sql", "sql") | {"AIRFLOW_CONN_TOKENS": file})
    postgresql = stack.enter_context(served(PostgresqlServer))
    fields = json.loads(postgresql.connection)
    url = "postgresql+psycopg2://{login}:{password}@{host}:{port}/{schema}".format(**fields)
    database = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url}
    yield migrated(Setting("`variable`, PostgreSQL", base(home, "variable-pg", "variable") | database))
    tokens = {"AIRFLOW_CONN_TOKENS": postgresql.connection}
    yield Setting("`sql`, PostgreSQL", base(home, "sql", "sql") | tokens)
    mariadb = stack.enter_context(served(MariadbServer))
    yield Setting("`sql`, MariaDB", base(home, "sql", "sql") | {"AIRFLOW_CONN_TOKENS": mariadb.connection})


def base(home: Path, name: str, store: str) -> dict[str, str]:
    """Return the environment of an Airflow with a home of its own and a token store."""
    folder = home / name
    folder.mkdir(exist_ok=True)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW_")}
    return inherited | {
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__FERNET_KEY": Fernet.generate_key().decode(),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__FEEDAMP__TOKEN_STORE": store,
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


def run(setting: Setting, post: float, renewals: int, kills: int) -> dict[str, Any]:
    """Measure one line in a process of its own: the windows in seconds, and how many tokens were lost."""
    options = ["--measure", str(post), "--renewals", str(renewals), "--kills", str(kills)]
    command = [sys.executable, "-m", "scripts.custody_window", *options]
    done = subprocess.run(command, env=setting.env, cwd=ROOT, check=False, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith(_PREFIX)]
    if done.returncode or not lines:
        raise SystemExit(f"measuring {setting.name} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(lines[0].removeprefix(_PREFIX))
    return found


def measure(post: float, renewals: int, kills: int) -> None:
    """Be the measuring process: serve FeedAMP, and fork one worker after the other, each of a new seller."""
    from airflow_provider_feedamp.sandbox.server import serve
    from airflow_provider_feedamp.sandbox.settings import SandboxSettings
    from tests.faults.driver import warm_up

    warm_up()  # each worker forks from here with Airflow loaded
    sellers = [f"s{number}" for number in range(renewals + kills)]
    with serve(SandboxSettings(sellers=tuple(sellers))) as sandbox:
        take_time(sandbox, post)
        windows = []
        for seller in sellers[:renewals]:
            with worker(sandbox, seller, renew) as told:
                sent = told.recv()
                windows.append(told.recv() - sent)
        lost = 0
        for seller in sellers[renewals:]:
            with worker(sandbox, seller, renew) as told:
                told.recv()
                time.sleep(random.uniform(0, statistics.median(windows)))  # noqa: S311 - no secret
            time.sleep(post)  # FeedAMP goes on with what it was sent
            with worker(sandbox, seller, read) as told:
                lost += told.recv() not in sandbox.control.refresh_tokens(seller)
    print(_PREFIX + json.dumps({"windows": windows, "lost": lost}), flush=True)


def take_time(sandbox: RunningSandbox, post: float) -> None:
    """Have FeedAMP take half of the time before it replaces a refresh token, and half of it afterwards."""
    desk = sandbox.state.tokens
    refresh = desk.refresh

    def late(refresh_token: str) -> Any:
        time.sleep(post / 2)  # the server's only thread; it has nothing else to do
        return refresh(refresh_token)

    desk.refresh = late  # type: ignore[method-assign]
    sandbox.control.fault("slow", on="token", seconds=post / 2, times=None)


@contextmanager
def worker(
    sandbox: RunningSandbox, seller: str, work: Callable[[Any, Connection], None]
) -> Iterator[Connection]:
    """Fork a worker of one seller and yield what it tells; when the block is left, it is killed."""
    from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

    if work is renew:
        sandbox.control.connect(seller)
        os.environ["AIRFLOW_CONN_FEEDAMP_DEFAULT"] = json.dumps(sandbox.connection(seller))
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=lambda: work(FeedAmpHook()._custodian, theirs))
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        process.kill()
        process.join()


def renew(custodian: TokenCustodian, pipe: Connection) -> None:
    """Renew, and tell when the request is sent and when the new pair is stored."""
    fields = dataclasses.fields(TokenEndpoint)
    endpoint = Telling(**{each.name: getattr(custodian.endpoint, each.name) for each in fields}, pipe=pipe)
    dataclasses.replace(custodian, store=Timed(opened(custodian.store), pipe), endpoint=endpoint).token()


def read(custodian: TokenCustodian, pipe: Connection) -> None:
    """Tell which refresh token is stored."""
    record = custodian.record()
    pipe.send(record.refresh_token if record else None)


def opened(store: TokenStore) -> TokenStore:
    """Return the store; that on Variables without its settling time, which one worker alone needs not."""
    from airflow_provider_feedamp.tokens.timed_lease import Timing
    from airflow_provider_feedamp.tokens.variable_store import VariableStore

    if isinstance(store, VariableStore):
        return VariableStore(timing=Timing(bound=10.0, settle=0.0))
    return store


@dataclasses.dataclass(frozen=True)
class Telling(TokenEndpoint):
    """A token endpoint that tells when a request is about to be sent."""

    pipe: Connection | None = None

    def refresh(self, refresh_token: str) -> Any:
        """Tell the time, and spend the refresh token."""
        assert self.pipe  # noqa: S101 - a program for developers
        self.pipe.send(time.monotonic())
        return super().refresh(refresh_token)


class Timed:
    """A store that tells when it has acknowledged a new pair."""

    def __init__(self, store: TokenStore, pipe: Connection) -> None:
        self._store = store
        self._pipe = pipe

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write(self, record: Any, *, expected: int | None) -> Any:
        """Write, and tell the time if this was a new pair."""
        written = self._store.write(record, expected=expected)
        if record.access_token and record.state == "active" and record.attempt is None:
            self._pipe.send(time.monotonic())
        return written


if __name__ == "__main__":
    main()
