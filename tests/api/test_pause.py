from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from airflow_provider_feedamp.api.http import BACKOFF_CAP, Http, Pacer, Pause
from airflow_provider_feedamp.exceptions import RateLimitError
from tests.api.edge import Edge, Reply, Tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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
def pause(clock: Clock) -> Pause:
    return Pause(3, clock=clock, sleep=clock.sleep, jitter=lambda: 1.0)


def waiting_in_vain(pause: Pause, calls: int) -> list[float]:
    """Let so many calls wait while time stands still, and return how long each would have slept."""
    slept: list[float] = []
    pause.sleep = slept.append
    threads = [threading.Thread(target=pause.wait) for _ in range(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(slept)


def test_an_open_gate_holds_nobody_up(pause: Pause, clock: Clock) -> None:
    pause.wait()
    assert clock.slept == []


def test_one_refusal_holds_up_every_call_until_the_pause_is_over(pause: Pause, clock: Clock) -> None:
    pause.begin(17)
    pause.wait()
    assert clock.slept == [17]
    pause.wait()
    assert clock.slept == [17]


def test_those_who_waited_leave_one_by_one(pause: Pause) -> None:
    pause.begin(10)
    assert waiting_in_vain(pause, 4) == pytest.approx([10, 10.05, 10.1, 10.15])


def test_who_comes_after_the_pause_goes_at_once(pause: Pause, clock: Clock) -> None:
    pause.begin(10)
    waiting_in_vain(pause, 4)
    clock.now += 10
    assert waiting_in_vain(pause, 1) == []


def test_a_refusal_during_the_pause_begins_no_other(pause: Pause, clock: Clock) -> None:
    assert pause.begin(10) == 10
    clock.now += 1
    assert pause.begin(0) == 0
    assert pause.pauses == 1
    pause.wait()
    assert clock.slept == [9]


def test_a_refusal_during_the_pause_that_asks_for_more_makes_it_longer(pause: Pause, clock: Clock) -> None:
    pause.begin(10)
    assert pause.begin(15) == 0
    pause.wait()
    assert clock.slept == [15]


def test_a_call_that_waits_goes_on_waiting_when_an_earlier_one_is_refused_again(
    pause: Pause, clock: Clock
) -> None:
    pause.begin(10)

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if len(clock.slept) == 1:
            pause.begin(20)

    pause.sleep = sleep
    pause.wait()
    assert clock.slept == [10, 20]


def test_pauses_grow_whatever_the_server_asks_for_until_there_is_no_further_one(
    pause: Pause, clock: Clock
) -> None:
    pauses = []
    for _ in range(4):
        pauses.append(pause.begin(1))
        pause.wait()
    assert pauses == [1, 2, 4, None]


def test_pauses_end_growing_at_a_cap(clock: Clock) -> None:
    pause = Pause(9, clock=clock, sleep=clock.sleep, jitter=lambda: 1.0)
    for _ in range(8):
        pause.begin(0)
        pause.wait()
    assert clock.slept[-3:] == [BACKOFF_CAP] * 3


@pytest.mark.parametrize(
    "ends_the_row",
    [
        pytest.param(lambda pause, clock: pause.reset(), id="a call is taken"),
        pytest.param(lambda pause, clock: clock.sleep(61), id="a minute goes by"),
    ],
)
def test_a_row_of_pauses_ends(
    pause: Pause, clock: Clock, ends_the_row: Callable[[Pause, Clock], None]
) -> None:
    for _ in range(3):
        pause.begin(1)
        pause.wait()
    ends_the_row(pause, clock)
    assert pause.begin(1) == 1


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
    http = Http(edge.base_url, tokens, sleep=sleep)
    threads = [
        threading.Thread(target=http.request, args=("PUT", ("orders", "A")), kwargs={"what": "x"})
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
    said = [record.getMessage() for record in caplog.records if record.name.endswith("api.http")]
    assert said == [
        "FeedAMP answered 429 to PUT /api/v1/orders/A; all calls wait for 9.0 s (pause 1 of 8 in a row)"
    ]


def test_a_call_that_was_on_its_way_when_the_pause_began_is_no_line_of_its_own(
    edge: Edge, tokens: Tokens, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    together = threading.Barrier(4)

    def answers() -> Iterator[bytes]:
        together.wait(10)
        yield b"HTTP/1.1 429 Too Many\r\nContent-Length: 0\r\n\r\n"

    edge.will_reply(*[Reply(wire=answers()) for _ in range(4)])
    clock = Clock()
    http = Http(edge.base_url, tokens, clock=lambda: 100.0, sleep=clock.sleep, retries=8)
    threads = [threading.Thread(target=http.call, args=("PUT", "orders/A")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # A connection that this edge has closed by the time of the second call has a line of its own.
    pauses = [each for each in caplog.messages if "429" in each]
    assert len(pauses) == 1
    assert len(edge.received) == 8


def test_a_session_whose_calls_are_taken_in_between_never_gives_up(
    edge: Edge, http: Http, slept: list[float]
) -> None:
    edge.will_reply(*[Reply(429), Reply(200)] * 6)
    assert [http.call("GET", "orders").status_code for _ in range(6)] == [200] * 6
    assert slept == [1.0] * 6


def test_one_call_that_is_never_taken_ends_in_an_error(edge: Edge, http: Http, slept: list[float]) -> None:
    edge.otherwise = Reply(429)
    with pytest.raises(RateLimitError):
        http.request("POST", ("orders",), what="x", json=[])
    assert slept == [1, 2, 4]
    assert len(edge.received) == 4


def test_a_repeated_call_keeps_to_the_pace(edge: Edge, new_http: Callable[..., Http]) -> None:
    paced: list[float] = []
    http = new_http(pacer=Pacer(2, clock=lambda: 0.0, sleep=paced.append))
    edge.will_reply(Reply(503), Reply(429), Reply(401), Reply(200))
    http.request("GET", ("orders", "A"), what="x")
    assert paced == [0.5, 1.0, 1.5]  # the first one did not wait


def test_a_list_call_waits_for_the_pace_of_lists_and_for_that_of_all_calls(
    new_http: Callable[..., Http],
) -> None:
    paced: list[str] = []
    every = Pacer(2, clock=lambda: 0.0, sleep=lambda seconds: paced.append(f"all {seconds}"))
    lists = Pacer(1, clock=lambda: 0.0, sleep=lambda seconds: paced.append(f"list {seconds}"))
    http = new_http(pacer=every, list_pacer=lists)
    for listing in (True, False, True):
        http.request("GET", ("orders",), what="x", listing=listing)
    assert paced == ["all 0.5", "list 1.0", "all 1.0"]


def test_a_call_that_waited_for_its_pace_still_waits_for_a_pause_that_began_meanwhile(
    edge: Edge, new_http: Callable[..., Http], slept: list[float]
) -> None:
    def meanwhile(seconds: float) -> None:
        http._pause.begin(9)

    http = new_http(pacer=Pacer(2, clock=lambda: 0.0, sleep=meanwhile))
    for _ in range(2):
        http.request("GET", ("orders", "A"), what="x")
    assert slept == [9]
