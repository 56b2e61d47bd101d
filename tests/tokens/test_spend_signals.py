"""A signal in the middle of a spend loses nothing: SIGTERM, and the SIGALRM of execution_timeout."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync

from airflow_provider_feedamp.tokens.cache import CACHE
from airflow_provider_feedamp.tokens.records import RecordState, TokenRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.tokens.custody import Bench


class Interrupted(Exception):
    pass


@contextmanager
def raising(number: signal.Signals) -> Iterator[None]:
    """Let a signal raise in the main thread, as Airflow does at its time-outs and when a task is ended."""

    def handler(signum: int, frame: Any) -> None:
        raise Interrupted

    former = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, former)


@pytest.mark.parametrize("number", [signal.SIGALRM, signal.SIGTERM])
@pytest.mark.parametrize("state", [RecordState.REFRESHING, RecordState.ACTIVE])
def test_a_signal_while_the_record_is_written_loses_nothing(
    bench: Bench, number: signal.Signals, state: RecordState
) -> None:
    custodian = bench.seeded()

    def at_that_moment(record: TokenRecord) -> None:
        if record.state is state:
            os.kill(os.getpid(), number)
            time.sleep(0.05)

    bench.store.before_write = at_that_moment
    with raising(number), pytest.raises(Interrupted):
        custodian.token()

    assert (bench.posts(), bench.whole()) == (1, True)
    assert bench.record().state is RecordState.ACTIVE
    CACHE.clear()
    assert not custodian.token().renewed


@pytest.mark.parametrize("number", [signal.SIGALRM, signal.SIGTERM])
def test_a_signal_while_the_answer_is_awaited_loses_nothing(bench: Bench, number: signal.Signals) -> None:
    custodian = bench.seeded()
    bench.control.fault("slow", seconds=0.4)
    timer = threading.Timer(0.15, os.kill, (os.getpid(), number))

    with raising(number):
        timer.start()
        with pytest.raises(Interrupted):
            custodian.token()

    assert (bench.posts(), bench.whole(), bench.record().state) == (1, True, RecordState.ACTIVE)


def test_a_signal_while_another_thread_renews_ends_the_waiting(bench: Bench) -> None:
    custodian = bench.seeded(lock_wait=60.0)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))
    began = time.monotonic()

    with bench.slot().lock, raising(signal.SIGTERM):
        timer.start()
        with pytest.raises(Interrupted):
            custodian.token()

    assert time.monotonic() - began < 20
    assert bench.posts() == 0


@pytest.mark.parametrize("number", [signal.SIGALRM, signal.SIGTERM])
def test_a_signal_while_a_store_hangs_ends_the_waiting_and_nothing_is_spent(
    bench: Bench, number: signal.Signals
) -> None:
    custodian = bench.seeded()
    timer = threading.Timer(0.2, os.kill, (os.getpid(), number))
    bench.store.inside = lambda: time.sleep(60)  # the last thing before the record is read again
    began = time.monotonic()

    with raising(number):
        timer.start()
        with pytest.raises(Interrupted):
            custodian.token()

    assert time.monotonic() - began < 20
    assert (bench.posts(), bench.store.records) == (0, {})
    bench.store.inside = lambda: None
    assert custodian.token().renewed  # neither the slot nor the store's lock is left behind


def test_a_call_on_the_event_loop_raises_what_airflow_raises_there_and_does_not_hang(bench: Bench) -> None:
    """A task's look-ups may not be made on the loop that answers them; Airflow's own calls raise."""
    custodian = bench.seeded()

    async def answered() -> None:
        """What a look-up of Airflow's needs the loop for."""

    def look_up() -> None:
        async_to_sync(answered)()

    async def on_the_loop() -> None:
        bench.store.inside = look_up
        custodian.token()

    with pytest.raises(RuntimeError, match="async event loop"):
        asyncio.run(asyncio.wait_for(on_the_loop(), 20))

    assert bench.posts() == 0


def test_a_signal_while_the_lock_is_awaited_ends_the_waiting(bench: Bench) -> None:
    custodian = bench.seeded(lock_wait=60.0)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))
    began = time.monotonic()

    with (
        bench.store.lock(bench.key(), wait=0, stop=threading.Event()),
        raising(signal.SIGTERM),
    ):
        timer.start()
        with pytest.raises(Interrupted):
            custodian.token()

    assert time.monotonic() - began < 20
    assert bench.posts() == 0
