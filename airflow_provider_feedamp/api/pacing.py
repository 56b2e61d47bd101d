"""Keeping the calls of one process below a number per second."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

log = logging.getLogger(__name__)

#: Seconds; a shorter wait is the normal course of pacing and not worth a line in a task's log.
_WORTH_A_LINE = 5.0

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
        self._lock = threading.Lock()
        self._next_slot = 0.0

    def wait(self) -> None:
        """Wait until the next call may start."""
        with self._lock:
            now = self._clock()
            slot = max(now, self._next_slot)
            self._next_slot = slot + 1 / self.requests_per_second
        delay = slot - now
        if delay <= 0:
            return
        level = logging.INFO if delay >= _WORTH_A_LINE else logging.DEBUG
        log.log(level, "Waiting %.1f s to keep to %g requests per second", delay, self.requests_per_second)
        self._sleep(delay)


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
