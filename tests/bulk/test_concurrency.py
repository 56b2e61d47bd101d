"""Several orders at a time: what may be on its way together, what is counted, and what is held in memory."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.bulk import place as place_module
from airflow_provider_feedamp.bulk.place import place_orders
from airflow_provider_feedamp.bulk.progress import PlaceCounts
from airflow_provider_feedamp.bulk.rejects import RejectsFile
from airflow_provider_feedamp.bulk.source import SourceOrder, order_of
from airflow_provider_feedamp.bulk.threads import Stop
from airflow_provider_feedamp.exceptions import (
    ReauthorizationRequiredError,
    RejectsFileError,
    ServerError,
    StoppedError,
)
from tests.bulk.feedamps import PATIENCE, Gate, Orders

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.once


def order(line: int, number: str | None = None, **more: Any) -> SourceOrder:
    return order_of(line, {"mp_order_number": number or f"N-{line}", "line": line} | more)


def numbered(last: int) -> list[SourceOrder]:
    return [order(line) for line in range(1, last + 1)]


def place(orders: Any, api: Orders, **options: Any) -> PlaceCounts:
    return place_orders(orders, api, RejectsFile(None), **options)  # type: ignore[arg-type]


def test_as_many_orders_as_workers_are_on_their_way_together() -> None:
    barrier = threading.Barrier(8)
    api = Orders(lambda number: barrier.wait(PATIENCE))

    counts = place(numbered(40), api, max_workers=8)

    assert (counts.placed, api.most_together) == (40, 8)


class Authorising(Orders):
    """Takes its time to get a token, and may get none."""

    def __init__(self, seconds: float, error: Exception | None = None) -> None:
        super().__init__(self._note)
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.too_early: list[str] = []
        self._seconds = seconds
        self._error = error

    def _note(self, number: str) -> None:
        if not self.may_end.is_set():
            self.too_early.append(number)

    def authorise(self) -> None:
        super().authorise()
        self.begun.set()
        self.may_end.wait(self._seconds)
        if self._error:
            raise self._error
        self.may_end.set()


def test_a_token_is_taken_once_before_any_order_is_sent() -> None:
    api = Authorising(0.3)

    counts = place(numbered(40), api, max_workers=8)

    assert (counts.placed, api.authorised, api.too_early) == (40, 1, [])


def test_a_token_that_cannot_be_had_is_asked_for_once_and_ends_the_run() -> None:
    error = ReauthorizationRequiredError("authorise again")
    api = Authorising(0.1, error)

    with pytest.raises(ReauthorizationRequiredError) as caught:
        place(numbered(40), api, max_workers=8)

    assert caught.value is error
    assert (api.authorised, api.calls) == (1, [])


def test_a_run_that_is_told_to_stop_does_not_wait_for_a_token(caplog: pytest.LogCaptureFixture) -> None:
    api, stop = Authorising(PATIENCE), Stop()

    def orders() -> Iterator[SourceOrder]:
        yield from numbered(8)
        assert api.begun.wait(PATIENCE)
        stop.request()
        yield order(9)

    with pytest.raises(StoppedError):
        place(orders(), api, max_workers=8, stop=stop)

    assert api.calls == []
    assert "not answered" not in caplog.text  # the orders came back unsent
    api.may_end.set()


def test_orders_with_the_same_number_go_one_after_the_other_and_the_last_one_holds() -> None:
    rng = random.Random(5)
    pause = threading.Event()
    api = Orders(lambda number: pause.wait(rng.random() / 500))
    orders = [order(line, f"N-{rng.randrange(6)}") for line in range(1, 301)]

    counts = place(orders, api, max_workers=12)

    last = {each.order["mp_order_number"]: each.line for each in orders if each.order}
    assert api.overlaps == []
    assert {number: held["line"] for number, held in api.held.items()} == last
    assert (counts.inserted, counts.updated) == (6, 294)


def test_an_order_that_waits_for_its_number_holds_up_no_other() -> None:
    gate = Gate("A")
    api = Orders(gate)
    free = [order(line) for line in range(3, 40)]

    def orders() -> Iterator[SourceOrder]:
        yield order(1, "A")
        yield order(2, "A", second=True)
        yield from free
        while len(api.held) < len(free):
            """A and its successor wait; all the others get through meanwhile."""
        gate.open()

    place(orders(), api, max_workers=4)

    assert api.calls.count("A") == 2
    assert api.held["A"]["second"]


def test_a_refused_order_lets_the_next_one_with_its_number_go() -> None:
    api = Orders()

    counts = place([order(1, "A", refuse=True), order(2, "A"), order(3, "A")], api, max_workers=4)

    assert (counts.rejected, counts.inserted, counts.updated) == (1, 1, 1)
    assert api.held["A"]["line"] == 3


def test_rejects_are_kept_in_the_order_of_the_source() -> None:
    kept: list[int] = []

    class Kept(RejectsFile):
        def add(self, order: SourceOrder, *args: Any, **words: Any) -> None:
            kept.append(order.line)
            super().add(order, *args, **words)

    rng = random.Random(3)
    pause = threading.Event()
    api = Orders(lambda number: pause.wait(rng.random() / 500))
    orders = [order(line, refuse=rng.random() < 0.5) for line in range(1, 200)]

    place_orders(orders, api, Kept(None), max_workers=9)  # type: ignore[arg-type]

    assert kept == [each.line for each in orders if each.order and each.order["refuse"]]


def test_after_an_error_no_order_is_begun_and_those_under_way_are_waited_for() -> None:
    gate = Gate("N-2")
    counts = PlaceCounts()

    def each(number: str) -> None:
        gate(number)
        if number == "N-4":
            assert gate.reached.wait(PATIENCE)
            threading.Timer(0.05, gate.open).start()  # N-2 is answered when the error is known
            raise ServerError("placing: HTTP 503", status=503)

    api = Orders(each)
    with pytest.raises(ServerError):
        place(numbered(199), api, max_workers=2, counts=counts)

    assert counts == PlaceCounts(read=3, placed=3, inserted=3)
    assert set(api.held) >= {"N-1", "N-2", "N-3"}
    assert len(api.calls) < 8


def test_an_answer_behind_an_order_without_one_is_not_counted_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = Gate("N-2")
    counts = PlaceCounts()

    def each(number: str) -> None:
        gate(number)
        if number == "N-2":
            raise ServerError("placing: HTTP 503", status=503)

    api = Orders(each)

    def orders() -> Iterator[SourceOrder]:
        yield from numbered(5)
        while len(api.held) < 4:
            """All but the second one are answered, and then that one fails."""
        gate.open()

    with pytest.raises(ServerError):
        place(orders(), api, max_workers=4, counts=counts)

    assert counts == PlaceCounts(read=1, placed=1, inserted=1)
    assert len(api.held) == 4
    assert "3 more orders were answered" in caplog.text


def test_rejects_that_cannot_be_kept_end_the_run_before_they_are_counted() -> None:
    class Full(RejectsFile):
        def add(self, *args: Any, **words: Any) -> None:
            raise RejectsFileError("No space left on device")

    counts = PlaceCounts()
    orders = [order(1), order(2, refuse=True), order(3), order(4, refuse=True)]

    with pytest.raises(RejectsFileError):
        place_orders(orders, Orders(), Full(None), counts=counts)  # type: ignore[arg-type]

    assert counts == PlaceCounts(read=1, placed=1, inserted=1)


def test_no_more_is_read_than_can_be_worked_on() -> None:
    gate = Gate("N-1")
    api = Orders(gate)
    taken = 0
    most = 0

    def orders() -> Iterator[SourceOrder]:
        nonlocal taken, most
        for line in range(1, 1001):
            taken = line
            most = max(most, taken - len(api.held))
            if line == 300:
                gate.open()
            yield order(line)

    place(orders(), api, max_workers=10)

    assert taken == 1000
    assert most <= 4 * 10 + 1


def held_up(last: int, workers: int, **more: Any) -> tuple[int, int]:
    """Place orders while the first one gets no answer; return how many were taken then, and placed in all."""
    gate = Gate("N-1")
    taken: list[int] = []

    def orders() -> Iterator[SourceOrder]:
        for line in range(1, last + 1):
            taken.append(line)
            yield order(line, **more)

    threading.Thread(target=open_when_still, args=(gate, taken)).start()
    counts = place(orders(), Orders(gate), max_workers=workers)
    return gate.opened_at, counts.placed


def open_when_still(gate: Gate, taken: list[int]) -> None:
    """Open the gate when no more orders are taken, and note how many there were by then."""
    pause = threading.Event()
    before = -1
    while before != len(taken) or not taken:
        before = len(taken)
        pause.wait(0.3)
    gate.opened_at = before
    gate.open()


def test_answered_orders_behind_one_that_waits_are_bounded_too() -> None:
    assert held_up(1999, 2) == (64 * 2, 1999)


def test_large_orders_are_held_up_to_a_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place_module, "_HELD_BYTES", 10_000)

    # With one worker all wait behind the first: none is answered, so each counts with its bytes.
    assert held_up(29, 1, text="x" * 3000) == (4, 29)


def test_a_run_that_was_told_to_stop_while_its_source_was_made_sends_nothing() -> None:
    stop, api = Stop(), Orders()
    stop.request()

    with pytest.raises(StoppedError):
        place(numbered(8), api, stop=stop)

    assert (api.authorised, api.calls) == (0, [])


def test_a_run_that_is_told_to_stop_counts_what_is_answered() -> None:
    stop = Stop()
    counts = PlaceCounts()
    api = Orders(lambda number: stop.request() if number == "N-20" else None)

    with pytest.raises(StoppedError) as error:
        place((order(line) for line in range(1, 10_000)), api, max_workers=3, counts=counts, stop=stop)

    assert error.value.retryable
    assert 20 <= counts.read == counts.placed == len(api.calls) < 60


def test_a_run_that_is_told_to_stop_waits_for_an_answer_only_for_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(place_module, "GRACE", 0.1)
    stop = Stop()
    gate = Gate("N-3")
    counts = PlaceCounts()
    api = Orders(gate)

    def orders() -> Iterator[SourceOrder]:
        yield from numbered(5)
        while len(api.held) < 4:
            """Only the third one is still on its way."""
        stop.request()

    with pytest.raises(StoppedError):
        place(orders(), api, max_workers=4, counts=counts, stop=stop)
    gate.open()

    assert counts == PlaceCounts(read=2, placed=2, inserted=2)
    assert "1 order was not answered" in caplog.text


def test_nothing_is_left_running() -> None:
    place(numbered(99), Orders(), max_workers=8)

    for thread in threading.enumerate():
        if thread.name.startswith("feedamp-place"):
            thread.join(PATIENCE)
            assert not thread.is_alive()
