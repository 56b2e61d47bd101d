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


def orders_in_words(count: int) -> str:
    """Return a number of orders as a person would say it."""
    return "1 order" if count == 1 else f"{count:,} orders"
