"""Keeping the calls of one process below a number per second."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

log = logging.getLogger(__name__)

#: Seconds of waiting that are worth a line in a task's log, and the least time between two such lines.
_WORTH_A_LINE = 5.0
_BETWEEN_LINES = 60.0

_pacers: dict[Hashable, Pacer] = {}
_pacers_lock = threading.Lock()


class Pacer:
    """Spaces calls evenly: each caller takes the next free slot and waits for it without holding a lock.

    :param requests_per_second: How many calls may start in a second, a number above 0.
    :param clock: Seconds on a clock that never goes back; tests hand in their own.
    :param sleep: Waits for so many seconds; tests hand in their own.
    """

    def __init__(
        self,
        requests_per_second: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.requests_per_second = requests_per_second
        self._clock = clock
        self._sleep = sleep
        self._next_slot = 0.0
        self._waited = 0.0
        self._next_line = 0.0
        self.after_fork()

    def wait(self) -> None:
        """Wait until the next call may start."""
        waited = 0.0
        with self._lock:
            now = self._clock()
            slot = max(now, self._next_slot)
            self._next_slot = slot + 1 / self.requests_per_second
            delay = slot - now
            self._waited += delay
            if self._waited >= _WORTH_A_LINE and now >= self._next_line:
                waited, self._waited = self._waited, 0.0
                self._next_line = now + _BETWEEN_LINES
        if delay <= 0:
            return
        if waited:
            text = "Calls wait to keep to %g requests per second: %.1f s in all since the last such line"
            log.info(text, self.requests_per_second, waited)
        self._sleep(delay)

    def after_fork(self) -> None:
        """Make the lock anew: one that another thread of the parent held would never be released."""
        self._lock = threading.Lock()


def pacer_for(key: Hashable, requests_per_second: float | None) -> Pacer | None:
    """Return the pacer that everything in this process shares for a key.

    :param key: What the limit belongs to, such as the base URL and the seller.
    :param requests_per_second: The limit; the latest one given for a key holds. None means no pacing.
    :return: The pacer, or None without a limit.
    """
    if requests_per_second is None:
        return None
    with _pacers_lock:
        pacer = _pacers.get(key)
        if pacer is None:
            pacer = _pacers[key] = Pacer(requests_per_second)
        pacer.requests_per_second = requests_per_second
        return pacer


def _after_fork() -> None:
    """Give the child locks of its own; it keeps to the same pace, and counts its own calls alone."""
    global _pacers_lock
    _pacers_lock = threading.Lock()
    for pacer in list(_pacers.values()):
        pacer.after_fork()


os.register_at_fork(after_in_child=_after_fork)
