"""The task that places orders into a seller's FeedAMP account."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_feedamp.assets import account_uri, operator_lineage
from airflow_provider_feedamp.exceptions import InputError, TooManyFailuresError
from airflow_provider_feedamp.operators.base import (
    FeedAmpOperator,
    flag,
    limit,
    outlet_events,
    rate,
    whole_number,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_feedamp.bulk.progress import PlaceCounts
    from airflow_provider_feedamp.bulk.source import OrderInput
    from airflow_provider_feedamp.bulk.threads import Stop
    from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

log = logging.getLogger(__name__)

MOST_WORKERS = 256

KEY = "feedamp_import"
_SAFE = "FeedAMP keys them by their number, so sending them again is safe"


class FeedAmpPlaceOrdersOperator(FeedAmpOperator):
    """Place many orders into a seller's FeedAMP account and keep those that cannot be placed.

    Every order is checked before it is sent. One that is wrong, or that FeedAMP refuses, goes to the rejects
    file whole, with its line and the reason, and the others go on. When all are done, the task fails without
    retries if more were rejected than ``max_failures``. FeedAMP keys orders by their number, so the same task
    can run again: what was placed is updated with the same content, in the order of the source. Further
    parameters: ``feedamp_conn_id`` and ``seller``, see :class:`.FeedAmpOperator`.

    :param orders: The orders as a list, the output of another task, or the text of a JSON array (templated).
        Exactly one of ``orders`` and ``source`` is needed.
    :param source: Path or URL of a file that Airflow's object storage can open, such as
        ``s3://connection_id@bucket/orders.ndjson`` (templated): ``.ndjson`` or ``.jsonl`` with one order per
        line, or ``.json`` with an array, each also ``.gz``, in UTF-8. It is never held in memory whole. With
        ``sql_conn_id`` it is a SQL query.
    :param sql_conn_id: An Airflow connection to a database, to run ``source`` on (templated).
    :param rejects: Path or URL of the file for rejected orders, one JSON object per line (templated). A file
        of an earlier run is replaced; none is written if no order is rejected. Correct it and give it as
        ``source``. Default: none, the log names the first rejects only.
    :param max_failures: The most rejects with which the task succeeds (templated); None for any number.
        Default 0.
    :param allow_empty: Whether no order at all is fine (templated). Default False: the task fails.
    :param validate_only: Read and check all orders and write the rejects, but send nothing (templated); it
        needs neither the FeedAMP connection nor a token. Default False.
    :param max_workers: How many orders are on their way at a time, 1 to 256 (templated). Default 16.
    :param requests_per_second: Pace of the calls for this seller (templated). Default: the connection's.
    :return: ``read``, ``placed`` with ``inserted`` and ``updated``, ``rejected``, and ``rejects``: the path
        of that file, or None if there is none.
    """

    template_fields: Sequence[str] = (
        "orders",
        "source",
        "sql_conn_id",
        "rejects",
        "max_failures",
        "allow_empty",
        "validate_only",
        "max_workers",
        "requests_per_second",
        *FeedAmpOperator.template_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"orders": "json"}

    #: Stops the import under way in this process.
    _stop: Stop | None = None
    #: For OpenLineage: the files that were read; those that were written, and whose orders, with how many.
    _lineage: tuple[list[str], dict[str, int], dict[str, int]] = ([], {}, {})

    def __init__(
        self,
        *,
        orders: list[dict[str, Any]] | XComArg | str | None = None,
        source: str | None = None,
        sql_conn_id: str | None = None,
        rejects: str | None = None,
        max_failures: int | str | None = 0,
        allow_empty: bool | str = False,
        validate_only: bool | str = False,
        max_workers: int | str = 16,
        requests_per_second: float | str | None = None,
        feedamp_conn_id: str = "feedamp_default",
        seller: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(feedamp_conn_id=feedamp_conn_id, seller=seller, **kwargs)
        self.orders = orders
        self.source = source
        self.sql_conn_id = sql_conn_id
        self.rejects = rejects
        self.max_failures = max_failures
        self.allow_empty = allow_empty
        self.validate_only = validate_only
        self.max_workers = max_workers
        self.requests_per_second = requests_per_second

    def on_kill(self) -> None:
        """Stop the import: no more orders are begun, those under way may still be answered."""
        if self._stop is not None:
            self._stop.request()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return the file that was read, the seller's account and the rejects, for OpenLineage."""
        read, rejects, placed = self._lineage
        accounts = {account_uri(self.feedamp_conn_id, seller, "orders"): n for seller, n in placed.items()}
        written = {name: (count, None) for name, count in (rejects | accounts).items()}
        return operator_lineage(self, read, written)

    def _perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_feedamp.bulk.paths import loggable

        max_failures = limit("max_failures", self.max_failures)
        max_workers = whole_number("max_workers", self.max_workers, least=1, most=MOST_WORKERS)
        pace = rate("requests_per_second", self.requests_per_second)
        source = self._input()
        hook = None
        if flag("validate_only", self.validate_only):
            log.info("Checking the orders of %s; nothing is sent", source.name)
        else:
            hook = self._hook(requests_per_second=pace, pool_size=max_workers)
            account = (hook.seller, self.feedamp_conn_id)
            log.info("Placing the orders of %s for seller %r (connection %s)", source.name, *account)
        counts = self._import(source, hook, max_workers, context)
        if hook is not None:
            hook.note_order(hook.client.orders.last_placed)
        kept = (self.rejects or None) if counts.rejected else None
        place = loggable(kept) if kept else None
        log.info("All orders of %s: %s; rejects: %s", source.name, counts, place or "no file")
        # A query may quote what a person is called by.
        file = self.source if self.source and not self.sql_conn_id else None
        self._lineage = (
            [file] if file else [],
            {kept: counts.rejected} if kept else {},
            {hook.seller: counts.placed} if hook else {},
        )
        if max_failures is None or counts.rejected <= max_failures:
            for event in outlet_events(self, context):
                whose = {"seller": hook.seller if hook else None, "file": loggable(file) if file else None}
                event.extra.update(whose, rejects=place, **asdict(counts))
            return asdict(counts) | {"rejects": kept}
        raise TooManyFailuresError(
            f"{counts.rejected_in_words()}, and max_failures is {max_failures} ({counts}). "
            + (
                f"They are in {place} with their reasons: correct them there and give that file as source."
                if place
                else "Set rejects to a path to keep them with their reasons."
            )
        )

    def _import(
        self, source: OrderInput, hook: FeedAmpHook | None, max_workers: int, context: Context
    ) -> PlaceCounts:
        from airflow_provider_feedamp.bulk.place import import_orders
        from airflow_provider_feedamp.bulk.progress import Metrics, ProgressLog
        from airflow_provider_feedamp.bulk.threads import Stop

        self._stop = Stop()
        try:
            return import_orders(
                source,
                hook.client.orders if hook else None,
                rejects=self.rejects or None,
                account=f"{self.feedamp_conn_id} {hook.seller}" if hook else "",
                max_workers=max_workers,
                observers=(ProgressLog(), Metrics(metric_tags(context))) if hook else (ProgressLog(),),
                checkpoints=checkpoints_of(context) if hook else None,
                stop=self._stop,
            )
        finally:
            self._stop = None

    def _input(self) -> OrderInput:
        from airflow_provider_feedamp.bulk.paths import loggable, same_place
        from airflow_provider_feedamp.bulk.source import FileInput, ListInput
        from airflow_provider_feedamp.bulk.sql import QueryInput

        allow_empty, task = flag("allow_empty", self.allow_empty), f"Task {self.task_id}"
        if (self.orders is None) == (not self.source):
            there = "there is neither" if self.orders is None else "there are both"
            raise InputError(f"{task}: give exactly one of orders and source; {there} (after rendering).")
        if not self.source:
            if self.sql_conn_id:
                raise InputError(f"{task}: sql_conn_id says that source is a query, and there is no source.")
            return ListInput(self.orders, allow_empty=allow_empty)
        if self.sql_conn_id:
            return QueryInput(self.source, self.sql_conn_id, allow_empty=allow_empty)
        if self.rejects and same_place(self.source, self.rejects):
            raise InputError(
                f"{task}: source and rejects are the same file, {loggable(self.source)}, which would be "
                "overwritten while it is read. Name another file for the rejects."
            )
        return FileInput(self.source, allow_empty=allow_empty)


class TaskCheckpoints:
    """Keeps an import's checkpoint in the task state store (``bulk.place.CheckpointStore``).

    The store outlives a clear of the task, and a person who clears a task wants it done anew. A clear raises
    the number of tries that the task may have, a retry does not: so that number is kept with the checkpoint.

    :param store: ``context["task_state_store"]``.
    :param max_tries: That number.
    """

    def __init__(self, store: Any, max_tries: int) -> None:
        self._store = store
        self._max_tries = max_tries

    def load(self) -> Any:
        """Return the checkpoint of an earlier try since the task was last cleared, or None."""
        value = self._store.get(KEY)
        mine = isinstance(value, dict) and value.get("max_tries") == self._max_tries
        return value if mine else None

    def save(self, value: dict[str, Any]) -> None:
        """Keep a checkpoint for the next try."""
        self._store.set(KEY, value | {"max_tries": self._max_tries})

    def clear(self) -> None:
        """Forget the checkpoint."""
        self._store.delete(KEY)


def checkpoints_of(context: Mapping[str, Any]) -> TaskCheckpoints | None:
    """Return the place for the task's checkpoint, if Airflow has one; say so if an earlier try left none."""
    store, ti = context.get("task_state_store"), context.get("ti")
    found = None if store is None or ti is None else TaskCheckpoints(store, ti.max_tries)
    if getattr(ti, "try_number", 1) > 1:
        if found is None:
            log.info("All orders are sent, as Airflow keeps no checkpoint for a retry before 3.3; %s", _SAFE)
        elif found.load() is None:
            why = "no try since the task was last cleared left a checkpoint"
            log.info("All orders are sent, as %s; %s", why, _SAFE)
    return found


def metric_tags(context: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags that Airflow gives its own metrics of a task."""
    ti = context.get("ti")
    return {} if ti is None else {"dag_id": str(ti.dag_id), "task_id": str(ti.task_id)}
