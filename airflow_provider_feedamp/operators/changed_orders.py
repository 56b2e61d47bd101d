"""The task that finds out which orders a seller has changed since it ran last."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_feedamp.api.changes import ChangedOrder

log = logging.getLogger(__name__)


class FeedAmpChangedOrdersOperator(BaseOperator):
    """Return the orders that a seller has changed since this task's last successful run.

    A change is a confirmation, a shipment, a cancellation, or an error that the seller mended. None is
    missed; one that was returned comes again only when runs fail or are run again. The first run begins at
    ``start``. Each later one goes on from the mark that the task left in XCom in the latest successful run
    before it, by logical date; so a run that is cleared returns its own changes again, and moves no other
    run's mark. Runs must not overlap much: two at once return the same orders.

    :param start: Where to begin when no run has left a mark (templated): a datetime with a time zone or
        the text of one, as ISO 8601. Default: the start of the run's data interval; for a run without one,
        the instant from which it could run.
    :param overlap: How far a run reaches back behind the beginning of the one before (templated), as
        timedelta or in seconds; it has to be longer than FeedAMP's lists lag and the clocks differ together.
        Default: five minutes.
    :param feedamp_conn_id: The FeedAMP connection (templated). Default ``feedamp_default``.
    :param seller: The seller whose orders are looked at (templated). Default: the connection's. Maps:
        ``.partial(task_id=...).expand(seller=[...])``.
    :return: A list with ``mp_order_number`` and ``status`` of each order, to map tasks over.
    """

    template_fields: Sequence[str] = ("start", "overlap", "feedamp_conn_id", "seller")
    template_fields_renderers: ClassVar[dict[str, str]] = {}
    ui_color = "#d7e8f7"

    def __init__(
        self,
        *,
        start: datetime | str | None = None,
        overlap: timedelta | float | str = timedelta(minutes=5),
        feedamp_conn_id: str = "feedamp_default",
        seller: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.start = start
        self.overlap = overlap
        self.feedamp_conn_id = feedamp_conn_id
        self.seller = seller

    def execute(self, context: Context) -> list[ChangedOrder]:
        """Poll once, from the last mark."""
        from airflow_provider_feedamp.hooks.errors import task_errors

        with task_errors():
            return self._poll(context)

    def _poll(self, context: Context) -> list[ChangedOrder]:
        from airflow_provider_feedamp.api.changes import Watermark, poll
        from airflow_provider_feedamp.exceptions import InputError
        from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
        from airflow_provider_feedamp.operators.run_marks import RunMarks

        if not self.do_xcom_push:
            raise InputError(
                f"Task {self.task_id} keeps its orders and its mark in XCom: leave do_xcom_push on."
            )
        overlap = _overlap(self.overlap)
        start = _start(self.start)
        hook = FeedAmpHook(self.feedamp_conn_id, seller=self.seller)
        marks = RunMarks(context, (self.feedamp_conn_id, hook.seller))
        before = marks.latest() or Watermark((start or _beginning(context)) - overlap)
        marks.keep(before, None)
        changed, after = poll(hook.client.orders, before, now=datetime.now(UTC), overlap=overlap)
        marks.keep(before, after)
        log.info(
            "Seller %r changed %d orders since %s (connection %s)",
            hook.seller,
            len(changed),
            before.at.isoformat(),
            self.feedamp_conn_id,
        )
        return changed


def _beginning(context: Context) -> datetime:
    """Return where a run begins that finds no mark and is told no start."""
    begins: Any = context.get("data_interval_start")
    if begins is None:
        run: Any = context["dag_run"]  # a run without a logical date, which only Airflow 3 has
        begins = run.run_after
    return datetime.fromtimestamp(begins.timestamp(), UTC)


def _start(value: object) -> datetime | None:
    from airflow_provider_feedamp.exceptions import InputError

    if value is None or (isinstance(value, str) and value.strip() in ("", "None")):
        return None
    try:
        start = datetime.fromisoformat(value.strip()) if isinstance(value, str) else value
        if isinstance(start, datetime) and start.utcoffset() is not None:
            return start
    except ValueError:
        pass
    raise InputError(f"start is {value!r}: give an instant with its time zone, such as 2026-11-01T00:00:00Z.")


def _overlap(value: object) -> timedelta:
    from airflow_provider_feedamp.exceptions import InputError

    if isinstance(value, timedelta):
        overlap = value
    else:
        try:
            overlap = timedelta(seconds=float(value))  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            overlap = timedelta(seconds=-1)
    if overlap < timedelta(0):
        raise InputError(f"overlap is {value!r}: give a timedelta, or seconds of 0 or more.")
    return overlap
