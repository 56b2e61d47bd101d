from __future__ import annotations

import logging
import os
import signal
import threading

import pytest

from airflow_provider_feedamp.api import http
from airflow_provider_feedamp.api.http import Pacer, pacer_for


class Clock:
    """A clock that goes on when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_first_call_does_not_wait(clock: Clock) -> None:
    Pacer(2, clock=clock, sleep=clock.sleep).wait()
    assert clock.slept == []


def test_calls_are_spaced_evenly(clock: Clock) -> None:
    pacer = Pacer(2, clock=clock, sleep=clock.sleep)
    for _ in range(4):
        pacer.wait()
    assert clock.slept == [0.5, 0.5, 0.5]


def test_a_call_that_comes_late_enough_does_not_wait(clock: Clock) -> None:
    pacer = Pacer(2, clock=clock, sleep=clock.sleep)
    pacer.wait()
    clock.now += 0.5
    pacer.wait()
    assert clock.slept == []


def test_a_pause_saves_up_no_burst(clock: Clock) -> None:
    pacer = Pacer(2, clock=clock, sleep=clock.sleep)
    pacer.wait()
    clock.now += 60
    for _ in range(3):
        pacer.wait()
    assert clock.slept == [0.5, 0.5]


def test_threads_get_a_slot_each() -> None:
    slept: list[float] = []
    pacer = Pacer(10, clock=lambda: 0.0, sleep=slept.append)
    threads = [threading.Thread(target=pacer.wait) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(slept) == pytest.approx([number / 10 for number in range(1, 20)])


def test_nobody_is_kept_from_taking_a_slot_while_another_waits() -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 1:
            pacer.wait()  # would never end if the sleeper held the lock

    pacer = Pacer(1, clock=lambda: 0.0, sleep=sleep)
    pacer.wait()
    pacer.wait()
    assert slept == [1.0, 2.0]


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]


def test_waits_show_in_the_log_once_they_add_up(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    pacer = Pacer(0.5, clock=clock, sleep=clock.sleep)
    for _ in range(3):
        pacer.wait()
    assert lines(caplog) == []
    pacer.wait()
    assert lines(caplog) == [
        "Calls wait to keep to 0.5 requests per second: 6.0 s in all since the last such line"
    ]


def test_many_waits_show_in_the_log_once_a_minute(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    pacer = Pacer(2, clock=clock, sleep=clock.sleep)
    for _ in range(300):
        pacer.wait()
    assert [line.split(": ")[1].split()[0] for line in lines(caplog)] == ["5.0", "60.0", "60.0"]


def test_one_key_has_one_pacer_in_the_process() -> None:
    assert pacer_for(("host", "acme"), 2) is pacer_for(("host", "acme"), 2)
    assert pacer_for(("host", "acme"), 2) is not pacer_for(("host", "globex"), 2)


def test_the_latest_rate_of_a_key_holds() -> None:
    pacer = pacer_for("changing", 2)
    pacer_for("changing", 5)
    assert pacer is not None
    assert pacer.requests_per_second == 5


def test_a_child_process_does_not_wait_for_a_lock_that_its_parent_held() -> None:
    pacer = pacer_for("forked", 1000)
    assert pacer is not None
    with pacer._lock, http._pacers_lock:
        child = os.fork()
        if child == 0:
            signal.alarm(10)  # a child that waits for ever is ended, and its status says so
            pacer.wait()
            os._exit(0 if pacer_for("forked", 1000) is pacer else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_without_a_rate_there_is_no_pacer() -> None:
    assert pacer_for("unpaced", None) is None
