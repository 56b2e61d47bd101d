"""Counters of imports, and the state of watches, among Airflow's own metrics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_feedamp.bulk.progress import Progress

PLACED = "feedamp.orders.placed"
REJECTED = "feedamp.orders.rejected"
FAILING = "feedamp.watch.failing"
#: Seconds between two reports: each is one packet per counter, whatever the speed of the import.
REPORT_EVERY = 10.0


class Metrics:
    """Adds to the counters ``feedamp.orders.placed`` and ``feedamp.orders.rejected``.

    :param tags: Tags of the counters, for metrics that have tags. Default: none.
    :param clock: Seconds on a clock that never goes back; tests hand in their own.
    """

    def __init__(
        self, tags: Mapping[str, str] | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tags = dict(tags or {})
        self._clock = clock
        self._next = clock() + REPORT_EVERY
        self._told: dict[str, int] | None = None

    def __call__(self, progress: Progress) -> None:
        """Report what came since the last time, if it is time."""
        found = {PLACED: progress.placed, REJECTED: progress.rejected}
        if self._told is None:
            self._told = found  # The first call comes before the first order: what an earlier try has done.
        now = self._clock()
        if now < self._next and not progress.ended:
            return
        self._next = now + REPORT_EVERY
        from airflow.providers.common.compat.sdk import Stats

        for name, count in found.items():
            if count > self._told[name]:
                Stats.incr(name, count - self._told[name], tags=self._tags)
        self._told = found


def watch_failing(failing: bool, **tags: str) -> None:
    """Set the gauge ``feedamp.watch.failing``: 1 while the polls of a watch fail, else 0.

    :param failing: Whether the latest poll has failed.
    :param tags: Tags of the gauge, for metrics that have tags.
    """
    from airflow.providers.common.compat.sdk import Stats

    Stats.gauge(FAILING, int(failing), tags=tags)
