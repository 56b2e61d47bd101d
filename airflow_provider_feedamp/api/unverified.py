"""What FeedAMP's pages do not say, guessed in one place; each guess can be replaced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

#: What FeedAMP sets on an order and does not take back in a PUT. ``is_marketplace_fulfilled`` is not among
#: them: whether it may be sent is not documented, but leaving it out could turn it to false, and the seller
#: would ship what the marketplace ships too. A refused PUT is loud and harmless, a second parcel is not.
READ_ONLY_ORDER_FIELDS: Final = frozenset({"fulfillments", "acknowledged", "status", "errors"})


@dataclass(frozen=True, slots=True)
class Unverified:
    """The guesses that the client works with; make one with other values where FeedAMP proves one wrong.

    :param refund_complete_path: What follows a refund's path to mark it as complete; ``/`` for nothing.
    :param return_complete_path: What follows a return's path to mark it as complete; ``/`` for nothing.
    :param returns_by_order: Name of the filter on returns by order numbers.
    :param returns_by_status: Name of the filter on returns by status.
    :param returns_after: Name of the filter on returns by the earliest request.
    :param returns_before: Name of the filter on returns by the latest request.
    :param read_only_order_fields: What a change of an order's state does not put back.
    :param inserted: HTTP status of a PUT whose order or return is new.
    :param updated: HTTP status of a PUT whose order or return was known.
    """

    refund_complete_path: str = "complete"
    return_complete_path: str = "complete"
    returns_by_order: str = "mp_order_numbers"
    returns_by_status: str = "return_status"
    returns_after: str = "requested_after"
    returns_before: str = "requested_before"
    read_only_order_fields: Collection[str] = READ_ONLY_ORDER_FIELDS
    inserted: int = 201
    updated: int = 200

    def is_new(self, status: int) -> bool | None:
        """Return whether a PUT made something new, as its status says; None when it says neither."""
        return {self.inserted: True, self.updated: False}.get(status)


def segments(tail: str) -> list[str]:
    """Return the path segments of a guessed tail, such as ``complete`` or ``actions/complete``."""
    return [segment for segment in tail.split("/") if segment]
