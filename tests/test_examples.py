"""The example DAGs do what they say: each is run by a real Airflow against a local FeedAMP."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.sandbox.server import RunningSandbox, serve
from tests.airflow_runs import PATIENCE, AirflowHome, TaskEnd, make_airflow
from tests.house import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(2 * PATIENCE)

EXAMPLES = ROOT / "example_dags"
FILES = sorted(EXAMPLES.glob("*.py"))
DONE = TaskEnd("success", 1)


@dataclass(frozen=True, slots=True)
class Examples:
    """What is left after all examples have run."""

    report: dict[str, dict[str, Any]]
    home: AirflowHome
    sandbox: RunningSandbox
    rejects: Path


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


ORDERS = [
    order("A/1 ü%"),
    order("A2", marketplace_state="PENDING"),
    order("A3", currency="usd"),
    order("A4"),
]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Examples]:
    folder = tmp_path_factory.mktemp("orders")
    source, rejects = folder / "orders.ndjson", folder / "rejects.ndjson"
    source.write_text("".join(f"{json.dumps(each)}\n" for each in ORDERS), encoding="utf-8")
    conf = {"order_import.py": {"source": str(source), "rejects": str(rejects), "seller": "acme"}}
    # The order import comes first, so that the others find its orders.
    files = sorted(FILES, key=lambda file: file.name not in conf)
    with serve() as sandbox:
        connections = {
            "feedamp_default": sandbox.connection("acme"),
            "feedamp_http": {"conn_type": "http", "host": sandbox.base_url},
        }
        home = make_airflow(tmp_path_factory, EXAMPLES, connections)
        codes = {"globex": sandbox.control.authorize("globex")}
        report, _ = home.run({file: conf.get(file.name, {}) for file in files}, codes=codes)
        yield Examples(report, home, sandbox, rejects)


def test_there_are_examples() -> None:
    assert {"access_token.py", "http_operator.py", "order_import.py"} <= {file.name for file in FILES}


@pytest.mark.parametrize("name", [file.name for file in FILES])
def test_an_example_is_imported_without_a_warning_of_ours(examples: Examples, name: str) -> None:
    assert examples.report[name]["warnings"] == []


@pytest.mark.parametrize("name", [file.name for file in FILES])
def test_an_example_succeeds(examples: Examples, name: str) -> None:
    assert examples.report[name]["state"] == "success"
    assert examples.report[name]["dag_id"] == f"feedamp_{name.removesuffix('.py')}"


def test_the_access_token_example_makes_each_seller_ready(examples: Examples) -> None:
    assert examples.home.tasks("feedamp_access_token") == {
        "one_seller": DONE,
        "several_sellers[0]": DONE,
        "several_sellers[1]": DONE,
    }
    returned = examples.home.returned("feedamp_access_token")
    assert {task: told["seller"] for task, told in returned.items()} == {
        "one_seller": "acme",
        "several_sellers[0]": "acme",
        "several_sellers[1]": "globex",
    }
    # The order import and the exchange of the code had obtained them already, for every later task.
    assert not any(told["renewed"] for told in returned.values())


def test_a_whole_run_spends_one_token_per_seller(examples: Examples) -> None:
    sellers = examples.sandbox.control.counters()["sellers"]

    assert {seller: counts["tokens"] for seller, counts in sellers.items()} == {
        "acme": {"refresh_token": {"issued": 1}},
        "globex": {"authorization_code": {"issued": 1}},
    }


def test_the_order_import_places_counts_and_reads_back(examples: Examples) -> None:
    returned = examples.home.returned("feedamp_order_import")

    assert examples.home.tasks("feedamp_order_import") == {
        "access_token": DONE,
        "place_orders": DONE,
        "read_back": DONE,
    }
    assert returned["access_token"]["renewed"]
    assert returned["place_orders"] == {
        "read": 4,
        "placed": 3,
        "inserted": 3,
        "updated": 0,
        "rejected": 1,
        "rejects": str(examples.rejects),
    }
    assert returned["read_back"] == {"ORDERED": 2, "PENDING": 1}


def test_the_order_import_leaves_the_orders_in_the_sellers_account(examples: Examples) -> None:
    stored = {each["mp_order_number"]: each["raw"] for each in examples.sandbox.control.orders("acme")}

    assert {number: json.loads(raw) for number, raw in stored.items()} == {
        each["mp_order_number"]: each for each in ORDERS if each["currency"] == "USD"
    }
    assert examples.sandbox.control.orders("globex") == []


def test_the_order_import_keeps_the_bad_order_with_its_reason(examples: Examples) -> None:
    [reject] = [json.loads(line) for line in examples.rejects.read_text(encoding="utf-8").splitlines()]

    assert (reject["line"], reject["mp_order_number"], reject["order"]) == (3, "A3", ORDERS[2])
    assert "currency" in reject["reason"]


def test_airflows_http_operator_reads_the_orders(examples: Examples) -> None:
    assert examples.home.tasks("feedamp_http_operator") == {"get_orders": DONE}
    assert sorted(examples.home.returned("feedamp_http_operator")["get_orders"]) == ["A/1 ü%", "A2", "A4"]
