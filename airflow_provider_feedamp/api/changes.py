"""Polling for what sellers changed: nothing is missed, and little is returned twice.

Orders carry no time of their last change, and FeedAMP's lists may lag behind. So a poll asks from the instant
at which the poll before it began by our own clock, less an overlap; what that one has returned already is
known by a digest and left out.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypedDict

from airflow_provider_feedamp.api.types import OrderStatus, RefundStatus, ReturnStatus
from airflow_provider_feedamp.exceptions import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_provider_feedamp.api.client import FeedAmpClient, OrdersApi

log = logging.getLogger(__name__)

#: More than FeedAMP's lists lag and its clock differs from ours, together. Neither is documented.
DEFAULT_OVERLAP: Final = timedelta(minutes=5)

#: The most entries that a mark knows, 160 kB: as many as can be listed in a minute at two calls a second.
MOST_SEEN: Final = 10_000

# Bytes of an entry in a mark that is kept: enough of them that no change is taken for one that is known.
_KEY_BYTES, _STATE_BYTES = 8, 4

# The fields of an order that a seller sets; FeedAMP derives its status from them.
_SET_BY_SELLER = ("acknowledged", "fulfillments", "errors")

#: What can be watched.
RESOURCES: Final = ("fulfillments", "refunds", "returns")

# A seller has acted on these returns, and the marketplace has not finished with them.
_MOVED = (ReturnStatus.AUTHORIZED, ReturnStatus.REFUNDED)


class ChangedOrder(TypedDict):
    """An order that the seller changed: its number and FeedAMP's status, and nothing about a person."""

    mp_order_number: str
    status: str


@dataclass(frozen=True, slots=True)
class Watermark:
    """How far polling has come; it names no order and no person, and its size is bounded.

    :param at: The instant to ask from, with a time zone.
    :param seen: What was returned and may be listed again: the digest of each entry, and that of its state.
        At most ``MOST_SEEN`` are kept.
    """

    at: datetime
    seen: Mapping[bytes, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.at, datetime) or self.at.utcoffset() is None:
            raise InputError("The instant to ask from must be a datetime with a time zone.")
        object.__setattr__(self, "at", self.at.astimezone(UTC))
        if len(self.seen) > MOST_SEEN:
            log.warning(
                "A poll listed %d entries and a mark knows %d: the next poll may hand out the others again",
                len(self.seen),
                MOST_SEEN,
            )
            object.__setattr__(self, "seen", dict(islice(self.seen.items(), MOST_SEEN)))

    def to_json(self) -> dict[str, str]:
        """Return the mark as JSON, for whoever keeps it."""
        seen = b"".join(key + state for key, state in self.seen.items())
        return {"at": self.at.isoformat(), "seen": base64.b64encode(seen).decode()}

    @classmethod
    def from_json(cls, kept: object) -> Watermark:
        """Return the mark that :meth:`to_json` gave.

        :raises InputError: It is none.
        """
        try:
            at, seen = kept["at"], base64.b64decode(kept["seen"], validate=True)  # type: ignore[index]
            pairs = [
                seen[start : start + _KEY_BYTES + _STATE_BYTES]
                for start in range(0, len(seen), _KEY_BYTES + _STATE_BYTES)
            ]
            return cls(datetime.fromisoformat(at), {pair[:_KEY_BYTES]: pair[_KEY_BYTES:] for pair in pairs})
        except (TypeError, KeyError, ValueError) as error:
            raise InputError(
                "What is kept as a watermark is none: it needs `at`, an instant, and `seen`, base64."
            ) from error


def poll(
    orders: OrdersApi, mark: Watermark, *, now: datetime, overlap: timedelta = DEFAULT_OVERLAP
) -> tuple[list[ChangedOrder], Watermark]:
    """Return the orders that the seller changed since a mark, and the mark for the next poll.

    Keep the new mark only together with the orders: whoever fails in between asks again from the old one.

    :param orders: The seller's orders.
    :param mark: The mark of the poll before.
    :param now: This process's clock, read before this call, with a time zone.
    :param overlap: How far the next poll reaches back behind ``now``; it has to be longer than lists lag and
        clocks differ together.
    :raises InputError: ``now`` has no zone, or the overlap is negative.
    """
    if overlap < timedelta(0):
        raise InputError(f"The overlap must not be negative, but it is {overlap}.")
    following = Watermark(now).at - overlap
    if mark.at > now:
        log.warning("The last poll was at %s, which is still to come: a clock was wrong", mark.at.isoformat())
    changed: list[ChangedOrder] = []
    seen: dict[bytes, bytes] = {}
    for order in orders.list(seller_updated_after=min(mark.at, following)):
        number, status = order.get("mp_order_number"), order.get("status")
        if number is None:
            continue
        key, state = digests([number, *map(order.get, _SET_BY_SELLER)], status)
        # An order that the marketplace has closed in the meantime is not changed by the seller.
        if mark.seen.get(key) != state and (key not in mark.seen or status != OrderStatus.COMPLETE):
            changed.append({"mp_order_number": number, "status": str(status)})
        seen[key] = state
    return changed, Watermark(following, seen)


def digests(what: object, state: object) -> tuple[bytes, bytes]:
    """Return an entry of a mark: short digests of two JSON values, the same for the same values."""
    return _digest(what, _KEY_BYTES), _digest(state, _STATE_BYTES)


def _digest(value: object, size: int) -> bytes:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=size).digest()


def activity(
    client: FeedAmpClient,
    resource: str,
    mark: Watermark,
    *,
    now: datetime,
    overlap: timedelta = DEFAULT_OVERLAP,
) -> tuple[list[dict[str, Any]], Watermark]:
    """Return what is new of a resource, as identifiers and statuses, and the mark for the next poll.

    - ``fulfillments``: orders that the seller changed (shipped, cancelled, confirmed, errors resolved).
    - ``refunds``: refunds that have become ready to be paid.
    - ``returns``: returns that the seller authorised, or entered or changed the amounts of.

    Refunds and returns have no filter for changes. All that are open are listed each time, and the mark
    knows them.

    :param client: The seller's client.
    :param resource: One of :data:`RESOURCES`.
    :param mark: The mark of the poll before.
    :param now: This process's clock, read before this call, with a time zone.
    :param overlap: As for :func:`poll`.
    """
    if resource == "fulfillments":
        orders, following = poll(client.orders, mark, now=now, overlap=overlap)
        return [dict(order) for order in orders], following
    new, seen = [], {}
    for entry, details in _refunds(client) if resource == "refunds" else _returns(client):
        ids = {name: value for name, value in entry.items() if name != "status"}
        key, state = digests(ids, [entry.get("status"), details])
        seen[key] = state
        if mark.seen.get(key) != state:
            new.append(entry)
    return new, Watermark(now, seen)


def _refunds(client: FeedAmpClient) -> Iterable[tuple[dict[str, Any], object]]:
    for refund in client.refunds.list(refund_status=[RefundStatus.CREATED]):
        if refund.get("status") == RefundStatus.CREATED:
            yield {name: refund.get(name) for name in ("mp_order_number", "feedamp_refund_id")}, None


def _returns(client: FeedAmpClient) -> Iterable[tuple[dict[str, Any], object]]:
    for each in client.returns.list(return_status=list(_MOVED)):
        # The filter's name is a guess: a server that does not know it may answer with all returns.
        if each.get("status") in _MOVED:
            entry = {name: each.get(name) for name in ("mp_order_number", "mp_return_number", "status")}
            yield entry, [each.get(name) for name in ("merchant_refund_lines", "errors")]
