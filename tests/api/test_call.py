"""The short way of the client's own calls does what requests would have done, and is as safe."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import pytest
from requests import Request, Response
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from airflow_provider_feedamp.api.adapter import LeanAdapter
from airflow_provider_feedamp.api.auth import BearerAuth
from airflow_provider_feedamp.api.session import FeedAmpSession
from airflow_provider_feedamp.exceptions import ApiError, InputError
from tests.api.edge import Edge, Reply, Tokens

if TYPE_CHECKING:
    from pathlib import Path

    from requests import PreparedRequest

    from airflow_provider_feedamp.api.transport import Transport


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


class Listening(HTTPAdapter):
    """Keeps the options that requests are sent with, and sends nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[dict[str, Any]] = []

    def send(self, request: PreparedRequest, *args: Any, **options: Any) -> Response:
        self.given.append(options)
        answer = Response()
        answer.status_code, answer.request, answer._content = 200, request, b"{}"
        return answer


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_redirect_is_an_error_and_not_followed(
    transport: Transport, edge: Edge, elsewhere: Edge, status: int, method: str
) -> None:
    edge.will_reply(Reply(status, headers={"Location": f"{elsewhere.base_url}/orders"}))
    with pytest.raises(ApiError, match="redirects the call"):
        transport.request(method, ("orders", "A"), what="x")
    assert (len(edge.received), len(elsewhere.received)) == (1, 0)


def test_a_redirect_within_the_origin_is_not_followed_either(transport: Transport, edge: Edge) -> None:
    edge.will_reply(Reply(307, headers={"Location": "/api/v1/moved"}))
    with pytest.raises(ApiError, match="redirects the call"):
        transport.request("GET", ("orders", "A"), what="x")
    assert len(edge.received) == 1


def test_no_cookie_is_kept_or_sent(session: FeedAmpSession, edge: Edge) -> None:
    edge.will_reply(Reply(200, {}, headers={"Set-Cookie": "seller=other; Path=/"}))
    session.call("GET", "orders")
    session.get("orders")
    session.cookies.set("seller", "another", domain="127.0.0.1", path="/")
    session.call("GET", "orders")
    assert ["Cookie" in request.headers for request in edge.received] == [False, False, False]


def test_a_bearer_goes_to_no_other_origin_than_its_own(edge: Edge, elsewhere: Edge, tokens: Tokens) -> None:
    with FeedAmpSession(elsewhere.base_url, BearerAuth(tokens, edge.base_url)) as session:
        with pytest.raises(InputError, match="goes elsewhere"):
            session.call("GET", "orders")
    assert elsewhere.received == []


def test_netrc_is_not_used(
    session: FeedAmpSession, edge: Edge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password something\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    session.call("GET", "orders")
    assert edge.received[0].bearer == "Bearer first-token"


def test_it_goes_through_the_proxy_that_the_environment_names(
    edge: Edge, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", edge.origin)
    base_url = "http://feedamp.invalid/api/v1"
    with FeedAmpSession(base_url, BearerAuth(tokens, base_url)) as session:
        for _ in range(2):
            session.call("PUT", "orders/A%2F1", b"{}")
    assert [request.target for request in edge.received] == [f"{base_url}/orders/A%2F1"] * 2


def test_it_trusts_the_certificates_that_the_environment_names(
    session: FeedAmpSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/some/bundle.pem")
    adapter = Listening()
    session.mount("http://", adapter)
    session.call("GET", "orders")
    assert adapter.given == [
        {
            "verify": "/some/bundle.pem",
            "cert": None,
            "proxies": {},
            "stream": False,
            "timeout": session.timeout,
        }
    ]


def test_the_settings_of_the_session_hold(session: FeedAmpSession) -> None:
    adapter = Listening()
    session.mount("http://", adapter)
    session.verify, session.cert, session.proxies = "/mine.pem", "/client.pem", {"http": "http://127.0.0.1:9"}
    session.call("GET", "orders")
    [given] = adapter.given
    assert (given["verify"], given["cert"]) == ("/mine.pem", "/client.pem")
    assert given["proxies"] == {"http": "http://127.0.0.1:9"}


def test_the_hooks_of_the_session_see_each_answer(session: FeedAmpSession, edge: Edge) -> None:
    seen: list[int] = []
    session.hooks["response"].append(lambda answer, **_: seen.append(answer.status_code))
    edge.will_reply(Reply(201), Reply(404))
    for _ in range(2):
        session.call("PUT", "orders/A", b"{}")
    assert seen == [201, 404]


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
    session: FeedAmpSession, edge: Edge, method: str, body: bytes | None, length: str | None, kind: str | None
) -> None:
    session.call(method, "orders/A", body)
    headers = edge.received[0].headers
    assert (headers.get("Content-Length"), headers.get("Content-Type")) == (length, kind)
    assert "Transfer-Encoding" not in headers


def test_it_sends_what_requests_would_send(session: FeedAmpSession, edge: Edge) -> None:
    session.put("orders/A", data=b"{}", headers={"Content-Type": "application/json"})
    session.call("PUT", "orders/A", b"{}")
    theirs, ours = edge.received
    assert ours == theirs


def test_a_compressed_answer_is_read(transport: Transport, edge: Edge) -> None:
    edge.will_reply(Reply(200, gzip.compress(b'{"a":1}'), {"Content-Encoding": "gzip"}))
    assert transport.request("GET", ("orders", "A"), what="x").body == {"a": 1}


def test_its_connection_is_free_for_the_next_call(session: FeedAmpSession, edge: Edge) -> None:
    for _ in range(5):
        session.call("PUT", "orders/A", b"{}")
    adapter = session.get_adapter(edge.base_url)
    assert isinstance(adapter, LeanAdapter)
    [pool] = adapter.poolmanager.pools._container.values()
    assert pool.num_connections == 1


def asked(url: str) -> PreparedRequest:
    return Request("GET", url).prepare()


def test_a_closed_session_can_be_used_again_on_new_connections(session: FeedAmpSession, edge: Edge) -> None:
    adapter = session.get_adapter(edge.base_url)
    assert isinstance(adapter, LeanAdapter)
    session.call("GET", "orders")
    before = adapter.get_connection_with_tls_context(asked(edge.base_url), True, {})
    session.close()
    assert session.call("GET", "orders").status_code == 200
    assert adapter.get_connection_with_tls_context(asked(edge.base_url), True, {}) is not before


def test_certificates_are_checked_for_the_request_that_wants_it() -> None:
    adapter = LeanAdapter()
    request = asked("https://127.0.0.1:1/")
    lax: Any = adapter.get_connection_with_tls_context(request, False)
    adapter.cert_verify(lax, request.url, False, None)
    strict: Any = adapter.get_connection_with_tls_context(request, True)
    adapter.cert_verify(strict, request.url, True, None)
    assert (lax.cert_reqs, lax.ca_certs) == ("CERT_NONE", None)
    assert (strict.cert_reqs, strict.ca_certs) == ("CERT_REQUIRED", DEFAULT_CA_BUNDLE_PATH)


@pytest.mark.parametrize(
    ("url", "proxies"),
    [
        ("https://127.0.0.1:2/", {}),
        ("http://127.0.0.1:1/", {}),
        ("https://127.0.0.1:1/", {"https": "http://127.0.0.1:3"}),
    ],
)
def test_another_origin_or_proxy_has_connections_of_its_own(url: str, proxies: dict[str, str]) -> None:
    adapter = LeanAdapter()
    first = adapter.get_connection_with_tls_context(asked("https://127.0.0.1:1/a"), True, {})
    assert adapter.get_connection_with_tls_context(asked(url), True, proxies) is not first
    assert adapter.get_connection_with_tls_context(asked("https://127.0.0.1:1/b?c"), True, {}) is first


class Wire:
    """A socket that keeps what is sent, piece by piece."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        self.pieces.append(data)

    def settimeout(self, seconds: float | None) -> None:
        """Take note of nothing."""


def connection_to(url: str, proxies: dict[str, str], wire: Wire) -> Any:
    """Return a connection of the adapter's, as far as it is connected to the wire."""
    pool: Any = LeanAdapter().get_connection_with_tls_context(asked(url), True, proxies)
    connection = pool.ConnectionCls("127.0.0.1")
    connection.sock = wire
    return connection


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "https://127.0.0.1:1/"])
@pytest.mark.parametrize("proxies", [{}, {"http": "http://127.0.0.1:2", "https": "http://127.0.0.1:2"}])
def test_head_and_body_are_sent_in_one_piece(url: str, proxies: dict[str, str]) -> None:
    wire = Wire()
    connection_to(url, proxies, wire).request("PUT", "/orders/A", b'{"a":1}', {"X": "y"})
    [piece] = wire.pieces
    assert piece.startswith(b"PUT /orders/A HTTP/1.1\r\n")
    assert piece.endswith(b'\r\n\r\n{"a":1}')


def test_a_body_that_is_not_bytes_goes_as_it_comes() -> None:
    wire = Wire()
    connection_to("http://127.0.0.1:1/", {}, wire).request("PUT", "/", iter([b"a", b"b"]))
    assert len(wire.pieces) > 2


def test_of_a_request_that_cannot_be_written_nothing_is_sent() -> None:
    wire = Wire()
    connection = connection_to("http://127.0.0.1:1/", {}, wire)
    with pytest.raises(ValueError, match="Invalid header"):
        connection.request("PUT", "/", b"{}", {"X": "y\n"})
    assert wire.pieces == []
