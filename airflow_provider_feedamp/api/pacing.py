"""When a call may start: the pace of a process, and the pause that all calls keep together."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

log = logging.getLogger(__name__)

#: Seconds of waiting that are worth a line in a task's log, and the least time between two such lines.
_WORTH_A_LINE = 5.0
_BETWEEN_LINES = 60.0

#: Seconds; the doubling waits between tries end here.
BACKOFF_CAP = 30.0
#: Seconds between two calls that leave a pause: all at once would only be refused again.
_STEP = 0.05
#: Seconds after which an earlier pause has nothing to do with the next one.
_FORGOTTEN = 60.0

_pacers: dict[Hashable, Pacer] = {}
_pacers_lock = threading.Lock()


class Pacer:
    """Spaces calls evenly: each caller takes the next free slot and waits for it without holding a lock.

    :param requests_per_second: How many calls may start in a second, a number above 0.
    :param clock: Seconds on a clock that never goes back; injected by tests.
    :param sleep: Waits for so many seconds; injected by tests.
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


class Pause:
    """A pause that one refused call begins: it holds up all calls, and they leave it one by one.

    :param most: How many pauses in a row, without any call being taken in between, are worth trying.
    :param clock: Seconds on a clock that never goes back; injected by tests.
    :param sleep: Waits for so many seconds; injected by tests.
    :param jitter: A random number from 0 to 1; injected by tests.
    """

    def __init__(
        self,
        most: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        #: Whether calls have to wait.
        self.active = False
        #: How many pauses there were in a row.
        self.pauses = 0
        self._most = most
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._lock = threading.Lock()
        self._opens = 0.0
        self._turn = 0.0

    def wait(self) -> None:
        """Wait until the pause is over, if there is one, and it is this call's turn."""
        while self.active:
            with self._lock:
                now, opens, turn = self._clock(), self._opens, self._turn
                if now >= opens:
                    self.active = False
                    return
                self._turn += _STEP
            self._sleep(turn - now)
            if self._opens == opens:  # else a call that left before this one was refused again
                return

    def begin(self, asked: float) -> float | None:
        """Begin a pause, because FeedAMP has refused a call.

        :param asked: The seconds that FeedAMP asked for; 0 when it did not say.
        :return: The seconds of the pause that this call began; 0 when there is one already; None when no
            further one is worth trying.
        """
        with self._lock:
            now = self._clock()
            if now < self._opens:
                if now + asked > self._opens:
                    self._opens = self._turn = now + asked
                return 0.0
            if now - self._opens > _FORGOTTEN:
                self.pauses = 0
            if self.pauses >= self._most:
                return None
            # A server that asks for a second every time is not believed for ever.
            seconds = max(asked, backoff(self.pauses, self._jitter()))
            self.pauses += 1
            self._opens = self._turn = now + seconds
            self.active = True
            return seconds

    def reset(self) -> None:
        """Take note that FeedAMP has taken a call: the next pause begins a new row."""
        self.pauses = 0


def backoff(tries: int, jitter: float) -> float:
    """Return the seconds to wait after so many earlier tries, shortened by up to half by a random number."""
    return min(BACKOFF_CAP, 2.0**tries) * (0.5 + jitter / 2)


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
