"""Stand-ins for the order API, for tests of what happens around it."""

from __future__ import annotations

import json
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.api.types import PlacedOrder
from airflow_provider_feedamp.bulk.source import FileInput, ListInput
from airflow_provider_feedamp.exceptions import BadRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from airflow_provider_feedamp.bulk.source import SourceOrder

PATIENCE = 10.0


class Orders:
    """Keeps what it is given, and refuses what says so; it may be told to do something at each call."""

    def __init__(self, at_each: Callable[[str], object] = lambda number: None) -> None:
        self.held: dict[str, Any] = {}
        self.calls: list[str] = []
        self.at_each = at_each
        self.authorised = 0
        self.together = 0
        self.most_together = 0
        self.overlaps: list[str] = []
        self._under_way: Counter[str] = Counter()
        self._lock = threading.Lock()

    def authorise(self) -> None:
        self.authorised += 1

    def place(self, order: Mapping[str, Any], *, body: bytes | None = None) -> PlacedOrder:
        number = order["mp_order_number"]
        with self._lock:
            self.calls.append(number)
            self._under_way[number] += 1
            self.together += 1
            self.most_together = max(self.most_together, self.together)
            if self._under_way[number] > 1:
                self.overlaps.append(number)
        try:
            self.at_each(number)
            if order.get("refuse"):
                raise BadRequestError(f"placing order {number!r}: refused", status=400, codes=("REFUSED",))
            with self._lock:
                known = number in self.held
                self.held[number] = dict(order)
            return PlacedOrder(number, not known, None)
        finally:
            with self._lock:
                self._under_way[number] -= 1
                self.together -= 1


class Gate:
    """Holds up the calls for some orders until it is opened."""

    def __init__(self, *numbers: str) -> None:
        self._numbers = numbers
        self._open = threading.Event()
        self.reached = threading.Event()
        #: For the test that opens it, to note what there was at that time.
        self.opened_at = 0

    def __call__(self, number: str) -> None:
        if number in self._numbers:
            self.reached.set()
            assert self._open.wait(PATIENCE)

    def open(self) -> None:
        self._open.set()


class Memory:
    """Keeps a checkpoint as Airflow does: as JSON."""

    def __init__(self) -> None:
        self.text: str | None = None
        self.saves = 0

    def load(self) -> Any:
        return None if self.text is None else json.loads(self.text)

    def save(self, value: dict[str, Any]) -> None:
        self.saves += 1
        self.text = json.dumps(value)

    def clear(self) -> None:
        self.text = None


def good_order(number: str = "A-1", **changes: Any) -> dict[str, Any]:
    """Return an order that FeedAMP takes, with changes."""
    return {
        "mp_order_number": number,
        "sales_channel": "US",
        "customer": {"full_name": "Jane Sécretname"},
        "purchase_date": "2024-05-01T23:52:01Z",
        "currency": "USD",
        "shipping_address": {"full_name": "Jane Sécretname", "address1": "1 Hidden Street"},
        "order_lines": [{"mp_line_number": "1", "sku": "S-1", "quantity": 2, "unit_price": 1.5}],
        "marketplace_state": "AWAITING_SHIPMENT",
    } | changes


def write_orders(path: Path, orders: Iterable[Mapping[str, Any]]) -> str:
    """Write orders to a file of lines and return its path."""
    path.write_bytes(b"".join(json.dumps(each).encode() + b"\n" for each in orders))
    return str(path)


def read_orders(path: str, **options: Any) -> Iterator[SourceOrder]:
    """Read the orders of a file."""
    return FileInput(path, **options).open()


def orders_of(orders: object, **options: Any) -> Iterator[SourceOrder]:
    """Read the orders of a list."""
    return ListInput(orders, **options).open()
