"""The pause that all calls of a session keep together when FeedAMP asks for fewer of them."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds; the doubling waits between tries end here.
BACKOFF_CAP = 30.0
#: Seconds between two calls that leave a pause: all at once would only be refused again.
_STEP = 0.05
#: Seconds after which an earlier pause has nothing to do with the next one.
_FORGOTTEN = 60.0


class Gate:
    """Closed by one call that was refused, it holds up all; they leave it one by one.

    :param most: How many pauses in a row, without any call being taken in between, are worth trying.
    :param clock: Seconds on a clock that never goes back; tests hand in their own.
    :param sleep: Waits for so many seconds; tests hand in their own.
    :param jitter: A random number from 0 to 1; tests hand in their own.
    """

    def __init__(
        self,
        most: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.pauses = 0
        self._most = most
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._lock = threading.Lock()
        self._closed = False
        self._opens = 0.0
        self._turn = 0.0

    def wait(self) -> None:
        """Wait until the pause is over, if there is one, and it is this call's turn."""
        while self._closed:
            with self._lock:
                now, opens, turn = self._clock(), self._opens, self._turn
                if now >= opens:
                    self._closed = False
                    return
                self._turn += _STEP
            self._sleep(turn - now)
            if self._opens == opens:  # else a call that left before this one was refused again
                return

    def close(self, asked: float) -> float | None:
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
            self._closed = True
            return seconds

    def taken(self) -> None:
        """Take note that FeedAMP has taken a call: the next pause begins a new row."""
        if self.pauses:
            self.pauses = 0


def backoff(tries: int, jitter: float) -> float:
    """Return the seconds to wait after so many earlier tries, shortened by up to half by a random number."""
    return min(BACKOFF_CAP, 2.0**tries) * (0.5 + jitter / 2)
