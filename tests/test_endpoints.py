"""The table of endpoints in docs/api.md says what the code and the sandbox have."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import requests

import airflow_provider_feedamp
from airflow_provider_feedamp.api.client import FeedAmpClient, Unverified
from airflow_provider_feedamp.api.http import Http
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook, HookTokens
from tests.api import edge as orders
from tests.conftest import forget

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_feedamp.sandbox.server import RunningSandbox

pytestmark = pytest.mark.once

PAGE = (Path(__file__).parent.parent / "docs/api.md").read_text()
ROW = re.compile(r"^\| (\d+) \| `(\w+) (/\S*)` \| `([\w.]+)` \| (.*?) ?\| ([DIU]) \|$", re.MULTILINE)
ROOMS = ("operators", "sensors", "transfers")
#: What others are made of, and what a DAG does not use itself.
BASES = {"FeedAmpPollingSensor"}
OF_HOOK = "FeedAmpHook."
PREFIX = "/api/v1"

ORDER = orders.ORDER | {"mp_order_number": "A/1"}
RETURN: dict[str, Any] = {
    "return_lines": [
        {
            "mp_return_line_number": "R-1",
            "mp_order_line_number": "1",
            "sku": "S",
            "quantity": 1,
            "currency": "USD",
            "requested_refund_principal": 9.99,
            "reason": "Wrong color sent",
            "preauthorized": False,
        }
    ]
}
ERRORS = [{"code": "A", "message": "b"}]
#: For each client method: its arguments here, and the name that the sandbox counts its calls under.
CALLS: dict[str, tuple[tuple[Any, ...], str]] = {
    "orders.list": ((), "list_orders"),
    "orders.get": (("A/1",), "get_order"),
    "orders.place": ((ORDER,), "place_order"),
    "orders.fulfillments": (("A/1",), "get_fulfillments"),
    "orders.report_errors": (("A/1", ERRORS), "report_order_errors"),
    "refunds.list": ((), "list_refunds"),
    "refunds.of_order": (("A/1",), "get_order_refunds"),
    "refunds.get": (("A/1", 1001), "get_refund"),
    "refunds.complete": (("A/1", 1001), "complete_refund"),
    "refunds.report_errors": (("A/1", 1001, ERRORS), "report_refund_errors"),
    "returns.list": ((), "list_returns"),
    "returns.of_order": (("A/1",), "get_order_returns"),
    "returns.get": (("A/1", "R/1"), "get_return"),
    "returns.create": (("A/1", "R/1", RETURN), "create_return"),
    "returns.refunds": (("A/1", "R/1"), "get_return_refunds"),
    "returns.complete": (("A/1", "R/1"), "complete_return"),
    "returns.report_errors": (("A/1", "R/1", ERRORS), "report_return_errors"),
}


class Endpoint(NamedTuple):
    """One row of the table."""

    number: int
    method: str
    path: str
    client: str
    tasks: list[str]
    known: str


ENDPOINTS = [
    Endpoint(int(number), method, path, client, re.findall(r"`(\w+)`", tasks), known)
    for number, method, path, client, tasks, known in ROW.findall(PAGE)
]
TASKS = sorted({task for endpoint in ENDPOINTS for task in endpoint.tasks})


def task_classes() -> set[str]:
    """Return the names of the operators, sensors and transfers that there are."""
    found = set()
    for room in ROOMS:
        package = importlib.import_module(f"{airflow_provider_feedamp.__name__}.{room}")
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            members = inspect.getmembers(importlib.import_module(module.name), inspect.isclass)
            found |= {name for name, each in members if each.__module__ == module.name}
    return found


def find(client: FeedAmpClient, path: str) -> Any:
    resource, _, method = path.partition(".")
    return getattr(getattr(client, resource), method)


@pytest.fixture(autouse=True)
def _as_in_a_new_process() -> Iterator[None]:
    forget()
    yield
    forget()


@pytest.fixture
def client(sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> FeedAmpClient:
    """Return a client of the sandbox's seller hooli, who has an order, a refund and a return."""
    connection = sandbox.connection("hooli", list_requests_per_second=0)
    monkeypatch.setenv("AIRFLOW__FEEDAMP__TOKEN_STORE", "memory")
    monkeypatch.setenv("AIRFLOW_CONN_FEEDAMP_DEFAULT", json.dumps(connection))
    client = FeedAmpHook().client
    client.orders.place(ORDER)
    client.returns.create("A/1", "R/1", RETURN)
    sandbox.control.create_refund("hooli", "A/1")
    return client


@pytest.fixture
def served(sandbox: RunningSandbox) -> dict[Any, str]:
    """Return the names of the sandbox's operations by method and path, as its description has them."""
    address = f"{sandbox.base_url.removesuffix(PREFIX)}/openapi.json"
    return {
        (method.upper(), path.removeprefix(PREFIX)): operation["operationId"]
        for path, operations in requests.get(address, timeout=10).json()["paths"].items()
        for method, operation in operations.items()
        if path.startswith(PREFIX)
    }


def test_the_table_has_all_endpoints_in_their_order() -> None:
    assert [endpoint.number for endpoint in ENDPOINTS] == list(range(1, 20))


def test_the_table_has_each_client_method_once_and_no_other() -> None:
    client = FeedAmpClient(Http("http://127.0.0.1", HookTokens(FeedAmpHook())))
    there = {
        f"{resource}.{name}"
        for resource in ("orders", "refunds", "returns")
        for name, _ in inspect.getmembers(getattr(client, resource), inspect.ismethod)
        if not name.startswith("_")
    }

    listed = [endpoint.client for endpoint in ENDPOINTS if not endpoint.client.startswith(OF_HOOK)]
    # The first is endpoints 4 and 5, the second calls none of its own.
    assert sorted(listed) == sorted(there - {"orders.set_state", "orders.authorise"})
    assert set(listed) == set(CALLS)


@pytest.mark.parametrize("endpoint", [each for each in ENDPOINTS if each.client.startswith(OF_HOOK)])
def test_what_has_no_client_method_is_a_method_of_the_hook(endpoint: Endpoint) -> None:
    assert callable(getattr(FeedAmpHook, endpoint.client.removeprefix(OF_HOOK)))


@pytest.mark.parametrize("task", TASKS)
def test_every_operator_and_sensor_of_the_table_is_there(task: str) -> None:
    assert task in task_classes()


def test_every_operator_and_sensor_that_is_there_is_in_the_table() -> None:
    ours = {name for name in task_classes() if re.fullmatch(r"FeedAmp\w+(Operator|Sensor)", name)}

    assert ours - BASES - set(TASKS) == set()


def test_the_sandbox_serves_the_endpoints_of_the_table_and_no_other(served: dict[Any, str]) -> None:
    assert served.keys() == {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}


@pytest.mark.parametrize(
    "endpoint", [each for each in ENDPOINTS if each.client in CALLS], ids=lambda e: e.client
)
def test_each_client_method_makes_one_call_of_its_endpoint(
    client: FeedAmpClient, sandbox: RunningSandbox, served: dict[Any, str], endpoint: Endpoint
) -> None:
    arguments, operation = CALLS[endpoint.client]
    assert served[endpoint.method, endpoint.path] == operation
    before: Counter[str] = Counter(sandbox.control.counters()["calls"])

    result = find(client, endpoint.client)(*arguments)
    if endpoint.client.endswith(".list"):
        assert len(list(result)) == 1

    after: Counter[str] = Counter(sandbox.control.counters()["calls"])
    assert after - before == {operation: 1}
    assert sandbox.control.counters()["refused"] == {}


def test_the_page_names_every_guess_with_its_default() -> None:
    table = PAGE.split("## What is guessed")[1].split("\n## ")[0]

    assert [each.name for each in fields(Unverified) if f"`{each.name}`" not in table] == []
    for name in ("refund_complete_path", "return_complete_path", "returns_by_status", "returns_after"):
        assert f"| `{name}` | `{getattr(Unverified(), name)}` |" in table


def test_only_what_ends_in_a_guess_is_marked_as_unknown() -> None:
    unknown = {endpoint.client for endpoint in ENDPOINTS if endpoint.known == "U"}

    assert unknown == {"refunds.complete", "returns.complete"}
