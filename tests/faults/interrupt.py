"""Renews a token again and again, each time in a process that a signal interrupts at a random moment."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from statistics import median
from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.sandbox.control import SandboxControl
from airflow_provider_feedamp.tokens.cache import CACHE
from airflow_provider_feedamp.tokens.timed_lease import Timing
from airflow_provider_feedamp.tokens.variable_store import VariableStore
from tests.faults.worker import hook

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from types import FrameType

#: How a run ends: the renewal was over first; it was interrupted outside the protected part, or inside it.
LATE, OUTSIDE, INSIDE = 0, 11, 12
#: Renewals before the signals begin: they tell how long one takes.
_MEASURED = 5
#: How many of the last renewals tell it later on.
_LATELY = 9


class HastyVariableStore(VariableStore):
    """The ``variable`` store for one worker at a time, which need not wait for others' leases."""

    def __init__(self, conn_id: str | None = None) -> None:
        super().__init__(timing=Timing(bound=3.0, settle=0.0))


class Interrupted(BaseException):
    """What Airflow's handlers of SIGTERM and of ``execution_timeout`` raise, in principle."""


def runs(job: dict[str, Any]) -> dict[str, Any]:
    """Make the runs, and say after which of them the store held no token that FeedAMP accepts."""
    hook(job).get_access_token()
    CACHE.clear()  # what the runs inherit is an empty cache, as a new process has
    control, seller = SandboxControl(job["connection"]["host"]), job["connection"]["extra"]["seller"]
    rng = random.Random(seller)
    ends = {LATE: 0, OUTSIDE: 0, INSIDE: 0}
    lost, times = list[int](), list[float]()
    for number in range(-_MEASURED, job["runs"] + 1):
        measured = number < 0 or number == job["runs"]  # the last one looks at what the last but one left
        after = None if measured else rng.uniform(0, median(times[-_LATELY:]))
        found, end, took = one(job, after, control, seller)
        if not found:
            lost.append(number - 1)
        if end != OUTSIDE:  # it went on to its end: at the pace of now, other work comes and goes
            times.append(took)
        if not measured:
            ends[end] += 1
    return {"lost": lost, "late": ends[LATE], "outside": ends[OUTSIDE], "inside": ends[INSIDE]}


def one(
    job: dict[str, Any], after: float | None, control: SandboxControl, seller: str
) -> tuple[bool, int, float]:
    """Renew in a process of its own, with a signal some seconds after it began.

    :return: Whether it found a refresh token that FeedAMP accepts, how it ended, and seconds that it took.
    """
    number = signal.Signals[job["number"]]
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=interrupted, args=(job, number, after, theirs))
    process.start()
    found = ours.recv() in control.refresh_tokens(seller)
    began = time.monotonic()
    ours.send("go on")
    if after is not None and number is signal.SIGTERM:
        process.join(after)
        if process.exitcode is None:
            os.kill(process.pid or 0, number)
    process.join()
    assert process.exitcode is not None
    return found, process.exitcode, time.monotonic() - began


def interrupted(job: dict[str, Any], number: signal.Signals, after: float | None, pipe: Connection) -> None:
    """Be the process: say what is stored, renew the token, and end in order, signal or not."""
    custodian = hook(job)._custodian
    record = custodian.record()
    assert record is not None
    came: list[int] = []

    def handler(signum: int, frame: FrameType | None) -> None:
        caller = sys._getframe(2).f_code.co_name  # a signal that was deferred is passed on at the end
        came.append(INSIDE if caller == "lower" else OUTSIDE)
        raise Interrupted

    signal.signal(number, handler)
    try:
        pipe.send(record.refresh_token)
        pipe.recv()
        if after is not None and number is signal.SIGALRM:
            signal.setitimer(signal.ITIMER_REAL, max(after, 1e-4))
        custodian.replace(record.access_token or "")
        signal.signal(number, signal.SIG_IGN)
    except Interrupted:
        signal.signal(number, signal.SIG_IGN)
    raise SystemExit(came[0] if came else LATE)
