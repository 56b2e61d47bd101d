"""A run in a thread of its own, and what a signal to the main thread does to it."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.bulk import threads as threads_module
from airflow_provider_feedamp.bulk.threads import Stop, run_apart
from airflow_provider_feedamp.exceptions import StoppedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

pytestmark = pytest.mark.once
PATIENCE = 10.0


class Interrupted(BaseException):
    """What Airflow's handlers raise, in principle."""


@pytest.fixture
def on_alarm() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Have something done when SIGALRM arrives."""
    before = signal.getsignal(signal.SIGALRM)

    def install(handler: Callable[[], None]) -> None:
        def handle(number: int, frame: FrameType | None) -> None:
            handler()

        signal.signal(signal.SIGALRM, handle)

    yield install
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def raise_interrupted() -> None:
    raise Interrupted


def waiting_for(stop: Stop, ends: list[str]) -> Callable[[], str]:
    def work() -> str:
        deadline = time.monotonic() + PATIENCE
        while not stop.requested and time.monotonic() < deadline:
            """Work."""
        ends.append("in order")
        return "done"

    return work


def test_it_returns_what_the_work_returns_in_the_context_of_the_caller() -> None:
    variable = ContextVar("variable", default=0)
    variable.set(7)

    def work() -> tuple[int, str]:
        return variable.get(), threading.current_thread().name

    assert run_apart(work, Stop()) == (7, "feedamp-import")


def test_it_raises_what_the_work_raises() -> None:
    def work() -> None:
        raise ZeroDivisionError("broken")

    with pytest.raises(ZeroDivisionError, match="broken"):
        run_apart(work, Stop())


def test_a_handler_that_raises_stops_the_work_and_comes_out_when_it_has_ended(on_alarm: Any) -> None:
    stop, ends = Stop(), list[str]()
    on_alarm(raise_interrupted)
    signal.setitimer(signal.ITIMER_REAL, 0.05)

    with pytest.raises(Interrupted):
        run_apart(waiting_for(stop, ends), stop)

    assert ends == ["in order"]


def test_a_handler_that_requests_a_stop_lets_the_work_end_as_it_does(on_alarm: Any) -> None:
    stop, ends = Stop(), list[str]()
    on_alarm(stop.request)
    signal.setitimer(signal.ITIMER_REAL, 0.05)

    assert run_apart(waiting_for(stop, ends), stop) == "done"


@pytest.mark.parametrize(("handler", "error"), [(raise_interrupted, Interrupted), (None, StoppedError)])
def test_work_that_does_not_stop_is_left_alone(
    on_alarm: Any, monkeypatch: pytest.MonkeyPatch, handler: Any, error: type[BaseException]
) -> None:
    monkeypatch.setattr(threads_module, "PATIENCE", 0.1)
    stop, release = Stop(), threading.Event()
    on_alarm(handler or stop.request)
    signal.setitimer(signal.ITIMER_REAL, 0.05)

    with pytest.raises(error):
        run_apart(lambda: release.wait(PATIENCE), stop)
    release.set()


def test_a_signal_at_any_moment_neither_cuts_the_work_nor_hangs(on_alarm: Any) -> None:
    rng = random.Random(2)
    on_alarm(raise_interrupted)
    outcomes = set()

    for _ in range(300):
        stop, steps = Stop(), list[int]()

        def work(stop: Stop = stop, steps: list[int] = steps) -> None:
            for step in range(200):
                if stop.requested:
                    return
                steps.append(step)
                steps.append(-step)

        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 2e-3))
                run_apart(work, stop)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            outcomes.add("done")
        except Interrupted:
            outcomes.add("interrupted")
        assert sum(steps) == 0  # no step was left half done

    assert outcomes == {"done", "interrupted"}


def test_a_stop_may_be_requested_in_the_middle_of_a_stop(on_alarm: Any) -> None:
    stop = Stop()
    on_alarm(stop.request)

    for _ in range(2000):
        os.kill(os.getpid(), signal.SIGALRM)
        stop.request()

    assert stop.requested
    assert stop.left(5.0) < 5.0
