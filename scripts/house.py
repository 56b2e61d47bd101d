"""Measure the house: files, lines, importers, circles, and the files that one run of something enters.

`make house` prints the figures, `make house ARGS=-v` the files behind them as well. The runs are real ones
against a local sandbox, with tokens in memory. Each is made twice: once to import everything, then traced.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import sys
import tempfile
import threading
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "airflow_provider_feedamp"
Graph = dict[str, set[str]]


def imports(source: str) -> set[str]:
    """Return every name that a source imports, fully dotted: `a.b.c` for `from a.b import c`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update(f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)
    return found


def files() -> dict[str, Path]:
    """Return the files of the package by their dotted names, an `__init__` by the name of its folder."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def graph() -> Graph:
    """Return which files each file imports: at its top, inside functions, and for types only."""
    found = files()
    return {
        name: {
            target
            for each in imports(path.read_text(encoding="utf-8"))
            if (target := each if each in found else each.rpartition(".")[0]) in found and target != name
        }
        for name, path in found.items()
    }


def circles(graph: Graph) -> list[list[str]]:
    """Return the sets of files that import one another, directly or around."""
    reach = {name: _reachable(graph, name) for name in graph}
    found = {tuple(sorted(each for each in reach[name] if name in reach[each])) for name in graph}
    return [list(circle) for circle in sorted(found) if circle]


def _reachable(graph: Graph, name: str) -> set[str]:
    reached: set[str] = set()
    due = [name]
    while due:
        new = graph[due.pop()] - reached
        reached |= new
        due += new
    return reached


def single_importers(graph: Graph) -> list[str]:
    """Return the files that exactly one other file imports, with that file."""
    counts = Counter(target for targets in graph.values() for target in targets)
    alone = {name for name, count in counts.items() if count == 1 and files()[name].stem != "__init__"}
    return sorted(f"{target} <- {name}" for name, targets in graph.items() for target in targets & alone)


def entered(work: Callable[[], object]) -> list[str]:
    """Return the files of the package in which a run calls a function, the sandbox's left out."""
    seen: set[str] = set()

    def note(frame: Any, event: str, _: object) -> None:
        if event == "call":
            seen.add(frame.f_code.co_filename)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    ours = [Path(name).relative_to(PACKAGE) for name in seen if Path(name).is_relative_to(PACKAGE)]
    return sorted(str(path) for path in ours if path.parts[0] != "sandbox" and path.stem != "__init__")


@contextmanager
def scenes() -> Iterator[dict[str, Callable[[], object]]]:
    """Yield the runs that are traced; their sandbox serves for as long as the block runs."""
    os.environ |= {"AIRFLOW__FEEDAMP__TOKEN_STORE": "memory", "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"}
    from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
    from airflow_provider_feedamp.operators.orders import FeedAmpPlaceOrdersOperator
    from airflow_provider_feedamp.sandbox.server import serve
    from airflow_provider_feedamp.sensors.orders import FeedAmpFulfillmentSensor

    order: Any = {
        "mp_order_number": "A",
        "sales_channel": "US",
        "customer": {"full_name": "Jane Doe"},
        "purchase_date": "2024-05-01T23:52:01Z",
        "currency": "USD",
        "shipping_address": {"full_name": "Jane Doe"},
        "order_lines": [{"mp_line_number": "1", "sku": "S-1", "quantity": 2, "unit_price": 1.5}],
        "marketplace_state": "AWAITING_SHIPMENT",
    }
    with serve() as sandbox, tempfile.TemporaryDirectory() as folder:
        for seller in ("hooli", "globex"):
            connection = sandbox.connection(seller, list_requests_per_second="0")
            os.environ[f"AIRFLOW_CONN_{seller.upper()}"] = json.dumps(connection)
        source = Path(folder) / "orders.ndjson"
        source.write_text(json.dumps(order) + "\n", encoding="utf-8")
        orders = FeedAmpHook("hooli").client.orders
        fresh = iter(["hooli", "globex"])  # for the run before the traced one, and for the traced one
        given: Any = {"feedamp_conn_id": "hooli", "task_id": "task"}
        yield {
            "first token": lambda: FeedAmpHook(next(fresh)).access_token(),
            "FeedAmpPlaceOrdersOperator, one order": lambda: FeedAmpPlaceOrdersOperator(
                source=str(source), **given
            ).execute({}),
            "orders.place, warm": lambda: orders.place(order),
            "orders.list, warm": lambda: list(orders.list()),
            "first poke of a sensor": lambda: FeedAmpFulfillmentSensor(mp_order_numbers=["A"], **given).poke(
                {}
            ),
        }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-v", "--verbose", action="store_true", help="print the files behind the figures")
    verbose = parser.parse_args().verbose

    def show(what: str, figure: str, names: list[str]) -> None:
        print(f"{what:54}{figure}")
        for name in names if verbose else ():
            print(f"    {name}")

    kept = [path for path in files().values() if path.stem != "__init__"]
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files().values()}
    apart = [path for path in lines if path.is_relative_to(PACKAGE / "sandbox")]
    share = len([path for path in apart if path in kept])
    longest = sorted(kept, key=lambda path: -lines[path])
    show(
        "files, without __init__",
        f"{len(kept)} (sandbox {share})",
        [f"{lines[path]:5} {path.relative_to(PACKAGE)}" for path in longest],
    )
    show("lines", f"{sum(lines.values()):,} (sandbox {sum(lines[path] for path in apart):,})", [])
    alone = single_importers(graph())
    show("files with a single importer", str(len(alone)), alone)
    rings = circles(graph())
    show("circles of imports", str(len(rings)), [" - ".join(ring) for ring in rings])
    with scenes() as runs:
        for run in runs.values():
            run()
        for name, run in runs.items():
            names = entered(run)
            show(f"files entered: {name}", str(len(names)), names)


if __name__ == "__main__":
    main()
