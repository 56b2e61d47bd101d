"""Tasks on the orders of a seller's FeedAMP account."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperator

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_feedamp.bulk.parse import SourceOrder
    from airflow_provider_feedamp.bulk.place import PlaceCounts

log = logging.getLogger(__name__)


class FeedAmpPlaceOrdersOperator(BaseOperator):
    """Place many orders into a seller's FeedAMP account and keep those that cannot be placed.

    Every order is checked before it is sent. One that is wrong, or that FeedAMP refuses, goes to the rejects
    file whole, with its line and the reason, and the others go on. When all are done, the task fails without
    retries if more were rejected than ``max_rejects``. FeedAMP keys orders by their number, so the same task
    can run again: what was placed is updated with the same content, in the order of the source.

    :param orders: The orders as a list, the output of another task, or the text of a JSON array (templated).
        Exactly one of ``orders`` and ``source`` is needed.
    :param source: Path or URL of a file that Airflow's object storage can open, such as
        ``s3://connection_id@bucket/orders.ndjson`` (templated): ``.ndjson`` or ``.jsonl`` with one order per
        line, or ``.json`` with an array, each also ``.gz``, in UTF-8. It is never held in memory whole.
    :param rejects: Path or URL of the file for rejected orders, one JSON object per line (templated). A file
        of an earlier run is replaced; none is written if no order is rejected. It can be mended and given as
        ``source``. Default: none, the log names the first rejects only.
    :param max_rejects: The most rejects with which the task succeeds (templated); None for any number.
        Default 0.
    :param allow_empty: Whether no order at all is fine (templated). Default False: the task fails.
    :param feedamp_conn_id: The FeedAMP connection (templated). Default ``feedamp_default``.
    :param seller: The seller whose account gets the orders (templated). Default: the connection's.
    :return: ``read``, ``placed`` with ``inserted`` and ``updated``, ``rejected``, and ``rejects``: the path
        of that file, or None if there is none.
    """

    template_fields: Sequence[str] = (
        "orders",
        "source",
        "rejects",
        "max_rejects",
        "allow_empty",
        "feedamp_conn_id",
        "seller",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"orders": "json"}
    ui_color = "#d7e8f7"

    def __init__(
        self,
        *,
        orders: list[dict[str, Any]] | XComArg | str | None = None,
        source: str | None = None,
        rejects: str | None = None,
        max_rejects: int | str | None = 0,
        allow_empty: bool | str = False,
        feedamp_conn_id: str = "feedamp_default",
        seller: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.orders = orders
        self.source = source
        self.rejects = rejects
        self.max_rejects = max_rejects
        self.allow_empty = allow_empty
        self.feedamp_conn_id = feedamp_conn_id
        self.seller = seller

    def execute(self, context: Context) -> dict[str, Any]:
        """Place the orders and return what became of them."""
        from airflow_provider_feedamp.hooks.errors import task_errors

        with task_errors():
            return self._place()

    def _place(self) -> dict[str, Any]:
        from airflow_provider_feedamp.bulk.paths import shown
        from airflow_provider_feedamp.bulk.place import place_orders
        from airflow_provider_feedamp.bulk.rejects import RejectsFile
        from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

        max_rejects = _limit(self.max_rejects)
        orders = self._read()
        hook = FeedAmpHook(self.feedamp_conn_id, seller=self.seller)
        api = hook.client.orders
        origin = shown(self.source) if self.source else "the list in orders"
        log.info(
            "Placing the orders of %s for seller %r (connection %s)",
            origin,
            hook.seller,
            self.feedamp_conn_id,
        )
        with RejectsFile(self.rejects or None) as rejects:
            counts = place_orders(orders, api, rejects)
        kept = rejects.path if counts.rejected else None
        log.info("All orders of %s: %s; rejects: %s", origin, counts, shown(kept) if kept else "no file")
        _check_rejects(counts, max_rejects, shown(kept) if kept else None)
        return asdict(counts) | {"rejects": kept}

    def _read(self) -> Iterator[SourceOrder]:
        from airflow_provider_feedamp.bulk.paths import same_place, shown
        from airflow_provider_feedamp.bulk.source import orders_of, read_orders
        from airflow_provider_feedamp.exceptions import InputError

        allow_empty = _flag(self.allow_empty)
        if (self.orders is None) == (not self.source):
            message = (
                f"Task {self.task_id}: give exactly one of orders and source; "
                f"there {'is neither' if self.orders is None else 'are both'} (after rendering)."
            )
            raise InputError(message)
        if not self.source:
            return orders_of(self.orders, allow_empty=allow_empty)
        if self.rejects and same_place(self.source, self.rejects):
            message = (
                f"Task {self.task_id}: source and rejects are the same file, {shown(self.source)}, which "
                "would be overwritten while it is read. Name another file for the rejects."
            )
            raise InputError(message)
        return read_orders(self.source, allow_empty=allow_empty)


def _check_rejects(counts: PlaceCounts, max_rejects: int | None, kept: str | None) -> None:
    from airflow_provider_feedamp.exceptions import TooManyRejectsError

    if max_rejects is None or counts.rejected <= max_rejects:
        return
    message = (
        f"{counts.rejected} of {counts.read} orders were rejected, and max_rejects is {max_rejects} "
        f"({counts}). "
    )
    if kept:
        message += f"They are in {kept} with their reasons: mend them there and give that file as source."
    else:
        message += "Set rejects to a path to keep them with their reasons."
    raise TooManyRejectsError(message)


def _limit(value: object) -> int | None:
    """Return ``max_rejects`` as the number that it is, also from a rendered template."""
    from airflow_provider_feedamp.exceptions import InputError

    if value is None or value == "None":
        return None
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    message = f"max_rejects must be a whole number from 0 or None, not {value!r}."
    raise InputError(message)


def _flag(value: object) -> bool:
    """Return ``allow_empty`` as the truth that it is, also from a rendered template."""
    from airflow_provider_feedamp.exceptions import InputError

    if isinstance(value, bool):
        return value
    if str(value).strip().lower() in {"true", "false"}:
        return str(value).strip().lower() == "true"
    message = f"allow_empty must be True or False, not {value!r}."
    raise InputError(message)
