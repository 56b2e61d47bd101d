"""The account of an import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class PlaceCounts:
    """What became of the orders: each one read is placed or rejected.

    ``inserted`` and ``updated`` are what FeedAMP said of the placed ones; it may have said neither.
    """

    read: int = 0
    placed: int = 0
    inserted: int = 0
    updated: int = 0
    rejected: int = 0

    def __str__(self) -> str:
        return (
            f"read {self.read}, placed {self.placed} (inserted {self.inserted}, updated {self.updated}), "
            f"rejected {self.rejected}"
        )

    def rejected_in_words(self) -> str:
        """Say how many of them were rejected."""
        verb = "was" if self.rejected == 1 else "were"
        return f"{self.rejected} of {orders_in_words(self.read)} {verb} rejected"


def orders_in_words(count: int, kind: str = "") -> str:
    """Return a number of orders as a person would say it.

    :param kind: A word before "orders", with a space behind it. Default: none.
    """
    return f"1 {kind}order" if count == 1 else f"{count:,} {kind}orders"


def orders_were(count: int, kind: str = "") -> str:
    """Return a number of orders and its verb; see :func:`orders_in_words`."""
    return f"{orders_in_words(count, kind)} {'was' if count == 1 else 'were'}"
