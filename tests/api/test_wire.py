"""What comes over a connection is read as HTTP says, wherever it is cut, and no answer passes for another."""

from __future__ import annotations

import gzip
import itertools
import socket
import ssl
import threading
import zlib
from base64 import b64encode
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.exceptions import DecodeError, HTTPError, ProtocolError

from airflow_provider_feedamp.api.http import Http
from airflow_provider_feedamp.api.wire import LONGEST_HEAD, AnswerReader, Headers
from tests.api.edge import Edge, Reply, Tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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


def body_of(reader: AnswerReader) -> bytes:
    return bytes(reader.body)


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
    answer, status, body, reusable = ANSWERS[what]
    for at in range(len(answer)):
        reader = read([answer[:at], answer[at:]])
        assert (reader.status, body_of(reader), reader.reusable) == (status, body, reusable)
    reader = read([answer[at : at + 1] for at in range(len(answer))])
    assert (reader.status, body_of(reader), reader.reusable) == (status, body, reusable)


@pytest.mark.parametrize("what", ANSWERS)
def test_an_answer_whose_end_is_missing_is_none(what: str) -> None:
    answer = ANSWERS[what][0]
    for length in range(len(answer)):
        with pytest.raises(ConnectionError):
            read([answer[:length]])


def test_without_a_length_the_end_of_the_connection_ends_the_answer() -> None:
    head = UNTIL_CLOSE.index(b"abcdef")
    for length in range(len(UNTIL_CLOSE) + 1):
        if length < head:
            with pytest.raises(ConnectionError):
                read([UNTIL_CLOSE[:length]])
        else:
            reader = read([UNTIL_CLOSE[:length]])
            assert (body_of(reader), reader.reusable) == (UNTIL_CLOSE[head:length], False)


def test_the_answer_to_a_head_has_no_body_and_its_connection_is_not_kept() -> None:
    reader = read([OK + b"Content-Length: 5\r\n\r\n"], "HEAD")
    assert (reader.complete, body_of(reader), reader.reusable) == (True, b"", False)


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
    assert (reader.status, reader.fields, body_of(reader)) == (status, fields, body)
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
        assert (reader.status, body_of(reader)) == (status, body)


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


def test_what_follows_an_answer_through_a_proxys_tls_is_not_the_next_one(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch, certificate: Certificate
) -> None:
    for name in ("NO_PROXY", "no_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.path))

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


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_https_goes_through_a_tunnel_of_the_proxy_with_its_login(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch, certificate: Certificate, scheme: str
) -> None:
    for name in ("NO_PROXY", "no_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.path))
    edge = Edge(certificate.context)
    proxy = TunnelProxy(edge.origin, certificate.context if scheme == "https" else None)
    with serving(proxy.serve) as url:
        monkeypatch.setenv("HTTPS_PROXY", url.replace("http://", f"{scheme}://somebody:some%40thing@"))
        http = Http(edge.base_url, tokens)
        for number in range(3):
            assert http.call("PUT", "orders/A", b"%d" % number).status_code == 200
    edge.close()
    [head] = proxy.heads
    assert head.startswith(f"CONNECT {edge.origin.rpartition('/')[2]} ")
    assert f"Proxy-Authorization: Basic {b64encode(b'somebody:some@thing').decode()}\r\n" in head
    assert "first-token" not in head
    assert [request.target for request in edge.received] == ["/api/v1/orders/A"] * 3
    assert not any("Proxy-Authorization" in request.headers for request in edge.received)
    assert len(set(edge.ports)) == 1


def test_a_certificate_of_another_host_is_refused(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch, certificate: Certificate
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.path))
    edge = Edge(certificate.context)
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more: resolve("127.0.0.1", *more))
    with pytest.raises(HTTPError, match="certificate"):
        Http(edge.base_url.replace("127.0.0.1", "feedamp.invalid"), tokens, retries=0).call("GET", "orders")
    edge.close()
    assert edge.received == []


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
            threads = [threading.Thread(target=http.call, args=("GET", "orders")) for _ in range(5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert len(used) == 10
    assert len(set(used)) == 5 + 3
