"""How far an import is, and who wants to know."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_feedamp.bulk.counts import orders_in_words

if TYPE_CHECKING:
    from airflow_provider_feedamp.bulk.counts import PlaceCounts

log = logging.getLogger(__name__)

#: Seconds between two log lines.
LINE_EVERY = 10.0
_MINUTE = 60
_HOUR = 3600


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an import is.

    :param done: Orders that are accounted for, with those of earlier tries.
    :param placed: How many of them FeedAMP took.
    :param rejected: How many of them it did not.
    :param total: How many orders there are in all, as far as can be told; None if it cannot.
    :param rate: Orders per second in this try.
    :param ended: Whether this is the last that is heard of this try, whatever ended it.
    """

    done: int
    placed: int
    rejected: int
    total: int | None
    rate: float
    ended: bool = False

    @property
    def seconds_left(self) -> float | None:
        """How long it will take at this rate; None if that cannot be told."""
        if self.total is None or self.rate <= 0:
            return None
        return max(self.total - self.done, 0) / self.rate


#: Is called about twice a second and once at the end, in the thread that keeps the account.
Observer = Callable[[Progress], None]


class Gauge:
    """Makes a :class:`Progress` of the counts.

    :param counts: The account, which changes.
    :param share: Returns how much of the source has been read, from 0 to 1, or None.
    :param clock: Seconds on a clock that never goes back; tests hand in their own.
    """

    def __init__(
        self,
        counts: PlaceCounts,
        share: Callable[[], float | None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counts = counts
        self._share = share
        self._clock = clock
        self._began = clock()
        self._before = counts.read

    def read(self, taken: int, *, ended: bool = False) -> Progress:
        """Return how far it is.

        :param taken: Orders that were taken from the source.
        :param ended: Whether this try is over.
        """
        counts = self._counts
        share = self._share()
        seconds = self._clock() - self._began
        return Progress(
            done=counts.read,
            placed=counts.placed,
            rejected=counts.rejected,
            total=max(round(taken / share), taken) if share else None,
            rate=(counts.read - self._before) / seconds if seconds > 0 else 0.0,
            ended=ended,
        )


class ProgressLog:
    """Writes a line every few seconds.

    :param every: Seconds between two lines.
    :param clock: Seconds on a clock that never goes back; tests hand in their own.
    """

    def __init__(self, every: float = LINE_EVERY, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._every = every
        self._clock = clock
        self._next = clock() + every

    def __call__(self, progress: Progress) -> None:
        """Write a line if it is time."""
        now = self._clock()
        if progress.ended or now < self._next:
            return
        self._next = now + self._every
        log.info("%s", line_of(progress))


def line_of(progress: Progress) -> str:
    """Say in words how far an import is."""
    done = orders_done(progress)
    left = progress.seconds_left
    more = "" if left is None else f", about {duration(left)} left"
    pace = f"{progress.rate:,.0f} per second"
    return f"{done}, {pace}, {progress.rejected:,} rejected{more}"


def orders_done(progress: Progress) -> str:
    """Say how many orders are done, and of how many."""
    if progress.total is None:
        return f"{orders_in_words(progress.done)} done"
    return f"{progress.done:,} of about {orders_in_words(progress.total)} done"


def duration(seconds: float) -> str:
    """Say a number of seconds as a person would."""
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE:.0f} min {seconds % _MINUTE:.0f} s"
    return f"{seconds // _HOUR:.0f} h {seconds % _HOUR // _MINUTE:.0f} min"
