"""Show the main job from end to end: a real Airflow imports an order file into a local FeedAMP.

`make demo` runs this. Everything it makes is in .demo/, and everything it starts has ended when it ends.
The last line is one JSON object with the figures; when something went wrong, the last line says what, and the
exit code is not 0.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import requests

from airflow_provider_feedamp.sandbox.__main__ import write_orders
from scripts.demo_bar import following
from scripts.processes import started
from scripts.versions import ROOT

OWN_FOLDER = ROOT / ".demo"
DEMO = Path(os.environ.get("FEEDAMP_DEMO_HOME", OWN_FOLDER)).resolve()
ORDERS = DEMO / "orders.ndjson"
REJECTS = DEMO / "rejects.ndjson"
READY = DEMO / "sandbox-ready.json"
AIRFLOW_LOG = DEMO / "airflow.log"
SANDBOX_LOG = DEMO / "sandbox.log"
DAG_ID = "feedamp_order_import"
PLACE_TASK = "place_orders"
SELLER = "hooli"
WIDTH = 150  # columns
BIN = Path(sys.prefix) / "bin"
SANDBOX_PATIENCE = 30.0  # seconds
# A line of Airflow's log on a terminal that is none: time, level, text, logger, the rest.
LOG_LINE = re.compile(
    r"^\S+T(?P<time>[\d:]{8})\S* \[(?P<level>\w+) *\] (?P<text>.*?) +\[(?P<logger>[\w.]+)\]"
)
RUNNING_TASK = re.compile(r"\[DAG TEST\] running task <TaskInstance: [^.]+\.(?P<task>\S+)")


class DemoError(Exception):
    """Something in the demo went wrong; the message says what and where to look."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What the task counted, and what FeedAMP saw."""

    counts: dict[str, Any]
    token_posts: int
    order_calls: int

    def rows(self) -> dict[str, int]:
        """Return the figures by the names under which they are shown."""
        names = ("read", "placed", "inserted", "updated", "rejected")
        counted = {name: int(self.counts[name]) for name in names}
        return {**counted, "token_posts": self.token_posts, "order_calls": self.order_calls}


def airflow_settings() -> dict[str, str]:
    """Return the environment of a private Airflow: SQLite in .demo/, our example DAGs and nothing else."""
    return {
        **os.environ,
        "AIRFLOW_HOME": str(DEMO),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "example_dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{DEMO / 'airflow.db'}",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "PYTHONUNBUFFERED": "1",
    }


def wait_until_ready(sandbox: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Return the sandbox's address and connections once it serves."""
    deadline = time.monotonic() + SANDBOX_PATIENCE
    while time.monotonic() < deadline and sandbox.poll() is None:
        if READY.exists() and (text := READY.read_text()):
            ready: dict[str, Any] = json.loads(text)
            return ready
        time.sleep(0.05)
    raise DemoError(f"the sandbox did not start; see {shown(SANDBOX_LOG)}")


def migrate(settings: dict[str, str]) -> None:
    """Make Airflow's database."""
    log = DEMO / "migrate.log"
    with (
        log.open("wb") as output,
        started([str(BIN / "airflow"), "db", "migrate"], settings, output) as process,
    ):
        if process.wait():
            raise DemoError(f"`airflow db migrate` failed; see {shown(log)}")


def run_dag(settings: dict[str, str], base_url: str) -> None:
    """Run the example DAG to its end, showing the essence of its log as it comes, and a bar on a terminal."""
    conf = json.dumps({"source": str(ORDERS), "rejects": str(REJECTS), "seller": SELLER})
    command = [str(BIN / "airflow"), "dags", "test", DAG_ID, "--conf", conf]
    with (
        AIRFLOW_LOG.open("w", encoding="utf-8") as log,
        started(command, settings, subprocess.PIPE) as process,
        following(base_url, SELLER, ORDERS, REJECTS) as show_line,
    ):
        for raw in process.stdout or ():
            line = raw.decode(errors="replace")
            log.write(line)
            if essence := essential(line):
                show_line(fit(f"  {essence}"))
        code = process.wait()
    state = scalar("select state from dag_run where dag_id = ? order by id desc", DAG_ID)
    if code or state != "success":
        raise DemoError(f"the DAG {DAG_ID} ended as {state or 'not run'}; see {shown(AIRFLOW_LOG)}")


def fit(text: str) -> str:
    """Return a line that fits a terminal, with paths as seen from the demo's folder."""
    text = text.replace(f"{DEMO}/", "")
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 4]} ..."


def essential(line: str) -> str:
    """Return what a person wants to see of a log line: tasks as they start, our own words, and errors."""
    found = LOG_LINE.match(line)
    if not found:
        return ""
    if task := RUNNING_TASK.search(line):
        return f"{found['time']}  task {task['task']}"
    ours = "airflow_provider_feedamp" in found["logger"]
    if found["level"] in ("error", "critical") or (ours and found["level"] != "debug"):
        return f"{found['time']}    {found['text'].strip()}"
    return ""


def scalar(query: str, *values: str) -> Any:
    """Return the first value of a query on the demo's Airflow database, or None."""
    connection = sqlite3.connect(DEMO / "airflow.db")
    try:
        row = connection.execute(query, values).fetchone()
    finally:
        connection.close()
    return row[0] if row else None


def gather(base_url: str) -> Figures:
    """Return the task's own counts, from its XCom, beside the sandbox's."""
    query = "select value from xcom where dag_id = ? and task_id = ? and key = 'return_value'"
    counts = scalar(query, DAG_ID, PLACE_TASK)
    if counts is None:
        raise DemoError(f"the task {PLACE_TASK} returned no counts; see {shown(AIRFLOW_LOG)}")
    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(urljoin(base_url, "/_sandbox/counters"), json={}, timeout=10)
        answer.raise_for_status()
        seen = answer.json()
    return Figures(json.loads(counts), seen["token_posts"], sum(seen["calls"].values()))


def check(figures: Figures, bad: int) -> None:
    """Compare what was counted with what the file holds: nothing lost, nothing twice."""
    rows = figures.rows()
    lines = len(ORDERS.read_text(encoding="utf-8").splitlines())
    rejects = len(REJECTS.read_text(encoding="utf-8").splitlines()) if REJECTS.exists() else 0
    wanted = {"read": lines, "placed": lines - bad, "rejected": bad}
    if any(rows[name] != value for name, value in wanted.items()) or rejects != bad:
        raise DemoError(
            f"the figures do not add up: expected {wanted}, got {rows}, and {rejects} lines of rejects"
        )


def show(figures: Figures) -> None:
    """Print the table, the first reject and where the rest is."""
    print("\nWhat happened")
    for name, value in figures.rows().items():
        print(f"  {name.replace('_', ' '):<12} {value:>6}")
    first = json.loads(REJECTS.read_text(encoding="utf-8").splitlines()[0])
    print(f"\nThe first reject: line {first['line']}, order {first['mp_order_number']}")
    print(f"  {first['reason']}")
    print(f"All rejects, whole and with reasons: {shown(REJECTS)} (correct it and import it)")
    print(f"Airflow's whole log: {shown(AIRFLOW_LOG)}\n")


def shown(path: Path) -> str:
    """Return a path as a person in the checkout would type it."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def run() -> None:
    """Run the demo."""
    begun = time.monotonic()
    if DEMO == OWN_FOLDER:
        shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir(exist_ok=True)
    bad = write_orders(ORDERS, 300, bad=True)
    print(f"Order file: {shown(ORDERS)}, {len(ORDERS.read_text().splitlines())} lines, {bad} of them bad")
    settings = airflow_settings()
    command = [*(str(BIN / "python"), "-m", "airflow_provider_feedamp.sandbox", "--port", "0")]
    command += ["--seller", SELLER, "--ready-file", str(READY)]
    with SANDBOX_LOG.open("wb") as log, started(command, settings, log) as sandbox:
        ready = wait_until_ready(sandbox)
        print(f"Local FeedAMP: {ready['base_url']}, seller {SELLER}")
        settings["AIRFLOW_CONN_FEEDAMP_DEFAULT"] = json.dumps(ready["connections"][SELLER])
        print("Airflow: making its database (SQLite) ...", flush=True)
        migrate(settings)
        print(f"Airflow: running the DAG {DAG_ID}", flush=True)
        run_dag(settings, ready["base_url"])
        figures = gather(ready["base_url"])
    check(figures, bad)
    show(figures)
    print(json.dumps({**figures.rows(), "seconds": round(time.monotonic() - begun, 1)}))


def stop(number: int, _frame: object) -> None:
    """Leave through the context managers, so that what was started ends."""
    raise SystemExit(128 + number)


def main() -> None:
    """Run the demo, and say so when it fails."""
    signal.signal(signal.SIGTERM, stop)
    # A shell starts what it puts into the background with this signal ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run()
    except KeyboardInterrupt:
        print("\nThe demo was interrupted; what it had started has ended.")
        sys.exit(130)
    except DemoError as error:
        sys.exit(f"\nThe demo FAILED: {error}")


if __name__ == "__main__":
    main()
