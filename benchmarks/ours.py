"""The provider's own part of the benchmarks, each in a new process: ``python -m benchmarks.ours WHAT``."""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import threading
import time
import timeit
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_feedamp.bulk.place import import_orders
from airflow_provider_feedamp.bulk.source import FileInput, parse_order
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
from airflow_provider_feedamp.tokens.sql_store import SqlStore
from benchmarks.contestants import WARM_UP, Meter
from benchmarks.orders import order_line, write_orders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_feedamp.api.client import OrdersApi
    from airflow_provider_feedamp.api.types import PlacedOrder
    from airflow_provider_feedamp.bulk.progress import Progress
    from airflow_provider_feedamp.bulk.source import SourceOrder

Figures = dict[str, Any]
_LOOKS = 20_000


def main() -> None:
    """Measure one thing and print its figures as JSON."""
    measures: dict[str, Callable[[argparse.Namespace], Figures]] = {
        "import": place,
        "latency": latency,
        "memory": memory,
        "call": warm_call,
        "token": warm_token,
        "new-process": new_process,
    }
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=list(measures))
    parser.add_argument("--orders", type=Path)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--workers", type=int, default=32)
    arguments = parser.parse_args()
    print(json.dumps(measures[arguments.what](arguments)))


def place(arguments: argparse.Namespace) -> Figures:
    """Import the orders of a file as the operator does."""
    hook = FeedAmpHook(pool_size=arguments.workers)
    warm_up(hook.client.orders, arguments)
    with Meter() as meter:
        counts = import_orders(
            FileInput(str(arguments.orders)), hook.client.orders, max_workers=arguments.workers
        )
    return {"orders": counts.placed, "seconds": meter.seconds, "cpu": meter.cpu}


def warm_up(orders: OrdersApi, arguments: argparse.Namespace) -> None:
    """Import a few orders that do not count."""
    few = write_orders(arguments.orders.with_name("warm-up.ndjson"), WARM_UP)
    import_orders(FileInput(str(few)), orders, max_workers=arguments.workers)


class Timed:
    """The order endpoints, with the seconds that each order took from its worker's hands to the answer."""

    def __init__(self, orders: OrdersApi) -> None:
        self._orders = orders
        self.authorise = orders.authorise
        self.seconds: list[float] = []

    def place(self, order: dict[str, Any], *, body: bytes | None = None) -> PlacedOrder:
        """Place an order."""
        began = time.perf_counter()
        placed = self._orders.place(order, body=body)
        self.seconds.append(time.perf_counter() - began)
        return placed


def latency(arguments: argparse.Namespace) -> Figures:
    """Import the orders of a file, and say how long the slowest of a hundred took."""
    hook = FeedAmpHook(pool_size=arguments.workers)
    warm_up(hook.client.orders, arguments)
    timed = Timed(hook.client.orders)
    counts = import_orders(
        FileInput(str(arguments.orders)), cast("OrdersApi", timed), max_workers=arguments.workers
    )
    slowest = sorted(timed.seconds)[-max(len(timed.seconds) // 100, 1) :]
    return {
        "orders": counts.placed,
        "rejected": counts.rejected,
        "p99": slowest[0],
        "slowest_1_percent": statistics.mean(slowest),
        "slowest": slowest[-1],
    }


@dataclass
class Generated:
    """A source of so many orders that exist one at a time."""

    count: int
    name = "generated orders"

    def fingerprint(self, read: int = 0) -> str | None:
        """Return None: there is no going on behind a checkpoint."""
        return None

    def open(self, skip: int = 0) -> Iterator[SourceOrder]:
        """Return the orders."""
        return (parse_order(position + 1, order_line(position)) for position in range(self.count))

    def share(self) -> float | None:
        """Return None: the orders are not counted beforehand."""
        return None


def memory(arguments: argparse.Namespace) -> Figures:
    """Import generated orders, and say how much memory the process had at most."""
    hook = FeedAmpHook(pool_size=arguments.workers)

    def tell(progress: Progress) -> None:
        if sys.stderr.isatty():
            print(f"\r{progress.done:>9,} of {arguments.count:,}", end="", file=sys.stderr, flush=True)

    with Meter() as meter:
        counts = import_orders(
            Generated(arguments.count), hook.client.orders, max_workers=arguments.workers, observers=(tell,)
        )
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"orders": counts.placed, "seconds": meter.seconds, "cpu": meter.cpu, "most_mb": most}


def warm_call(arguments: argparse.Namespace) -> Figures:
    """Place one order again and again, from the main thread alone."""
    orders = FeedAmpHook().client.orders
    order = json.loads(order_line(1))
    for _ in range(WARM_UP):
        orders.place(order)
    with Meter() as meter:
        for _ in range(arguments.count):
            orders.place(order)
    return {"orders": arguments.count, "seconds": meter.seconds, "cpu": meter.cpu}


def warm_token(_: argparse.Namespace) -> Figures:
    """Compare a token that the process has with reading a dict under a lock."""
    hook = FeedAmpHook()
    hook.get_access_token()
    accesses = count_store_accesses()
    lock = threading.Lock()
    tokens = {"hooli": "token"}

    def from_dict() -> str:
        with lock:
            return tokens["hooli"]

    def nanoseconds(call: Callable[[], object]) -> float:
        return min(timeit.repeat(call, number=_LOOKS, repeat=15)) / _LOOKS * 1e9

    figures = {"token_ns": nanoseconds(hook.get_access_token), "dict_ns": nanoseconds(from_dict)}
    return {**figures, "store_accesses": sum(accesses.values())}


def new_process(_: argparse.Namespace) -> Figures:
    """Make a hook in this new process and send one authorised request."""
    accesses = count_store_accesses()
    with Meter() as meter:
        answer = FeedAmpHook().get_conn().get("orders")
    answer.raise_for_status()
    return {"accesses": accesses, "seconds": meter.seconds}


def count_store_accesses() -> dict[str, int]:
    """Count from now on how often this process uses the token store, by method."""
    counted: dict[str, int] = {}

    def watch(name: str) -> None:
        method = getattr(SqlStore, name)

        def counting(*arguments: Any, **options: Any) -> Any:
            counted[name] = counted.get(name, 0) + 1
            return method(*arguments, **options)

        setattr(SqlStore, name, counting)

    for name in ("read", "write", "lock", "delete", "keys"):
        watch(name)
    return counted


if __name__ == "__main__":
    main()
