"""Tasks that write what a seller's FeedAMP account holds to files on object storage."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow_provider_feedamp.assets import account_uri, operator_lineage
from airflow_provider_feedamp.bulk.paths import loggable
from airflow_provider_feedamp.exceptions import DestinationError, InputError, StoppedError, counted
from airflow_provider_feedamp.operators.base import (
    FeedAmpOperator,
    flag,
    given_instant,
    given_texts,
    nothing,
    outlet_events,
)
from airflow_provider_feedamp.transfers.ndjson_file import ndjson_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_feedamp.api.client import FeedAmpClient
    from airflow_provider_feedamp.bulk.threads import Stop
    from airflow_provider_feedamp.transfers.ndjson_file import NdjsonFile

log = logging.getLogger(__name__)

#: The filters that are lists. Beside them, has_errors is true or false, and all others are instants.
_LISTS = ("mp_order_numbers", "fulfillment_status", "refund_status", "return_status")
_ORDERS = ("mp_order_numbers", "fulfillment_status", "imported_after", "seller_updated_after", "has_errors")
#: The filters of each resource.
FILTERS: Final[dict[str, tuple[str, ...]]] = {
    "orders": _ORDERS,
    "fulfillments": _ORDERS,
    "refunds": ("mp_order_numbers", "refund_status", "created_after", "created_before"),
    "returns": ("mp_order_numbers", "return_status", "requested_after", "requested_before"),
}
_FILTER_NAMES = tuple(dict.fromkeys(name for names in FILTERS.values() for name in names))


class FeedAmpToObjectStorageOperator(FeedAmpOperator):
    """Write orders, fulfilments, refunds or returns of a seller to a file, one JSON object per line.

    The lists are streamed, so their length does not matter. The file is there when it is whole: a run that
    fails or is stopped leaves nothing of it, and one that is repeated replaces it. It holds personal data; a
    local one can be read by its owner only. Without anything to write it is empty.

    A filter that is not given, or renders to nothing or ``None``, is not applied. Further parameters:
    ``feedamp_conn_id`` and ``seller``, see :class:`.FeedAmpOperator`.

    :param resource: ``orders``, ``fulfillments`` (one line per order: its number and what the seller did),
        ``refunds`` or ``returns`` (templated).
    :param destination: Path or URL that Airflow's object storage can write, such as
        ``s3://connection_id@bucket/{{ run_id }}/orders.ndjson.gz`` (templated): ``.ndjson`` or ``.jsonl``,
        compressed if ``.gz`` follows.
    :param mp_order_numbers: Only what belongs to these orders: a list, the output of another task, or the
        text of a JSON array (templated).
    :param fulfillment_status: Orders and fulfilments: only of orders in one of these states (templated).
    :param imported_after: Orders and fulfilments: only of orders that came to FeedAMP at or after this
        instant (templated). All instants are datetimes with a time zone, or ISO 8601 with one.
    :param seller_updated_after: Orders and fulfilments: only of orders that the seller changed at or after
        this instant (templated).
    :param has_errors: Orders and fulfilments: only of orders with errors (True) or without (False)
        (templated).
    :param refund_status: Refunds: only those in one of these states (templated).
    :param created_after: Refunds: only those created at or after this instant (templated).
    :param created_before: Refunds: only those created at or before this instant (templated).
    :param return_status: Returns: only those in one of these states (templated).
    :param requested_after: Returns: only those asked for at or after this instant (templated). FeedAMP may
        ignore this and the next filter: their names are not documented.
    :param requested_before: Returns: only those asked for at or before this instant (templated).
    :return: What was written: ``destination``, ``resource``, ``count`` of lines and ``bytes``.
    """

    template_fields: Sequence[str] = ("resource", "destination", *_FILTER_NAMES, "feedamp_conn_id", "seller")
    template_fields_renderers: ClassVar[dict[str, str]] = dict.fromkeys(_LISTS, "json")
    #: The export under way in this process, to request its stop.
    _stop: Stop | None = None
    #: What was read and written, for OpenLineage.
    _lineage: tuple[list[str], dict[str, tuple[int, int | None]]] = ([], {})

    def __init__(
        self,
        *,
        resource: str,
        destination: str,
        mp_order_numbers: Sequence[str] | XComArg | str | None = None,
        fulfillment_status: Sequence[str] | XComArg | str | None = None,
        imported_after: datetime | str | None = None,
        seller_updated_after: datetime | str | None = None,
        has_errors: bool | str | None = None,
        refund_status: Sequence[str] | XComArg | str | None = None,
        created_after: datetime | str | None = None,
        created_before: datetime | str | None = None,
        return_status: Sequence[str] | XComArg | str | None = None,
        requested_after: datetime | str | None = None,
        requested_before: datetime | str | None = None,
        feedamp_conn_id: str = "feedamp_default",
        seller: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(feedamp_conn_id=feedamp_conn_id, seller=seller, **kwargs)
        self.resource = resource
        self.destination = destination
        self.mp_order_numbers = mp_order_numbers
        self.fulfillment_status = fulfillment_status
        self.imported_after = imported_after
        self.seller_updated_after = seller_updated_after
        self.has_errors = has_errors
        self.refund_status = refund_status
        self.created_after = created_after
        self.created_before = created_before
        self.return_status = return_status
        self.requested_after = requested_after
        self.requested_before = requested_before

    def on_kill(self) -> None:
        """Request a stop: the export ends after the line that it writes, and nothing of it is left."""
        if self._stop is not None:
            self._stop.request()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return the seller's account that was read and the file that was written, for OpenLineage."""
        return operator_lineage(self, *self._lineage)

    def _perform(self, context: Context) -> dict[str, Any]:
        from airflow_provider_feedamp.bulk.source import digest
        from airflow_provider_feedamp.bulk.threads import Stop

        filters = self._filters()
        hook = self._hook()
        entries = _entries(hook.client, self.resource, filters)
        origin = f"{self.resource} of seller {hook.seller!r} (connection {self.feedamp_conn_id})"
        log.info("Writing the %s to %s", origin, loggable(self.destination))
        # What names this task of this run in a file's name, and whether this is a new try of it.
        owner, again, ti = "", False, context.get("ti")
        if ti is not None:
            owner = digest(ti.dag_id, ti.run_id, ti.task_id, ti.map_index)[:16]
            again = ti.try_number > 1
        self._stop = stop = Stop()
        try:
            with ndjson_file(self.destination, owner=owner, again=again) as file:
                self._fill(file, entries, stop)
        finally:
            self._stop = None
        log.info("Wrote %s, %d bytes", counted(file.count, self.resource), file.bytes)
        account = account_uri(self.feedamp_conn_id, hook.seller, self.resource)
        self._lineage = [account], {self.destination: (file.count, file.bytes)}
        written = {"resource": self.resource, "count": file.count, "bytes": file.bytes}
        for event in outlet_events(self, context):
            event.extra.update(written, seller=hook.seller, file=loggable(self.destination))
        return {"destination": self.destination, **written}

    def _fill(self, file: NdjsonFile, entries: Iterator[Mapping[str, Any]], stop: Stop) -> None:
        """Write the entries, in a thread: one call of FeedAMP may last longer than Airflow waits."""
        from airflow_provider_feedamp.bulk.threads import run_apart

        def write() -> bool:
            for entry in entries:
                if stop.requested:
                    return False
                file.add(entry)
            return True

        whole = False
        try:
            with suppress(StoppedError):  # A call that did not end in time; the file goes without it.
                whole = run_apart(write, stop)
        finally:
            if not whole:
                log.warning("Stopped before the end, after %d %s; nothing is kept", file.count, self.resource)
        if not whole:
            raise DestinationError(
                f"Destination {loggable(self.destination)}: the export was told to stop before its end. "
                "Nothing is left of it; run the task again."
            )

    def _filters(self) -> dict[str, Any]:
        """Return the filters that are set, as the client takes them.

        :raises InputError: It names the resource or the filter that is not known, or cannot be read.
        """
        given = {name: getattr(self, name) for name in _FILTER_NAMES}
        given = {name: value for name, value in given.items() if not nothing(value) and value != ""}
        if self.resource not in FILTERS:
            raise InputError(f"resource must be one of {', '.join(FILTERS)}, not {self.resource!r}.")
        known = FILTERS[self.resource]
        if foreign := [name for name in given if name not in known]:
            raise InputError(
                f"{self.resource} have no filter {', '.join(foreign)}; they have: {', '.join(known)}."
            )
        for name, value in given.items():
            read = given_texts if name in _LISTS else flag if name == "has_errors" else given_instant
            given[name] = read(name, value)
        return given


def _entries(client: FeedAmpClient, resource: str, filters: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Return the entries of a resource, each once, as they are read from FeedAMP.

    Fulfilments are one entry per order: its number, and what endpoint 6 says of it (one call per order).
    Without order numbers or a ``fulfillment_status``, they are those of the orders with any activity: on
    which the seller has shipped or cancelled something, whether they are closed or not.

    :param resource: One of :data:`FILTERS`.
    :param filters: As the client's list takes them, only those that are set.
    :raises InputError: A filter cannot be sent; raised at once.
    """
    from airflow_provider_feedamp.api.types import FulfillmentFilter

    if resource == "orders":
        return client.orders.list(**filters)
    if resource == "refunds":
        return client.refunds.list(**filters)
    if resource == "returns":
        # The names of their filters are guesses, which a server may ignore.
        numbers, statuses = filters.get("mp_order_numbers"), filters.get("return_status")
        return (
            found
            for found in client.returns.list(**filters)
            if (numbers is None or found.get("mp_order_number") in numbers)
            and (statuses is None or found.get("status") in statuses)
        )
    if not {"mp_order_numbers", "fulfillment_status"} & filters.keys():
        active = (FulfillmentFilter.PARTIALLY_FULFILLED, FulfillmentFilter.COMPLETE)
        filters = {**filters, "fulfillment_status": active}
    placed = (str(order["mp_order_number"]) for order in client.orders.list(**filters))
    return ({"mp_order_number": number} | client.orders.fulfillments(number) for number in placed)
