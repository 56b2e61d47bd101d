"""Polling for what sellers changed: nothing is missed, and little is handed out twice.

Orders carry no time of their last change, and FeedAMP's lists may lag behind. So a poll asks from the instant
at which the poll before it began by our own clock, less an overlap; what that one has handed out already is
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
from typing import TYPE_CHECKING, Final, TypedDict

from airflow_provider_feedamp.api.types import OrderStatus
from airflow_provider_feedamp.exceptions import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_feedamp.api.orders import OrdersApi

log = logging.getLogger(__name__)

#: More than FeedAMP's lists lag and its clock differs from ours, together. Neither is documented.
DEFAULT_OVERLAP: Final = timedelta(minutes=5)

#: The most entries that a mark knows, 160 kB: as many as can be listed in a minute at two calls a second.
MOST_SEEN: Final = 10_000

# Bytes of an entry in a mark that is kept: enough of them that no change is taken for one that is known.
_KEY, _STATE = 8, 4

# What a seller does to an order; its status is what FeedAMP makes of that.
_SELLERS = ("acknowledged", "fulfillments", "errors")


class ChangedOrder(TypedDict):
    """An order that the seller changed: its number and FeedAMP's status, and nothing about a person."""

    mp_order_number: str
    status: str


@dataclass(frozen=True, slots=True)
class Watermark:
    """How far polling has come; it names no order and no person, and its size is bounded.

    :param at: The instant to ask from, with a time zone.
    :param seen: What was handed out and may be listed again: digests of states by digests of what has them.
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
            pairs = [seen[start : start + _KEY + _STATE] for start in range(0, len(seen), _KEY + _STATE)]
            return cls(datetime.fromisoformat(at), {pair[:_KEY]: pair[_KEY:] for pair in pairs})
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
        key, state = digests([number, *map(order.get, _SELLERS)], status)
        # An order that the marketplace has closed in the meantime is not changed by the seller.
        if mark.seen.get(key) != state and (key not in mark.seen or status != OrderStatus.COMPLETE):
            changed.append({"mp_order_number": number, "status": str(status)})
        seen[key] = state
    return changed, Watermark(following, seen)


def digests(what: object, state: object) -> tuple[bytes, bytes]:
    """Return an entry of a mark: short digests of two JSON values, the same for the same values."""
    return _digest(what, _KEY), _digest(state, _STATE)


def _digest(value: object, size: int) -> bytes:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=size).digest()
