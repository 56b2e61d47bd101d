"""Polling for what sellers changed: nothing is missed, and little is handed out twice.

Orders carry no time of their last change, and FeedAMP's lists may lag behind. So a poll asks from the instant
at which the poll before it began by our own clock, less an overlap; what that one has handed out already is
known by a digest and left out.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypedDict

from airflow_provider_feedamp.api.types import OrderStatus
from airflow_provider_feedamp.exceptions import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_feedamp.api.orders import OrdersApi
    from airflow_provider_feedamp.api.types import Order

log = logging.getLogger(__name__)

#: More than FeedAMP's lists lag and its clock differs from ours, together. Neither is documented.
DEFAULT_OVERLAP: Final = timedelta(minutes=5)

#: The most digests that a mark of orders keeps, some 40 kB; beyond them orders are handed out twice.
MOST_SEEN: Final = 1000


class ChangedOrder(TypedDict):
    """An order that the seller changed: its number and FeedAMP's status, and nothing about a person."""

    mp_order_number: str
    status: str


@dataclass(frozen=True, slots=True)
class Watermark:
    """How far polling has come; it names no order and no person, and its size is bounded.

    :param at: The instant to ask from, with a time zone.
    :param seen: What was handed out and may be listed again: digests of states by digests of numbers.
    """

    at: datetime
    seen: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.at, datetime) or self.at.utcoffset() is None:
            raise InputError("The instant to ask from must be a datetime with a time zone.")
        object.__setattr__(self, "at", self.at.astimezone(UTC))

    def to_json(self) -> dict[str, Any]:
        """Return the mark as JSON, for whoever keeps it."""
        return {"at": self.at.isoformat(), "seen": dict(self.seen)}

    @classmethod
    def from_json(cls, kept: object) -> Watermark:
        """Return the mark that :meth:`to_json` gave.

        :raises InputError: It is none.
        """
        try:
            at, seen = kept["at"], kept["seen"]  # type: ignore[index]
            return cls(datetime.fromisoformat(at), {str(key): str(state) for key, state in seen.items()})
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise InputError(
                "What is kept as a watermark is none: it needs `at`, an instant, and `seen`, digests."
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
    seen: dict[str, str] = {}
    for number, order in _numbered(orders, min(mark.at, following)):
        key, state = digest(number), _state(order)
        if not _is_known(mark.seen.get(key), state, order):
            changed.append({"mp_order_number": number, "status": str(order.get("status"))})
        seen[key] = state
    if len(seen) > MOST_SEEN:
        # The next poll lists the overlap alone again; what is older need not be known.
        again = {digest(number) for number, _ in _numbered(orders, following)}
        seen = dict([pair for pair in seen.items() if pair[0] in again][:MOST_SEEN])
    return changed, Watermark(following, seen)


def digest(value: object) -> str:
    """Return a short text that is the same for the same JSON value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _numbered(orders: OrdersApi, since: datetime) -> Iterator[tuple[str, Order]]:
    for order in orders.list(seller_updated_after=since):
        number = order.get("mp_order_number")
        if number is not None:
            yield number, order


def _state(order: Order) -> str:
    """Return two digests in a row: of what the seller did, and of the status that FeedAMP made of it."""
    done = [order.get(name) for name in ("acknowledged", "fulfillments", "errors")]
    return digest(done) + digest(order.get("status"))


def _is_known(known: str | None, state: str, order: Order) -> bool:
    if known is None or known == state:
        return known is not None
    # The marketplace has closed the order in the meantime, which is no change by the seller.
    half = len(state) // 2
    return order.get("status") == OrderStatus.COMPLETE and known[:half] == state[:half]
