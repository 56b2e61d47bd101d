"""An export that is stopped or killed leaves no file of customers' data."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.api.client import OrdersApi
from airflow_provider_feedamp.exceptions import DestinationError
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
from airflow_provider_feedamp.transfers.ndjson_file import ndjson_file
from airflow_provider_feedamp.transfers.object_storage import FeedAmpToObjectStorageOperator
from tests import s3 as s3_server
from tests.bulk.feedamps import good_order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from tests.s3 import S3

MUCH = 12_000  # Entries that are more than one block of an upload.
ENTRY = {"mp_order_number": "A1", "customer": "Jane Sécretname" * 60}


def export(destination: object) -> FeedAmpToObjectStorageOperator:
    return FeedAmpToObjectStorageOperator(task_id="export", resource="orders", destination=str(destination))


def context(try_number: int, task_id: str = "export") -> Any:
    ti = SimpleNamespace(dag_id="a_dag", run_id="a_run", task_id=task_id, map_index=-1, try_number=try_number)
    return {"ti": ti}


def killed(run: Callable[[], object]) -> None:
    """Run something in a process that is forked off, as Airflow's are, and killed by what it runs."""
    child = os.fork()
    if child == 0:
        try:
            run()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)


@pytest.fixture
def orders(feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return what the account seems to hold; an entry without content kills the process that reads it."""
    held = [ENTRY] * MUCH

    def listed(*_: object, **__: object) -> Iterator[dict[str, Any]]:
        for entry in held:
            if not entry:
                os.kill(os.getpid(), signal.SIGKILL)
            yield entry

    monkeypatch.setattr(OrdersApi, "list", listed)
    return held


def test_a_new_try_removes_what_its_own_killed_tries_left_on_a_local_disk(
    tmp_path: Path, orders: list[dict[str, Any]]
) -> None:
    def run(number: int, task_id: str = "export") -> Any:
        return export(tmp_path / "a.ndjson").execute(context(number, task_id))

    orders.append({})
    killed(lambda: run(1, "another"))
    [left_by_another] = tmp_path.iterdir()
    for number in (1, 2):
        killed(lambda number=number: run(number))  # type: ignore[misc]
        assert len(list(tmp_path.iterdir())) == 2
    orders.pop()

    run(3)

    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "a.ndjson", left_by_another])


def test_a_try_that_was_taken_for_dead_does_not_put_another_ones_half_in_place(tmp_path: Path) -> None:
    path = str(tmp_path / "a.ndjson")

    def run_two() -> None:
        with ndjson_file(path, owner="ff00") as older, ndjson_file(path, owner="ff00") as newer:
            older.add({"half": 1})
            newer.add({"whole": 1})

    with pytest.raises(DestinationError, match="No such file"):
        run_two()

    assert (tmp_path / "a.ndjson").read_bytes() == b'{"whole":1}\n'
    assert list(tmp_path.iterdir()) == [tmp_path / "a.ndjson"]


@pytest.mark.once
def test_a_new_try_aborts_the_upload_that_its_killed_one_left_on_s3(
    s3: S3, orders: list[dict[str, Any]]
) -> None:
    def run() -> None:
        s3_server.attach(s3.wire.port)  # s3fs is not for forks; Airflow makes it anew in each task too.
        export(s3.place("a.ndjson")).execute(context(1))

    s3.call("create_multipart_upload", Key="a.ndjson.gz")
    orders.append({})
    killed(run)
    assert s3.uploads() == ["a.ndjson", "a.ndjson.gz"]
    orders.pop()

    export(s3.place("a.ndjson")).execute(context(1))
    assert s3.uploads() == ["a.ndjson", "a.ndjson.gz"]
    export(s3.place("a.ndjson")).execute(context(2))

    assert (s3.names(), s3.uploads()) == (["a.ndjson"], ["a.ndjson.gz"])


@pytest.mark.once
def test_a_bucket_that_does_not_list_its_uploads_is_told_and_gets_the_file(
    s3: S3, orders: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    s3.wire.away_from = "GET /lake?uploads"

    export(s3.place("a.ndjson")).execute(context(2))

    assert s3.names() == ["a.ndjson"]
    assert "could not look for an upload that a killed try may have left (Conn" in caplog.text
    assert "a rule that aborts incomplete multipart uploads" in caplog.text


def test_on_kill_stops_it_between_two_entries_and_the_log_has_the_account(
    tmp_path: Path, feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read = 0

    def listed(*_: object, **__: object) -> Iterator[dict[str, Any]]:
        nonlocal read
        for read in range(1, 1001):
            if read == 21:
                task.on_kill()
            yield ENTRY

    monkeypatch.setattr(OrdersApi, "list", listed)
    task = export(tmp_path / "a.ndjson")

    with pytest.raises(DestinationError, match=r"a\.ndjson: the export was told to stop") as caught:
        task.execute(context(1))

    assert caught.value.retryable
    assert read == 21
    assert "Stopped before the end, after 20 orders; nothing is kept" in caplog.text
    assert list(tmp_path.iterdir()) == []
    task.on_kill()  # Airflow calls it again after a time-out.


@pytest.mark.parametrize("place", ["local", pytest.param("s3", marks=pytest.mark.once)])
def test_mark_failed_in_the_middle_of_a_long_call_ends_it_before_airflow_kills_it(
    tmp_path: Path, feedamp: RunningSandbox, place: str, request: pytest.FixtureRequest
) -> None:
    """As Airflow 3 does it: SIGTERM, answered by on_kill in the main thread, and SIGKILL 5 seconds later."""
    s3 = request.getfixturevalue("s3") if place == "s3" else None
    FeedAmpHook().client.orders.place(good_order("A1"))
    feedamp.control.fault("slow", on="list_orders", seconds=30)
    task = export(s3.place("a.ndjson") if s3 else tmp_path / "a.ndjson")

    def on_term(_: int, __: FrameType | None) -> None:
        task.on_kill()

    before = signal.signal(signal.SIGTERM, on_term)
    told: list[float] = []

    def mark_failed() -> None:
        told.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    timer = threading.Timer(1.0, mark_failed)
    try:
        timer.start()
        with pytest.raises(DestinationError, match="told to stop"):
            task.execute(context(1))
    finally:
        timer.cancel()
        timer.join()
        signal.signal(signal.SIGTERM, before)

    assert time.monotonic() - told[0] < 5
    assert list(tmp_path.iterdir()) == []
    if s3:
        assert (s3.names(), s3.uploads()) == ([], [])
