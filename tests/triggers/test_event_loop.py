"""Hundreds of triggers wait for a slow FeedAMP, and the event loop that they share stays quick.

``python -m tests.triggers.test_event_loop 200 1.0 2`` shows the figures for 200 triggers, answers that take a
second, and two polls each.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.request import ProxyHandler, build_opener

import pytest

from airflow_provider_feedamp.tokens.cache import CACHE
from airflow_provider_feedamp.tokens.store import open_store
from airflow_provider_feedamp.triggers import polling
from airflow_provider_feedamp.triggers.polling import FeedAmpPollingTrigger
from tests.house import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.once

TICK = 0.005  # seconds
#: Seconds that FeedAMP takes for each answer.
ANSWER = 0.1


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of a run.

    The worst lag of the event loop, in seconds, is a figure for a quiet machine (docs/sensors.md): other work
    can stop the whole process. ``turns`` is how often it came round while FeedAMP worked on one answer.
    """

    events: list[dict[str, Any]]
    worst_lag: float
    turns: float
    seconds: float
    posts: int


@contextmanager
def slow_server(seconds: float, asked: int) -> Iterator[int]:
    command = [sys.executable, "-m", "tests.triggers.slow_server", str(seconds), str(asked)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def measure(triggers: int, seconds: float, asked: int) -> Measured:
    """Run so many triggers against a server that takes so many seconds, asked so many times by each."""
    CACHE.clear()
    open_store.cache_clear()
    polling._clients.clear()
    with slow_server(seconds, asked) as port, pytest.MonkeyPatch.context() as patch:
        connection = {
            "conn_type": "feedamp",
            "host": f"http://127.0.0.1:{port}/api/v1",
            "login": "client",
            "password": "client-secret",
            "extra": {"refresh_token": "first-token"},
        }
        patch.setenv("AIRFLOW_CONN_FEEDAMP_SLOW", json.dumps(connection))
        patch.setenv("AIRFLOW__FEEDAMP__TOKEN_STORE", "memory")
        patch.setenv("NO_PROXY", "127.0.0.1")
        begun = time.monotonic()
        events, lags = asyncio.run(_run(triggers))
        took = time.monotonic() - begun
        answer = build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{port}/posts")
        return Measured(events, max(lags), len(lags) * seconds / took, took, json.load(answer)["posts"])


async def _run(count: int) -> tuple[list[dict[str, Any]], list[float]]:
    def trigger(number: int) -> FeedAmpPollingTrigger:
        return FeedAmpPollingTrigger(
            condition="FulfilledOrders",
            arguments={"mp_order_numbers": [f"A{number}"]},
            deadline="2126-01-01T00:00:00+00:00",
            feedamp_conn_id="feedamp_slow",
            poll_interval=0.1,
        )

    lags: list[float] = []
    ticker = asyncio.create_task(_tick(lags))
    events = await asyncio.gather(*(trigger(number)._outcome() for number in range(count)))
    ticker.cancel()
    return events, lags


async def _tick(lags: list[float]) -> None:
    while True:
        due = time.perf_counter() + TICK
        await asyncio.sleep(TICK)
        lags.append(time.perf_counter() - due)


def test_200_triggers_do_not_hold_up_the_event_loop_and_share_one_token() -> None:
    measured = measure(200, ANSWER, 1)

    assert [event["found"] for event in measured.events] == [[f"A{number}"] for number in range(200)]
    assert measured.turns > 3
    assert measured.posts == 1


def test_a_call_on_the_event_loop_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def on_the_loop(key: object, work: Any) -> Any:
        return work()

    monkeypatch.setattr(polling, "in_thread", on_the_loop)

    assert measure(20, ANSWER, 1).turns < 3


if __name__ == "__main__":
    os.environ.setdefault("AIRFLOW__CORE__UNIT_TEST_MODE", "True")
    figures = measure(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
    print(
        f"{len(figures.events)} triggers: worst lag {figures.worst_lag * 1000:.0f} ms, "
        f"{figures.posts} token call, {figures.seconds:.1f} s"
    )
