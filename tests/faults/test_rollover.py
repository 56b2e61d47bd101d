"""A bulk import over 100 renewals: no order is refused for its token, and the workers do not all wait."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.bulk.place import place_orders
from airflow_provider_feedamp.bulk.rejects import RejectsFile
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
from airflow_provider_feedamp.sandbox.server import serve
from airflow_provider_feedamp.sandbox.settings import SandboxSettings
from tests.bulk.feedamps import orders_of
from tests.tokens.custody import BusyEndpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_feedamp.api.client import OrdersApi
    from airflow_provider_feedamp.api.types import PlacedOrder

pytestmark = pytest.mark.faults

ROLLOVERS = 100
WORKERS = 4
#: Seconds of FeedAMP's time that each order takes: some 50 orders for each token of an hour.
EACH = 60.0
#: Seconds that no order takes longer than: less than the window in which a token is not used any more.
LONGEST = 100.0


@dataclass
class Clock:
    """FeedAMP's time and ours, moved by the orders that are placed and by nothing else."""

    seconds: float = field(default_factory=lambda: datetime.now(UTC).timestamp())
    placed: int = 0
    _starts: Counter[float] = field(default_factory=Counter)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def now(self) -> float:
        return self.seconds

    @contextmanager
    def order(self) -> Iterator[None]:
        """Let time pass with an order, but not so much that one in flight would take too long."""
        with self._changed:
            start = self.seconds
            self._starts[start] += 1
        yield
        with self._changed:
            self._starts[start] -= 1
            self._starts += Counter()  # drops those that have ended
            ends = min(self._starts, default=self.seconds + EACH) + LONGEST
            self.seconds = max(self.seconds, min(self.seconds + EACH, ends))
            self.placed += 1
            self._changed.notify_all()

    def others_go_on(self) -> bool:
        """Wait until one more order has been placed, and say whether that came to pass."""
        with self._changed:
            seen = self.placed
            return self._changed.wait_for(lambda: self.placed > seen, timeout=100)


@dataclass(frozen=True)
class TimedOrders:
    """The order API, with the clock that its calls move."""

    api: OrdersApi
    clock: Clock

    def authorise(self) -> None:
        self.api.authorise()

    def place(self, order: Mapping[str, Any], *, body: bytes | None = None) -> PlacedOrder:
        with self.clock.order():
            return self.api.place(order, body=body)


def order(number: int) -> dict[str, Any]:
    return {
        "mp_order_number": f"order-{number}",
        "sales_channel": "shop",
        "currency": "EUR",
        "purchase_date": "2026-01-02T03:04:05Z",
        "marketplace_state": "AWAITING_SHIPMENT",
        "customer": {},
        "shipping_address": {},
        "order_lines": [{"mp_line_number": "1", "sku": "sku", "quantity": 1, "unit_price": 1.0}],
    }


def test_100_renewals_during_an_import_refuse_no_order_and_stop_no_other_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, went_on = Clock(), list[bool]()
    with serve(
        SandboxSettings(rotation="revoke_family"), now=lambda: datetime.fromtimestamp(clock.now(), UTC)
    ) as sandbox:
        connection = json.dumps(sandbox.connection("hooli"))
        monkeypatch.setenv("AIRFLOW__FEEDAMP__TOKEN_STORE", "memory")
        monkeypatch.setenv("AIRFLOW_CONN_FEEDAMP_DEFAULT", connection)

        def renewing() -> None:
            if sandbox.control.counters()[
                "token_posts"
            ]:  # for the first token there is no other to go on with
                went_on.append(clock.others_go_on())
                assert went_on[-1], "while the token was renewed, no other worker placed an order"

        def work(worker: int) -> int:
            """Import with a hook of its own, until FeedAMP has renewed often enough."""
            hook = FeedAmpHook()
            fields = {each.name: getattr(hook._custodian.endpoint, each.name) for each in ENDPOINT_FIELDS}
            hook.__dict__["_custodian"] = dataclasses.replace(
                hook._custodian, now=clock.now, endpoint=BusyEndpoint(**fields, before=renewing)
            )
            batch, placed = 0, 0
            while len(went_on) < ROLLOVERS:
                orders = orders_of([order(worker * 10**6 + batch * 10 + number) for number in range(10)])
                counts = place_orders(orders, TimedOrders(hook.client.orders, clock), RejectsFile(None))  # type: ignore[arg-type]
                assert counts.rejected == 0
                placed, batch = placed + counts.placed, batch + 1
            return placed

        with ThreadPoolExecutor(WORKERS) as pool:
            placed = sum(pool.map(work, range(WORKERS)))
        counters = sandbox.control.counters()

    assert counters["token_posts"] >= ROLLOVERS + 1
    assert counters["refused"] == {}
    assert counters["calls"] == {"place_order": placed}


ENDPOINT_FIELDS = [each for each in dataclasses.fields(BusyEndpoint) if each.name != "before"]
