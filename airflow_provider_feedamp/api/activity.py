"""What a seller has done lately, by resource: each poll hands out what is new since the one before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from airflow_provider_feedamp.api.types import RefundStatus, ReturnStatus
from airflow_provider_feedamp.api.watermark import DEFAULT_OVERLAP, Watermark, digests, poll

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime, timedelta

    from airflow_provider_feedamp.api.client import FeedAmpClient

#: What can be watched.
RESOURCES: Final = ("fulfillments", "refunds", "returns")

# A seller has acted on these returns, and the marketplace has not finished with them.
_MOVED = (ReturnStatus.AUTHORIZED, ReturnStatus.REFUNDED)


def activity(
    client: FeedAmpClient,
    resource: str,
    mark: Watermark,
    *,
    now: datetime,
    overlap: timedelta = DEFAULT_OVERLAP,
) -> tuple[list[dict[str, Any]], Watermark]:
    """Return what is new of a resource, as identifiers and statuses, and the mark for the next poll.

    - ``fulfillments``: orders that the seller changed (shipped, cancelled, confirmed, mended).
    - ``refunds``: refunds that have become ready to be paid.
    - ``returns``: returns that the seller authorised, or entered or changed the amounts of.

    Refunds and returns have no filter for changes. All that are open are listed each time, and the mark
    knows them.

    :param client: The seller's client.
    :param resource: One of :data:`RESOURCES`.
    :param mark: The mark of the poll before.
    :param now: This process's clock, read before this call, with a time zone.
    :param overlap: As for :func:`airflow_provider_feedamp.api.watermark.poll`.
    """
    if resource == "refunds":
        return _new(_refunds(client), mark, now)
    if resource == "returns":
        return _new(_returns(client), mark, now)
    orders, following = poll(client.orders, mark, now=now, overlap=overlap)
    return [dict(order) for order in orders], following


def _refunds(client: FeedAmpClient) -> Iterable[tuple[dict[str, Any], object]]:
    for refund in client.refunds.list(refund_status=[RefundStatus.CREATED]):
        if refund.get("status") == RefundStatus.CREATED:
            yield {name: refund.get(name) for name in ("mp_order_number", "feedamp_refund_id")}, None


def _returns(client: FeedAmpClient) -> Iterable[tuple[dict[str, Any], object]]:
    for each in client.returns.list(return_status=list(_MOVED)):
        # The filter's name is a guess: a server that does not know it may answer with all returns.
        if each.get("status") in _MOVED:
            told = {name: each.get(name) for name in ("mp_order_number", "mp_return_number", "status")}
            yield told, [each.get(name) for name in ("merchant_refund_lines", "errors")]


def _new(
    entries: Iterable[tuple[dict[str, Any], object]], mark: Watermark, now: datetime
) -> tuple[list[dict[str, Any]], Watermark]:
    """Return the entries that were not there the last time as they are now."""
    new, seen = [], {}
    for told, more in entries:
        ids = {name: value for name, value in told.items() if name != "status"}
        key, state = digests(ids, [told.get("status"), more])
        seen[key] = state
        if mark.seen.get(key) != state:
            new.append(told)
    return new, Watermark(now, seen)
