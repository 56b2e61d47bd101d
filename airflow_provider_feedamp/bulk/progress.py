"""The account of an import, how far it is, and who is informed of that."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.api.types import Order, OrderLine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_feedamp.bulk.source import SourceOrder

log = logging.getLogger(__name__)

#: Seconds between two log lines.
LINE_EVERY = 10.0
#: Seconds between two reports to Airflow's metrics: each is one packet per counter, at any speed.
REPORT_EVERY = 10.0

PLACED = "feedamp.orders.placed"
REJECTED = "feedamp.orders.rejected"
FAILING = "feedamp.watch.failing"

_MINUTE = 60
_HOUR = 3600
_ORDER_FIELDS = frozenset(Order.__annotations__)
_LINE_FIELDS = frozenset(OrderLine.__annotations__)
_MOST_FIELDS = 20
#: Names that may be shown; where something else is a key, it may be a customer's.
_FIELD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,40}")


@dataclass(slots=True)
class PlaceCounts:
    """What became of the orders: each one read is placed or rejected.

    ``inserted`` and ``updated`` are what FeedAMP said of the placed ones; it may have said neither.
    """

    read: int = 0
    placed: int = 0
    inserted: int = 0
    updated: int = 0
    rejected: int = 0

    def __str__(self) -> str:
        return (
            f"read {self.read}, placed {self.placed} (inserted {self.inserted}, updated {self.updated}), "
            f"rejected {self.rejected}"
        )

    def rejected_in_words(self) -> str:
        """Say how many of them were rejected."""
        verb = "was" if self.rejected == 1 else "were"
        return f"{self.rejected} of {orders_in_words(self.read)} {verb} rejected"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an import is.

    :param done: Orders that are accounted for, with those of earlier tries.
    :param placed: How many of them FeedAMP took.
    :param rejected: How many of them it did not.
    :param total: How many orders there are in all, as far as is known; None if it is not.
    :param rate: Orders per second in this try.
    :param ended: Whether this is the last progress of this try, whatever ended it.
    """

    done: int
    placed: int
    rejected: int
    total: int | None
    rate: float
    ended: bool = False

    @classmethod
    def of(
        cls, counts: PlaceCounts, taken: int, share: float | None, rate: float, *, ended: bool = False
    ) -> Progress:
        """Return how far an account is.

        :param taken: Orders that were taken from the source.
        :param share: How much of the source has been read, from 0 to 1; None if that is not known.
        """
        total = max(round(taken / share), taken) if share else None
        return cls(counts.read, counts.placed, counts.rejected, total, rate, ended)

    @property
    def seconds_left(self) -> float | None:
        """How long it will take at this rate; None if that cannot be told."""
        if self.total is None or self.rate <= 0:
            return None
        return max(self.total - self.done, 0) / self.rate


#: Is called about twice a second and once at the end, in the thread that keeps the account.
Observer = Callable[[Progress], None]


class Interval:
    """Says when some seconds are over, again and again."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.begin()

    def begin(self) -> None:
        """Begin the interval anew."""
        self._next = time.monotonic() + self._seconds

    def is_over(self) -> bool:
        """Whether the interval is over; the next one then begins."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True


class ProgressLog:
    """Writes a line from time to time.

    :param every: Seconds between two lines.
    """

    def __init__(self, every: float = LINE_EVERY) -> None:
        self._every = Interval(every)

    def __call__(self, progress: Progress) -> None:
        """Write a line if it is time."""
        if not progress.ended and self._every.is_over():
            log.info("%s", line_of(progress))


class Metrics:
    """Adds to the counters ``feedamp.orders.placed`` and ``feedamp.orders.rejected`` of Airflow's metrics.

    :param tags: Tags of the counters, for metrics that have tags. Default: none.
    """

    def __init__(self, tags: Mapping[str, str] | None = None) -> None:
        self._tags = dict(tags or {})
        self._every = Interval(REPORT_EVERY)
        self._reported: dict[str, int] | None = None

    def __call__(self, progress: Progress) -> None:
        """Report what came since the last time, if it is time."""
        found = {PLACED: progress.placed, REJECTED: progress.rejected}
        if self._reported is None:
            self._reported = found  # The first call comes before the first order: what an earlier try did.
        if not self._every.is_over() and not progress.ended:
            return
        from airflow.providers.common.compat.sdk import Stats

        for name, count in found.items():
            if count > self._reported[name]:
                Stats.incr(name, count - self._reported[name], tags=self._tags)
        self._reported = found


def watch_failing(failing: bool, **tags: str) -> None:
    """Set the gauge ``feedamp.watch.failing``: 1 while the polls of a watch fail, else 0.

    :param failing: Whether the latest poll has failed.
    :param tags: Tags of the gauge, for metrics that have tags.
    """
    from airflow.providers.common.compat.sdk import Stats

    Stats.gauge(FAILING, int(failing), tags=tags)


class Notes:
    """What is odd about orders that were sent all the same: counted, and logged once for an import."""

    def __init__(self) -> None:
        self._fields: Counter[str] = Counter()
        self._with_errors = 0
        self._first_with_errors: SourceOrder | None = None
        self._lock = threading.Lock()

    def look_at(self, order: Any) -> None:
        """Count the fields that FeedAMP's pages do not have; each once for an order."""
        if not isinstance(order, dict):
            return
        names = {_field_name(name) for name in order.keys() - _ORDER_FIELDS}
        lines = order.get("order_lines")
        for line in lines if isinstance(lines, list) else ():
            if isinstance(line, dict):
                names.update(f"order_lines.{_field_name(name)}" for name in line.keys() - _LINE_FIELDS)
        for name in names:
            # A key that is a value, such as a number, must not make this grow with the orders.
            self._fields[name if name in self._fields or len(self._fields) < _MOST_FIELDS else "others"] += 1

    def taken_with_errors(self, order: SourceOrder) -> None:
        """Note an order that FeedAMP took with an answer that names errors; called in any thread."""
        with self._lock:
            self._with_errors += 1
            if self._first_with_errors is None or order.line < self._first_with_errors.line:
                self._first_with_errors = order

    def write(self) -> None:
        """Write what was noted to the log."""
        if self._fields:
            named = ", ".join(f"{name} (in {orders_in_words(count)})" for name, count in self._fields.items())
            log.warning("FeedAMP's pages do not have these fields, which are sent as they are: %s", named)
        if self._first_with_errors is not None:
            log.warning(
                "%s taken by FeedAMP with an answer that names errors, the first in %s: look at what FeedAMP "
                "holds of them",
                orders_were(self._with_errors),
                self._first_with_errors.place,
            )


def _field_name(name: str) -> str:
    return name if _FIELD.fullmatch(name) else f"a name of {len(name)} characters"


def orders_in_words(count: int, kind: str = "") -> str:
    """Return a number of orders as a person would say it.

    :param kind: A word before "orders", with a space behind it. Default: none.
    """
    return f"1 {kind}order" if count == 1 else f"{count:,} {kind}orders"


def orders_were(count: int, kind: str = "") -> str:
    """Return a number of orders and its verb; see :func:`orders_in_words`."""
    return f"{orders_in_words(count, kind)} {'was' if count == 1 else 'were'}"


def line_of(progress: Progress) -> str:
    """Say in words how far an import is."""
    done, left = orders_in_words(progress.done), progress.seconds_left
    if progress.total is not None:
        done = f"{progress.done:,} of about {orders_in_words(progress.total)}"
    more = "" if left is None else f", about {duration_in_words(left)} left"
    return f"{done} done, {progress.rate:,.0f} per second, {progress.rejected:,} rejected{more}"


def duration_in_words(seconds: float) -> str:
    """Say a number of seconds as a person would."""
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE:.0f} min {seconds % _MINUTE:.0f} s"
    return f"{seconds // _HOUR:.0f} h {seconds % _HOUR // _MINUTE:.0f} min"
