"""The rows of the table: what is measured, against what, and what it has to reach."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.world import world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.world import World

ROUND_TRIP = 0.025
WORKERS = 32
MANY_WORKERS = 256


@dataclass(frozen=True)
class Options:
    """How much is measured.

    :param rounds: How often the contestants of one row take turns.
    :param many: Orders of the long import.
    """

    rounds: int
    many: int


@dataclass(frozen=True)
class Row:
    """One row of the table.

    :param measure: What was measured.
    :param result: The figure, in words.
    :param against: What it stands beside, in words.
    :param ratio: What the goal is about: a ratio, or the figure itself.
    :param goal: The goal, in words.
    :param reached: Whether it was reached.
    :param figures: All that was measured.
    """

    measure: str
    result: str
    against: str
    ratio: float
    goal: str
    reached: bool
    figures: dict[str, Any] = field(default_factory=dict)


def speed(options: Options) -> list[Row]:
    """Orders per second, against Airflow's HttpHook in a loop and against what the network allows."""
    with world(round_trip=ROUND_TRIP) as place:
        ours, loop = [], []
        for _ in range(options.rounds):
            ours.append(import_with(place, 6000))
            loop.append(place.contestant("http-hook", place.orders(100), 1))
    rate, loop_rate = max(map(per_second, ours)), max(map(per_second, loop))
    limit = WORKERS / ROUND_TRIP
    figures = {"ours": ours, "http_hook": loop}
    times, share = rate / loop_rate, rate / limit
    what = f"orders per second, {ROUND_TRIP * 1000:.0f} ms round trip, {WORKERS} workers"
    against = f"`HttpHook.run` in a loop: {loop_rate:.1f}/s"
    network = f"workers / round trip: {limit:.0f}/s"
    return [
        Row(what, f"{rate:.0f}/s", against, times, "at least 28 times", times >= 28, figures),
        Row(what, f"{rate:.0f}/s", network, share, "at least 0.93", share >= 0.93),
    ]


def wide(options: Options) -> list[Row]:
    """Orders per second with more workers than a processor can serve, against bare threads of urllib3."""
    found: dict[str, list[dict[str, Any]]] = {"ours": [], "urllib3": []}
    with world(round_trip=ROUND_TRIP) as place:
        for _ in range(options.rounds):
            found["ours"].append(import_with(place, 20_000, MANY_WORKERS))
            found["urllib3"].append(place.contestant("urllib3", place.orders(20_000), MANY_WORKERS))
    best = {name: max(map(per_second, results)) for name, results in found.items()}
    ratio = best["ours"] / best["urllib3"]
    return [
        Row(
            f"orders per second, {ROUND_TRIP * 1000:.0f} ms round trip, {MANY_WORKERS} workers",
            f"{best['ours']:.0f}/s",
            f"bare urllib3 with the same bytes and workers: {best['urllib3']:.0f}/s",
            ratio,
            "at least 1.5 times",
            ratio >= 1.5,
            found,
        )
    ]


def processor(options: Options) -> list[Row]:
    """Processor time per order, against bare loops with the same bytes and threads."""
    others = ("urllib3", "requests", "aiohttp")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ("ours", *others)}
    with world(round_trip=ROUND_TRIP) as place:
        for _ in range(options.rounds):
            found["ours"].append(import_with(place, 4000))
            for name in others:
                found[name].append(place.contestant(name, place.orders(4000), WORKERS))
    best = {name: min(map(milliseconds_each, results)) for name, results in found.items()}
    figures = {"milliseconds": best, "runs": found}
    to_urllib3, to_aiohttp = best["ours"] / best["urllib3"], best["ours"] / best["aiohttp"]
    what = "processor time per order, reading, validation and accounting included"
    result = f"{best['ours']:.2f} ms"
    threads = f"bare loops with the same bytes and workers: {beside(best, 'urllib3', 'requests')}"
    tasks = f"a bare loop with as many tasks: {beside(best, 'aiohttp')}"
    return [
        Row(what, result, threads, to_urllib3, "at most 0.45 of urllib3", to_urllib3 <= 0.45, figures),
        Row(what, result, tasks, to_aiohttp, "less than aiohttp", to_aiohttp < 1),
    ]


def call(options: Options) -> list[Row]:
    """Processor time of one warm call, against a bare PUT of urllib3 in one thread."""
    found: dict[str, list[dict[str, Any]]] = {"ours": [], "urllib3": []}
    with on_one_processor(), world() as place:
        for _ in range(options.rounds):
            found["ours"].append(place.ours("call", "--count", "4000"))
            found["urllib3"].append(place.contestant("urllib3", place.orders(4000), 1))
    best = {name: min(map(milliseconds_each, results)) * 1000 for name, results in found.items()}
    return [
        Row(
            "processor time of a warm `client.orders.place(order)`, no round trip",
            f"{best['ours']:.0f} microseconds",
            f"bare PUT of urllib3: {best['urllib3']:.0f} microseconds",
            best["ours"],
            "at most 60 microseconds",
            best["ours"] <= 60,
            found,
        )
    ]


def first_request(options: Options) -> list[Row]:
    """Processor time of a new task from the beginning of ``execute`` until its one order is placed."""
    with world() as place:
        place.ours("token")  # so that the store has a record
        found = [place.first_request() for _ in range(options.rounds)]
    best = min(each["cpu"] for each in found) * 1000
    return [
        Row(
            "processor time of `FeedAmpPlaceOrdersOperator.execute` in a new process, one order",
            f"{best:.0f} ms",
            "",
            best,
            "at most 300 ms",
            best <= 300,
            {"runs": found},
        )
    ]


def memory(options: Options) -> list[Row]:
    """Memory of a long import, against that of a short one."""
    with world() as place:
        few = place.ours("memory", "--count", "10000")
        many = place.ours("memory", "--count", str(options.many))
    growth = many["most_mb"] - few["most_mb"]
    return [
        Row(
            f"memory of an import of {options.many:,} orders ({many['seconds']:.0f} s)",
            f"{many['most_mb']:.0f} MB",
            f"10,000 orders: {few['most_mb']:.0f} MB",
            growth,
            "under 32 MB more",
            growth < 32,
            {"few": few, "many": many},
        )
    ]


def rollover(options: Options) -> list[Row]:
    """The slowest orders while the access token is renewed, against those of an import without that."""
    found: dict[str, list[dict[str, Any]]] = {"without": [], "with": []}
    for _ in range(options.rounds):
        for name, expires_in in (("without", 3600.0), ("with", 6.0)):
            with world(round_trip=ROUND_TRIP, expires_in=expires_in) as place:
                figures = place.ours("latency", "--orders", str(place.orders(6000)))
                counts = place.counts()
            found[name].append(figures | {"renewals": counts["POST"] - 1, "refused": counts["refused"]})
    slowest = {
        name: statistics.median(each["slowest_1_percent"] for each in results)
        for name, results in found.items()
    }
    ratio = slowest["with"] / slowest["without"]
    lost = sum(each["rejected"] + each["refused"] for each in found["with"])
    renewals = sum(each["renewals"] for each in found["with"])
    return [
        Row(
            f"slowest 1 % of orders while the token rolls over ({renewals} times, {lost} orders refused)",
            f"{slowest['with'] * 1000:.0f} ms",
            f"without a rollover: {slowest['without'] * 1000:.0f} ms",
            ratio,
            "at most 2 times, no order refused",
            ratio <= 2 and lost == 0 and renewals > 0,
            found,
        )
    ]


def token(_: Options) -> list[Row]:
    """A warm ``get_access_token()``, against reading a dict under a lock."""
    with world() as place:
        figures = place.ours("token")
    ratio = figures["token_ns"] / figures["dict_ns"]
    accesses = figures["store_accesses"]
    return [
        Row(
            f"warm `get_access_token()` ({accesses} store accesses)",
            f"{figures['token_ns']:.0f} ns",
            f"reading a dict under a lock: {figures['dict_ns']:.0f} ns",
            ratio,
            "under 5 times, no store access",
            ratio < 5 and accesses == 0,
            figures,
        )
    ]


def new_process(_: Options) -> list[Row]:
    """What a hook in a new process does until its first authorised request."""
    with world() as place:
        place.ours("token")  # so that the store has a record
        before = place.counts()["POST"]
        figures = place.ours("new-process")
        posts = place.counts()["POST"] - before
    accesses = figures["accesses"]
    reads = accesses.get("read", 0)
    return [
        Row(
            "hook in a new process to its first authorised request",
            f"{reads} store read, {posts} token POSTs",
            "",
            float(reads),
            "one store read, no token POST",
            accesses == {"read": 1} and posts == 0,
            figures | {"token_posts": posts},
        )
    ]


def imports(options: Options) -> list[Row]:
    """Import of our operator modules, against that of the HTTP provider's."""
    package = Path(__file__).parent.parent / "airflow_provider_feedamp" / "operators"
    ours = sorted(f"airflow_provider_feedamp.operators.{path.stem}" for path in package.glob("[!_]*.py"))
    theirs = ["airflow.providers.http.operators.http"]
    found: dict[str, list[float]] = {"ours": [], "http": []}
    for _ in range(options.rounds):
        found["ours"].append(import_time(ours))
        found["http"].append(import_time(theirs))
    best = {name: min(each) for name, each in found.items()}
    return [
        Row(
            f"import of our {len(ours)} operator modules over `airflow.sdk`",
            f"{best['ours']:.1f} ms",
            f"HTTP provider's: {best['http']:.0f} ms",
            best["ours"],
            "under 15 ms",
            best["ours"] < 15,
            found,
        )
    ]


ROWS: dict[str, Callable[[Options], list[Row]]] = {
    "speed": speed,
    "wide": wide,
    "processor": processor,
    "call": call,
    "first-request": first_request,
    "memory": memory,
    "rollover": rollover,
    "token": token,
    "new-process": new_process,
    "imports": imports,
}


@contextmanager
def on_one_processor() -> Iterator[None]:
    """Keep this process and those that it starts on one processor, where the system can do that.

    A caller that waits for each answer lets its processor fall asleep. Where it is woken from another one, a
    call takes up to twice the processor time; whether that is so changes from run to run.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def import_with(place: World, orders: int, workers: int = WORKERS) -> dict[str, Any]:
    """Import so many orders with the provider."""
    return place.ours("import", "--orders", str(place.orders(orders)), "--workers", str(workers))


def per_second(run: dict[str, Any]) -> float:
    """Return the orders per second of a run."""
    return float(run["orders"] / run["seconds"])


def milliseconds_each(run: dict[str, Any]) -> float:
    """Return the processor time of each order of a run."""
    return float(run["cpu"] / run["orders"] * 1000)


def beside(best: dict[str, float], *names: str) -> str:
    """Return the milliseconds of some contestants in words."""
    return ", ".join(f"{name} {best[name]:.2f} ms" for name in names)


def import_time(modules: Sequence[str]) -> float:
    """Return the processor milliseconds of importing modules in a new interpreter that has Airflow's SDK."""
    script = (
        "import importlib, time\n"
        "try:\n    from airflow.sdk import BaseOperator\n"
        "except ImportError:\n    from airflow.models import BaseOperator\n"
        "began = time.process_time()\n"
        f"for name in {list(modules)!r}:\n    importlib.import_module(name)\n"
        "print(time.process_time() - began)"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return float(answer.stdout.splitlines()[-1]) * 1000
