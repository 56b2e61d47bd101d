"""A local FeedAMP in which every example DAG finds something to do, and what each is started with."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_feedamp.sandbox.server import RunningSandbox, serve
from tests.airflow_runs import PATIENCE, AirflowHome, make_airflow
from tests.house import ROOT
from tests.sandbox.caller import Caller, return_

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

EXAMPLES = ROOT / "example_dags"
AIRFLOW = tuple(int(part) for part in version("apache-airflow").split(".")[:2])
#: The oldest Airflow that an example runs on; the others run on all.
SINCE = {"changes_by_seller.py": (3, 3)}
FILES = [file for file in sorted(EXAMPLES.glob("*.py")) if AIRFLOW >= SINCE.get(file.name, (2, 11))]

#: Sellers whose accounts hold something already. Each example writes to one of its own.
PREPARED = ("shop", "payer", "mapper", "returner")
#: Sellers that are authorised by a code; the connection has the refresh token of hooli.
AUTHORISED = ("globex", "holder", *PREPARED)


@dataclass(frozen=True, slots=True)
class Examples:
    """What is left after all examples have run."""

    report: dict[str, dict[str, Any]]
    home: AirflowHome
    sandbox: RunningSandbox
    folder: Path


def order(number: str, **changes: Any) -> dict[str, Any]:
    return {
        "mp_order_number": number,
        "sales_channel": "US",
        "customer": {"full_name": "A. Customer"},
        "purchase_date": "2024-05-01T23:52:01Z",
        "currency": "USD",
        "shipping_address": {"full_name": "A. Customer"},
        "order_lines": [{"mp_line_number": "1", "sku": "S-1", "quantity": 2}],
        "marketplace_state": "AWAITING_SHIPMENT",
    } | changes


IMPORTED = [
    order("A/1 ü%"),
    order("A2", marketplace_state="PENDING"),
    order("A3", currency="usd"),
    order("A4"),
]
HELD = [order(number, marketplace_state="PENDING") for number in ("H1", "H2", "H3")]
SHIPPED = ["S1", "S/2, ü", "S3"]
RETURNS = [
    {"mp_order_number": "R1", "mp_return_number": f"RET/{number}", **return_()} for number in ("1", "2")
]


def configurations(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what each example is started with, in the order of their runs."""
    all_of_them: dict[str, dict[str, Any]] = {
        # The order import comes first, so that the others find its orders.
        "order_import.py": {
            "source": written(folder / "orders.ndjson", IMPORTED),
            "rejects": str(folder / "rejects.ndjson"),
            "seller": "hooli",
        },
        "access_token.py": {},
        "http_operator.py": {},
        "event_driven.py": {},
        "order_hold.py": {
            "source": written(folder / "held.ndjson", HELD),
            "hold_minutes": 0,
            "cancelled": ["H2", "other"],
            "seller": "holder",
        },
        "incremental_polling.py": {"seller": "shop", "start": "2026-01-01T00:00:00Z"},
        "many_sellers.py": {"sellers": ["hooli", "no/body", "shop"], "folder": str(folder / "sellers")},
        "fulfillment_sync.py": {"seller": "shop", "mp_order_numbers": SHIPPED},
        "refunds.py": {"seller": "payer", "other_seller": "mapper"},
        "returns.py": {"seller": "returner", "returns": RETURNS},
        "onboard_seller.py": {"seller": "hooli"},
        "look_after_sellers.py": {"sellers": ["hooli", "nobody", "shop"], "idle_days": 0},
        "export.py": {"folder": str(folder / "lake"), "seller": "shop"},
        "changes_by_seller.py": {},
    }
    return {name: conf for name, conf in all_of_them.items() if AIRFLOW >= SINCE.get(name, (2, 11))}


def written(path: Path, orders: list[dict[str, Any]]) -> str:
    path.write_text("".join(f"{json.dumps(each)}\n" for each in orders), encoding="utf-8")
    return str(path)


def prepare(sandbox: RunningSandbox) -> None:
    """Play what has happened before: orders, shipments, refunds and a return."""
    control = sandbox.control
    for seller in ("holder", *PREPARED):
        control.connect(seller)
    shop, payer, mapper, returner = (Caller(sandbox, seller) for seller in PREPARED)

    for number in (*SHIPPED, "S4"):
        assert shop.place(number).ok
    control.ship("shop", "S1")
    control.cancel("shop", "S/2, ü")
    control.ship("shop", "S3", tracking_number="")
    control.ship("shop", "S4", mp_line_number="L1", quantity=1)
    control.create_refund("shop", "S1")

    assert payer.place("P1").ok
    control.create_refund("payer", "P1", [{"mp_line_number": "L2"}])
    control.create_refund("payer", "P1", [{"mp_line_number": "L1", "item_refund": 500.01}])
    assert mapper.place("M1").ok
    control.create_refund("mapper", "M1", [{"mp_line_number": "L1"}])
    control.create_refund("mapper", "M1", [{"mp_line_number": "L2"}])

    assert returner.place("R1").ok
    first = RETURNS[0]
    path = f"/orders/R1/returns/{quote(first['mp_return_number'], safe='')}"
    assert returner.call("PUT", path, json=return_()).ok
    control.authorize_return("returner", "R1", first["mp_return_number"])
    control.enter_return_amounts("returner", "R1", first["mp_return_number"])


@contextmanager
def seller_at_work(sandbox: RunningSandbox) -> Iterator[None]:
    """Enter the amounts of the return that the example creates, before its sensor gets its first answer.

    The sensor asks again after a quarter of an hour; so long, FeedAMP is down for it.
    """
    control, ended = sandbox.control, threading.Event()
    control.fault("http_error", on="get_return_refunds", status=503, times=None)

    def work() -> None:
        number = RETURNS[1]["mp_return_number"]
        while not ended.wait(0.05):
            if any(each["mp_return_number"] == number for each in control.returns("returner")):
                control.authorize_return("returner", "R1", number)
                control.enter_return_amounts("returner", "R1", number)
                control.clear_faults()
                return

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(PATIENCE)


@contextmanager
def all_examples_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Examples]:
    """Run every example once, in one Airflow."""
    folder = tmp_path_factory.mktemp("orders")
    with serve() as sandbox:
        connections = {
            "feedamp_default": sandbox.connection("hooli"),
            "feedamp_http": {"conn_type": "http", "host": sandbox.base_url},
        }
        prepare(sandbox)
        home = make_airflow(tmp_path_factory, EXAMPLES, connections)
        codes = {seller: sandbox.control.authorize(seller) for seller in AUTHORISED}
        started = {EXAMPLES / name: conf for name, conf in configurations(folder).items()}
        with seller_at_work(sandbox):
            report, _ = home.run(started, codes=codes)
        yield Examples(report, home, sandbox, folder)
