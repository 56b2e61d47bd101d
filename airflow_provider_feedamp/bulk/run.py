"""The import of orders as operators and the command line run it: read, place, keep the account."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.bulk.checkpoint import Checkpoint, Saver, find_start
from airflow_provider_feedamp.bulk.counts import PlaceCounts
from airflow_provider_feedamp.bulk.inputs import digest
from airflow_provider_feedamp.bulk.interrupt import Stop, run_apart
from airflow_provider_feedamp.bulk.place import DEFAULT_WORKERS, place_orders
from airflow_provider_feedamp.bulk.progress import Gauge
from airflow_provider_feedamp.bulk.rejects import RejectsFile, can_be_continued

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_feedamp.api.client import OrdersApi
    from airflow_provider_feedamp.bulk.checkpoint import CheckpointStore
    from airflow_provider_feedamp.bulk.inputs import OrderInput
    from airflow_provider_feedamp.bulk.progress import Observer

log = logging.getLogger(__name__)


def import_orders(
    source: OrderInput,
    api: OrdersApi | None,
    *,
    rejects: str | None = None,
    account: str = "",
    max_workers: int = DEFAULT_WORKERS,
    observers: Sequence[Observer] = (),
    checkpoints: CheckpointStore | None = None,
    stop: Stop | None = None,
) -> PlaceCounts:
    """Place all orders of a source and return the account.

    It runs in a thread of its own. When the caller is interrupted (SIGTERM, a time-out, Ctrl-C) or requests a
    stop, no more orders are begun, those under way have :data:`GRACE` seconds to be answered, what is
    answered is accounted for, a checkpoint is saved, and then the interruption goes on.

    :param source: Where the orders come from.
    :param api: Places them; a connection per worker should be in its pool. None reads and checks all orders,
        writes the rejects, and sends nothing.
    :param rejects: Path or URL of the rejects file. Default: none is kept.
    :param account: Whose account gets the orders; a checkpoint of another one is not gone on from.
    :param max_workers: How many orders are on their way at a time. Default 16.
    :param observers: Are told about twice a second, and at the end, how far it is.
    :param checkpoints: Where an earlier try left its checkpoint and this one leaves its own; forgotten when
        all is done. Default: nowhere, all orders are sent.
    :param stop: To request a stop with, from a signal handler or another thread.
    :raises FeedAmpError: as :func:`place_orders` does.
    """
    stop = stop or Stop()
    store = checkpoints or _Nowhere()
    work = _Import(source, api, rejects, account, max_workers, observers, store, stop)
    return run_apart(work.run, stop)


class _Import:
    def __init__(
        self,
        source: OrderInput,
        api: OrdersApi | None,
        rejects: str | None,
        account: str,
        max_workers: int,
        observers: Sequence[Observer],
        store: CheckpointStore,
        stop: Stop,
    ) -> None:
        self._source = source
        self._rejects = rejects
        self._account = account
        self._observers = observers
        self._store = store
        self._place = partial(place_orders, api=api, max_workers=max_workers, stop=stop)

    def run(self) -> PlaceCounts:
        """Go on from the checkpoint, or begin anew, and place what there is."""
        self._stamp(0)  # Before it is opened: what is changed later is seen by the retry.
        start = find_start(self._store, self._stamp, self._rejects)
        begun = Checkpoint("", PlaceCounts()) if start is None else start
        orders = self._source.open(skip=begun.counts.read)
        if start is None:
            # Before the rejects are begun anew: an old checkpoint must not speak of a new file.
            self._store.clear()
        counts = replace(begun.counts)
        with RejectsFile(self._rejects, begun.kept) as rejects:
            gauge = Gauge(counts, self._source.share)
            saver = Saver(self._store, partial(self._checkpoint, counts, rejects))

            def tick(taken: int, *, ended: bool = False) -> None:
                saver.save_if_due()
                progress = gauge.read(taken, ended=ended)
                for observer in self._observers:
                    observer(progress)

            tick(counts.read)
            try:
                self._place(orders, rejects=rejects, counts=counts, tick=tick)
            except BaseException:
                saver.save()
                raise
            finally:
                tick(counts.read, ended=True)
        self._forget()
        return counts

    def _stamp(self, read: int) -> str | None:
        mark = self._source.fingerprint(read)
        return None if mark is None else digest(mark, self._account, self._rejects)

    def _checkpoint(self, counts: PlaceCounts, rejects: RejectsFile) -> Checkpoint | None:
        if not counts.read:
            return None
        if rejects.count and not can_be_continued(self._rejects):
            return None  # The last checkpoint without rejects is the one that a retry can go on from.
        stamp = self._stamp(counts.read)
        return None if stamp is None else Checkpoint(stamp, replace(counts), rejects.size)

    def _forget(self) -> None:
        try:
            self._store.clear()
        except Exception as error:  # noqa: BLE001 - all orders are placed; a checkpoint left behind does no harm
            log.warning("The checkpoint could not be removed (%s)", type(error).__name__)


class _Nowhere:
    def load(self) -> None:
        """Nothing was saved."""

    def save(self, value: dict[str, Any]) -> None:
        """Keep nothing."""

    def clear(self) -> None:
        """There is nothing to forget."""
