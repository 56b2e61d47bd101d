"""The demo is the product in one command: it runs, adds up, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts.demo_bar import following
from tests.house import ROOT
from tests.sandbox.caller import Caller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_feedamp.sandbox.server import RunningSandbox

pytestmark = pytest.mark.once
COMMAND = [sys.executable, "-m", "scripts.demo"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "home"


@pytest.fixture(scope="module")
def shown(home: Path) -> str:
    answer = subprocess.run(
        COMMAND, cwd=ROOT, env=settings(home), capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def settings(home: Path) -> dict[str, str]:
    return {**os.environ, "FEEDAMP_DEMO_HOME": str(home)}


def running_with(text: str) -> list[str]:
    """Return the command lines of the processes that name a text."""
    return [line for line in command_lines() if text in line]


def command_lines() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")


def test_its_last_line_accounts_for_every_order(shown: str) -> None:
    figures = json.loads(shown.splitlines()[-1])

    assert figures["read"] == figures["placed"] + figures["rejected"] == 308
    assert figures["rejected"] == 8
    assert figures["token_posts"] == 1


def test_it_shows_the_first_reject_and_where_all_are(shown: str, home: Path) -> None:
    first = json.loads((home / "rejects.ndjson").read_text(encoding="utf-8").splitlines()[0])

    assert first["reason"] in shown
    assert f"{home.name}/rejects.ndjson" in shown


@pytest.mark.usefixtures("shown")
def test_it_leaves_no_process(home: Path) -> None:
    assert running_with(str(home)) == []


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_ends_what_it_started(tmp_path: Path, which: signal.Signals) -> None:
    with subprocess.Popen(
        COMMAND, cwd=ROOT, env=settings(tmp_path), stdout=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout
        for line in demo.stdout:
            if line.startswith("Airflow:"):
                break
        assert running_with(str(tmp_path)) != []
        demo.send_signal(which)
        demo.communicate(timeout=30)

    assert demo.returncode not in (0, None)
    assert running_with(str(tmp_path)) == []


def test_a_failure_is_said_and_is_the_exit_code(tmp_path: Path) -> None:
    blocked = {
        **settings(tmp_path),
        "AIRFLOW__FEEDAMP__TOKEN_STORE": "no.such.Store",
    }
    answer = subprocess.run(COMMAND, cwd=ROOT, env=blocked, capture_output=True, text=True, check=False)

    assert answer.returncode == 1
    assert "The demo FAILED: the DAG feedamp_order_import ended as failed" in answer.stderr


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("out", [Terminal(), io.StringIO()], ids=["terminal", "pipe"])
def test_on_a_terminal_a_bar_follows_the_import_below_the_lines(
    sandbox: RunningSandbox, tmp_path: Path, out: io.StringIO
) -> None:
    (tmp_path / "orders").write_text("one\ntwo\nbad\n")
    (tmp_path / "rejects").write_text("bad\n")
    caller = Caller(sandbox, "hooli")
    caller.place("one")

    with following(sandbox.base_url, "hooli", tmp_path / "orders", tmp_path / "rejects", out) as write_line:
        until(lambda: "2 of about 3" in out.getvalue() or not out.isatty())
        write_line("a line")
        caller.place("two")
        until(lambda: "3 of about 3" in out.getvalue() or not out.isatty())

    text = out.getvalue()
    assert "a line\n" in text
    assert out.isatty() or text == "a line\n"
    assert not out.isatty() or ("] 100%  3 of about 3" in text and "1 rejected" in text)


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)
