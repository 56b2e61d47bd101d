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
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.bulk import place as place_module
from airflow_provider_feedamp.bulk import progress as progress_module
from airflow_provider_feedamp.bulk import rejects as rejects_module
from airflow_provider_feedamp.bulk import source as source_module
from airflow_provider_feedamp.bulk.place import Checkpoint, Checkpoints, checkpoint_of, import_orders
from airflow_provider_feedamp.bulk.progress import PlaceCounts
from airflow_provider_feedamp.bulk.rejects import RejectsFile
from airflow_provider_feedamp.bulk.source import FileInput, ListInput, SourceOrder, parse_order
from airflow_provider_feedamp.bulk.sql import QueryInput
from airflow_provider_feedamp.bulk.threads import Stop
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
    from pathlib import Path

    from airflow_provider_feedamp.bulk.progress import Progress
    from airflow_provider_feedamp.bulk.source import OrderInput

pytestmark = pytest.mark.once

ORDERS: list[dict[str, Any]] = [
    {"mp_order_number": f"N-{line % 9}", "line": line, "refuse": line % 4 == 0} for line in range(1, 31)
]


class Killed(BaseException):
    """The process ends here: nothing is written any more."""


@pytest.fixture(autouse=True)
def checkpoints_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place_module, "TICK", 0.0)
    monkeypatch.setattr(place_module, "SAVE_EVERY", 0.0)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return write_orders(tmp_path / "orders.ndjson", ORDERS)


class Task:
    """A task that imports orders, with what its tries leave behind."""

    def __init__(self, folder: Path) -> None:
        self.rejects = folder / "rejects.ndjson"
        self.memory = Memory()

    def run(self, source: str | OrderInput, api: Orders, **options: Any) -> PlaceCounts:
        found = FileInput(source) if isinstance(source, str) else source
        options = {"rejects": str(self.rejects), "checkpoints": self.memory} | options
        return import_orders(found, api, **options)  # type: ignore[arg-type]

    def fail(self, source: str | OrderInput, call: int, **options: Any) -> int:
        """Run a try that FeedAMP ends at a call, and return how many orders its checkpoint is behind."""
        with pytest.raises(ServerError):
            self.run(source, failing_at(call), **options)
        return int((self.memory.load() or {"read": 0})["read"])


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return Task(tmp_path)


def at(call: int, error: BaseException) -> Callable[[str], None]:
    """Return what raises an error at a call."""
    calls = itertools.count(1)

    def each(number: str) -> None:
        if next(calls) == call:
            raise error

    return each


def failing_at(call: int) -> Orders:
    return Orders(at(call, ServerError("placing: HTTP 503", status=503)))


def lines_of(path: Path) -> list[int]:
    return [json.loads(line)["line"] for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("workers", [1, 4])
def test_a_retry_after_an_error_at_any_order_ends_with_the_account_of_the_whole_source(
    source: str, task: Task, workers: int
) -> None:
    task.run(source, whole := Orders(), max_workers=workers)
    wanted = task.rejects.read_bytes()

    for call in range(1, len(ORDERS) + 1):
        task.memory = Memory()
        api = failing_at(call)
        with pytest.raises(ServerError):
            task.run(source, api, max_workers=workers)
        before = len(api.calls)
        done = (task.memory.load() or {"read": 0})["read"]
        counts = task.run(source, api, max_workers=workers)

        assert (counts.read, counts.placed, counts.rejected) == (30, 23, 7)
        assert api.held == whole.held
        assert task.rejects.read_bytes() == wanted
        assert len(api.calls) - before == 30 - done
        assert workers > 1 or done == call - 1
        assert task.memory.text is None


def test_a_kill_between_any_two_steps_loses_nothing_and_counts_nothing_twice(source: str, task: Task) -> None:
    task.run(source, whole := Orders())
    wanted = task.rejects.read_bytes()
    rng = random.Random(11)
    went_on = 0

    for _ in range(25):
        memory, api = task.memory, Orders()
        while True:
            snapshots: list[tuple[str | None, bytes]] = []

            def see(progress: Progress, seen: Any = snapshots, memory: Memory = memory) -> None:
                seen.append((memory.text, task.rejects.read_bytes() if task.rejects.exists() else b""))

            api.at_each = at(rng.randrange(1, 12), Killed())
            went_on += memory.text is not None
            try:
                counts = task.run(source, api, observers=[see], max_workers=3)
            except Killed:
                # What a kill leaves: the checkpoint of some moment, and a file as long as then or longer.
                memory.text, _ = rng.choice(snapshots[:-1])
                continue
            break

        assert (counts.read, counts.placed, counts.rejected) == (30, 23, 7)
        assert api.held == whole.held
        assert task.rejects.read_bytes() == wanted
    assert went_on > 25


def test_a_stop_at_any_moment_is_gone_on_from(source: str, task: Task) -> None:
    rng = random.Random(7)
    pause = threading.Event()

    for _ in range(15):
        stops = 0
        api = Orders(lambda number: pause.wait(0.001))
        while True:
            stop = Stop()
            timer = threading.Timer(rng.random() / 40, stop.request)
            timer.start()
            try:
                counts = task.run(source, api, stop=stop, max_workers=2)
                break
            except StoppedError:
                stops += 1
            finally:
                timer.cancel()
        assert (counts.read, counts.placed, counts.rejected) == (30, 23, 7)
        assert lines_of(task.rejects) == [4, 8, 12, 16, 20, 24, 28]
        # Sent again is at most what waited behind an earlier order with its number, or was overtaken by it.
        assert 30 <= len(api.calls) <= 30 + 9 * stops


@pytest.mark.parametrize("name", ["orders.ndjson.gz", "orders.json", "orders.json.gz", "orders.jsonl"])
def test_every_kind_of_file_is_gone_on_in_without_parsing_what_was_done(
    tmp_path: Path, task: Task, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps(ORDERS).encode()
    if ".json." not in f"{name}.":
        text = b"\n\n".join(json.dumps(each).encode() for each in ORDERS)
    path = tmp_path / name
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    assert task.fail(str(path), 21, max_workers=1) == 20
    parsed: list[int] = []

    def parse(line: int, text: bytes, unit: str = "line") -> SourceOrder:
        parsed.append(line)
        return parse_order(line, text, unit)

    monkeypatch.setattr(source_module, "parse_order", parse)
    api = Orders()

    assert task.run(str(path), api).read == 30
    assert (len(api.calls), len(parsed)) == (10, 10)


def changed_source(source: str, task: Task) -> None:
    with open(source, "a") as file:
        file.write("\n")


def other_rejects(source: str, task: Task) -> None:
    task.rejects = task.rejects.with_suffix(".2.ndjson")


def lost_rejects(source: str, task: Task) -> None:
    task.rejects.unlink()


def short_rejects(source: str, task: Task) -> None:
    task.rejects.write_text("{}\n")


def damaged_checkpoint(source: str, task: Task) -> None:
    task.memory.save(task.memory.load() | {"placed": 5})


@pytest.mark.parametrize(
    "change", [changed_source, None, other_rejects, lost_rejects, short_rejects, damaged_checkpoint]
)
def test_what_is_not_the_same_import_begins_anew_and_says_so(
    source: str, task: Task, change: Any, caplog: pytest.LogCaptureFixture
) -> None:
    task.fail(source, 20, account="hooli", max_workers=1)
    if change:
        change(source, task)
    caplog.set_level(logging.INFO)
    api = Orders()

    counts = task.run(source, api, account="hooli" if change else "globex")

    assert (counts.read, len(api.calls)) == (30, 30)
    assert lines_of(task.rejects) == [4, 8, 12, 16, 20, 24, 28]
    assert "Sending all orders again" in caplog.text


def test_the_retry_after_fifty_odd_refusals_begins_with_the_first_of_them(tmp_path: Path, task: Task) -> None:
    def misdirected(number: str) -> None:
        if int(number[2:]) > 20:
            raise BadRequestError(f"placing order {number!r}: HTTP 421", status=421)

    orders = [{"mp_order_number": f"N-{line}"} for line in range(1, 101)]
    source = write_orders(tmp_path / "more.ndjson", orders)
    with pytest.raises(ServerError, match="refused 50 orders"):
        task.run(source, Orders(misdirected))
    assert task.memory.load()["read"] == 20

    api = Orders()
    counts = task.run(source, api)

    assert sorted(api.calls) == sorted(f"N-{line}" for line in range(21, 101))
    assert (counts.read, counts.placed, counts.rejected) == (100, 100, 0)


def test_a_compressed_rejects_file_is_gone_on_with_from_before_its_first_reject(
    tmp_path: Path, task: Task
) -> None:
    orders = [{"mp_order_number": f"N-{line}", "refuse": line > 80} for line in range(1, 101)]
    source = write_orders(tmp_path / "more.ndjson", orders)
    task.rejects = tmp_path / "rejects.ndjson.gz"
    done = task.fail(source, 95, max_workers=1)
    assert 0 < done <= 80

    api = Orders()
    counts = task.run(source, api)

    assert (counts.read, counts.rejected, len(api.calls)) == (100, 20, 100 - done)
    assert gzip.decompress(task.rejects.read_bytes()).count(b"\n") == 20


def test_a_list_is_sent_from_its_beginning_and_leaves_no_checkpoint(task: Task) -> None:
    task.fail(ListInput(ORDERS), 9)

    assert task.memory.text is None


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
    [(None, 10), ("DELETE FROM orders WHERE n = 30", 9), ("DELETE FROM orders WHERE n = 19", 29)],
)
def test_a_query_is_gone_on_in_if_its_rows_until_then_are_the_same(
    query: QueryInput, task: Task, change: str | None, sent: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    api = Orders()
    task.fail(query, 21, max_workers=1)
    if change:
        with closing(sqlite3.connect(task.rejects.parent / "shop.db")) as connection, connection:
            connection.execute(change)

    again = QueryInput(query.query, query.conn_id)
    counts = task.run(again, api, max_workers=1)

    assert len(api.calls) == sent
    assert counts.read == (29 if change else 30)
    assert again.share() == 1.0
    assert counts.rejected == len(lines_of(task.rejects)) == 7
    assert ("of a query: its text or its first rows" in caplog.text) is (sent == 29)


def test_a_source_that_is_cut_off_is_an_error_again_in_the_retry(tmp_path: Path, task: Task) -> None:
    path = tmp_path / "orders.json"
    path.write_bytes(json.dumps(ORDERS).encode()[:-20])
    api = Orders()

    for _ in range(2):
        with pytest.raises(InputError, match="after element 29"):
            task.run(str(path), api)

    assert len(api.calls) == task.memory.load()["read"] == 29


def test_a_rejects_file_without_room_leaves_a_checkpoint_before_the_reject(
    source: str, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, line: bytes) -> None:
        raise OSError(28, "No space left on device")

    api = Orders()
    with monkeypatch.context() as patch:
        patch.setattr(rejects_module.RejectsFile, "_write", full)
        with pytest.raises(RejectsFileError):
            task.run(source, api)
    assert task.memory.load()["read"] == 3

    assert task.run(source, api).rejected == 7
    assert lines_of(task.rejects) == [4, 8, 12, 16, 20, 24, 28]


def test_a_checkpoint_that_cannot_be_kept_or_removed_costs_no_order(
    source: str, task: Task, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: object) -> None:
        if task.rejects.exists():  # The first call, before all orders, must not fail.
            raise OSError("the API server is away")

    monkeypatch.setattr(task.memory, "save", away)
    monkeypatch.setattr(task.memory, "clear", away)

    assert task.run(source, Orders()).placed == 23
    assert caplog.text.count("The checkpoint could not be kept (OSError)") == 1
    assert "The checkpoint could not be removed (OSError)" in caplog.text


def test_time_passes_between_two_checkpoints_however_slow_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    class Slow(Memory):
        def save(self, value: dict[str, Any]) -> None:
            nonlocal now
            super().save(value)
            now += 20

    monkeypatch.setattr(place_module, "SAVE_EVERY", 5.0)
    monkeypatch.setattr(progress_module, "time", SimpleNamespace(monotonic=lambda: now))
    memory = Slow()
    saved = Checkpoints(memory, lambda _: "stamp", None)
    for expected in (0, 1, 1, 2):
        now += 4
        saved.save_if_due(PlaceCounts(read=1, placed=1), RejectsFile(None))
        assert memory.saves == expected


def test_the_checkpoint_holds_numbers_and_a_digest_only(source: str, task: Task) -> None:
    task.fail(source, 20, account="hooli", max_workers=1)

    value = task.memory.load()

    assert value.keys() == {"stamp", "read", "placed", "inserted", "updated", "rejected", "rejects_size"}
    assert len(value.pop("stamp")) == 64
    assert all(isinstance(each, int) for each in value.values())


@pytest.mark.parametrize(
    "value", [None, [], {}, {"stamp": "x"}, {"stamp": "x", **dict.fromkeys(PlaceCounts.__slots__, "many")}]
)
def test_what_is_no_checkpoint_is_none(value: Any) -> None:
    assert checkpoint_of(value) is None


def test_a_checkpoint_comes_back_as_it_was() -> None:
    checkpoint = Checkpoint("stamp", PlaceCounts(9, 7, 5, 2, 2), 123)

    assert checkpoint_of(json.loads(json.dumps(checkpoint.as_json()))) == checkpoint


def test_observers_see_where_it_begins_and_where_it_ends(source: str, task: Task) -> None:
    seen: list[Progress] = []

    task.run(source, Orders(), observers=[seen.append])

    assert (seen[0].done, seen[0].ended) == (0, False)
    assert (seen[-1].done, seen[-1].placed, seen[-1].rejected) == (30, 23, 7)
    assert (seen[-1].total, seen[-1].ended) == (30, True)


def test_an_import_that_begins_anew_forgets_the_old_checkpoint_first(source: str, task: Task) -> None:
    task.fail(source, 20, max_workers=1)
    task.rejects.unlink()

    task.fail(source, 1, max_workers=1)

    assert task.memory.text is None
