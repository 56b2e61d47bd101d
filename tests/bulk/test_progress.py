from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest

from airflow_provider_feedamp.bulk.progress import (
    Metrics,
    PlaceCounts,
    Progress,
    ProgressLog,
    duration_in_words,
    line_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.once


class Clock:
    now = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", lambda: clock.now)
    return clock


def progress(done: int = 0, rejected: int = 0, **more: Any) -> Progress:
    values = {"done": done, "placed": done - rejected, "rejected": rejected, "total": None, "rate": 10.0}
    return Progress(**(values | more))


def test_the_total_follows_from_the_share_of_the_source_that_was_read() -> None:
    counts = PlaceCounts(read=300, placed=290, rejected=10)

    found = Progress.of(counts, 400, 0.25, 20.0)

    assert found == Progress(done=300, placed=290, rejected=10, total=1600, rate=20.0)
    assert found.seconds_left == 65.0


@pytest.mark.parametrize("share", [None, 0.0])
def test_without_a_share_there_is_neither_a_total_nor_a_time(share: float | None) -> None:
    found = Progress.of(PlaceCounts(), 10, share, 1.0)

    assert (found.total, found.seconds_left) == (None, None)


def test_nothing_is_said_of_the_time_while_nothing_moves() -> None:
    assert progress(5, total=10, rate=0.0).seconds_left is None


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (progress(12345, 12), "12,345 orders done, 10 per second, 12 rejected"),
        (progress(1, 0), "1 order done, 10 per second, 0 rejected"),
        (
            progress(1000, total=50_000, rate=412.4),
            "1,000 of about 50,000 orders done, 412 per second, 0 rejected, about 1 min 59 s left",
        ),
    ],
)
def test_a_line_says_what_is_known(found: Progress, line: str) -> None:
    assert line_of(found) == line


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (7380, "2 h 3 min")],
)
def test_durations_are_words(seconds: float, words: str) -> None:
    assert duration_in_words(seconds) == words


def test_a_line_comes_every_few_seconds_and_not_at_the_end(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    write = ProgressLog()

    for second in range(25):
        clock.now = 1000.0 + second
        write(progress(second))
    write(progress(30, ended=True))

    assert [line.split()[0] for line in caplog.messages] == ["10", "20"]


@pytest.fixture
def counted() -> Iterator[list[tuple[str, int, Any]]]:
    from airflow.providers.common.compat.sdk import Stats

    told: list[tuple[str, int, Any]] = []

    def incr(name: str, count: int = 1, rate: float = 1, *, tags: Any = None) -> None:
        told.append((name, count, tags))

    with patch.object(Stats, "incr", incr):
        yield told


def test_counters_get_what_is_new_at_each_report_and_the_rest_at_the_end(
    counted: list[tuple[str, int, Any]], clock: Clock
) -> None:
    metrics = Metrics({"dag_id": "a_dag"})

    metrics(progress(100, 10))  # of an earlier try, which has reported them
    for second in range(1, 12):
        clock.now = 1000.0 + second
        metrics(progress(100 + second, 10))
    metrics(progress(115, 12, ended=True))

    tags = {"dag_id": "a_dag"}
    assert counted == [
        ("feedamp.orders.placed", 10, tags),
        ("feedamp.orders.placed", 3, tags),
        ("feedamp.orders.rejected", 2, tags),
    ]
