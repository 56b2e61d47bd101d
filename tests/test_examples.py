"""The example DAGs do what they say: each is run by a real Airflow against a local FeedAMP."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.airflow_runs import PATIENCE, TaskEnd
from tests.example_scene import (
    AUTHORISED,
    EXAMPLES,
    FILES,
    IMPORTED,
    PREPARED,
    SHIPPED,
    Examples,
    all_examples_run,
    configurations,
)
from tests.run_dags import load

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.processes, pytest.mark.timeout(3 * PATIENCE)]

DONE = TaskEnd("success", 1)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Examples]:
    with all_examples_run(tmp_path_factory) as run:
        yield run


def lines(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(Path(path).read_bytes()).splitlines()]


def orders(examples: Examples, seller: str) -> dict[str, dict[str, Any]]:
    return {each["mp_order_number"]: each for each in examples.sandbox.control.orders(seller)}


def states(examples: Examples, seller: str) -> dict[str, str]:
    return {number: each["marketplace_state"] for number, each in orders(examples, seller).items()}


def test_every_example_is_run(tmp_path: Path) -> None:
    assert sorted(configurations(tmp_path)) == [file.name for file in FILES]


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
        "one_seller": "hooli",
        "several_sellers[0]": "hooli",
        "several_sellers[1]": "globex",
    }
    # The order import and the exchange of the code had obtained them already, for every later task.
    assert not any(told["renewed"] for told in returned.values())


def test_a_whole_run_spends_one_token_per_seller(examples: Examples) -> None:
    sellers = examples.sandbox.control.counters()["sellers"]

    code = {"authorization_code": {"issued": 1}}
    # Who prepared the accounts has spent a refresh token of each.
    before = {seller: {"refresh_token": {"issued": 1}} for seller in PREPARED}
    assert {seller: counts["tokens"] for seller, counts in sellers.items()} == {
        "hooli": {"refresh_token": {"issued": 1}},
        **{seller: code | before.get(seller, {}) for seller in AUTHORISED},
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
        "rejects": str(examples.folder / "rejects.ndjson"),
    }
    assert returned["read_back"] == {"ORDERED": 2, "PENDING": 1}


def test_the_order_import_leaves_the_orders_in_the_sellers_account(examples: Examples) -> None:
    assert {number: json.loads(each["raw"]) for number, each in orders(examples, "hooli").items()} == {
        each["mp_order_number"]: each for each in IMPORTED if each["currency"] == "USD"
    }
    assert orders(examples, "globex") == {}


def test_the_order_import_keeps_the_bad_order_with_its_reason(examples: Examples) -> None:
    rejects = (examples.folder / "rejects.ndjson").read_text(encoding="utf-8")
    [reject] = [json.loads(line) for line in rejects.splitlines()]

    assert (reject["line"], reject["mp_order_number"], reject["order"]) == (3, "A3", IMPORTED[2])
    assert "currency" in reject["reason"]


def test_airflows_http_operator_reads_the_orders(examples: Examples) -> None:
    assert examples.home.tasks("feedamp_http_operator") == {"get_orders": DONE}
    assert sorted(examples.home.returned("feedamp_http_operator")["get_orders"]) == ["A/1 ü%", "A2", "A4"]


def test_a_held_order_is_released_unless_it_was_cancelled_meanwhile(examples: Examples) -> None:
    returned = examples.home.returned("feedamp_order_hold")

    assert states(examples, "holder") == {
        "H1": "AWAITING_SHIPMENT",
        "H2": "CANCELLED",
        "H3": "AWAITING_SHIPMENT",
    }
    assert returned["place_pending"]["inserted"] == 3
    assert (returned["release"]["set"], returned["cancel"]["set"]) == (2, 1)


def test_the_hold_is_counted_from_the_beginning_of_the_run() -> None:
    dag, _ = load(str(EXAMPLES / "order_hold.py"))
    hold = dag.get_task("hold")
    began = datetime(2026, 3, 8, 6, 45, tzinfo=UTC)
    context = {"dag_run": SimpleNamespace(start_date=began), "macros": SimpleNamespace(timedelta=timedelta)}

    hold.render_template_fields(context | {"params": {"hold_minutes": 30}})

    assert (hold.target_time, hold.mode) == ("2026-03-08 07:15:00+00:00", "reschedule")


def test_incremental_polling_finds_what_the_seller_has_changed(examples: Examples) -> None:
    assert examples.home.returned("feedamp_incremental_polling")["forward"] == {
        "S1": "COMPLETE",
        "S/2, ü": "COMPLETE",
        "S3": "COMPLETE",
        "S4": "PARTIALLY_FULFILLED",
    }


def test_a_seller_who_is_authorised_is_not_asked_again(examples: Examples) -> None:
    ends = {name: end.state for name, end in examples.home.tasks("feedamp_onboard_seller").items()}
    assert ends == {"is_needed": "success", "authorize": "skipped", "ready": "skipped"}


def test_idle_sellers_are_renewed_and_who_needs_a_person_is_told(examples: Examples) -> None:
    returned = examples.home.returned("feedamp_look_after_sellers")

    assert {told["seller"] for task, told in returned.items() if task.startswith("renew")} == {
        "hooli",
        "shop",
    }
    text = returned["tell"]
    assert text.startswith(
        "1 of 3 FeedAMP sellers of connection 'feedamp_default' need a person:\n- 'nobody' "
    )
    assert "FeedAmpAuthorizeSellerOperator" in text


def test_an_event_driven_run_that_a_person_starts_has_nothing_to_do(examples: Examples) -> None:
    assert examples.home.returned("feedamp_event_driven") == {"forward": {}}


def test_the_fulfillment_sync_closes_what_is_fine_and_reports_the_rest(examples: Examples) -> None:
    returned = examples.home.returned("feedamp_fulfillment_sync")

    assert returned["wait"] == SHIPPED
    assert states(examples, "shop") == {
        "S1": "SHIPPED",
        "S/2, ü": "CANCELLED",
        "S3": "AWAITING_SHIPMENT",
        "S4": "AWAITING_SHIPMENT",
    }
    errors = {number: each["errors"] for number, each in orders(examples, "shop").items() if each["errors"]}
    assert {number: {error["code"] for error in found} for number, found in errors.items()} == {
        "S3": {"INVALID_TRACKING_NUMBER"}
    }


def test_refunds_are_paid_or_reported_in_one_task(examples: Examples) -> None:
    small, large = examples.sandbox.control.refunds("payer")
    processed = examples.home.returned("feedamp_refunds")["process_refunds"]

    assert (small["status"], large["status"]) == ("COMPLETE", "PAUSED")
    assert [error["code"] for error in large["errors"]] == ["EXCESS_ITEM_REFUND"]
    assert processed == {"completed": 1, "reported": 1, "skipped": {}, "failed": {}}


def test_refunds_are_paid_each_in_a_task_of_its_own(examples: Examples) -> None:
    tasks = examples.home.tasks("feedamp_refunds")

    assert [each["status"] for each in examples.sandbox.control.refunds("mapper")] == ["COMPLETE"] * 2
    assert {name: end for name, end in tasks.items() if name.startswith("each_refund.")} == {
        f"each_refund.{name}[{index}]": DONE for name in ("pay_one", "complete") for index in (0, 1)
    }


def test_returns_are_created_once_paid_and_completed(examples: Examples) -> None:
    returned = examples.home.returned("feedamp_returns")

    assert [each["status"] for each in examples.sandbox.control.returns("returner")] == ["COMPLETED"] * 2
    assert (returned["create_returns"]["created"], returned["create_returns"]["unchanged"]) == (1, 1)
    assert [each["status"] for each in returned["wait_for_amounts"]] == ["REFUNDED"] * 2
    assert returned["complete_returns"]["completed"] == 2


def test_the_export_writes_a_file_of_each_resource(examples: Examples) -> None:
    written = examples.home.returned("feedamp_export")

    assert written["load"] == {"orders": 4, "fulfillments": 4, "refunds": 1}
    for task in ("orders", "fulfillments", "refunds"):
        path = Path(written[task]["destination"])
        assert path.parent.parent == examples.folder / "lake"
        assert (len(lines(path)), path.stat().st_size) == (written[task]["count"], written[task]["bytes"])
    exported = lines(written["orders"]["destination"])
    assert sorted(each["mp_order_number"] for each in exported) == ["S/2, ü", "S1", "S3", "S4"]


def test_a_seller_who_has_to_authorise_again_stops_no_other(examples: Examples) -> None:
    assert examples.home.tasks("feedamp_many_sellers") == {
        "sellers": DONE,
        "shipped[0]": DONE,
        "shipped[1]": TaskEnd("failed", 1),
        "shipped[2]": DONE,
        "summary": DONE,
    }
    assert examples.home.returned("feedamp_many_sellers")["summary"] == {"sellers": 2, "orders": 4}
    files = sorted(path.name for path in (examples.folder / "sellers").iterdir())
    assert files == ["hooli.ndjson.gz", "shop.ndjson.gz"]
