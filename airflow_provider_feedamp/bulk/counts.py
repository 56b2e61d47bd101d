"""The account of an import, and what it says once at its end."""

from __future__ import annotations

import logging
import re
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.api.types import Order, OrderLine

if TYPE_CHECKING:
    from airflow_provider_feedamp.bulk.parse import SourceOrder

log = logging.getLogger(__name__)

_ORDER_FIELDS = frozenset(Order.__annotations__)
_LINE_FIELDS = frozenset(OrderLine.__annotations__)
_MOST_FIELDS = 20
#: Names that may be shown; where something else is a key, it may be a customer's.
_FIELD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,40}")


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


class Notes:
    """What is odd about orders that were sent all the same: counted, and said once for an import."""

    def __init__(self) -> None:
        self._fields: Counter[str] = Counter()
        self._with_errors = 0
        self._first_with_errors: SourceOrder | None = None
        self._lock = threading.Lock()

    def look_at(self, order: Any) -> None:
        """Count the fields that FeedAMP's pages do not have; each once for an order."""
        if not isinstance(order, dict):
            return
        names = {_shown(name) for name in order.keys() - _ORDER_FIELDS}
        lines = order.get("order_lines")
        for line in lines if isinstance(lines, list) else ():
            if isinstance(line, dict):
                names.update(f"order_lines.{_shown(name)}" for name in line.keys() - _LINE_FIELDS)
        for name in names:
            # A key that is a value, such as a number, must not make this grow with the orders.
            self._fields[name if name in self._fields or len(self._fields) < _MOST_FIELDS else "others"] += 1

    def taken_with_errors(self, order: SourceOrder) -> None:
        """Note an order that FeedAMP took with an answer that names errors; called in any thread."""
        with self._lock:
            self._with_errors += 1
            if self._first_with_errors is None or order.line < self._first_with_errors.line:
                self._first_with_errors = order

    def tell(self) -> None:
        """Write what was noted to the log."""
        if self._fields:
            named = ", ".join(f"{name} (in {orders_in_words(count)})" for name, count in self._fields.items())
            log.warning("FeedAMP's pages do not have these fields, which are sent as they are: %s", named)
        if self._first_with_errors is not None:
            log.warning(
                "%s taken by FeedAMP with an answer that names errors, the first in %s: look at what FeedAMP "
                "holds of them",
                orders_were(self._with_errors),
                self._first_with_errors.place,
            )


def _shown(name: str) -> str:
    return name if _FIELD.fullmatch(name) else f"a name of {len(name)} characters"


def orders_in_words(count: int, kind: str = "") -> str:
    """Return a number of orders as a person would say it.

    :param kind: A word before "orders", with a space behind it. Default: none.
    """
    return f"1 {kind}order" if count == 1 else f"{count:,} {kind}orders"


def orders_were(count: int, kind: str = "") -> str:
    """Return a number of orders and its verb; see :func:`orders_in_words`."""
    return f"{orders_in_words(count, kind)} {'was' if count == 1 else 'were'}"
