"""A process that runs triggers is told to end while it spends a refresh token: it stores the answer first."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.sandbox.server import RunningSandbox, serve
from airflow_provider_feedamp.sandbox.settings import SandboxSettings
from airflow_provider_feedamp.triggers import polling
from tests.airflow_runs import FERNET_KEY
from tests.house import ROOT
from tests.sandbox.caller import Caller

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.once

POST = 1.0  # seconds


@pytest.fixture
def feedamp() -> Iterator[RunningSandbox]:
    """A FeedAMP whose access tokens are over when they are there, and that is slow to hand them out."""
    with serve(SandboxSettings(access_token_ttl=1, rotation="revoke_family")) as sandbox:
        Caller(sandbox, "hooli").place("A")
        yield sandbox


@pytest.fixture
def environment(feedamp: RunningSandbox, tmp_path: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    return {
        **inherited,
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__FERNET_KEY": FERNET_KEY,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__FEEDAMP__TOKEN_STORE": "sql",
        "AIRFLOW__FEEDAMP__TOKEN_STORE_CONN_ID": "tokens",
        "AIRFLOW_CONN_TOKENS": json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "tokens.db")}),
        "AIRFLOW_CONN_FEEDAMP_DEFAULT": json.dumps(feedamp.connection("hooli")),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


def runner(handling: str, environment: dict[str, str], event: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.triggers.runner", handling, str(event)]
    return subprocess.Popen(command, cwd=ROOT, env=environment)


@pytest.mark.parametrize(
    ("handling", "signals"),
    [
        ("dies", [signal.SIGTERM, signal.SIGINT]),
        ("notes", [signal.SIGINT]),
        ("notes", [signal.SIGTERM, signal.SIGINT, signal.SIGTERM]),
    ],
)
def test_the_renewal_under_way_is_stored_and_no_other_begins(
    feedamp: RunningSandbox,
    environment: dict[str, str],
    tmp_path: Path,
    handling: str,
    signals: list[signal.Signals],
) -> None:
    event = tmp_path / "event.json"
    feedamp.control.fault("slow", on="token", seconds=POST, times=None)
    with runner(handling, environment, event) as ending:
        while not feedamp.control.counters()["faults"] and ending.poll() is None:
            time.sleep(0.02)  # another process works
        for which in signals:
            ending.send_signal(which)
            time.sleep(0.05)
        ended = ending.wait(60)

    assert ended in ({0} if handling == "notes" else {-which for which in signals})
    assert not event.exists()
    # The marketplace of the fixture has had one as well.
    assert feedamp.control.counters()["tokens"] == {"refresh_token": {"issued": 2}}

    feedamp.control.clear_faults()
    feedamp.control.ship("hooli", "A")
    with runner("notes", environment, event) as next_one:
        next_one.wait(60)

    assert json.loads(event.read_text(encoding="utf-8"))["found"] == ["A"]
    assert set(feedamp.control.counters()["tokens"]["refresh_token"]) == {"issued"}


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_a_process_that_lives_on_after_ctrl_c_keeps_its_handler(handler: Any) -> None:
    """A shell raises KeyboardInterrupt; what was started in the background by a script ignores it."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        asyncio.run(polling.in_thread(("feedamp_default", None), time.monotonic))

        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_nobody_polls_or_keeps_a_mark_in_a_process_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async def paused() -> None:
        await asyncio.wait_for(polling.pause(0), 0.1)

    asyncio.run(paused())
    monkeypatch.setattr(polling._Ending, "begun", True)

    with pytest.raises(TimeoutError):
        asyncio.run(paused())
