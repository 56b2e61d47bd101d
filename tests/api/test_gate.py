from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING

import pytest
from requests import Request, Response

from airflow_provider_feedamp.api.auth import BearerAuth
from airflow_provider_feedamp.api.gate import BACKOFF_CAP, Gate
from airflow_provider_feedamp.api.pacing import Pacer
from airflow_provider_feedamp.api.retry import RetryAdapter
from airflow_provider_feedamp.api.session import FeedAmpSession
from airflow_provider_feedamp.api.transport import Transport
from airflow_provider_feedamp.exceptions import RateLimitError
from tests.api.edge import Edge, Reply, Tokens

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock:
    """A clock that goes on when somebody sleeps, and at what moment each sleeper wanted to wake up."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> Gate:
    return Gate(3, clock=clock, sleep=clock.sleep, jitter=lambda: 1.0)


def waiting_in_vain(gate: Gate, calls: int) -> list[float]:
    """Let so many calls wait while time stands still, and return how long each would have slept."""
    slept: list[float] = []
    gate._sleep = slept.append
    threads = [threading.Thread(target=gate.wait) for _ in range(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(slept)


def test_an_open_gate_holds_nobody_up(gate: Gate, clock: Clock) -> None:
    gate.wait()
    assert clock.slept == []


def test_one_refusal_holds_up_every_call_until_the_pause_is_over(gate: Gate, clock: Clock) -> None:
    gate.close(17)
    gate.wait()
    assert clock.slept == [17]
    gate.wait()
    assert clock.slept == [17]


def test_those_who_waited_leave_one_by_one(gate: Gate) -> None:
    gate.close(10)
    assert waiting_in_vain(gate, 4) == pytest.approx([10, 10.05, 10.1, 10.15])


def test_who_comes_after_the_pause_goes_at_once(gate: Gate, clock: Clock) -> None:
    gate.close(10)
    waiting_in_vain(gate, 4)
    clock.now += 10
    assert waiting_in_vain(gate, 1) == []


def test_a_refusal_during_the_pause_begins_no_other(gate: Gate, clock: Clock) -> None:
    assert gate.close(10) == 10
    clock.now += 1
    assert gate.close(0) == 0
    assert gate.pauses == 1
    gate.wait()
    assert clock.slept == [9]


def test_a_refusal_during_the_pause_that_asks_for_more_makes_it_longer(gate: Gate, clock: Clock) -> None:
    gate.close(10)
    assert gate.close(15) == 0
    gate.wait()
    assert clock.slept == [15]


def test_a_call_that_waits_goes_on_waiting_when_an_earlier_one_is_refused_again(
    gate: Gate, clock: Clock
) -> None:
    gate.close(10)

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if len(clock.slept) == 1:
            gate.close(20)

    gate._sleep = sleep
    gate.wait()
    assert clock.slept == [10, 20]


def test_pauses_grow_whatever_the_server_asks_for_until_there_is_no_further_one(
    gate: Gate, clock: Clock
) -> None:
    pauses = []
    for _ in range(4):
        pauses.append(gate.close(1))
        gate.wait()
    assert pauses == [1, 2, 4, None]


def test_pauses_end_growing_at_a_cap(clock: Clock) -> None:
    gate = Gate(9, clock=clock, sleep=clock.sleep, jitter=lambda: 1.0)
    for _ in range(8):
        gate.close(0)
        gate.wait()
    assert clock.slept[-3:] == [BACKOFF_CAP] * 3


@pytest.mark.parametrize(
    "ends_the_row",
    [
        pytest.param(lambda gate, clock: gate.taken(), id="a call is taken"),
        pytest.param(lambda gate, clock: clock.sleep(61), id="a minute goes by"),
    ],
)
def test_a_row_of_pauses_ends(gate: Gate, clock: Clock, ends_the_row: Callable[[Gate, Clock], None]) -> None:
    for _ in range(3):
        gate.close(1)
        gate.wait()
    ends_the_row(gate, clock)
    assert gate.close(1) == 1


def test_all_calls_of_a_session_pause_together_and_the_log_says_so_once(
    edge: Edge, tokens: Tokens, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    released = threading.Event()
    sleeping = threading.Semaphore(0)

    def sleep(seconds: float) -> None:
        sleeping.release()
        released.wait(10)

    edge.will_reply(Reply(429, headers={"Retry-After": "9"}))
    with FeedAmpSession(edge.base_url, BearerAuth(tokens, edge.base_url), sleep=sleep) as session:
        transport = Transport(session)
        threads = [
            threading.Thread(target=transport.request, args=("PUT", ("orders", "A")), kwargs={"what": "x"})
            for _ in range(6)
        ]
        threads[0].start()
        assert sleeping.acquire(timeout=10)
        for thread in threads[1:]:
            thread.start()
        for _ in threads[1:]:
            assert sleeping.acquire(timeout=10)
        assert len(edge.received) == 1  # nobody else has sent anything
        released.set()
        for thread in threads:
            thread.join()
    assert len(edge.received) == 7
    said = [record.getMessage() for record in caplog.records if record.name.endswith("api.retry")]
    assert said == [
        "FeedAMP answered 429 to PUT /api/v1/orders/A; all calls wait for 9.0 s (pause 1 of 8 in a row)"
    ]


def test_a_call_that_was_on_its_way_when_the_pause_began_is_no_line_of_its_own(
    edge: Edge, session: FeedAmpSession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    adapter = session.get_adapter(edge.base_url)
    assert isinstance(adapter, RetryAdapter)
    refused = Response()
    refused.status_code, refused.raw = 429, io.BytesIO()
    request = Request("PUT", f"{edge.base_url}/orders/A").prepare()
    assert [adapter._paused(request, refused) for _ in range(5)] == [True] * 5
    assert len(caplog.records) == 1


def test_a_session_whose_calls_are_taken_in_between_never_gives_up(
    edge: Edge, session: FeedAmpSession, slept: list[float]
) -> None:
    edge.will_reply(*[Reply(429), Reply(200)] * 6)
    assert [session.get("orders").status_code for _ in range(6)] == [200] * 6
    assert slept == [1.0] * 6


def test_one_call_that_is_never_taken_ends_in_an_error(
    edge: Edge, session: FeedAmpSession, slept: list[float]
) -> None:
    edge.otherwise = Reply(429)
    with pytest.raises(RateLimitError):
        Transport(session).request("POST", ("orders",), what="x", json=[])
    assert slept == [1, 2, 4]
    assert len(edge.received) == 4


def test_a_repeated_call_keeps_to_the_pace(edge: Edge, session: FeedAmpSession) -> None:
    paced: list[float] = []
    transport = Transport(session, Pacer(2, clock=lambda: 0.0, sleep=paced.append))
    edge.will_reply(Reply(503), Reply(429), Reply(401), Reply(200))
    transport.request("GET", ("orders", "A"), what="x")
    assert paced == [0.5, 1.0, 1.5]  # the first one did not wait


def test_a_list_call_waits_for_the_pace_of_lists_and_for_that_of_all_calls(session: FeedAmpSession) -> None:
    paced: list[str] = []
    every = Pacer(2, clock=lambda: 0.0, sleep=lambda seconds: paced.append(f"all {seconds}"))
    lists = Pacer(1, clock=lambda: 0.0, sleep=lambda seconds: paced.append(f"list {seconds}"))
    transport = Transport(session, every, lists)
    for listing in (True, False, True):
        transport.request("GET", ("orders",), what="x", listing=listing)
    assert paced == ["all 0.5", "list 1.0", "all 1.0"]


def test_a_call_that_waited_for_its_pace_still_waits_for_a_pause_that_began_meanwhile(
    edge: Edge, session: FeedAmpSession, slept: list[float]
) -> None:
    adapter = session.get_adapter(edge.base_url)
    assert isinstance(adapter, RetryAdapter)
    gate = adapter._gate

    def meanwhile(seconds: float) -> None:
        gate.close(9)

    transport = Transport(session, Pacer(2, clock=lambda: 0.0, sleep=meanwhile))
    for _ in range(2):
        transport.request("GET", ("orders", "A"), what="x")
    assert slept == [9]
