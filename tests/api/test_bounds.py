"""No answer takes more memory or time than it may, however the server sends it."""

from __future__ import annotations

import gzip
import socket
import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest
import requests
from urllib3.exceptions import ReadTimeoutError

from airflow_provider_feedamp.api import wire
from airflow_provider_feedamp.api.wire import LONGEST_ANSWER, Timed
from airflow_provider_feedamp.exceptions import ApiError, ServerError, UnreachableError
from tests.api.edge import Edge, Reply

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_feedamp.api.http import Http
    from airflow_provider_feedamp.api.session import FeedAmpSession

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
PAUSE = 0.05


@pytest.fixture
def short(http: Http, session: FeedAmpSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an answer take 0.8 seconds in all, and a pause in it half of that."""
    http.wire.timeout = session.timeout = (1.0, 0.4)
    monkeypatch.setattr(wire, "LEAST_TOTAL", 0.8)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an answer have 100,000 bytes."""
    monkeypatch.setattr(wire, "LONGEST_ANSWER", 100_000)


def dripping(begin: bytes, drip: bytes, seconds: float = 5.0) -> Iterator[bytes]:
    """Send the beginning at once and the rest in drips, much longer than an answer may take."""
    yield begin
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        time.sleep(PAUSE)
        yield drip


DRIPS = {
    "status line": (b"", b"H"),
    "header": (OK + b"X: ", b"x"),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": (OK + b"Content-Length: 1000\r\n\r\n", b" "),
    "large body": (OK + b"Content-Length: 1000000\r\n\r\n", b" "),
    "packed body": (OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"{}")[:10], b"\0"),
    "body without an end": (OK + b"Connection: close\r\n\r\n", b" "),
    "chunks": (CHUNKED, b"1\r\n \r\n"),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\n", b"X: y\r\n"),
}


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("what", DRIPS)
def test_an_answer_that_drips_is_cut_and_counts_as_none(http: Http, edge: Edge, what: str) -> None:
    edge.will_reply(Reply(wire=dripping(*DRIPS[what])), Reply(200, {"a": 1}))
    began = time.monotonic()
    assert http.request("GET", ("orders", "A"), what="x").body == {"a": 1}
    assert time.monotonic() - began < 4
    assert len(edge.received) == 2


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("what", ["header", "body"])
def test_a_post_whose_answer_drips_is_not_repeated(http: Http, edge: Edge, what: str) -> None:
    edge.will_reply(Reply(wire=dripping(*DRIPS[what])))
    with pytest.raises(UnreachableError, match=r"\(ReadTimeout\w*\).*may have received it"):
        http.request("POST", ("orders", "A", "errors"), json=[], what="x")
    assert len(edge.received) == 1


@pytest.mark.usefixtures("short")
def test_an_answer_that_comes_without_a_pause_is_cut_too(
    http: Http, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = wire.AnswerReader.feed

    def slowly(reader: wire.AnswerReader, data: bytes) -> None:
        time.sleep(0.002)
        feed(reader, data)

    # What is read later than it comes is there at once, whatever the socket's time-out.
    monkeypatch.setattr(wire, "_PIECE", 1)
    monkeypatch.setattr(wire.AnswerReader, "feed", slowly)
    edge.will_reply(Reply(200, b"x" * 2000))
    with pytest.raises(ReadTimeoutError):
        http.call("POST", "orders/A/errors", b"[]")
    assert len(edge.received) == 1


@pytest.mark.usefixtures("short")
def test_the_time_begins_anew_with_each_sending(http: Http, edge: Edge) -> None:
    for _ in range(3):
        edge.will_reply(Reply(wire=dripping(*DRIPS["body"])))
    assert http.request("PUT", ("orders", "A"), body=b"{}", what="x").status == 200
    assert len(edge.received) == 4


@pytest.mark.usefixtures("short")
def test_the_time_begins_anew_on_a_connection_that_is_used_again(http: Http, edge: Edge) -> None:
    for _ in range(2):
        http.request("GET", ("orders", "A"), what="x")
        time.sleep(1.0)
    assert len(edge.received) == 2


@pytest.mark.usefixtures("short")
def test_a_users_own_request_is_cut_too_unless_it_is_a_stream(session: FeedAmpSession, edge: Edge) -> None:
    edge.will_reply(Reply(wire=dripping(*DRIPS["header"])), Reply(200, {"a": 1}))
    assert session.get("orders").json() == {"a": 1}
    edge.will_reply(Reply(wire=dripping(*DRIPS["body"])))
    with pytest.raises(requests.Timeout):
        session.get("orders")
    edge.will_reply(Reply(wire=dripping(OK + b"Content-Length: 25\r\n\r\n", b"x")))
    with session.get("orders", stream=True) as answer:
        assert answer.content == b"x" * 25
    assert len(edge.received) == 4


def test_twice_the_read_time_out_is_allowed_where_that_is_more(
    http: Http, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "LEAST_TOTAL", 0.1)
    http.wire.timeout = (1.0, 1.0)
    edge.will_reply(Reply(wire=dripping(OK + b"Content-Length: 10\r\n\r\n", b" ")))
    assert http.call("GET", "orders").content == b" " * 10
    assert len(edge.received) == 1


def test_by_default_it_is_two_minutes_and_without_a_read_time_out_for_ever(
    session: FeedAmpSession, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    class Listening(Timed):
        def close(self) -> None:
            seen.append(self.ends)
            super().close()

    monkeypatch.setattr(wire, "Timed", Listening)
    for timeout in ((1.0, 1.0), (1.0, 100.0), (1.0, None)):
        session.get("orders", timeout=timeout)
    left = [round(ends - time.monotonic()) if ends < 1e9 else ends for ends in seen]
    assert left == [120, 200, float("inf")]


def test_the_socket_keeps_its_time_out_for_the_next_request() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(9.0)
        theirs.sendall(b"x")
        timed = Timed(ours, "r")
        timed.ends = time.monotonic() + 1.0
        assert timed.readinto(bytearray(1)) == 1
        assert ours.gettimeout() == 9.0


def whole(*headers: str, body: bytes) -> list[bytes]:
    return ["".join(f"{line}\r\n" for line in ("HTTP/1.1 200 OK", *headers, "")).encode(), body]


def chunks(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


ZEROS = bytes(5_000_000)
BOMBS = {
    "gzip": whole("Content-Encoding: gzip", body=gzip.compress(ZEROS)),
    "gzip with a length": whole(
        "Content-Encoding: gzip", f"Content-Length: {len(gzip.compress(ZEROS))}", body=gzip.compress(ZEROS)
    ),
    "gzip in chunks": whole(
        "Content-Encoding: gzip", "Transfer-Encoding: chunked", body=chunks(gzip.compress(ZEROS))
    ),
    "chunks": whole("Transfer-Encoding: chunked", body=chunks(ZEROS)),
    "a chunk of any length": whole("Transfer-Encoding: chunked", body=b"fffffffffff\r\n" + ZEROS),
    "no length": whole("Connection: close", body=ZEROS),
    "a length": whole(f"Content-Length: {len(ZEROS)}", body=ZEROS),
    "a length beyond all": whole(f"Content-Length: {10**17}", body=ZEROS),
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("what", BOMBS)
def test_an_answer_that_is_too_long_is_an_error_and_asked_for_once(http: Http, edge: Edge, what: str) -> None:
    edge.will_reply(Reply(wire=BOMBS[what]))
    with pytest.raises(
        ApiError, match=r"GET /api/v1/orders with HTTP 200 and a body of more than 0 MiB"
    ) as caught:
        http.request("GET", ("orders",), params={"cursor": "abc"}, what="x")
    assert (caught.value.status, caught.value.retryable) == (200, False)
    assert "abc" not in str(caught.value)
    assert http.request("GET", ("orders",), what="x").body == {}
    assert len(edge.received) == 2


def test_a_body_in_tiny_pieces_takes_little_more_than_its_bytes() -> None:
    answer = CHUNKED + b"2\r\n{}\r\n" * 300_000 + b"0\r\n\r\n"
    reader = wire.AnswerReader("GET")
    tracemalloc.start()
    try:
        reader.feed(answer)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()
    assert (reader.complete, len(reader.body)) == (True, 600_000)


def test_a_body_that_is_packed_in_many_parts_is_unpacked_at_once(http: Http, edge: Edge) -> None:
    edge.will_reply(Reply(200, gzip.compress(b"") * 150_000, {"Content-Encoding": "gzip"}))
    began = time.process_time()
    assert http.call("GET", "orders").content == b""
    assert time.process_time() - began < 5


@pytest.mark.usefixtures("small")
def test_a_body_that_is_packed_twice_is_not_unpacked(http: Http, edge: Edge) -> None:
    edge.will_reply(Reply(200, gzip.compress(gzip.compress(b"{}")), {"Content-Encoding": "gzip, gzip"}))
    with pytest.raises(ApiError, match="packed more than once"):
        http.request("GET", ("orders",), what="x")


@pytest.mark.usefixtures("small")
def test_a_users_own_request_is_bounded_too_unless_it_is_a_stream(
    session: FeedAmpSession, edge: Edge
) -> None:
    edge.will_reply(Reply(wire=BOMBS["gzip"]), Reply(wire=BOMBS["gzip"]))
    with pytest.raises(ApiError, match="more than"):
        session.get("orders")
    with session.get("orders", stream=True) as answer:
        assert sum(map(len, answer.iter_content(10_000))) == len(ZEROS)


@pytest.mark.usefixtures("small")
def test_an_error_that_is_too_long_is_still_that_error(http: Http, edge: Edge) -> None:
    edge.otherwise = Reply(503, ZEROS)
    with pytest.raises(ServerError):
        http.request("GET", ("orders",), what="x")
    assert len(edge.received) == 1 + 3


def test_a_bomb_takes_no_more_memory_than_an_answer_may_have(http: Http, edge: Edge) -> None:
    bomb = gzip.compress(bytes(8 * LONGEST_ANSWER))
    edge.will_reply(Reply(200, bomb, {"Content-Encoding": "gzip"}))
    tracemalloc.start()
    try:
        with pytest.raises(ApiError, match="more than 32 MiB"):
            http.request("GET", ("orders",), what="x")
        assert tracemalloc.get_traced_memory()[1] < 3 * LONGEST_ANSWER
    finally:
        tracemalloc.stop()


def test_an_answer_as_long_as_it_may_be_is_taken(http: Http, edge: Edge) -> None:
    body = b'{"a":"' + b"x" * (LONGEST_ANSWER - 8) + b'"}'
    edge.will_reply(Reply(200, body))
    assert len(http.request("GET", ("orders",), what="x").body["a"]) == LONGEST_ANSWER - 8


def test_a_length_that_promises_more_than_comes_is_a_missing_answer(http: Http, edge: Edge) -> None:
    for length in (50, 50_000, 50_000_000):
        edge.will_reply(
            Reply(wire=whole(f"Content-Length: {length}", body=b'{"a": 1}')), Reply(200, {"b": 2})
        )
        assert http.request("GET", ("orders",), what="x").body == {"b": 2}
