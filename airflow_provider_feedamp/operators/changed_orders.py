"""The task that finds out which orders a seller has changed since it ran last."""

from __future__ import annotations

import hashlib
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.exceptions import InputError, counted
from airflow_provider_feedamp.operators.base import (
    FeedAmpOperator,
    duration,
    flag,
    given_instant,
    outlet_events,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_feedamp.api.changes import ChangedOrder, Watermark

log = logging.getLogger(__name__)

#: How far away the mark of a mapped task's seller is looked for, when the list of sellers has changed.
_INDEXES_AROUND = 50
#: Characters that the key of a partition may have in Airflow.
_LONGEST_PARTITION = 250


class FeedAmpChangedOrdersOperator(FeedAmpOperator):
    """Return the orders that a seller has changed since this task's last successful run.

    A change is a confirmation, a shipment, a cancellation, or an error that the seller resolved. None is
    missed; one that was returned comes again only when runs fail or are run again. The first run begins at
    ``start``. Each later one goes on from the mark that the task left in XCom in the latest successful run
    before it, by logical date; so a run that is cleared returns its own changes again, and moves no other
    run's mark. Runs must not overlap much: two at once return the same orders. Further parameters:
    ``feedamp_conn_id`` and ``seller``, see :class:`.FeedAmpOperator`.

    :param start: Where to begin when no run has left a mark (templated): a datetime with a time zone or
        the text of one, as ISO 8601. Default: the start of the run's data interval; for a run without one,
        the instant from which it could run.
    :param overlap: How far a run reaches back behind the beginning of the one before (templated), as
        timedelta or in seconds; it has to be longer than FeedAMP's lists lag and the clocks differ together.
        Default: five minutes.
    :param partition_by_seller: Whether the events of the outlets whose scheme is ``feedamp`` are partitions
        named after the seller, if the seller has changed anything (templated). A DAG that is scheduled on
        partitions of the asset then runs once for each seller. Needs Airflow 3.3. Default False.
    :return: A list with ``mp_order_number`` and ``status`` of each order, to map tasks over.
    """

    template_fields: Sequence[str] = (
        *("start", "overlap", "partition_by_seller"),
        *FeedAmpOperator.template_fields,
    )

    def __init__(
        self,
        *,
        start: datetime | str | None = None,
        overlap: timedelta | float | str = timedelta(minutes=5),
        partition_by_seller: bool | str = False,
        feedamp_conn_id: str = "feedamp_default",
        seller: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(feedamp_conn_id=feedamp_conn_id, seller=seller, **kwargs)
        self.start = start
        self.overlap = overlap
        self.partition_by_seller = partition_by_seller

    def _perform(self, context: Context) -> list[ChangedOrder]:
        from airflow_provider_feedamp.api.changes import Watermark, poll

        if not self.do_xcom_push:
            raise InputError(
                f"Task {self.task_id} keeps its orders and its mark in XCom: leave do_xcom_push on."
            )
        overlap = duration("overlap", self.overlap)
        start = given_instant("start", self.start or None)
        hook = self._hook()
        events = outlet_events(self, context)
        partitioned = flag("partition_by_seller", self.partition_by_seller)
        if partitioned:
            self._check_partitions(events, hook.seller)
        marks = RunMarks(context, (self.feedamp_conn_id, hook.seller))
        before = marks.latest() or Watermark((start or _beginning(context)) - overlap)
        marks.keep(before, None)
        changed, after = poll(hook.client.orders, before, now=datetime.now(UTC), overlap=overlap)
        marks.keep(before, after)
        told = (hook.seller, counted(len(changed), "orders"), before.at.isoformat(), self.feedamp_conn_id)
        log.info("Seller %r changed %s since %s (connection %s)", *told)
        for event in events:
            event.extra.update(seller=hook.seller, changed=len(changed))
            if partitioned and changed:
                event.add_partitions([hook.seller])
        return changed

    def _check_partitions(self, events: list[Any], seller: str) -> None:
        if not events:
            raise InputError(
                f"Task {self.task_id}: partition_by_seller needs an outlet whose URI begins with feedamp://, "
                'such as outlets=[Asset("feedamp://feedamp_default/changed_orders")].'
            )
        if not hasattr(events[0], "add_partitions"):
            raise InputError(
                f"Task {self.task_id}: partition_by_seller needs Airflow 3.3 or later: here assets have no "
                "partitions. Leave it out, and read the seller from the events' extra."
            )
        if len(seller) > _LONGEST_PARTITION:
            raise InputError(
                f"Task {self.task_id}: a partition is named by at most {_LONGEST_PARTITION} characters, and "
                f"this seller's name has {len(seller)}. Leave partition_by_seller out for it."
            )


def _beginning(context: Context) -> datetime:
    """Return where a run begins that finds no mark and has no start."""
    begins: Any = context.get("data_interval_start")
    if begins is None:
        run: Any = context["dag_run"]  # a run without a logical date, which only Airflow 3 has
        begins = run.run_after
    return datetime.fromtimestamp(begins.timestamp(), UTC)


class RunMarks:
    """The marks of one task for one seller; those of later runs than its own are not seen.

    Each run leaves the mark that it began from and the one that it came to. The latter counts only if the
    task has succeeded; so what a failed run has read is read again by the next one.

    :param context: The running task's context.
    :param owner: Whose orders the marks are about; a task that changes its seller per run, or is mapped over
        sellers, keeps their marks apart.
    """

    def __init__(self, context: Context, owner: tuple[str, str]) -> None:
        self._ti: Any = context["ti"]
        self._dag_run: Any = context["dag_run"]
        name = hashlib.blake2b(repr(owner).encode(), digest_size=8).hexdigest()
        # Runs without a logical date have keys of their own: databases disagree on where in the order of
        # dates Airflow finds them, and a mark of long ago could hide all newer ones.
        self._keys = {False: f"feedamp_watermark_{name}", True: f"feedamp_watermark_{name}_undated"}

    def latest(self) -> Watermark | None:
        """Return the mark to go on from, or None if no run before this one has left any."""
        own = self._ti.map_index
        # A mapped task's own index first; then those around it.
        around = [own + step * sign for step in range(1, _INDEXES_AROUND + 1) for sign in (-1, 1)]
        for index in [own, *(index for index in around if own >= 0 <= index)]:
            pulled = (
                self._ti.xcom_pull(
                    task_ids=self._ti.task_id, key=key, include_prior_dates=True, map_indexes=index
                )
                for key in self._keys.values()
            )
            if marks := [self._mark(kept) for kept in pulled if kept]:
                return max(marks, key=lambda mark: mark.at)
        return None

    def keep(self, before: Watermark, after: Watermark | None) -> None:
        """Leave a mark for later runs.

        :param before: The mark that this run began from.
        :param after: The mark that it has come to, or None while it is not there yet.
        """
        kept = {
            "run_id": self._ti.run_id,
            "map_index": self._ti.map_index,
            "before": before.to_json(),
            "after": after.to_json() if after else None,
        }
        self._ti.xcom_push(key=self._keys[self._dag_run.logical_date is None], value=kept)

    def _mark(self, kept: dict[str, Any]) -> Watermark:
        from airflow_provider_feedamp.api.changes import Watermark

        came_through = kept["after"] and self._state(kept["run_id"], kept["map_index"]) == "success"
        return Watermark.from_json(kept["after"] if came_through else kept["before"])

    def _state(self, run_id: str, map_index: int) -> str | None:
        """Return the state of this task in a run."""
        dag_id, task_id = self._ti.dag_id, self._ti.task_id
        if not hasattr(self._ti, "get_task_states"):  # Airflow 2
            instance = self._dag_run.fetch_task_instance(dag_id, run_id, task_id, map_index=map_index)
            return None if instance is None else str(instance.state)
        named = {"dag_id": dag_id, "task_ids": [task_id], "run_ids": [run_id], "map_index": map_index}
        return next(iter(self._ti.get_task_states(**named).get(run_id, {}).values()), None)
