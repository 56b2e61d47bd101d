"""The client's own calls do what requests would do, and are as safe."""

from __future__ import annotations

import gzip
import os
import socket
import ssl
import time
import traceback
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest
from urllib3.exceptions import ReadTimeoutError

from airflow_provider_feedamp.api.http import Http
from airflow_provider_feedamp.exceptions import ApiError, ConfigurationError, TokenError, UnreachableError
from tests.api.edge import Edge, Reply, Tokens

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_feedamp.api.session import FeedAmpSession
    from tests.tokens.conftest import Certificate


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
        "requests_ca_bundle",
        "curl_ca_bundle",
    ):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_redirect_is_an_error_and_not_followed(
    http: Http, edge: Edge, elsewhere: Edge, status: int, method: str
) -> None:
    edge.will_reply(Reply(status, headers={"Location": f"{elsewhere.base_url}/orders"}))
    with pytest.raises(ApiError, match="redirects the call"):
        http.request(method, ("orders", "A"), what="x")
    assert (len(edge.received), len(elsewhere.received)) == (1, 0)


def test_a_redirect_within_the_origin_is_not_followed_either(http: Http, edge: Edge) -> None:
    edge.will_reply(Reply(307, headers={"Location": "/api/v1/moved"}))
    with pytest.raises(ApiError, match="redirects the call"):
        http.request("GET", ("orders", "A"), what="x")
    assert len(edge.received) == 1


def test_no_cookie_is_kept_or_sent(http: Http, edge: Edge) -> None:
    edge.will_reply(Reply(200, {}, headers={"Set-Cookie": "seller=other; Path=/"}))
    for _ in range(2):
        http.call("GET", "orders")
    assert ["Cookie" in request.headers for request in edge.received] == [False, False]


def test_netrc_is_not_used(http: Http, edge: Edge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password something\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    http.call("GET", "orders")
    assert edge.received[0].bearer == "Bearer first-token"


def test_it_goes_through_the_proxy_that_the_environment_names_with_its_login(
    edge: Edge, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", edge.origin.replace("//", "//somebody:something@"))
    base_url = "http://feedamp.invalid/api/v1"
    http = Http(base_url, tokens)
    for _ in range(2):
        http.call("PUT", "orders/A%2F1", b"{}")
    assert [request.target for request in edge.received] == [f"{base_url}/orders/A%2F1"] * 2
    login = "Basic " + b64encode(b"somebody:something").decode()
    assert [request.headers["Proxy-Authorization"] for request in edge.received] == [login] * 2


def test_it_passes_the_proxy_by_where_no_proxy_says_so(
    http: Http, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert http.call("GET", "orders").status_code == 200
    assert edge.received[0].target == "/api/v1/orders"


def test_a_tunnel_that_the_proxy_refuses_blames_the_proxy_and_shows_no_login(
    edge: Edge, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", edge.origin.replace("//", "//somebody:something@"))
    edge.otherwise = Reply(407)
    base_url = "https://feedamp.invalid/api/v1"
    with pytest.raises(UnreachableError, match="The proxy failed: check HTTPS_PROXY") as caught:
        Http(base_url, tokens, retries=0).request("GET", ("orders",), what="x")
    assert "something" not in "".join(traceback.format_exception(caught.value))
    [tunnel] = edge.received
    assert (tunnel.method, tunnel.target) == ("CONNECT", "feedamp.invalid:443")
    assert tunnel.headers["Proxy-Authorization"] == "Basic " + b64encode(b"somebody:something").decode()
    assert tunnel.bearer is None


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("HTTP_PROXY", "socks5://somebody:something@127.0.0.1:1", "SOCKS proxy"),
        ("HTTP_PROXY", "http://somebody:something@[::1", "Check the proxy's URL"),
        ("HTTP_PROXY", "http://", "Check the proxy's URL"),
        ("REQUESTS_CA_BUNDLE", "/no/such/something.pem", "REQUESTS_CA_BUNDLE"),
    ],
)
def test_an_environment_that_cannot_be_used_is_a_clear_error(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch, name: str, value: str, text: str
) -> None:
    monkeypatch.setenv(name, value)
    scheme = "https" if name == "REQUESTS_CA_BUNDLE" else "http"
    with pytest.raises(ConfigurationError, match=text) as caught:
        Http(f"{scheme}://feedamp.invalid/api/v1", tokens).call("GET", "orders")
    assert "something" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("trusted", [True, False])
def test_it_trusts_the_certificates_that_the_environment_names(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch, certificate: Certificate, trusted: bool
) -> None:
    edge = Edge(certificate.context)
    if trusted:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.path))
    http = Http(edge.base_url, tokens)
    try:
        if trusted:
            assert http.request("GET", ("orders",), what="x").body == {}
        else:
            with pytest.raises(UnreachableError, match=r"TLS failed.*certificate.*REQUESTS_CA_BUNDLE"):
                http.request("GET", ("orders",), what="x")
    finally:
        edge.close()
    assert len(edge.received) == trusted


@pytest.mark.parametrize(
    ("method", "body", "length", "kind"),
    [
        ("GET", None, None, None),
        ("POST", None, "0", None),
        ("PUT", b"", "0", "application/json"),
        ("PUT", b'{"a":1}', "7", "application/json"),
    ],
)
def test_a_body_is_announced_as_it_is(
    http: Http, edge: Edge, method: str, body: bytes | None, length: str | None, kind: str | None
) -> None:
    http.call(method, "orders/A", body)
    headers = edge.received[0].headers
    assert (headers.get("Content-Length"), headers.get("Content-Type")) == (length, kind)
    assert "Transfer-Encoding" not in headers


def test_it_sends_what_requests_would_send(http: Http, session: FeedAmpSession, edge: Edge) -> None:
    session.put("orders/A", data=b"{}", headers={"Content-Type": "application/json"})
    http.call("PUT", "orders/A", b"{}")
    theirs, ours = edge.received
    assert ours == theirs


def late(seconds: float) -> Iterator[bytes]:
    time.sleep(seconds)
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def test_the_time_to_connect_is_not_the_time_of_the_answer(edge: Edge, tokens: Tokens) -> None:
    edge.will_reply(Reply(wire=late(0.5)))
    assert Http(edge.base_url, tokens, (0.2, 30.0), retries=0).call("GET", "orders").status_code == 200


@pytest.mark.parametrize("timeout", [0.2, (30.0, 0.2)])
def test_an_answer_that_does_not_come_in_time_is_none(
    edge: Edge, tokens: Tokens, timeout: float | tuple[float, float]
) -> None:
    edge.will_reply(Reply(wire=late(2.0)))
    with pytest.raises(ReadTimeoutError):
        Http(edge.base_url, tokens, timeout, retries=0).call("GET", "orders")


def test_a_compressed_answer_is_read(http: Http, edge: Edge) -> None:
    edge.will_reply(Reply(200, gzip.compress(b'{"a":1}'), {"Content-Encoding": "gzip"}))
    assert http.request("GET", ("orders", "A"), what="x").body == {"a": 1}


def test_its_connection_is_free_for_the_next_call(http: Http, edge: Edge) -> None:
    for status in (200, 404, 401, 204):
        edge.will_reply(Reply(status, {}))
        http.call("PUT", "orders/A", b"{}")
    assert len(set(edge.ports)) == 1


def test_a_child_process_opens_connections_of_its_own(http: Http, edge: Edge) -> None:
    http.call("GET", "orders")
    child = os.fork()
    if not child:
        os._exit(http.call("GET", "orders").status_code != 200)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    http.call("GET", "orders")
    first, of_child, again = edge.ports
    assert first == again != of_child


def test_a_token_can_be_had_before_anything_is_sent(http: Http, edge: Edge) -> None:
    http.authorise()
    with pytest.raises(TokenError, match="access token from FeedAMP is empty"):
        Http(edge.base_url, Tokens("")).authorise()
    assert edge.received == []


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What this process sends, piece by piece."""
    sent: list[bytes] = []
    for kind in (socket.socket, ssl.SSLSocket):
        send = kind.sendall

        def keeping(self: Any, data: bytes, send: Any = send) -> None:
            sent.append(bytes(data))
            send(self, data)

        monkeypatch.setattr(kind, "sendall", keeping, raising=False)
    return sent


@pytest.mark.parametrize("secure", [False, True])
def test_head_and_body_are_sent_in_one_piece(
    tokens: Tokens,
    pieces: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
    certificate: Certificate,
    secure: bool,
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.path))
    edge = Edge(certificate.context if secure else None)
    Http(edge.base_url, tokens).call("PUT", "orders/A", b'{"a":1}')
    edge.close()
    [piece] = [piece for piece in pieces if piece.startswith(b"PUT")]
    assert piece.startswith(b"PUT /api/v1/orders/A HTTP/1.1\r\n")
    assert piece.endswith(b'\r\n\r\n{"a":1}')


@pytest.mark.parametrize("target", ["orders/\r\nX: y", "orders/a b", "orders/\u00fc", "orders/\x7f"])
def test_of_a_request_that_cannot_be_written_nothing_is_sent(http: Http, edge: Edge, target: str) -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        http.call("GET", target)
    assert edge.received == []
