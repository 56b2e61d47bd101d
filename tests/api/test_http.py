"""The client's own calls do what requests would do, are as safe, and are repeated where that can help."""

from __future__ import annotations

import gzip
import json
import logging
import os
import signal
import socket
import ssl
import threading
import time
import traceback
from base64 import b64encode
from decimal import Decimal
from email.utils import formatdate
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from urllib3.exceptions import NewConnectionError, ProtocolError, ReadTimeoutError, SSLError

from airflow_provider_feedamp.api import http as http_module
from airflow_provider_feedamp.api.http import (
    BACKOFF_CAP,
    LONGEST_WAIT,
    Answer,
    Http,
    Pacer,
    Pause,
    pacer_for,
)
from airflow_provider_feedamp.api.wire import Response
from airflow_provider_feedamp.exceptions import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    InputError,
    RateLimitError,
    ReauthorizationRequiredError,
    ServerError,
    TokenError,
    UnreachableError,
    UnreadableError,
)
from airflow_provider_feedamp.hooks.feedamp import task_errors
from airflow_provider_feedamp.retry_after import seconds_asked
from tests.api.edge import Clock, Edge, Reply, Tokens, in_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_feedamp.api.session import FeedAmpSession

    NewHttp = Callable[..., Http]

NOON = 1_714_564_800  # 2024-05-01T12:00:00Z
CUT = Reply(cut="before the answer")
NOBODY = "http://127.0.0.1:1/api/v1"
LOGIN = "Basic " + b64encode(b"somebody:something").decode()


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


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [each for each in caplog.records if each.name.endswith("api.http")]
    return [each.getMessage() for each in found if each.levelno >= logging.INFO]


# What is sent

ORDER_NUMBERS = [
    "600A",
    "A/1 ü%",
    "a%2Fb",
    "?x=1&y#z",
    "+ ;,:@=$!*'()",
    "日本/語",
    "...",
    "\n\t\x7f",
    "~-_.",
    "\\",
]


@pytest.mark.parametrize("number", ORDER_NUMBERS)
def test_an_order_number_arrives_as_one_segment(http: Http, edge: Edge, number: str) -> None:
    http.request("GET", ("orders", number, "fulfillments"), what="x")
    segments = edge.received[0].target.split("/")
    assert [unquote(segment) for segment in segments] == ["", "api", "v1", "orders", number, "fulfillments"]


@pytest.mark.parametrize("number", ["", ".", "..", "\ud800", 600])
def test_what_no_url_can_carry_is_refused_unsent(http: Http, edge: Edge, number: Any) -> None:
    with pytest.raises(InputError, match="reading an order"):
        http.request("GET", ("orders", number), what="reading an order")
    assert edge.received == []


@pytest.mark.parametrize("target", ["orders/\r\nX: y", "orders/a b", "orders/\u00fc", "orders/\x7f"])
def test_of_a_request_that_cannot_be_written_nothing_is_sent(http: Http, edge: Edge, target: str) -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        http.call("GET", target)
    assert edge.received == []


def test_parameters_are_escaped_in_the_query(http: Http, edge: Edge) -> None:
    http.request("GET", ("orders",), params={"cursor": "a+b/c=&d é"}, what="x")
    assert edge.received[0].query == {"cursor": "a+b/c=&d é"}
    assert "+b" not in edge.received[0].target


def test_a_body_is_sent_byte_for_byte(http: Http, edge: Edge) -> None:
    body = '{ "price": 1.10, "big": 12345678901234567890.123456789012345678, "name": "ü" }'.encode()
    http.request("PUT", ("orders", "A"), body=body, what="x")
    assert edge.received[0].body == body


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ({"price": 59.99, "big": 2**70}, b'{"price":59.99,"big":1180591620717411303424}'),
        ({"price": Decimal("19.90"), "none": Decimal("0")}, b'{"price":19.9,"none":0.0}'),
        ([], b"[]"),
        ({}, b"{}"),
        ({"name": "ü\ud800"}, b'{"name":"\\u00fc\\ud800"}'),
    ],
)
def test_a_value_is_sent_as_json(http: Http, edge: Edge, value: Any, sent: bytes) -> None:
    http.request("POST", ("orders",), json=value, what="x")
    assert edge.received[0].body == sent


def test_a_value_that_is_not_json_is_refused_unsent(http: Http, edge: Edge) -> None:
    endless: list[Any] = []
    endless.append(endless)
    for value in ({"x": float("nan")}, {"x": object()}, {"x": Decimal("0.1234567890123456789")}, endless):
        with pytest.raises(InputError, match="placing it was not sent"):
            http.request("PUT", ("orders", "A"), json=value, what="placing it")
    assert edge.received == []


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


@pytest.mark.parametrize("secure", [False, True])
def test_head_and_body_are_sent_in_one_piece(
    edge: Edge, secure_edge: Edge, new_http: NewHttp, monkeypatch: pytest.MonkeyPatch, secure: bool
) -> None:
    sent: list[bytes] = []
    for kind in (socket.socket, ssl.SSLSocket):

        def keeping(self: Any, data: bytes, send: Any = kind.sendall) -> None:
            sent.append(bytes(data))
            send(self, data)

        monkeypatch.setattr(kind, "sendall", keeping, raising=False)
    new_http((secure_edge if secure else edge).base_url).call("PUT", "orders/A", b'{"a":1}')
    [piece] = [piece for piece in sent if piece.startswith(b"PUT")]
    assert piece.startswith(b"PUT /api/v1/orders/A HTTP/1.1\r\n")
    assert piece.endswith(b'\r\n\r\n{"a":1}')


def test_no_cookie_is_kept_and_no_netrc_is_read(
    http: Http, edge: Edge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password something\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    edge.will_reply(Reply(200, {}, headers={"Set-Cookie": "seller=other; Path=/"}))
    for _ in range(2):
        http.call("GET", "orders")
    assert ["Cookie" in request.headers for request in edge.received] == [False, False]
    assert edge.bearers == ["Bearer first-token"] * 2


# What comes back


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (Reply(200, {"a": 1}), Answer(200, {"a": 1})),
        (Reply(200, gzip.compress(b'{"a":1}'), {"Content-Encoding": "gzip"}), Answer(200, {"a": 1})),
        (Reply(201, b""), Answer(201, None)),
        (Reply(204), Answer(204, None)),
        (Reply(202, b"order accepted"), Answer(202, None)),
        (Reply(200, "é".encode("utf-16")), Answer(200, None)),
        (Reply(200, b"null"), Answer(200, None)),
    ],
    ids=["json", "packed", "nothing", "204", "words", "utf-16", "null"],  # gzip's own bytes hold the time
)
def test_a_write_succeeds_with_any_2xx_and_body(http: Http, edge: Edge, reply: Reply, answer: Answer) -> None:
    edge.will_reply(reply)
    assert http.request("PUT", ("orders", "A"), body=b"{}", what="x") == answer


@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize(
    "reply", [Reply(200, b"<!doctype html><p>Log in"), Reply(200, b"hello", {"Content-Type": "text/html"})]
)
def test_a_web_page_is_never_a_success(http: Http, edge: Edge, method: str, reply: Reply) -> None:
    edge.will_reply(reply)
    with pytest.raises(UnreadableError, match="an HTML page") as caught:
        http.request(method, ("orders", "A"), what="reading it")
    assert (caught.value.status, caught.value.retryable) == (200, True)


@pytest.mark.parametrize("body", [b"{", b"plain", b"\xff", b"[" * 100_000])
def test_a_read_that_cannot_be_read_is_an_error(http: Http, edge: Edge, body: bytes) -> None:
    edge.will_reply(Reply(200, body))
    with pytest.raises(UnreadableError, match="reading it") as caught:
        http.request("GET", ("orders", "A"), what="reading it")
    assert (caught.value.status, caught.value.retryable) == (200, True)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_redirect_is_an_error_and_not_followed(
    http: Http, edge: Edge, elsewhere: Edge, status: int, method: str
) -> None:
    for place in (f"{elsewhere.base_url}/orders", "/api/v1/moved"):
        edge.will_reply(Reply(status, headers={"Location": place}))
        with pytest.raises(ApiError, match="redirects the call") as caught:
            http.request(method, ("orders", "A"), what="x")
        assert caught.value.status == status
    assert (len(edge.received), len(elsewhere.received)) == (2, 0)


def late(seconds: float) -> Iterator[bytes]:
    time.sleep(seconds)
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def test_the_time_to_connect_is_not_the_time_of_the_answer(edge: Edge, new_http: NewHttp) -> None:
    edge.will_reply(Reply(wire=late(0.5)))
    assert new_http(timeout=(0.2, 30.0), retries=0).call("GET", "orders").status_code == 200


@pytest.mark.parametrize("timeout", [0.2, (30.0, 0.2)])
def test_an_answer_that_does_not_come_in_time_is_none(
    edge: Edge, new_http: NewHttp, timeout: float | tuple[float, float]
) -> None:
    edge.will_reply(Reply(wire=late(2.0)))
    with pytest.raises(ReadTimeoutError):
        new_http(timeout=timeout, retries=0).call("GET", "orders")


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


def test_neither_an_answer_nor_a_call_shows_its_token(edge: Edge, http: Http) -> None:
    edge.will_reply(Reply(200, {"customer": "Jane Smith"}))
    shown = repr(http.call("GET", "orders"))
    assert "first-token" not in shown
    assert "Jane" not in shown


def test_no_log_line_holds_a_token_or_a_body(
    http: Http, edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    edge.will_reply(Reply(401), Reply(503), Reply(200, {"customer": {"full_name": "Jane Smith"}}), Reply(400))
    http.request("GET", ("orders", "A"), what="reading order 'A'")
    with pytest.raises(ApiError):
        http.request("PUT", ("orders", "A"), body=b'{"full_name": "Jane Smith"}', what="x")
    assert len(caplog.records) > 2
    assert not any(secret in caplog.text for secret in ("first-token", "second-token", "Jane"))


# Proxies and certificates


def test_it_goes_through_the_proxy_that_the_environment_names_with_its_login(
    edge: Edge, new_http: NewHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", edge.origin.replace("//", "//somebody:something@"))
    base_url = "http://feedamp.invalid/api/v1"
    http = new_http(base_url)
    for _ in range(2):
        http.call("PUT", "orders/A%2F1", b"{}")
    assert [request.target for request in edge.received] == [f"{base_url}/orders/A%2F1"] * 2
    assert [request.headers["Proxy-Authorization"] for request in edge.received] == [LOGIN] * 2


def test_it_passes_the_proxy_by_where_no_proxy_says_so(
    http: Http, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert http.call("GET", "orders").status_code == 200
    assert edge.received[0].target == "/api/v1/orders"


def test_a_proxy_that_refuses_a_tunnel_or_is_dead_is_blamed_and_its_login_not_shown(
    edge: Edge, new_http: NewHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", edge.origin.replace("//", "//somebody:something@"))
    monkeypatch.setenv("HTTP_PROXY", "http://somebody:something@127.0.0.1:1")
    edge.otherwise = Reply(407)
    for scheme in ("https", "http"):
        http = new_http(f"{scheme}://feedamp.invalid/api/v1", retries=0)
        with pytest.raises(UnreachableError, match="The proxy failed: check HTTPS_PROXY") as caught:
            http.request("GET", ("orders",), what="x")
        assert "something" not in "".join(traceback.format_exception(caught.value))
    [tunnel] = edge.received
    assert (tunnel.method, tunnel.target) == ("CONNECT", "feedamp.invalid:443")
    assert (tunnel.headers["Proxy-Authorization"], tunnel.bearer) == (LOGIN, None)


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
    new_http: NewHttp, monkeypatch: pytest.MonkeyPatch, name: str, value: str, text: str
) -> None:
    monkeypatch.setenv(name, value)
    scheme = "https" if name == "REQUESTS_CA_BUNDLE" else "http"
    with pytest.raises(ConfigurationError, match=text) as caught:
        new_http(f"{scheme}://feedamp.invalid/api/v1").call("GET", "orders")
    assert "something" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("trusted", [True, False])
def test_it_trusts_the_certificates_that_the_environment_names(
    secure_edge: Edge, new_http: NewHttp, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    http = new_http(secure_edge.base_url)
    if trusted:
        assert http.request("GET", ("orders",), what="x").body == {}
    else:
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        with pytest.raises(UnreachableError, match=r"TLS failed.*certificate.*REQUESTS_CA_BUNDLE"):
            http.request("GET", ("orders",), what="x")
    assert len(secure_edge.received) == trusted


# The token


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_refused_token_is_replaced_and_the_same_call_sent_again_at_once(
    edge: Edge, http: Http, tokens: Tokens, slept: list[float], method: str
) -> None:
    edge.will_reply(Reply(401, {"message": "expired"}), Reply(201))
    assert http.call(method, "orders/A1?x=1", b'{"price": 1.10}').status_code == 201
    first, second = edge.received
    assert (first.method, first.target, first.body) == (second.method, second.target, second.body)
    assert edge.bearers == ["Bearer first-token", "Bearer second-token"]
    assert (tokens.refused, slept) == (["first-token"], [])


def test_each_call_may_replace_a_token(edge: Edge, http: Http, tokens: Tokens) -> None:
    tokens.tokens = ["one", "two", "three"]
    edge.will_reply(Reply(401), Reply(200), Reply(401), Reply(200))
    assert [http.call("GET", "orders").status_code for _ in range(2)] == [200, 200]
    assert tokens.refused == ["one", "two"]


@pytest.mark.parametrize(("refusals", "waits"), [(1, [1.0]), (2, [1.0, 3.0])])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_fresh_token_that_is_refused_is_waited_for_and_tried_again(
    edge: Edge, http: Http, tokens: Tokens, slept: list[float], method: str, refusals: int, waits: list[float]
) -> None:
    edge.will_reply(Reply(401), *[Reply(401)] * refusals, Reply(200))
    assert http.call(method, "orders").status_code == 200
    assert edge.bearers == ["Bearer first-token"] + ["Bearer second-token"] * (refusals + 1)
    assert (tokens.refused, tokens.noted) == (["first-token"], ["second-token"])
    assert slept == waits


def test_a_fresh_token_that_stays_refused_is_an_error_that_a_later_try_cannot_heal(
    edge: Edge, http: Http, tokens: Tokens, slept: list[float]
) -> None:
    edge.otherwise = Reply(401, {"message": "no"})
    with (
        pytest.raises(AuthenticationError, match=r"x.*fresh access token was refused") as caught,
        task_errors(),
    ):
        http.request("GET", ("orders",), what="x")
    assert caught.value.retryable is False
    assert isinstance(caught.value, AirflowFailException)
    assert edge.bearers == ["Bearer first-token"] + ["Bearer second-token"] * 3
    assert (tokens.refused, tokens.noted, slept) == (["first-token"], [], [1.0, 3.0])


@pytest.mark.parametrize(
    ("earlier", "status", "retryable"), [(200, 401, True), (404, 401, False), (200, 403, False)]
)
def test_a_client_that_had_a_success_before_may_have_one_later_unless_it_is_forbidden(
    edge: Edge, http: Http, earlier: int, status: int, retryable: bool
) -> None:
    edge.will_reply(Reply(earlier, {}))
    http.call("GET", "orders")
    edge.otherwise = Reply(status)
    with pytest.raises(AuthenticationError) as caught, task_errors():
        http.request("PUT", ("orders", "A"), what="x")
    assert caught.value.retryable is retryable
    assert isinstance(caught.value, AirflowFailException) is not retryable


def test_the_source_hears_once_of_each_token_that_works(edge: Edge, http: Http, tokens: Tokens) -> None:
    edge.will_reply(Reply(), Reply(404), Reply(401), Reply())
    for _ in range(3):
        http.call("GET", "orders")
    assert tokens.noted == ["first-token", "second-token"]


def test_what_the_source_raises_comes_through(edge: Edge, new_http: NewHttp) -> None:
    class Ended(Tokens):
        def replace(self, refused: str) -> str:
            raise ReauthorizationRequiredError("the seller must authorise again")

    edge.otherwise = Reply(401)
    with pytest.raises(ReauthorizationRequiredError):
        new_http(tokens=Ended("old")).call("GET", "orders")
    assert len(edge.received) == 1


@pytest.mark.parametrize("token", ["", "secret\nX-Other: 1", "secret token", "sécret", "secret\x00"])
def test_a_token_that_no_header_can_carry_is_refused_without_being_shown(
    edge: Edge, new_http: NewHttp, token: str
) -> None:
    http = new_http(tokens=Tokens(token))
    for use in (http.authorise, lambda: http.call("GET", "orders")):
        with pytest.raises(TokenError, match="access token from FeedAMP is empty") as caught:
            use()
        assert "cret" not in str(caught.value)
    assert edge.received == []


def test_a_token_can_be_had_before_anything_is_sent(http: Http, edge: Edge) -> None:
    http.authorise()
    assert edge.received == []


# What is sent again


@pytest.mark.parametrize(
    ("methods", "statuses", "sent"),
    [
        # Changes nothing twice, or was not processed.
        (["GET", "PUT"], [408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524], 2),
        (["POST", "DELETE"], [408, 425, 429], 2),
        (["POST", "DELETE"], [500, 502, 503, 504, 520, 521, 522, 523, 524], 1),
        (["GET"], [400, 404, 409, 413, 421, 423, 501, 525], 1),  # will not change
    ],
)
def test_a_call_is_repeated_where_that_is_safe_and_can_help(
    edge: Edge, http: Http, slept: list[float], methods: list[str], statuses: list[int], sent: int
) -> None:
    for method in methods:
        for status in statuses:
            edge.will_reply(Reply(status, headers={"Retry-After": "1"}), *[Reply(200)] * (sent - 1))
            assert http.call(method, "orders/A1", b"[]").status_code == (200 if sent == 2 else status)
            assert [request.body for request in edge.received] == [b"[]"] * sent
            assert slept[-1:] == [1.0] * (sent - 1)
            edge.received.clear()


@pytest.mark.parametrize("cut", ["before the answer", "in the body"])
def test_a_call_whose_connection_is_cut_is_repeated_unless_it_is_a_post(
    edge: Edge, http: Http, slept: list[float], cut: Any
) -> None:
    reply = Reply(200, b"half", cut=cut)
    edge.will_reply(reply, Reply(200, {"ok": True}), reply)
    assert json.loads(http.call("PUT", "orders/A1", b'{"price": 1.10}').content) == {"ok": True}
    assert [request.body for request in edge.received] == [b'{"price": 1.10}'] * 2
    with pytest.raises(UnreachableError, match="may have received it"):
        http.request("POST", ("orders", "A1", "errors"), json=[], what="x")
    assert (len(edge.received), slept) == (3, [1.0])


def test_a_call_that_nobody_has_received_is_repeated_with_waits_that_double_up_to_a_cap(
    new_http: NewHttp, slept: list[float]
) -> None:
    http = new_http(NOBODY, retries=7)
    with pytest.raises(NewConnectionError):
        http.call("POST", "orders/A1/errors", b"[]")
    assert slept == [1, 2, 4, 8, 16, BACKOFF_CAP, BACKOFF_CAP]
    with pytest.raises(UnreachableError) as caught:
        http.request("GET", ("orders",), params={"cursor": "abc"}, what="listing orders")
    text = str(caught.value)
    assert "listing orders (NewConnectionError)" in text
    assert not any(secret in text for secret in ("abc", "first-token"))
    assert caught.value.status is None


@pytest.mark.parametrize(("jitter", "wait"), [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_jitter_shortens_a_wait_by_up_to_half(
    edge: Edge, new_http: NewHttp, slept: list[float], jitter: float, wait: float
) -> None:
    edge.will_reply(Reply(500), Reply(200))
    new_http(jitter=lambda: jitter).call("GET", "orders")
    assert slept == [wait]


@pytest.mark.parametrize("retries", [0, 3])
def test_the_last_answer_is_returned_when_the_retries_are_used_up(
    edge: Edge, new_http: NewHttp, slept: list[float], retries: int
) -> None:
    edge.otherwise = Reply(503, {"message": "down"})
    answer = new_http(retries=retries).call("GET", "orders")
    assert (answer.status_code, json.loads(answer.content)) == (503, {"message": "down"})
    assert len(edge.received) == 1 + retries
    assert slept == [1, 2, 4][:retries]


@pytest.mark.parametrize(
    ("reply", "kind", "retry_after", "calls"),
    [
        (Reply(429, headers={"Retry-After": "7"}), RateLimitError, 7.0, 4),
        (Reply(429, headers={"X-Rate-Limit-Reset": "7"}), RateLimitError, 7.0, 4),
        (Reply(429, headers={"Retry-After": "3600"}), RateLimitError, 3600.0, 1),
        (Reply(429), RateLimitError, None, 4),
        (Reply(503, headers={"Retry-After": "7"}), ServerError, 7.0, 4),
        (Reply(500), ServerError, None, 4),
        (Reply(522), ServerError, None, 4),
        (Reply(408), ServerError, None, 4),
        (Reply(425, headers={"Retry-After": "7"}), ServerError, 7.0, 4),
        (CUT, UnreachableError, None, 4),
        (Reply(200, b"half", cut="in the body"), UnreachableError, None, 4),
    ],
)
def test_used_up_retries_end_in_an_error_that_a_later_try_can_heal(
    http: Http, edge: Edge, reply: Reply, kind: type[ApiError], retry_after: float | None, calls: int
) -> None:
    edge.otherwise = reply
    with pytest.raises(kind, match="placing order '600A'") as caught:
        http.request("PUT", ("orders", "600A"), body=b"{}", what="placing order '600A'")
    assert (caught.value.retry_after, caught.value.retryable) == (retry_after, True)
    assert len(edge.received) == calls


@pytest.mark.parametrize(
    ("asked", "waits"),
    [("17", [17.0]), ("0", [1.0]), (str(LONGEST_WAIT), [120.0]), (str(LONGEST_WAIT + 1), [])],
)
def test_a_server_is_waited_for_as_long_as_it_asks_but_not_for_too_long(
    edge: Edge, http: Http, slept: list[float], asked: str, waits: list[float]
) -> None:
    edge.will_reply(Reply(429, headers={"Retry-After": asked}))
    assert http.call("GET", "orders").status_code == (200 if waits else 429)
    assert (len(edge.received), slept) == (1 + len(waits), waits)


def an_answer(status: int, headers: dict[str, str]) -> Response:
    return Response(status, headers, b"")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "5"}, 5),
        ({"Retry-After": " 2.5 "}, 2.5),
        ({"Retry-After": "-3"}, 0),
        ({"Retry-After": formatdate(NOON + 30, usegmt=True)}, 30),
        ({"Retry-After": formatdate(NOON - 30, usegmt=True)}, 0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": ""}, None),
        ({"X-Rate-Limit-Reset": str(NOON + 12)}, 12),
        ({"X-Rate-Limit-Reset": str((NOON + 12) * 1000)}, 12),
        ({"X-Rate-Limit-Reset": "2024-05-01T12:00:12Z"}, 12),
        ({"X-Rate-Limit-Reset": "2024-05-01T12:00:12"}, 12),
        ({"X-Rate-Limit-Reset": "8"}, 8),
        ({"X-Rate-Limit-Reset": "later"}, None),
        ({"Retry-After": "5", "X-Rate-Limit-Reset": "8"}, 5),
        ({"Retry-After": "soon", "X-Rate-Limit-Reset": "8"}, 8),
        ({}, None),
    ],
)
def test_what_a_429_asks_for_is_understood(headers: dict[str, str], seconds: float | None) -> None:
    assert seconds_asked(an_answer(429, headers | {"Date": formatdate(NOON, usegmt=True)})) == seconds


def test_an_instant_without_a_date_to_compare_is_compared_to_our_clock() -> None:
    asked = seconds_asked(an_answer(429, {"Retry-After": formatdate(time.time() + 100, usegmt=True)}))
    assert asked is not None
    assert 90 < asked <= 100


def test_the_reset_of_a_rate_limit_says_nothing_about_a_failing_server() -> None:
    assert seconds_asked(an_answer(503, {"X-Rate-Limit-Reset": "50"})) is None


def test_a_wait_shows_in_the_log_with_its_seconds_and_without_the_query(
    edge: Edge, http: Http, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    edge.will_reply(Reply(503, headers={"Retry-After": "17"}), Reply(200))
    http.call("GET", "orders?mp_order_numbers=A1")
    assert lines(caplog) == [
        "FeedAMP answered 503 to GET /api/v1/orders; trying again in 17.0 s (retry 1 of 3)"
    ]


def test_a_tls_fault_is_not_tried_again(edge: Edge, new_http: NewHttp, slept: list[float]) -> None:
    with pytest.raises(SSLError) as caught:
        new_http(edge.base_url.replace("http:", "https:")).call("GET", "orders")
    assert slept == []
    assert isinstance(caught.value.args[0], ssl.SSLError)


def test_a_retry_after_a_renewed_token_carries_the_new_one(edge: Edge, http: Http) -> None:
    edge.will_reply(Reply(401), Reply(503), Reply(200))
    assert http.call("GET", "orders").status_code == 200
    assert edge.bearers == ["Bearer first-token", "Bearer second-token", "Bearer second-token"]


@pytest.mark.parametrize("cut", ["before the answer", "by a reset"])
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_used_connection_that_the_server_closes_unanswered_is_replaced_at_once(
    edge: Edge, http: Http, slept: list[float], method: str, cut: Any
) -> None:
    edge.will_reply(Reply(), Reply(cut=cut), Reply())
    assert [http.call(method, "orders/A1").status_code for _ in range(2)] == [200, 200]
    first, closed, new = edge.ports
    assert first == closed != new
    assert slept == []


def test_each_connection_is_replaced_at_once_only_once(
    edge: Edge, http: Http, slept: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    edge.will_reply(Reply(), CUT, CUT, Reply())
    assert [http.call("GET", "orders").status_code for _ in range(2)] == [200, 200]
    assert slept == [1.0]
    assert lines(caplog) == [
        "FeedAMP gave no answer (it closed a kept connection) to GET /api/v1/orders; trying again at once",
        "FeedAMP gave no answer (ProtocolError) to GET /api/v1/orders; trying again in 1.0 s (retry 1 of 3)",
    ]


def test_a_used_connection_that_is_closed_within_the_answer_is_waited_for(
    edge: Edge, http: Http, slept: list[float]
) -> None:
    edge.will_reply(Reply(), Reply(wire=[b"HTTP/1.1 100 Continue\r\n\r\n"]), Reply())
    assert [http.call("GET", "orders").status_code for _ in range(2)] == [200, 200]
    assert slept == [1.0]


def test_a_post_on_a_used_connection_that_the_server_closes_is_not_repeated(edge: Edge, http: Http) -> None:
    edge.will_reply(Reply(), CUT)
    http.call("GET", "orders")
    with pytest.raises(ProtocolError):
        http.call("POST", "orders/A1/errors", b"[]")
    assert len(edge.received) == 2


@pytest.mark.parametrize("secure", [False, True])
def test_a_connection_that_ended_unnoticed_is_replaced_at_once(
    edge: Edge,
    secure_edge: Edge,
    new_http: NewHttp,
    slept: list[float],
    monkeypatch: pytest.MonkeyPatch,
    secure: bool,
) -> None:
    # As when the end arrives after the wire has looked for it.
    monkeypatch.setattr("airflow_provider_feedamp.api.wire._Connection.idle", lambda _: True)
    server = secure_edge if secure else edge
    server.ends_idle = True
    http = new_http(server.base_url)
    for _ in range(5):
        assert http.call("PUT", "orders/A1", b"x" * 100_000).status_code == 200
        server.ended.acquire(timeout=5)
    assert slept == []


def test_tls_that_breaks_within_an_answer_is_a_cut_connection(
    secure_edge: Edge, new_http: NewHttp, slept: list[float]
) -> None:
    secure_edge.will_reply(Reply(200, b"half", cut="by a bad record"), Reply(200))
    assert new_http(secure_edge.base_url).call("GET", "orders").status_code == 200
    assert slept == [1.0]


# The pace of calls


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize(("later", "slept"), [(0.0, [0.5, 0.5, 0.5]), (0.5, [0.5, 0.5]), (60.0, [0.5, 0.5])])
def test_calls_are_spaced_evenly_and_a_break_saves_up_no_burst(
    clock: Clock, later: float, slept: list[float]
) -> None:
    pacer = Pacer(2, clock=clock, sleep=clock.sleep)
    pacer.wait()
    assert clock.slept == []
    clock.now += later
    for _ in range(3):
        pacer.wait()
    assert clock.slept == slept


def test_threads_get_a_slot_each() -> None:
    slept: list[float] = []
    in_threads(20, Pacer(10, clock=lambda: 0.0, sleep=slept.append).wait)
    assert sorted(slept) == pytest.approx([number / 10 for number in range(1, 20)])


def test_nobody_is_kept_from_taking_a_slot_while_another_waits() -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 1:
            pacer.wait()  # would never end if the sleeper held the lock

    pacer = Pacer(1, clock=lambda: 0.0, sleep=sleep)
    pacer.wait()
    pacer.wait()
    assert slept == [1.0, 2.0]


def test_waits_show_in_the_log_once_they_add_up(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    pacer = Pacer(0.5, clock=clock, sleep=clock.sleep)
    for _ in range(3):
        pacer.wait()
    assert lines(caplog) == []
    pacer.wait()
    assert lines(caplog) == [
        "Calls wait to keep to 0.5 requests per second: 6.0 s in all since the last such line"
    ]


def test_many_waits_show_in_the_log_once_a_minute(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    pacer = Pacer(2, clock=clock, sleep=clock.sleep)
    for _ in range(300):
        pacer.wait()
    assert [line.split(": ")[1].split()[0] for line in lines(caplog)] == ["5.0", "60.0", "60.0"]


def test_one_key_has_one_pacer_in_the_process_whose_latest_rate_holds() -> None:
    pacer = pacer_for(("host", "hooli"), 2)
    assert pacer is not None
    assert pacer_for(("host", "hooli"), 5) is pacer
    assert pacer.requests_per_second == 5
    assert pacer_for(("host", "globex"), 2) is not pacer
    assert pacer_for(("host", "hooli"), None) is None


def test_a_child_process_does_not_wait_for_a_lock_that_its_parent_held() -> None:
    pacer = pacer_for("forked", 1000)
    assert pacer is not None
    with pacer._lock, http_module._pacers_lock:
        child = os.fork()
        if child == 0:
            signal.alarm(10)  # a child that waits for ever is ended, and its status says so
            pacer.wait()
            os._exit(0 if pacer_for("forked", 1000) is pacer else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_repeated_call_keeps_to_the_pace(edge: Edge, new_http: NewHttp) -> None:
    paced: list[float] = []
    http = new_http(pacer=Pacer(2, clock=lambda: 0.0, sleep=paced.append))
    edge.will_reply(Reply(503), Reply(429), Reply(401), Reply(200))
    http.request("GET", ("orders", "A"), what="x")
    assert paced == [0.5, 1.0, 1.5]  # the first one did not wait


def test_a_list_call_waits_for_the_pace_of_lists_and_for_that_of_all_calls(new_http: NewHttp) -> None:
    paced: list[str] = []
    every = Pacer(2, clock=lambda: 0.0, sleep=lambda seconds: paced.append(f"all {seconds}"))
    lists = Pacer(1, clock=lambda: 0.0, sleep=lambda seconds: paced.append(f"list {seconds}"))
    http = new_http(pacer=every, list_pacer=lists)
    for listing in (True, False, True):
        http.request("GET", ("orders",), what="x", listing=listing)
    assert paced == ["all 0.5", "list 1.0", "all 1.0"]


# The pause of all calls


@pytest.fixture
def pause(clock: Clock) -> Pause:
    return Pause(3, clock=clock, sleep=clock.sleep, jitter=lambda: 1.0)


def waiting_in_vain(pause: Pause, calls: int) -> list[float]:
    """Let so many calls wait while time does not go on, and return how long each would have slept."""
    slept: list[float] = []
    pause.sleep = slept.append
    in_threads(calls, pause.wait)
    return sorted(slept)


def test_one_refusal_holds_up_every_call_until_the_pause_is_over(pause: Pause, clock: Clock) -> None:
    pause.wait()
    assert clock.slept == []
    pause.begin(17)
    for _ in range(2):
        pause.wait()
    assert clock.slept == [17]


def test_those_who_waited_leave_one_by_one_and_who_comes_later_goes_at_once(
    pause: Pause, clock: Clock
) -> None:
    pause.begin(10)
    assert waiting_in_vain(pause, 4) == pytest.approx([10, 10.05, 10.1, 10.15])
    clock.now += 10
    assert waiting_in_vain(pause, 1) == []


@pytest.mark.parametrize(("asked", "slept"), [(0, 9), (15, 15)])
def test_a_refusal_during_the_pause_begins_no_other_but_can_make_it_longer(
    pause: Pause, clock: Clock, asked: float, slept: float
) -> None:
    assert pause.begin(10) == 10
    clock.now += 1
    assert (pause.begin(asked), pause.pauses) == (0, 1)
    pause.wait()
    assert clock.slept == [slept]


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


@pytest.mark.parametrize(
    ("replies", "refusal", "seconds"),
    [
        ([Reply(429, headers={"Retry-After": "9"})], "429", "9.0"),
        ([Reply(401), Reply(401)], "401 with a fresh token", "1.0"),
    ],
)
def test_all_calls_pause_together_and_the_log_says_so_once(
    edge: Edge,
    new_http: NewHttp,
    caplog: pytest.LogCaptureFixture,
    replies: list[Reply],
    refusal: str,
    seconds: str,
) -> None:
    caplog.set_level("INFO")
    released = threading.Event()
    sleeping = threading.Semaphore(0)

    def sleep(seconds: float) -> None:
        sleeping.release()
        released.wait(10)

    edge.will_reply(*replies)
    http = new_http(sleep=sleep, jitter=lambda: 0.0, clock=time.monotonic, retries=8)
    threads = [threading.Thread(target=http.call, args=("PUT", "orders/A")) for _ in range(6)]
    threads[0].start()
    assert sleeping.acquire(timeout=10)
    for thread in threads[1:]:
        thread.start()
    for _ in threads[1:]:
        assert sleeping.acquire(timeout=10)
    assert len(edge.received) == len(replies)  # nobody else has sent anything
    released.set()
    for thread in threads:
        thread.join()
    latest = "Bearer second-token" if len(replies) == 2 else "Bearer first-token"
    assert edge.bearers[len(replies) :] == [latest] * 6
    assert lines(caplog) == [
        f"FeedAMP answered {refusal} to PUT /api/v1/orders/A; all calls wait for {seconds} s "
        "(pause 1 of 8 in a row)"
    ]


def test_a_call_that_was_on_its_way_when_the_pause_began_is_no_line_of_its_own(
    edge: Edge, new_http: NewHttp, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    together = threading.Barrier(4)

    def answers() -> Iterator[bytes]:
        together.wait(10)
        yield b"HTTP/1.1 429 Too Many\r\nContent-Length: 0\r\n\r\n"

    edge.will_reply(*[Reply(wire=answers()) for _ in range(4)])
    http = new_http(clock=lambda: 100.0, retries=8)
    in_threads(4, http.call, "PUT", "orders/A")
    # A connection that this edge has closed by the time of the second call has a line of its own.
    assert len([each for each in caplog.messages if "429" in each]) == 1
    assert len(edge.received) == 8


def test_calls_that_are_taken_in_between_never_give_up_and_one_that_never_is_does(
    edge: Edge, http: Http, slept: list[float]
) -> None:
    edge.will_reply(*[Reply(429), Reply(200)] * 6)
    assert [http.call("GET", "orders").status_code for _ in range(6)] == [200] * 6
    assert slept == [1.0] * 6
    edge.otherwise = Reply(429)
    with pytest.raises(RateLimitError):
        http.request("POST", ("orders",), what="x", json=[])
    assert slept[6:] == [1, 2, 4]
    assert len(edge.received) == 12 + 4


def test_a_call_that_waited_for_its_pace_still_waits_for_a_pause_that_began_meanwhile(
    edge: Edge, new_http: NewHttp, slept: list[float]
) -> None:
    def meanwhile(seconds: float) -> None:
        http._pause.begin(9)

    http = new_http(pacer=Pacer(2, clock=lambda: 0.0, sleep=meanwhile))
    for _ in range(2):
        http.request("GET", ("orders", "A"), what="x")
    assert slept == [9]
