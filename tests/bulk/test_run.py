"""An import that is cut off at any place goes on behind what it has accounted for."""

from __future__ import annotations

import gzip
import itertools
import json
import logging
import random
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.bulk import place as place_module
from airflow_provider_feedamp.bulk import rejects as rejects_module
from airflow_provider_feedamp.bulk import source as source_module
from airflow_provider_feedamp.bulk.checkpoint import Checkpoint, Saver, checkpoint_of
from airflow_provider_feedamp.bulk.counts import PlaceCounts
from airflow_provider_feedamp.bulk.inputs import FileInput, ListInput
from airflow_provider_feedamp.bulk.interrupt import Stop
from airflow_provider_feedamp.bulk.parse import SourceOrder, parse_order
from airflow_provider_feedamp.bulk.run import import_orders
from airflow_provider_feedamp.bulk.sql_source import QueryInput
from airflow_provider_feedamp.exceptions import (
    BadRequestError,
    InputError,
    RejectsFileError,
    ServerError,
    StoppedError,
)
from tests.bulk.feedamps import Memory, Orders, write_orders

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_feedamp.bulk.progress import Progress

pytestmark = pytest.mark.once

ORDERS: list[dict[str, Any]] = [
    {"mp_order_number": f"N-{line % 9}", "line": line, "refuse": line % 4 == 0} for line in range(1, 31)
]


class Killed(BaseException):
    """The process ends here: nothing is written any more."""


@pytest.fixture(autouse=True)
def checkpoints_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place_module, "TICK", 0.0)
    monkeypatch.setitem(Saver.__init__.__kwdefaults__ or {}, "every", 0.0)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return write_orders(tmp_path / "orders.ndjson", ORDERS)


@pytest.fixture
def rejects(tmp_path: Path) -> str:
    return str(tmp_path / "rejects.ndjson")


def run(source: str, api: Orders, **options: Any) -> PlaceCounts:
    return import_orders(FileInput(source), api, **options)  # type: ignore[arg-type]


def failing_at(call: int) -> Orders:
    calls = itertools.count(1)

    def each(number: str) -> None:
        if next(calls) == call:
            message = "placing: HTTP 503"
            raise ServerError(message, status=503)

    return Orders(each)


def lines_of(path: str) -> list[int]:
    return [json.loads(line)["line"] for line in Path(path).read_bytes().splitlines()]


@pytest.mark.parametrize("workers", [1, 4])
def test_a_retry_after_an_error_at_any_order_ends_with_the_account_of_the_whole_source(
    source: str, rejects: str, workers: int
) -> None:
    run(source, whole := Orders(), rejects=rejects, max_workers=workers)
    wanted = Path(rejects).read_bytes()

    for call in range(1, len(ORDERS) + 1):
        memory = Memory()
        api = failing_at(call)
        options: dict[str, Any] = {"rejects": rejects, "checkpoints": memory, "max_workers": workers}
        with pytest.raises(ServerError):
            run(source, api, **options)
        before = len(api.calls)
        done = (memory.load() or {"read": 0})["read"]
        counts = run(source, api, **options)

        assert (counts.read, counts.placed, counts.rejected) == (30, 23, 7)
        assert api.held == whole.held
        assert Path(rejects).read_bytes() == wanted
        assert len(api.calls) - before == 30 - done
        assert workers > 1 or done == call - 1
        assert memory.text is None


def killed_at(call: int) -> Callable[[str], None]:
    calls = itertools.count(1)

    def each(number: str) -> None:
        if next(calls) == call:
            raise Killed

    return each


def test_a_kill_between_any_two_steps_loses_nothing_and_counts_nothing_twice(
    source: str, rejects: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(source, whole := Orders(), rejects=rejects)
    wanted = Path(rejects).read_bytes()
    rng = random.Random(11)
    went_on = 0

    for _ in range(25):
        memory, api = Memory(), Orders()
        while True:
            snapshots: list[tuple[str | None, bytes]] = []

            def see(progress: Progress, seen: Any = snapshots, memory: Memory = memory) -> None:
                path = Path(rejects)
                seen.append((memory.text, path.read_bytes() if path.exists() else b""))

            api.at_each = killed_at(rng.randrange(1, 12))
            went_on += memory.text is not None
            try:
                counts = run(source, api, rejects=rejects, checkpoints=memory, observers=[see], max_workers=3)
            except Killed:
                # What a kill leaves: the checkpoint of some moment, and a file as long as then or longer.
                memory.text, _ = rng.choice(snapshots[:-1])
                continue
            break

        assert (counts.read, counts.placed, counts.rejected) == (30, 23, 7)
        assert api.held == whole.held
        assert Path(rejects).read_bytes() == wanted
    assert went_on > 25


def test_a_stop_at_any_moment_is_gone_on_from(source: str, rejects: str) -> None:
    rng = random.Random(7)
    pause = threading.Event()

    for _ in range(15):
        memory, stops = Memory(), 0
        api = Orders(lambda number: pause.wait(0.001))
        while True:
            stop = Stop()
            timer = threading.Timer(rng.random() / 40, stop.request)
            timer.start()
            try:
                counts = run(source, api, rejects=rejects, checkpoints=memory, stop=stop, max_workers=2)
                break
            except StoppedError:
                stops += 1
            finally:
                timer.cancel()
        assert (counts.read, counts.placed, counts.rejected) == (30, 23, 7)
        assert lines_of(rejects) == [4, 8, 12, 16, 20, 24, 28]
        # Sent again is at most what waited behind an earlier order with its number, or was overtaken by it.
        assert 30 <= len(api.calls) <= 30 + 9 * stops


@pytest.mark.parametrize("name", ["orders.ndjson.gz", "orders.json", "orders.json.gz", "orders.jsonl"])
def test_every_kind_of_file_is_gone_on_in_without_parsing_what_was_done(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps(ORDERS).encode()
    if ".json." not in f"{name}.":
        text = b"\n\n".join(json.dumps(each).encode() for each in ORDERS)
    path = tmp_path / name
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    memory = Memory()
    with pytest.raises(ServerError):
        run(str(path), failing_at(21), checkpoints=memory, max_workers=1)
    parsed: list[int] = []

    def parse(line: int, text: bytes, unit: str = "line") -> SourceOrder:
        parsed.append(line)
        return parse_order(line, text, unit)

    monkeypatch.setattr(source_module, "parse_order", parse)
    api = Orders()

    assert run(str(path), api, checkpoints=memory).read == 30
    assert (len(api.calls), len(parsed)) == (10, 10)


def changed_source(source: str, options: dict[str, Any]) -> None:
    with open(source, "a") as file:
        file.write("\n")


def other_account(source: str, options: dict[str, Any]) -> None:
    options["account"] = "globex"


def other_rejects(source: str, options: dict[str, Any]) -> None:
    options["rejects"] += "2.ndjson"


def lost_rejects(source: str, options: dict[str, Any]) -> None:
    Path(options["rejects"]).unlink()


def short_rejects(source: str, options: dict[str, Any]) -> None:
    Path(options["rejects"]).write_text("{}\n")


def damaged_checkpoint(source: str, options: dict[str, Any]) -> None:
    memory = options["checkpoints"]
    memory.save(memory.load() | {"placed": 5})


@pytest.mark.parametrize(
    "change",
    [changed_source, other_account, other_rejects, lost_rejects, short_rejects, damaged_checkpoint],
)
def test_what_is_not_the_same_import_begins_anew_and_says_so(
    source: str, rejects: str, change: Any, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"rejects": rejects, "checkpoints": Memory(), "account": "acme"}
    with pytest.raises(ServerError):
        run(source, failing_at(20), **options, max_workers=1)
    change(source, options)
    caplog.set_level(logging.INFO)
    api = Orders()

    counts = run(source, api, **options)

    assert (counts.read, len(api.calls)) == (30, 30)
    assert lines_of(options["rejects"]) == [4, 8, 12, 16, 20, 24, 28]
    assert "Sending all orders again" in caplog.text


def test_the_retry_after_fifty_odd_refusals_begins_with_the_first_of_them(
    tmp_path: Path, rejects: str
) -> None:
    def misdirected(number: str) -> None:
        if int(number[2:]) > 20:
            raise BadRequestError(f"placing order {number!r}: HTTP 421", status=421)

    orders = [{"mp_order_number": f"N-{line}"} for line in range(1, 101)]
    source = write_orders(tmp_path / "more.ndjson", orders)
    memory, api = Memory(), Orders(misdirected)
    with pytest.raises(ServerError, match="refused 50 orders"):
        run(source, api, rejects=rejects, checkpoints=memory)
    assert memory.load()["read"] == 20

    api = Orders()
    counts = run(source, api, rejects=rejects, checkpoints=memory)

    assert sorted(api.calls) == sorted(f"N-{line}" for line in range(21, 101))
    assert (counts.read, counts.placed, counts.rejected) == (100, 100, 0)


def test_a_compressed_rejects_file_is_gone_on_with_from_before_its_first_reject(
    tmp_path: Path, rejects: str
) -> None:
    orders = [{"mp_order_number": f"N-{line}", "refuse": line > 80} for line in range(1, 101)]
    source = write_orders(tmp_path / "more.ndjson", orders)
    memory = Memory()
    path = f"{rejects}.gz"
    with pytest.raises(ServerError):
        run(source, failing_at(95), rejects=path, checkpoints=memory, max_workers=1)
    done = memory.load()["read"]
    assert 0 < done <= 80

    api = Orders()
    counts = run(source, api, rejects=path, checkpoints=memory)

    assert (counts.read, counts.rejected, len(api.calls)) == (100, 20, 100 - done)
    assert gzip.decompress(Path(path).read_bytes()).count(b"\n") == 20


def test_a_list_is_sent_from_its_beginning_and_leaves_no_checkpoint() -> None:
    memory = Memory()
    with pytest.raises(ServerError):
        import_orders(ListInput(ORDERS), failing_at(9), checkpoints=memory)  # type: ignore[arg-type]

    assert memory.text is None


@pytest.fixture
def query(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> QueryInput:
    """Return a query that gives the orders, on a database of this test."""
    file = tmp_path / "shop.db"
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", json.dumps({"conn_type": "sqlite", "host": str(file)}))
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE orders (n int, body text)")
        connection.executemany(
            "INSERT INTO orders VALUES (?, ?)", [(each["line"], json.dumps(each)) for each in ORDERS]
        )
    return QueryInput("SELECT body FROM orders ORDER BY n", "shop")


@pytest.mark.parametrize(
    ("change", "sent"),
    [
        (None, 10),
        ("DELETE FROM orders WHERE n = 30", 9),
        ("DELETE FROM orders WHERE n = 19", 29),
    ],
)
def test_a_query_is_gone_on_in_if_its_rows_until_then_are_the_same(
    query: QueryInput, rejects: str, change: str | None, sent: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    memory, api = Memory(), Orders()
    options: dict[str, Any] = {"rejects": rejects, "checkpoints": memory, "max_workers": 1}
    with pytest.raises(ServerError):
        import_orders(query, failing_at(21), **options)  # type: ignore[arg-type]
    if change:
        with closing(sqlite3.connect(Path(rejects).parent / "shop.db")) as connection, connection:
            connection.execute(change)

    again = QueryInput(query.query, query.conn_id)
    counts = import_orders(again, api, **options)  # type: ignore[arg-type]

    assert len(api.calls) == sent
    assert counts.read == (29 if change else 30)
    assert again.share() == 1.0
    assert counts.rejected == 7
    assert len(lines_of(rejects)) == 7
    assert ("of a query: its text or its first rows" in caplog.text) is (sent == 29)


def test_a_source_that_is_cut_off_is_an_error_again_in_the_retry(tmp_path: Path) -> None:
    path = tmp_path / "orders.json"
    path.write_bytes(json.dumps(ORDERS).encode()[:-20])
    memory, api = Memory(), Orders()

    for _ in range(2):
        with pytest.raises(InputError, match="after element 29"):
            run(str(path), api, checkpoints=memory)

    assert len(api.calls) == 29
    assert memory.load()["read"] == 29


def test_a_rejects_file_without_room_leaves_a_checkpoint_before_the_reject(
    source: str, rejects: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, line: bytes) -> None:
        raise OSError(28, "No space left on device")

    memory, api = Memory(), Orders()
    with monkeypatch.context() as patch:
        patch.setattr(rejects_module.RejectsFile, "_write", full)
        with pytest.raises(RejectsFileError):
            run(source, api, rejects=rejects, checkpoints=memory)
    assert memory.load()["read"] == 3

    assert run(source, api, rejects=rejects, checkpoints=memory).rejected == 7
    assert lines_of(rejects) == [4, 8, 12, 16, 20, 24, 28]


class Deaf(Memory):
    def save(self, value: dict[str, Any]) -> None:
        message = "the API server is away"
        raise OSError(message)


def test_a_checkpoint_that_cannot_be_kept_costs_no_order(
    source: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert run(source, Orders(), checkpoints=Deaf()).placed == 23
    assert caplog.text.count("The checkpoint could not be kept (OSError)") == 1


def test_the_checkpoint_holds_numbers_and_a_digest_only(source: str, rejects: str) -> None:
    memory = Memory()
    with pytest.raises(ServerError):
        run(source, failing_at(20), rejects=rejects, checkpoints=memory, account="acme", max_workers=1)

    value = memory.load()

    assert value.keys() == {"stamp", "read", "placed", "inserted", "updated", "rejected", "rejects_size"}
    assert len(value.pop("stamp")) == 64
    assert all(isinstance(each, int) for each in value.values())


@pytest.mark.parametrize(
    "value",
    [None, [], {}, {"stamp": "x"}, {"stamp": "x", **dict.fromkeys(PlaceCounts.__slots__, "many")}],
)
def test_what_is_no_checkpoint_is_none(value: Any) -> None:
    assert checkpoint_of(value) is None


def test_a_checkpoint_comes_back_as_it_was() -> None:
    checkpoint = Checkpoint("stamp", PlaceCounts(9, 7, 5, 2, 2), 123)

    assert checkpoint_of(json.loads(json.dumps(checkpoint.as_json()))) == checkpoint


def test_observers_see_where_it_begins_and_where_it_ends(source: str) -> None:
    seen: list[Progress] = []

    run(source, Orders(), observers=[seen.append])

    assert (seen[0].done, seen[0].ended) == (0, False)
    assert (seen[-1].done, seen[-1].placed, seen[-1].rejected) == (30, 23, 7)
    assert (seen[-1].total, seen[-1].ended) == (30, True)


def test_an_import_that_begins_anew_forgets_the_old_checkpoint_first(source: str, rejects: str) -> None:
    memory = Memory()
    with pytest.raises(ServerError):
        run(source, failing_at(20), rejects=rejects, checkpoints=memory, max_workers=1)
    Path(rejects).unlink()

    with pytest.raises(ServerError):
        run(source, failing_at(1), rejects=rejects, checkpoints=memory, max_workers=1)

    assert memory.text is None
