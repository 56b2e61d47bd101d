"""Keeps signals, and the end of the process, out of a section that must not be cut.

SIGTERM, SIGINT and Airflow's ``execution_timeout`` (SIGALRM) raise in the main thread, between any two
instructions. A :class:`Shield` puts handlers of its own in their place: while it is up they only take note,
and what was noted is raised when it comes down. Other threads never see a signal; what can cut those is the
end of the process, which waits for the sections in flight.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_feedamp.exceptions import TokenBusyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

T = TypeVar("T")

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGHUP)
#: Seconds of one wait: a signal does not end the wait for a lock, its handler runs at the next turn.
_SLICE = 0.05
#: Seconds that the interpreter's end waits for sections in other threads: two POSTs and their writes.
_LONGEST = 60.0


class Shield:
    """Defers signals in the main thread while it is ``up``; in other threads there is nothing to defer.

    As a context manager it puts its handlers in place, and begins ``up``. Where ``up`` is set by plain
    assignment, no signal can come between the assignment and the statement before it.
    """

    def __init__(self) -> None:
        #: Whether signals are noted (True) or go to the handlers that were there before (False).
        self.up = True
        self._noted: list[tuple[int, FrameType | None]] = []
        self._former: dict[int, Any] = {}

    @property
    def pending(self) -> bool:
        """Whether somebody has told this thread to stop."""
        return bool(self._noted)

    def __enter__(self) -> Shield:
        if threading.current_thread() is not threading.main_thread():
            return self
        try:
            for number in _SIGNALS:
                former = signal.getsignal(number)
                if former is None or former == signal.SIG_IGN:
                    continue  # set outside Python, or ignored
                self._former[number] = former
                signal.signal(number, self._handle)
        except BaseException:
            self.up = False  # a handler that is left behind passes everything on
            self._restore()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self._restore()
        finally:
            self.lower()

    def lower(self) -> None:
        """Let signals through from here on; those that were noted raise now."""
        self.up = False
        while self._noted:
            number, frame = self._noted.pop(0)
            self._pass_on(number, frame)

    def exposed(self, work: Callable[[Shield], T]) -> T:
        """Run work that signals may cut; when it has ended, they are noted again."""
        try:
            self.lower()
            return work(self)
        finally:
            self.up = True

    @contextmanager
    def section(self) -> Iterator[None]:
        """Run a section that nothing may cut: no signal, and no end of the process."""
        self.up = True
        try:
            with _flights:
                yield
        finally:
            self.lower()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.up:
            self._noted.append((number, frame))
        else:
            self._pass_on(number, frame)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        former = self._former[number]
        if callable(former):
            former(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _restore(self) -> None:
        for number, former in self._former.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, former)


class _Flights:
    """Counts the sections in flight in this process."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin at nought, as a forked child does: its parent's threads are not in it."""
        self.count = 0
        self.closed = False
        self.lock = threading.Lock()

    def __enter__(self) -> None:
        with self.lock:
            check_open()
            self.count += 1

    def __exit__(self, *exc: object) -> None:
        with self.lock:
            self.count -= 1


_flights = _Flights()


def in_flight() -> int:
    """Return how many protected sections run in this process now."""
    return _flights.count


def close() -> None:
    """Let no protected section begin any more, because this process ends; those in flight go on."""
    with _flights.lock:
        _flights.closed = True


def check_open() -> None:
    """Refuse to begin what would end in a protected section, if this process ends.

    :raises TokenBusyError: if it does; retryable, and nothing was spent.
    """
    if _flights.closed:
        raise TokenBusyError("This process ends, so no renewal begins in it. Nothing was spent; try again.")


def wait_idle(seconds: float = _LONGEST) -> bool:
    """Wait until no protected section runs in this process.

    :param seconds: To wait at the most.
    :return: Whether none runs.
    """
    end = time.monotonic() + seconds
    while _flights.count and time.monotonic() < end:
        time.sleep(_SLICE)
    return not _flights.count


os.register_at_fork(after_in_child=_flights.reset)
# The interpreter joins threads, save daemons, before it ends: a daemon's renewal would be cut.
atexit.register(wait_idle)
