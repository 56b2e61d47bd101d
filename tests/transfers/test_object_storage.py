from __future__ import annotations

import gzip
import json
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG, Asset

from airflow_provider_feedamp.bulk.paths import open_storage
from airflow_provider_feedamp.exceptions import AuthenticationError, InputError
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
from airflow_provider_feedamp.transfers.object_storage import FeedAmpToObjectStorageOperator
from tests.bulk.feedamps import good_order, read_orders
from tests.lineage import airflow_outlet_events, lineage_of
from tests.operators.support import for_good

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_feedamp.sandbox.server import RunningSandbox

    Exported = Callable[..., list[str]]


def place(*numbers: str, seller: str | None = None) -> None:
    for number in numbers:
        FeedAmpHook(seller=seller).client.orders.place(good_order(number))


def run(destination: object, resource: str = "orders", **arguments: Any) -> Any:
    task = FeedAmpToObjectStorageOperator(
        task_id="export", resource=resource, destination=str(destination), **arguments
    )
    return task.execute({})


def entries(path: Path) -> list[dict[str, Any]]:
    text = path.read_bytes()
    return [
        json.loads(line) for line in (gzip.decompress(text) if path.suffix == ".gz" else text).splitlines()
    ]


@pytest.fixture
def exported(feedamp: RunningSandbox, tmp_path: Path) -> Callable[..., list[str]]:
    """Return what exports to a file and returns the numbers of the orders in it."""

    def export(resource: str = "orders", **arguments: Any) -> list[str]:
        result = run(tmp_path / "a.ndjson", resource, **arguments)
        found = entries(tmp_path / "a.ndjson")
        assert result["count"] == len(found)
        return sorted(entry["mp_order_number"] for entry in found)

    return export


def refunds_and_returns(feedamp: RunningSandbox) -> None:
    """Let hooli have two orders, each with a refund and a return."""
    place("A1", "A2")
    returns = FeedAmpHook().client.returns
    for number in ("A1", "A2"):
        feedamp.control.ship("hooli", number)
        feedamp.control.create_refund("hooli", number)
        returns.create(number, f"R-{number}", a_return())
    feedamp.control.authorize_return("hooli", "A2", "R-A2")


def a_return() -> dict[str, Any]:
    line = {
        "mp_return_line_number": "1",
        "mp_order_line_number": "1",
        "sku": "S-1",
        "quantity": 1,
        "currency": "USD",
        "requested_refund_principal": 1.1,
        "reason": "Wrong color sent",
        "preauthorized": False,
    }
    return {"return_lines": [line], "customer_email": "jane@example.com"}


@pytest.mark.parametrize("name", ["orders.ndjson", "orders.jsonl", "deep/er/orders.ndjson.gz"])
def test_orders_are_written_as_feedamp_has_them_and_the_result_names_the_file(
    feedamp: RunningSandbox, tmp_path: Path, name: str
) -> None:
    place("A1", "A2")
    path = tmp_path / name

    result = run(path)

    assert result == {
        "destination": str(path),
        "resource": "orders",
        "count": 2,
        "bytes": path.stat().st_size,
    }
    assert entries(path) == list(FeedAmpHook().client.orders.list())
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_written_can_be_a_source_of_orders(feedamp: RunningSandbox, tmp_path: Path) -> None:
    place("A1")

    run(tmp_path / "orders.ndjson.gz")

    [found] = read_orders(str(tmp_path / "orders.ndjson.gz"))
    assert found.order is not None
    assert found.order["mp_order_number"] == "A1"


def test_all_pages_are_written(exported: Exported) -> None:
    names = sorted(f"A{number}" for number in range(120))
    place(*names)

    assert exported() == names


def test_the_account_is_that_of_the_seller(feedamp: RunningSandbox, exported: Exported) -> None:
    FeedAmpHook(seller="globex").exchange_code(feedamp.control.authorize("globex"))
    place("A1")
    place("G1", seller="globex")

    assert exported(seller="globex") == ["G1"]


def test_without_anything_to_write_the_file_is_empty(feedamp: RunningSandbox, tmp_path: Path) -> None:
    assert run(tmp_path / "a.ndjson")["count"] == 0
    assert run(tmp_path / "a.ndjson.gz")["count"] == 0
    assert entries(tmp_path / "a.ndjson") == entries(tmp_path / "a.ndjson.gz") == []


def test_fulfilments_are_one_line_for_each_order_with_activity(
    feedamp: RunningSandbox, tmp_path: Path
) -> None:
    place("A1", "A2", "A3", "A4")
    feedamp.control.ship("hooli", "A1", quantity=1, mp_line_number="1")
    feedamp.control.ship("hooli", "A2")
    feedamp.control.cancel("hooli", "A3")
    FeedAmpHook().client.orders.set_state("A2", "SHIPPED")

    assert run(tmp_path / "f.ndjson", "fulfillments")["count"] == 3

    found = {entry["mp_order_number"]: entry for entry in entries(tmp_path / "f.ndjson")}
    read = FeedAmpHook().client.orders.fulfillments
    assert found == {number: {"mp_order_number": number} | read(number) for number in ("A1", "A2", "A3")}
    assert found["A1"]["fulfillments"][0]["pending"] == {"quantity": 1}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"mp_order_numbers": ["A1", "A3"]}, ["A1", "A3"]),
        ({"fulfillment_status": ["UNFULFILLED"]}, ["A3"]),
        ({"fulfillment_status": '["UNFULFILLED"]', "mp_order_numbers": ["A1"]}, []),
    ],
)
def test_fulfilments_are_of_the_orders_that_are_asked_for(
    feedamp: RunningSandbox, exported: Exported, filters: dict[str, Any], expected: list[str]
) -> None:
    place("A1", "A2", "A3")
    feedamp.control.ship("hooli", "A1")
    feedamp.control.ship("hooli", "A2")

    assert exported("fulfillments", **filters) == expected


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"mp_order_numbers": ["A1"]}, ["A1"]),
        ({"mp_order_numbers": '["A1"]'}, ["A1"]),
        ({"mp_order_numbers": []}, []),
        ({"fulfillment_status": ["PARTIALLY_FULFILLED"]}, ["A1"]),
        ({"has_errors": True}, ["A2"]),
        ({"has_errors": "False"}, ["A1"]),
        ({"has_errors": None}, ["A1", "A2"]),
        ({"imported_after": datetime(2020, 1, 1, tzinfo=UTC)}, ["A1", "A2"]),
        ({"imported_after": "2999-01-01T00:00:00+02:00"}, []),
        ({"seller_updated_after": "2020-01-01 00:00:00+00:00"}, ["A1"]),
        ({"seller_updated_after": ""}, ["A1", "A2"]),
        ({"seller_updated_after": "None"}, ["A1", "A2"]),
    ],
)
def test_a_filter_of_orders_is_applied_and_one_that_renders_to_nothing_is_not(
    feedamp: RunningSandbox, exported: Exported, filters: dict[str, Any], expected: list[str]
) -> None:
    place("A1", "A2")
    feedamp.control.ship("hooli", "A1")
    FeedAmpHook().client.orders.report_errors("A2", [{"code": "X", "message": "m"}])

    assert exported(**filters) == expected


@pytest.mark.parametrize(
    ("resource", "filters", "expected"),
    [
        ("refunds", {}, ["A1", "A2"]),
        ("refunds", {"mp_order_numbers": ["A2"]}, ["A2"]),
        ("refunds", {"refund_status": ["CREATED"]}, ["A1"]),
        ("refunds", {"created_after": "2020-01-01T00:00:00Z"}, ["A1", "A2"]),
        ("refunds", {"created_before": datetime(2020, 1, 1, tzinfo=UTC)}, []),
        ("returns", {}, ["A1", "A2"]),
        ("returns", {"mp_order_numbers": ["A2"]}, ["A2"]),
        ("returns", {"return_status": ["AUTHORIZED"]}, ["A2"]),
        ("returns", {"requested_after": "2020-01-01T00:00:00Z"}, ["A1", "A2"]),
    ],
)
def test_refunds_and_returns_are_written(
    feedamp: RunningSandbox,
    tmp_path: Path,
    exported: Exported,
    resource: str,
    filters: dict[str, Any],
    expected: list[str],
) -> None:
    refunds_and_returns(feedamp)
    refunds = FeedAmpHook().client.refunds
    [done] = refunds.of_order("A2")
    refunds.complete("A2", done["feedamp_refund_id"])

    assert exported(resource, **filters) == expected
    if not filters:
        assert entries(tmp_path / "a.ndjson") == list(getattr(FeedAmpHook().client, resource).list())


@pytest.mark.parametrize(
    "filters", [{"mp_order_numbers": ["A2"]}, {"return_status": ["AUTHORIZED"]}], ids=["numbers", "status"]
)
def test_a_filter_of_returns_holds_where_the_server_does_not_know_it(
    feedamp: RunningSandbox, exported: Exported, monkeypatch: pytest.MonkeyPatch, filters: dict[str, Any]
) -> None:
    refunds_and_returns(feedamp)
    hook = FeedAmpHook()
    every = list(hook.client.returns.list())
    monkeypatch.setattr("airflow_provider_feedamp.api.client.ReturnsApi.list", lambda *_, **__: iter(every))

    assert exported("returns", **filters) == ["A2"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"resource": "shipments"}, "resource must be one of orders, fulfillments, refunds, returns"),
        ({"refund_status": ["CREATED"]}, "orders have no filter refund_status; they have: mp_order_numbers"),
        (
            {"resource": "refunds", "imported_after": datetime(2026, 1, 1, tzinfo=UTC), "has_errors": False},
            "refunds have no filter imported_after, has_errors",
        ),
        ({"resource": "returns", "created_after": "2026-01-01T00:00:00Z"}, "returns have no filter"),
        ({"imported_after": datetime(2026, 1, 1)}, "imported_after must be a datetime with a time zone"),
        ({"seller_updated_after": "2026-01-01T00:00:00"}, "seller_updated_after must be a datetime with a"),
        ({"imported_after": "yesterday"}, "imported_after must be a datetime with a time zone"),
        ({"mp_order_numbers": "A1"}, "mp_order_numbers is a text that is not a JSON array"),
        ({"has_errors": "maybe"}, "has_errors must be True or False"),
    ],
)
def test_an_argument_that_cannot_be_right_is_named_and_nothing_is_written(
    feedamp: RunningSandbox, tmp_path: Path, arguments: dict[str, Any], reason: str
) -> None:
    with for_good(InputError, match=reason):
        run(tmp_path / "a.ndjson", **arguments)

    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_in_the_middle_leaves_the_file_of_the_run_before(
    feedamp: RunningSandbox, tmp_path: Path
) -> None:
    place(*(f"A{number}" for number in range(60)))
    path = tmp_path / "a.ndjson"
    path.write_bytes(b"of an earlier run\n")
    feedamp.control.fault("http_error", on="list_orders", status=403, times=None, every=2)

    with pytest.raises(AuthenticationError):
        run(path)

    assert path.read_bytes() == b"of an earlier run\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_second_run_replaces_the_file(feedamp: RunningSandbox, tmp_path: Path, bucket: str) -> None:
    for path in (str(tmp_path / "a.ndjson"), f"{bucket}/a.ndjson"):
        place("A1", "A2")
        run(path)
        result = run(path, mp_order_numbers=["A2"])

        with open_storage(path, "rb", "Test") as file:
            content = file.read()
        assert [json.loads(line)["mp_order_number"] for line in content.splitlines()] == ["A2"]
        assert result["bytes"] == len(content)


def test_the_log_tells_what_was_done_and_nothing_of_a_person(
    feedamp: RunningSandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place("A1")

    with caplog.at_level(logging.INFO, "airflow_provider_feedamp"):
        run(tmp_path / "a.ndjson")

    told = "\n".join(record.getMessage() for record in caplog.records)
    assert f"Writing the orders of seller 'hooli' (connection feedamp_default) to {tmp_path}" in told
    assert "Wrote 1 order, " in told
    assert "cretname" not in caplog.text


def test_the_event_and_the_lineage_of_a_run_have_counts_seller_and_file(
    feedamp: RunningSandbox, tmp_path: Path
) -> None:
    place("A1", "A2")
    path, outlet = str(tmp_path / "a.ndjson"), Asset("feedamp://feedamp_default/exports")
    context: Any = {"outlet_events": airflow_outlet_events()}

    task = FeedAmpToObjectStorageOperator(
        task_id="export", resource="orders", destination=path, outlets=[outlet]
    )
    size = task.execute(context)["bytes"]

    written = {"resource": "orders", "count": 2, "bytes": size, "file": path}
    assert context["outlet_events"][outlet].extra == {"seller": "hooli", **written}
    assert lineage_of(task) == (["feedamp://feedamp_default/hooli/orders"], {path: (2, size)})


def test_every_argument_is_a_template() -> None:
    moment = "{{ data_interval_start }}"
    with DAG("export", start_date=datetime(2026, 1, 1, tzinfo=UTC), schedule=None):
        task = FeedAmpToObjectStorageOperator(
            task_id="export",
            resource="{{ what }}",
            destination="s3://lake/{{ run_id }}/orders.ndjson",
            mp_order_numbers="{{ ['A1'] | tojson }}",
            fulfillment_status=["{{ what }}"],
            imported_after=moment,
            seller_updated_after=moment,
            has_errors="{{ true }}",
            refund_status="{{ what }}",
            created_after=moment,
            created_before=moment,
            return_status="{{ what }}",
            requested_after=moment,
            requested_before=moment,
            feedamp_conn_id="{{ what }}",
            seller="{{ what }}",
        )
    began = datetime(2026, 3, 8, 7, tzinfo=UTC) - timedelta(hours=1)

    context: Any = {"what": "x", "run_id": "r1", "data_interval_start": began}
    task.render_template_fields(context)

    assert {name: getattr(task, name) for name in task.template_fields} == {
        "resource": "x",
        "destination": "s3://lake/r1/orders.ndjson",
        "mp_order_numbers": '["A1"]',
        "fulfillment_status": ["x"],
        "has_errors": "True",
        "refund_status": "x",
        "return_status": "x",
        "feedamp_conn_id": "x",
        "seller": "x",
    } | dict.fromkeys(
        ("imported_after", "seller_updated_after", "created_after", "created_before", "requested_after",
         "requested_before"), "2026-03-08 06:00:00+00:00",
    )  # fmt: skip
