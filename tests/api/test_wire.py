"""What comes over a connection is read as HTTP says, within its bounds, and no answer passes for another."""

from __future__ import annotations

import gzip
import itertools
import random
import signal
import socket
import ssl
import threading
import time
import tracemalloc
import zlib
from base64 import b64encode
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import h11
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from urllib3.exceptions import DecodeError, HTTPError, ProtocolError, ReadTimeoutError

from airflow_provider_feedamp.api import wire
from airflow_provider_feedamp.api.http import Http
from airflow_provider_feedamp.api.wire import LONGEST_ANSWER, LONGEST_HEAD, AnswerReader, Headers, Timed
from airflow_provider_feedamp.exceptions import ApiError, ServerError, UnreachableError
from tests.api.edge import Edge, Reply, Tokens, in_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from airflow_provider_feedamp.api.session import FeedAmpSession
    from tests.tokens.conftest import Certificate

OK = b"HTTP/1.1 200 OK\r\n"
CODED = OK + b"Transfer-Encoding: chunked\r\n"
CHUNKED = CODED + b"\r\n"
TWO = b"2\r\n{}\r\n0\r\n\r\n"


def read(pieces: Sequence[bytes], method: str = "GET") -> AnswerReader:
    """Return what was read when the answer was complete, or the connection ended."""
    reader = AnswerReader(method)
    for piece in [*filter(None, pieces), b""]:
        if reader.complete:
            break
        reader.feed(piece)
    return reader


ANSWERS = {
    "a length": (OK + b"Content-Length: 7\r\n\r\n" + b'{"a":1}', 200, b'{"a":1}', True),
    "no body": (OK + b"Content-Length: 0\r\n\r\n", 200, b"", True),
    "chunks": (CHUNKED + b"3\r\nabc\r\n4;x=y\r\n,def\r\n0\r\n\r\n", 200, b"abc,def", True),
    "trailers": (CHUNKED + b"1\r\na\r\n0\r\nX: y\r\nETag: 9\r\n\r\n", 200, b"a", True),
    "interim answers": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nContent-Length: 9\r\n\r\n"
        b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}",
        201,
        b"{}",
        True,
    ),
    "204": (b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n", 204, b"", True),
    "304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b"", True),
    "the last one": (OK + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", 200, b"{}", False),
}


UNTIL_CLOSE = OK + b"Content-Type: text/plain\r\n\r\nabcdef"


@pytest.mark.parametrize("what", ANSWERS)
def test_an_answer_is_the_same_wherever_it_is_cut(what: str) -> None:
    answer, *expected = ANSWERS[what]
    byte_by_byte = [answer[at : at + 1] for at in range(len(answer))]
    for pieces in (byte_by_byte, *([answer[:at], answer[at:]] for at in range(len(answer)))):
        reader = read(pieces)
        assert [reader.status, bytes(reader.body), reader.reusable] == expected


@pytest.mark.parametrize("what", ANSWERS)
def test_an_answer_whose_end_is_missing_is_none(what: str) -> None:
    for length in range(len(ANSWERS[what][0])):
        with pytest.raises(ConnectionError):
            read([ANSWERS[what][0][:length]])


def test_without_a_length_the_end_of_the_connection_ends_the_answer() -> None:
    head = UNTIL_CLOSE.index(b"abcdef")
    for length in range(len(UNTIL_CLOSE) + 1):
        if length < head:
            with pytest.raises(ConnectionError):
                read([UNTIL_CLOSE[:length]])
        else:
            reader = read([UNTIL_CLOSE[:length]])
            assert (bytes(reader.body), reader.reusable) == (UNTIL_CLOSE[head:length], False)


def test_the_answer_to_a_head_has_no_body_and_its_connection_is_not_kept() -> None:
    reader = read([OK + b"Content-Length: 5\r\n\r\n"], "HEAD")
    assert (reader.complete, bytes(reader.body), reader.reusable) == (True, b"", False)


def test_headers_have_no_case_and_repeated_ones_are_joined() -> None:
    reader = read([OK + b"X-Id: 1\r\nx-id:  2 \r\nDate:\r\nName: \xfc\r\nContent-Length: 0\r\n\r\n"])
    headers = Headers(reader.fields)
    assert (headers["X-ID"], headers["date"], headers.get("name"), headers.get("Y")) == (
        "1, 2",
        "",
        "ü",
        None,
    )
    assert ("x-Id" in headers, set(headers)) == (True, {"x-id", "date", "name", "content-length"})


UNCLEAR = {
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 7\r\n\r\n{}",
    "the same length twice": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a list of lengths": OK + b"Content-Length: 2, 2\r\n\r\n{}",
    "a length with a sign": OK + b"Content-Length: +2\r\n\r\n{}",
    "a negative length": OK + b"Content-Length: -2\r\n\r\n{}",
    "a length in other digits": OK + b"Content-Length: \xb2\r\n\r\n{}",
    "no length": OK + b"Content-Length: \r\n\r\n{}",
    "a length beyond all": OK + b"Content-Length: 99999999999999999999999\r\n\r\n{}",
    "a length and chunks": OK
    + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunks and a length": OK
    + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunks twice": OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + TWO,
    "chunks, two headers": OK
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "another coding": OK + b"Transfer-Encoding: gzip\r\n\r\n{}",
    "an empty coding": OK + b"Transfer-Encoding:\r\n\r\n{}",
    "a chunk without a length": CHUNKED + b"\r\n{}\r\n0\r\n\r\n",
    "a chunk longer than it says": CHUNKED + b"1\r\n{}\r\n0\r\n\r\n",
    "a control character": OK + b"X-Id: \x1b[31m\r\nContent-Length: 2\r\n\r\n{}",
    "a space before the colon": OK + b"Content-Length : 2\r\n\r\n{}",
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n{}",
    "a length in the trailers": CHUNKED + b"1\r\na\r\n0\r\nContent-Length: 9\r\n\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "a head without an end": OK + b"X: " + b"x" * (LONGEST_HEAD + 1),
    "too many headers": OK + b"X: y\r\n" * (LONGEST_HEAD // 6) + b"\r\n",
    "a trailer without an end": CHUNKED + b"1\r\na\r\n0\r\nX: " + b"x" * (LONGEST_HEAD + 50),
    "interim answers without an end": b"HTTP/1.1 100 Continue\r\n\r\n" * 3000,
}


@pytest.mark.parametrize("what", UNCLEAR)
def test_an_answer_whose_end_is_not_clear_is_refused(what: str) -> None:
    answer = UNCLEAR[what]
    for pieces in ([answer], [answer[at : at + 1] for at in range(len(answer))]):
        with pytest.raises((ProtocolError, ConnectionError)) as caught:
            read(pieces)
        assert not caught.value.__cause__


@pytest.mark.parametrize("what", UNCLEAR)
def test_its_connection_carries_no_other_answer(http: Http, edge: Edge, what: str) -> None:
    edge.will_reply(Reply(), Reply(wire=[UNCLEAR[what]]), Reply(200, {"a": 1}))
    http.call("GET", "orders")
    with pytest.raises(HTTPError):
        http.call("POST", "orders")
    assert http.call("GET", "orders").content == b'{"a": 1}'
    first, refused, new = edge.ports
    assert first == refused != new


@pytest.mark.parametrize(
    "behind", [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsmuggled!", b"HTTP/1.1", b"x"]
)
def test_what_follows_an_answer_is_not_the_next_one(http: Http, edge: Edge, behind: bytes) -> None:
    answer = ANSWERS["a length"][0]
    edge.will_reply(Reply(wire=[answer + behind]), Reply(200, {"b": 2}))
    assert http.call("PUT", "orders/A", b"{}").content == b'{"a":1}'
    assert http.call("PUT", "orders/B", b"{}").content == b'{"b": 2}'


def test_what_comes_on_an_idle_connection_is_not_the_next_answer(tokens: Tokens) -> None:
    idle, sent = threading.Event(), threading.Event()

    def serve(client: socket.socket, count: int) -> None:
        client.recv(65536)
        client.sendall(ANSWERS["a length"][0] if not count else OK + b"Content-Length: 5\r\n\r\nright")
        if not count:
            idle.wait(5)
            client.sendall(OK + b"Content-Length: 5\r\n\r\nwrong")
            sent.set()
        client.recv(65536)

    with serving(serve) as url:
        http = Http(url, tokens)
        assert http.call("GET", "orders").content == b'{"a":1}'
        idle.set()
        sent.wait(5)
        assert http.call("POST", "orders").content == b"right"


@pytest.mark.parametrize(
    ("packed", "text"),
    [
        (gzip.compress(b'{"a":') + gzip.compress(b"1}"), b'{"a":1}'),
        (gzip.compress(b'{"a":1}')[:-9], None),
        (b"not packed at all", None),
        (zlib.compress(b'{"a":1}'), None),
        (b"", b""),
    ],
    ids=["in two parts", "cut", "plain", "by zlib", "empty"],  # gzip's own bytes hold the time
)
def test_a_packed_answer_is_unpacked_or_none(
    http: Http, edge: Edge, packed: bytes, text: bytes | None
) -> None:
    edge.will_reply(Reply(200, packed, {"Content-Encoding": "GZip"}))
    if text is None:
        with pytest.raises(DecodeError):
            http.call("POST", "orders")
    else:
        assert http.call("POST", "orders").content == text


NAMES = st.text("abcXYZ-_09", min_size=1, max_size=8).map(lambda name: f"X-{name}".encode())
VALUES = st.text('abc XYZ,;="/\t~!', max_size=12).map(lambda value: value.strip().encode())
BODIES = st.binary(max_size=60)


@st.composite
def well_formed(draw: st.DrawFn) -> bytes:
    """Return the bytes of an answer, whose end may be that of the connection."""
    status = draw(st.sampled_from([200, 201, 204, 304, 400, 404, 429, 503]))
    headers = draw(st.lists(st.tuples(NAMES, VALUES), max_size=4))
    body = b"" if status in {204, 304} else draw(BODIES)
    way = draw(st.sampled_from(["length", "chunks", "close"])) if status not in {204, 304} else ""
    if draw(st.booleans()):
        headers.append((b"cOnnection", draw(st.sampled_from([b"close", b"keep-alive", b"Close"]))))
    if way == "length":
        headers.append((b"Content-length", b"%d" % len(body)))
    elif way == "chunks":
        headers.append((b"transfer-Encoding", draw(st.sampled_from([b"chunked", b"Chunked"]))))
        cuts = sorted({0, len(body), *draw(st.lists(st.integers(0, len(body)), max_size=4))})
        parts = [body[a:b] for a, b in itertools.pairwise(cuts)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    headers = draw(st.permutations(headers))
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.0"])) if way != "chunks" else b"1.1"
    head = b"HTTP/%s %d %s\r\n" % (version, status, draw(st.sampled_from([b"OK", b"", b"Not so good"])))
    interim = b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" * draw(st.integers(0, 2))
    return interim + head + b"".join(b"%s: %s\r\n" % header for header in headers) + b"\r\n" + body


def by_h11(answer: bytes) -> tuple[int, dict[bytes, bytes], bytes, bool]:
    """Return what h11 makes of an answer: status, headers, body, and whether its connection can be kept."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(answer)
    status, body = 0, bytearray()
    fields: dict[bytes, bytes] = {}
    ended = False
    while True:
        event: Any = connection.next_event()
        if event is h11.NEED_DATA:
            assert not ended
            connection.receive_data(b"")
            ended = True
        elif isinstance(event, h11.Response):
            status = event.status_code
            for name, value in event.headers:
                fields[name] = fields[name] + b", " + value if name in fields else value
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return status, fields, bytes(body), connection.their_state is h11.DONE and not ended


@given(well_formed(), st.lists(st.integers(0, 300), max_size=5))
def test_a_well_formed_answer_is_what_h11_says(answer: bytes, at: list[int]) -> None:
    cuts = sorted({0, len(answer), *(min(cut, len(answer)) for cut in at)})
    reader = read([answer[a:b] for a, b in itertools.pairwise(cuts)])
    status, fields, body, kept = by_h11(answer)
    if coding := reader.fields.get(b"transfer-encoding"):
        reader.fields[b"transfer-encoding"] = coding.lower()  # as h11 shows it
    assert (reader.status, reader.fields, bytes(reader.body)) == (status, fields, body)
    # h11 keeps no connection of HTTP/1.0, whatever its server says.
    assert kept or not reader.reusable or b"HTTP/1.0" in answer
    assert not reader.reusable or b"close" not in reader.fields.get(b"connection", b"").lower()


@given(well_formed(), st.data())
def test_an_answer_with_a_fault_is_refused_or_read_as_h11_does(answer: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(answer)))
    piece = data.draw(st.sampled_from([b"\r\n", b" ", b"0", b"\x00", b"Content-Length: 3\r\n", b"\n", b":"]))
    broken = answer[:at] + piece + answer[at + data.draw(st.integers(0, 3)) :]
    try:
        reader = read([broken])
    except (ProtocolError, ConnectionError):
        return
    with suppress(h11.RemoteProtocolError):
        status, _, body, _ = by_h11(broken)
        assert (reader.status, bytes(reader.body)) == (status, body)


class serving:
    """A server that hands each connection, with its number, to a function."""

    def __init__(self, serve: Callable[[socket.socket, int], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._serve = serve
        self._open: list[socket.socket] = []

    def __enter__(self) -> str:
        threading.Thread(target=self._accept, daemon=True).start()
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for each in self._open:
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                self._open.append(client)
                threading.Thread(target=self._run, args=(client, len(self._open) - 1), daemon=True).start()

    def _run(self, client: socket.socket, count: int) -> None:
        with suppress(OSError, ssl.SSLError):
            self._serve(client, count)


class TunnelProxy:
    """A proxy that keeps the heads of the CONNECTs it gets, and tunnels all of them to one server."""

    def __init__(self, target: str, tls: ssl.SSLContext | None) -> None:
        host, _, port = target.rpartition("/")[2].partition(":")
        self._target = host, int(port)
        self._tls = tls
        self.heads: list[str] = []

    def serve(self, client: socket.socket, _: int) -> None:
        if self._tls:
            client = self._tls.wrap_socket(client, server_side=True)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        self.heads.append(head.decode())
        server = socket.create_connection(self._target)
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        threading.Thread(target=self._pump, args=(server, client), daemon=True).start()
        self._pump(client, server)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := self._take(source):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def _take(self, source: socket.socket) -> bytes:
        return source.recv(65536)


class GatheringProxy(TunnelProxy):
    """Passes on in one piece what came in several."""

    def _take(self, source: socket.socket) -> bytes:
        data = source.recv(65536)
        source.settimeout(0.2)
        with suppress(TimeoutError):
            while more := source.recv(65536):
                data += more
        source.settimeout(None)
        return data


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_proxies", "secure_edge")
def test_what_follows_an_answer_through_a_proxys_tls_is_not_the_next_one(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch, certificate: Certificate
) -> None:
    def serve(client: socket.socket, count: int) -> None:
        secure = certificate.context.wrap_socket(client, server_side=True)
        secure.recv(65536)
        answers = [ANSWERS["a length"][0], OK + b"Content-Length: 5\r\n\r\nwrong"]
        for answer in [OK + b"Content-Length: 5\r\n\r\nright"] if count else answers:
            secure.sendall(answer)
        secure.recv(65536)

    with serving(serve) as server, serving(GatheringProxy(server, certificate.context).serve) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.replace("http://", "https://"))
        http = Http(server.replace("http://", "https://"), tokens)
        assert http.call("PUT", "orders/A", b"{}").content == b'{"a":1}'
        assert http.call("PUT", "orders/B", b"{}").content == b"right"


@pytest.mark.usefixtures("no_proxies")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_https_goes_through_a_tunnel_of_the_proxy_with_its_login(
    secure_edge: Edge, tokens: Tokens, monkeypatch: pytest.MonkeyPatch, certificate: Certificate, scheme: str
) -> None:
    proxy = TunnelProxy(secure_edge.origin, certificate.context if scheme == "https" else None)
    with serving(proxy.serve) as url:
        monkeypatch.setenv("HTTPS_PROXY", url.replace("http://", f"{scheme}://somebody:some%40thing@"))
        http = Http(secure_edge.base_url, tokens)
        for number in range(3):
            assert http.call("PUT", "orders/A", b"%d" % number).status_code == 200
    [head] = proxy.heads
    assert head.startswith(f"CONNECT {secure_edge.origin.rpartition('/')[2]} ")
    assert f"Proxy-Authorization: Basic {b64encode(b'somebody:some@thing').decode()}\r\n" in head
    assert "first-token" not in head
    assert [request.target for request in secure_edge.received] == ["/api/v1/orders/A"] * 3
    assert not any("Proxy-Authorization" in request.headers for request in secure_edge.received)
    assert len(set(secure_edge.ports)) == 1


def test_a_certificate_of_another_host_is_refused(
    secure_edge: Edge, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more: resolve("127.0.0.1", *more))
    elsewhere = secure_edge.base_url.replace("127.0.0.1", "feedamp.invalid")
    with pytest.raises(HTTPError, match="certificate"):
        Http(elsewhere, tokens, retries=0).call("GET", "orders")
    assert secure_edge.received == []


def test_no_more_connections_are_kept_than_asked_for(tokens: Tokens) -> None:
    together = threading.Barrier(5)
    used: list[int] = []

    def serve(client: socket.socket, count: int) -> None:
        while client.recv(65536):
            used.append(count)
            together.wait(10)
            client.sendall(ANSWERS["a length"][0])

    with serving(serve) as url:
        http = Http(url, tokens, pool_size=2)
        for _ in range(2):
            in_threads(5, http.call, "GET", "orders")
    assert (len(used), len(set(used))) == (10, 5 + 3)


@pytest.mark.parametrize("what", ["the last one", "HTTP/1.0"])
def test_a_connection_that_is_to_end_is_not_kept_though_the_server_leaves_it_open(
    tokens: Tokens, what: str
) -> None:
    used: list[int] = []

    def serve(client: socket.socket, count: int) -> None:
        while client.recv(65536):
            used.append(count)
            client.sendall(ANSWERS[what][0])

    with serving(serve) as url:
        http = Http(url, tokens)
        assert [http.call("GET", "orders").content for _ in range(2)] == [b"{}", b"{}"]
    assert used == [0, 1]


PAUSE = 0.05


@pytest.fixture
def short(http: Http, session: FeedAmpSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an answer take 1.6 seconds in all, and a pause in it half of that."""
    http.wire.timeout = session.timeout = (2.0, 0.8)
    monkeypatch.setattr(wire, "LEAST_TOTAL", 1.6)


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
def test_the_time_begins_anew_with_each_sending_and_on_a_connection_that_is_used_again(
    http: Http, edge: Edge
) -> None:
    for _ in range(3):
        edge.will_reply(Reply(wire=dripping(*DRIPS["body"])))
    assert http.request("PUT", ("orders", "A"), body=b"{}", what="x").status == 200
    assert len(edge.received) == 4
    time.sleep(2.0)
    http.request("GET", ("orders", "A"), what="x")
    assert edge.ports[3:] == edge.ports[3:4] * 2


@pytest.mark.usefixtures("short")
def test_a_users_own_request_is_cut_too_unless_it_is_a_stream(session: FeedAmpSession, edge: Edge) -> None:
    edge.will_reply(Reply(wire=dripping(*DRIPS["header"])), Reply(200, {"a": 1}))
    assert session.get("orders").json() == {"a": 1}
    edge.will_reply(Reply(wire=dripping(*DRIPS["body"])))
    with pytest.raises(requests.Timeout):
        session.get("orders")
    edge.will_reply(Reply(wire=dripping(OK + b"Content-Length: 40\r\n\r\n", b"x")))
    with session.get("orders", stream=True) as answer:
        assert answer.content == b"x" * 40
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
