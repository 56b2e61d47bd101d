from __future__ import annotations

import errno
import gzip
import json
import logging
import os
import sqlite3
from contextlib import closing
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import Asset

from airflow_provider_feedamp.exceptions import (
    FeedAmpError,
    InputError,
    RejectsFileError,
    ServerError,
    StoppedError,
    TooManyFailuresError,
)
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
from airflow_provider_feedamp.operators.orders import (
    FeedAmpPlaceOrdersOperator,
    TaskCheckpoints,
    checkpoints_of,
    metric_tags,
)
from tests.lineage import airflow_outlet_events, lineage_of
from tests.operators.support import for_good, lines, order, states, to_be_retried, without_retries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_feedamp.sandbox.server import RunningSandbox


ACCOUNT = "feedamp://feedamp_default/hooli/orders"
OUTLET = Asset("feedamp://feedamp_default/hooli/orders/placed")


def run(**arguments: Any) -> Any:
    return FeedAmpPlaceOrdersOperator(task_id="place_orders", **arguments).execute({})


def numbers(sandbox: RunningSandbox) -> list[str]:
    return sorted(states(sandbox))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "orders.ndjson"


@pytest.fixture
def rejects(tmp_path: Path) -> Path:
    return tmp_path / "out" / "rejects.ndjson"


def test_the_orders_of_a_list_are_placed_and_counted(feedamp: RunningSandbox) -> None:
    counts = run(orders=[order("A"), order("B"), order("A", marketplace_state="CANCELLED")])

    assert counts == {"read": 3, "placed": 3, "inserted": 2, "updated": 1, "rejected": 0, "rejects": None}
    assert numbers(feedamp) == ["A", "B"]


def test_an_order_of_a_file_arrives_byte_for_byte(feedamp: RunningSandbox, source: Path) -> None:
    text = json.dumps(order("A/1 ü%"), ensure_ascii=False).replace("1.5", "1.500000000000000000001")
    source.write_text(f"\ufeff\n  {text} ", encoding="utf-8")

    counts = run(source=str(source))

    assert counts == {"read": 1, "placed": 1, "inserted": 1, "updated": 0, "rejected": 0, "rejects": None}
    [stored] = feedamp.control.orders("hooli")
    assert stored["raw"] == text


def test_each_bad_order_goes_to_the_rejects_file_and_the_others_are_placed(
    feedamp: RunningSandbox, source: Path, rejects: Path
) -> None:
    bad = order("B", order_lines=[{"mp_line_number": "1", "sku": "S", "quantity": 0}])
    refused = order("D", marketplace_state="AWAITING_SHIPMENT")
    feedamp.control.change(strict_transitions=True)
    source.write_bytes(
        lines(order("A"), bad)
        + b"no json\n\n"
        + lines(order("D", marketplace_state="SHIPPED"), refused, order("E"))
    )

    counts = run(source=str(source), rejects=str(rejects), max_failures=None)

    placed = {"placed": 3, "inserted": 3, "updated": 0}
    assert counts == {"read": 6, **placed, "rejected": 3, "rejects": str(rejects)}
    assert numbers(feedamp) == ["A", "D", "E"]
    kept = [json.loads(line) for line in rejects.read_bytes().splitlines()]
    assert [(each["line"], each["mp_order_number"]) for each in kept] == [(2, "B"), (3, None), (6, "D")]
    assert [each.get("order") for each in kept] == [bad, None, refused]
    assert kept[1]["raw"] == "no json"
    assert "order_lines[0].quantity is 0" in kept[0]["reason"]
    assert kept[2]["codes"]


def test_a_mended_rejects_file_can_be_given_as_source(
    feedamp: RunningSandbox, source: Path, rejects: Path
) -> None:
    source.write_bytes(lines(order("A", currency="usd"), order("B")) + lines(order("C"))[:-2])
    run(source=str(source), rejects=str(rejects), max_failures=None)
    kept = [json.loads(line) for line in rejects.read_bytes().splitlines()]
    kept[0]["order"]["currency"] = "USD"
    kept[1]["raw"] += "}"
    rejects.write_bytes(lines(*kept))

    counts = run(source=str(rejects))

    assert counts == {"read": 2, "placed": 2, "inserted": 2, "updated": 0, "rejected": 0, "rejects": None}
    assert numbers(feedamp) == ["A", "B", "C"]


@pytest.mark.parametrize("name", ["orders.json", "orders.json.gz", "orders.jsonl.gz"])
def test_arrays_and_compressed_files_are_placed(feedamp: RunningSandbox, tmp_path: Path, name: str) -> None:
    orders = [order("A"), order("B")]
    text = json.dumps(orders, indent=2).encode() if ".json." in f"{name}." else lines(*orders)
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)

    assert run(source=f"file://{tmp_path}/{name}")["placed"] == 2
    assert numbers(feedamp) == ["A", "B"]


def test_more_rejects_than_allowed_fail_the_task_for_good_when_all_are_done(
    feedamp: RunningSandbox, rejects: Path
) -> None:
    orders = [order("A", currency="?"), order("B", currency="?"), order("C")]

    with for_good(TooManyFailuresError) as error:
        run(orders=orders, rejects=str(rejects), max_failures=1)

    assert "2 of 3 orders were rejected, and max_failures is 1" in str(error.value)
    assert "placed 1" in str(error.value)
    assert str(rejects) in str(error.value)
    assert numbers(feedamp) == ["C"]
    assert rejects.read_text().count("\n") == 2


def test_without_a_rejects_path_the_failure_says_how_to_keep_them(feedamp: RunningSandbox) -> None:
    with pytest.raises(TooManyFailuresError, match=r"1 of 1 order was.*Set rejects to a path"):
        run(orders=[order("A", currency="?")])


@pytest.mark.parametrize("max_failures", [1, 2, None, "1", " 2 ", "None"])
def test_as_many_rejects_as_allowed_are_a_success(
    feedamp: RunningSandbox, max_failures: int | str | None
) -> None:
    counts = run(orders=[order("A", currency="?"), order("B")], max_failures=max_failures)

    assert (counts["rejected"], counts["placed"], counts["rejects"]) == (1, 1, None)


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ({}, "exactly one of orders and source.*neither"),
        ({"source": ""}, "exactly one of orders and source.*neither"),
        ({"orders": [], "source": "/data/orders.ndjson"}, "exactly one of orders and source.*both"),
        ({"sql_conn_id": "shop"}, "sql_conn_id says that source is a query"),
        ({"allow_empty": "perhaps"}, "allow_empty must be True or False, not 'perhaps'"),
        ({"validate_only": "perhaps"}, "validate_only must be True or False, not 'perhaps'"),
        *(({"max_failures": odd}, "max_failures must be") for odd in (-1, "-1", "", "many", 1.5, True)),
        ({"max_workers": "many"}, "max_workers must be"),
        ({"requests_per_second": "many"}, "requests_per_second must be"),
    ],
)
def test_what_cannot_work_is_refused_for_good_before_anything_is_sent(
    feedamp: RunningSandbox, arguments: dict[str, Any], wrong: str
) -> None:
    orders = {} if "neither" in wrong else {"orders": [order("A")]}

    with for_good(InputError, match=wrong):
        run(**orders | arguments)
    assert numbers(feedamp) == []


@pytest.mark.parametrize("empty", [{"orders": []}, {"orders": "[]"}, {"source": "{source}"}])
@pytest.mark.parametrize("allow", [True, "True", "true"])
def test_no_order_at_all_is_an_error_unless_that_is_allowed(
    feedamp: RunningSandbox, source: Path, empty: dict[str, Any], allow: bool | str
) -> None:
    source.touch()
    arguments = {name: value.format(source=source) if value else value for name, value in empty.items()}

    with pytest.raises(InputError, match="no order in it"):
        run(**arguments, allow_empty="False")
    assert run(**arguments, allow_empty=allow)["read"] == 0


def test_the_source_is_never_overwritten_by_its_rejects(feedamp: RunningSandbox, source: Path) -> None:
    source.write_bytes(lines(order("A", currency="?")))
    link = source.with_name("link.ndjson")
    link.symlink_to(source)

    for other in (str(source), f"file://{source}", str(link)):
        with pytest.raises(InputError, match="are the same file"):
            run(source=str(source), rejects=other)
    assert source.read_bytes() == lines(order("A", currency="?"))


@pytest.mark.parametrize("content", [None, b"", "[]".encode("utf-16")])
def test_a_source_of_no_use_leaves_the_old_rejects_alone(
    feedamp: RunningSandbox, source: Path, tmp_path: Path, content: bytes | None
) -> None:
    old = tmp_path / "rejects.ndjson"
    old.write_text("still to be mended\n")
    if content is not None:
        source.write_bytes(content)

    with pytest.raises(InputError, match=str(source)):
        run(source=str(source), rejects=str(old))
    assert old.read_text() == "still to be mended\n"


def test_a_cut_off_source_fails_for_good_with_what_stands_before_placed_and_accounted(
    feedamp: RunningSandbox, tmp_path: Path, rejects: Path
) -> None:
    path = tmp_path / "orders.json"
    path.write_bytes(json.dumps([order("A"), order("B", currency="?"), order("C")]).encode()[:-20])

    with for_good(InputError, match="after element 2"):
        run(source=str(path), rejects=str(rejects))

    assert numbers(feedamp) == ["A"]
    assert [json.loads(line)["line"] for line in rejects.read_bytes().splitlines()] == [2]


def test_a_token_that_expires_in_the_middle_costs_no_order(feedamp: RunningSandbox) -> None:
    def with_expiry() -> Iterator[dict[str, Any]]:
        for number in range(6):
            if number in (2, 4):
                while len(numbers(feedamp)) < number:
                    """Those before are still on their way."""
                feedamp.control.expire("hooli")
            yield order(f"A-{number}")

    counts = run(orders=with_expiry())

    assert (counts["placed"], counts["rejected"]) == (6, 0)
    assert len(numbers(feedamp)) == 6
    assert feedamp.control.counters()["token_posts"] == 3


def test_a_failing_feedamp_fails_the_task_so_that_airflow_tries_again(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_retries(monkeypatch)
    feedamp.control.fault("http_error", on="data", status=503, times=50)

    with to_be_retried(ServerError):
        run(orders=[order("A")])


def test_a_rejects_file_that_breaks_off_fails_the_task_so_that_airflow_tries_again(
    feedamp: RunningSandbox, rejects: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: str, mode: str) -> IO[bytes]:
        if mode == "ab":  # the look at the beginning, whether it can be written
            return open(path, mode)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("airflow_provider_feedamp.bulk.rejects._private", full)

    with to_be_retried(RejectsFileError, match=r"No space left on device.*item 2 is not in it"):
        run(orders=[order("A"), order("B", currency="?")], rejects=str(rejects))
    assert numbers(feedamp) == ["A"]


def test_the_log_says_what_began_and_how_it_ended_and_nothing_of_the_customer(
    feedamp: RunningSandbox, source: Path, rejects: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    source.write_bytes(lines(order("A"), order("B", currency="?")) + b'{"full_name": "Jane Secretname"\n')

    with pytest.raises(FeedAmpError) as error:
        run(source=str(source), rejects=str(rejects))

    ours = [
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.INFO and str(source) in record.getMessage()
    ]
    assert ours == [
        f"Placing the orders of {source} for seller 'hooli' (connection feedamp_default)",
        f"All orders of {source}: read 3, placed 1 (inserted 1, updated 0), rejected 2; rejects: {rejects}",
    ]
    assert "Secretname" not in caplog.text + str(error.value)
    assert "Hidden" not in caplog.text + str(error.value)


def test_as_many_connections_are_kept_open_as_orders_are_on_their_way(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, Any]] = []

    class Hook(FeedAmpHook):
        def __init__(self, *args: Any, **options: Any) -> None:
            made.append(options)
            super().__init__(*args, **options)

    monkeypatch.setattr("airflow_provider_feedamp.hooks.feedamp.FeedAmpHook", Hook)

    run(orders=[order("A")], max_workers="40", requests_per_second="200")

    assert made == [{"seller": None, "requests_per_second": 200.0, "pool_size": 40}]


def test_the_orders_of_a_query_are_placed(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "shop.db"
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps({"conn_type": "sqlite", "host": str(file)}))
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE orders (body text)")
        connection.executemany(
            "INSERT INTO orders VALUES (?)", [(json.dumps(order(number)),) for number in "AB"]
        )

    assert run(source="select body from orders", sql_conn_id="shop")["placed"] == 2
    assert numbers(feedamp) == ["A", "B"]


def test_a_check_writes_the_rejects_and_needs_neither_connection_nor_token(
    monkeypatch: pytest.MonkeyPatch, source: Path, rejects: Path
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_FEEDAMP_DEFAULT", raising=False)
    source.write_bytes(lines(order("A"), order("B", currency="?"), order("C")) + b"no json\n")
    store = Checkpoints()
    operator = FeedAmpPlaceOrdersOperator(
        task_id="check",
        source=str(source),
        rejects=str(rejects),
        max_failures=2,
        validate_only="True",
        feedamp_conn_id="no_such_connection",
    )

    context: Any = {"task_state_store": store, "ti": SimpleNamespace(max_tries=1)}
    counts = operator.execute(context)

    assert (counts["read"], counts["placed"], counts["rejected"]) == (4, 0, 2)
    assert counts["rejects"] == str(rejects)
    assert [json.loads(line)["line"] for line in rejects.read_bytes().splitlines()] == [2, 4]
    assert store.calls == []


def test_a_check_fails_with_more_rejects_than_are_allowed(source: Path) -> None:
    source.write_bytes(lines(order("B", currency="?")))

    with pytest.raises(TooManyFailuresError, match=r"^1 of 1 order was rejected, and max_failures is 0"):
        run(source=str(source), validate_only=True)


class Checkpoints:
    """The store of a task, which keeps what an earlier try has left."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self.calls.append(name)


def test_one_order_that_is_locked_is_a_reject(feedamp: RunningSandbox) -> None:
    feedamp.control.fault("http_error", on="place_order", status=423, every=2, times=1)

    counts = run(orders=[order(number) for number in "ABCD"], max_workers=1, max_failures=1)

    assert (counts["placed"], counts["rejected"]) == (3, 1)
    assert numbers(feedamp) == ["A", "C", "D"]


def test_a_server_that_misdirects_all_orders_is_tried_again_later(
    feedamp: RunningSandbox, rejects: Path
) -> None:
    feedamp.control.fault("http_error", on="place_order", status=421, times=None)

    with to_be_retried(ServerError, match=r"refused 50 orders .*HTTP 421"):
        run(orders=[order(f"A-{number}") for number in range(90)], max_failures=None, rejects=str(rejects))

    assert not rejects.exists()


def place_into(context: dict[str, Any], **arguments: Any) -> FeedAmpPlaceOrdersOperator:
    """Run the task with one outlet, and return it."""
    task = FeedAmpPlaceOrdersOperator(task_id="place_orders", outlets=[OUTLET], **arguments)
    running: Any = context
    task.execute(running)
    return task


def test_the_event_and_the_lineage_of_a_run_have_counts_seller_and_file_and_no_order(
    feedamp: RunningSandbox, source: Path, rejects: Path
) -> None:
    source.write_bytes(lines(order("A"), order("B", currency="?"), order("C")))
    context = {"outlet_events": airflow_outlet_events()}

    task = place_into(context, source=str(source), rejects=str(rejects), max_failures=None)

    counts = {"read": 3, "placed": 2, "inserted": 2, "updated": 0, "rejected": 1}
    files = {"file": str(source), "rejects": str(rejects)}
    assert context["outlet_events"][OUTLET].extra == {"seller": "hooli", **files, **counts}
    assert lineage_of(task) == ([str(source)], {str(rejects): (1, None), ACCOUNT: (2, None)})


@pytest.mark.parametrize("validate_only", [False, True])
def test_a_list_has_no_file_and_what_is_checked_alone_has_no_seller(
    feedamp: RunningSandbox, validate_only: bool
) -> None:
    context = {"outlet_events": airflow_outlet_events()}

    task = place_into(context, orders=[order("A")], validate_only=validate_only)

    extra = context["outlet_events"][OUTLET].extra
    whose = {"seller": None if validate_only else "hooli", "file": None, "rejects": None}
    assert {name: extra[name] for name in whose} == whose
    assert lineage_of(task) == ([], {} if validate_only else {ACCOUNT: (1, None)})


def test_a_query_stands_in_no_event_and_no_lineage(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = str(tmp_path / "shop.db")
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps({"conn_type": "sqlite", "host": file}))
    context = {"outlet_events": airflow_outlet_events()}
    query = f"select '{json.dumps(order('A'))}' as body"

    task = place_into(context, source=query, sql_conn_id="shop")

    assert context["outlet_events"][OUTLET].extra["file"] is None
    assert lineage_of(task)[0] == []


def test_a_run_with_too_many_rejects_names_what_it_has_placed_for_lineage(feedamp: RunningSandbox) -> None:
    task = FeedAmpPlaceOrdersOperator(task_id="p", orders=[order("A"), order("B", currency="?")])

    with pytest.raises(TooManyFailuresError):
        task.execute({})

    assert lineage_of(task) == ([], {ACCOUNT: (1, None)})


def test_on_kill_stops_the_import_and_its_task_may_be_retried(feedamp: RunningSandbox) -> None:
    def orders() -> Iterator[dict[str, Any]]:
        for number in range(10_000):
            if number == 20:
                operator.on_kill()
            yield order(f"A-{number}")

    operator = FeedAmpPlaceOrdersOperator(task_id="place_orders", orders=orders())  # type: ignore[arg-type]

    with to_be_retried(StoppedError):
        operator.execute({})

    assert len(numbers(feedamp)) <= 21
    operator.on_kill()  # Airflow calls it again after a time-out.


def test_a_sandbox_that_asks_everybody_to_wait_costs_no_order(feedamp: RunningSandbox) -> None:
    feedamp.control.fault("http_error", on="place_order", status=429, wait=0.2, times=4)

    counts = run(orders=[order(f"A-{number}") for number in range(40)], max_workers=8)

    assert (counts["placed"], counts["rejected"]) == (40, 0)
    assert len(numbers(feedamp)) == 40


# What a task keeps between its tries


class Store(dict[str, Any]):
    """What Airflow's accessor of a task's state does."""

    set = dict.__setitem__

    def delete(self, key: str) -> None:
        self.pop(key, None)


def context(store: Store | None, *, try_number: int = 1, max_tries: int = 2) -> dict[str, Any]:
    ti = SimpleNamespace(try_number=try_number, max_tries=max_tries, dag_id="a_dag", task_id="place")
    return {"ti": ti} | ({} if store is None else {"task_state_store": store})


def test_a_retry_finds_the_checkpoint_of_the_try_before_and_one_after_a_clear_does_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    store = Store()
    TaskCheckpoints(store, 2).save({"read": 5})

    retry = checkpoints_of(context(store, try_number=2))
    assert retry is not None
    assert retry.load()["read"] == 5
    assert caplog.text == ""
    # Airflow raises max_tries when a task is cleared (clear_task_instances), and counts its tries on.
    cleared = checkpoints_of(context(store, try_number=3, max_tries=4))
    assert cleared is not None
    assert cleared.load() is None
    assert "no try since the task was last cleared left a checkpoint" in caplog.text

    retry.clear()
    retry.clear()
    assert store == {}


@pytest.mark.parametrize(("try_number", "lines"), [(1, 0), (2, 1)])
def test_an_airflow_without_such_a_store_is_named_in_a_retry(
    caplog: pytest.LogCaptureFixture, try_number: int, lines: int
) -> None:
    caplog.set_level(logging.INFO)

    assert checkpoints_of(context(None, try_number=try_number)) is None
    assert caplog.text.count("no checkpoint for a retry before 3.3") == lines


def test_without_a_context_there_is_nothing() -> None:
    assert checkpoints_of({}) is None
    assert metric_tags({}) == {}


def test_metrics_are_tagged_as_airflows_own() -> None:
    assert metric_tags(context(None)) == {"dag_id": "a_dag", "task_id": "place"}
