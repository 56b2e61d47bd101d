"""A signal may raise an error at any step of a call: nothing hangs, and no answer goes to another call."""

from __future__ import annotations

import random
import signal
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.api.http import Http
from airflow_provider_feedamp.api.wire import AnswerReader
from tests.api.edge import Edge, Reply, Tokens
from tests.api.test_wire import serving

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

#: Seconds within which an alarm comes; a call takes about a tenth of a millisecond.
SOON = 0.0004


class Alarm(BaseException):
    """What Airflow raises at the end of ``execution_timeout``."""


def echo(client: socket.socket, count: int) -> None:
    """Answer each request with its target, in chunks or with a length."""
    pending = b""
    while data := client.recv(65536):
        pending += data
        while b"\r\n\r\n" in pending:
            head, _, pending = pending.partition(b"\r\n\r\n")
            target = head.split(b" ")[1]
            if target.endswith(b"0"):
                frame = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
            else:
                frame = b"Content-Length: %d\r\n\r\n%b"
            client.sendall(b"HTTP/1.1 200 OK\r\n" + frame % (len(target), target))


@pytest.fixture
def alarms() -> Iterator[None]:
    """Raise an error in the main thread when the timer ends."""

    def ring(*_: Any) -> None:
        raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.usefixtures("alarms")
@pytest.mark.parametrize(
    "cuts", [500, pytest.param(10_000, marks=[pytest.mark.faults, pytest.mark.timeout(600)])]
)
def test_alarms_in_calls_leave_neither_a_hang_nor_an_answer_to_another_call(cuts: int) -> None:
    wrong: list[tuple[str, bytes]] = []
    waited: list[float] = []
    stop = threading.Event()

    def ask(http: Http, target: str) -> None:
        content = http.call("GET", target).content
        if content != b"/" + target.encode():
            wrong.append((target, content))

    def others(http: Http, name: int) -> None:
        count = 0
        while not stop.is_set():
            ask(http, f"others/{name}/{count}")
            count += 1
            stop.wait(0.005)

    with serving(echo) as url:
        http = Http(url, Tokens("token"), pool_size=4, sleep=waited.append)
        threads = [threading.Thread(target=others, args=(http, name)) for name in range(3)]
        for thread in threads:
            thread.start()
        cut = calls = 0
        while cut < cuts:
            calls += 1
            try:
                signal.setitimer(signal.ITIMER_REAL, random.random() * SOON)
                ask(http, f"main/{calls}")
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Alarm:
                cut += 1
        with suppress(Alarm):
            signal.setitimer(signal.ITIMER_REAL, 0)
        ask(http, "main/last")
        stop.set()
        for thread in threads:
            thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
    assert waited == []  # an alarm that passed for a broken answer would be waited for


@pytest.mark.parametrize("step", ["on_message_begin", "on_header", "on_headers_complete", "on_body"])
def test_an_alarm_within_the_parser_is_not_taken_for_a_broken_answer(
    monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def ring(*_: object) -> None:
        raise Alarm

    monkeypatch.setattr(AnswerReader, step, ring)
    with pytest.raises(Alarm):
        AnswerReader("GET").feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


@pytest.mark.parametrize("step", ["on_header", "on_body"])
def test_an_error_that_nobody_expects_ends_the_connection(
    http: Http, edge: Edge, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    edge.otherwise = Reply(200, {"a": 1})
    http.call("GET", "orders")
    with monkeypatch.context() as patch:
        patch.setattr(AnswerReader, step, fail)
        with pytest.raises(MemoryError):
            http.call("GET", "orders")
    assert http.call("GET", "orders").content == b'{"a": 1}'
    first, failed, new = edge.ports
    assert first == failed != new
