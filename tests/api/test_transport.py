from __future__ import annotations

import logging
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest

from airflow_provider_feedamp.api.http import Answer, Http, Pacer
from airflow_provider_feedamp.exceptions import (
    ApiError,
    AuthenticationError,
    InputError,
    RateLimitError,
    ServerError,
    UnreachableError,
    UnreadableError,
)
from tests.api.edge import Edge, Reply, Tokens

if TYPE_CHECKING:
    from collections.abc import Callable

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


def test_a_body_is_sent_byte_for_byte(http: Http, edge: Edge) -> None:
    body = '{ "price": 1.10, "big": 12345678901234567890.123456789012345678, "name": "ü" }'.encode()
    http.request("PUT", ("orders", "A"), body=body, what="x")
    assert edge.received[0].body == body
    assert edge.received[0].headers["Content-Type"] == "application/json"


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


def test_parameters_are_escaped_in_the_query(http: Http, edge: Edge) -> None:
    http.request("GET", ("orders",), params={"cursor": "a+b/c=&d é"}, what="x")
    assert edge.received[0].query == {"cursor": "a+b/c=&d é"}
    assert "+b" not in edge.received[0].target


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (Reply(200, {"a": 1}), Answer(200, {"a": 1})),
        (Reply(201, b""), Answer(201, None)),
        (Reply(204), Answer(204, None)),
        (Reply(202, b"order accepted"), Answer(202, None)),
        (Reply(200, "é".encode("utf-16")), Answer(200, None)),
        (Reply(200, b"null"), Answer(200, None)),
    ],
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
        (Reply(cut="before the answer"), UnreachableError, None, 4),
        (Reply(200, b"half", cut="in the body"), UnreachableError, None, 4),
    ],
)
def test_used_up_retries_end_in_an_error_that_a_later_try_can_heal(
    http: Http,
    edge: Edge,
    reply: Reply,
    kind: type[ApiError],
    retry_after: float | None,
    calls: int,
) -> None:
    edge.otherwise = reply
    with pytest.raises(kind) as caught:
        http.request("PUT", ("orders", "600A"), body=b"{}", what="placing order '600A'")
    assert "placing order '600A'" in str(caught.value)
    assert (caught.value.retry_after, caught.value.retryable) == (retry_after, True)
    assert len(edge.received) == calls


def test_an_unanswered_post_says_that_it_may_have_arrived(http: Http, edge: Edge) -> None:
    edge.otherwise = Reply(cut="before the answer")
    with pytest.raises(UnreachableError, match="may have received it"):
        http.request("POST", ("orders", "A", "errors"), json=[], what="x")
    assert len(edge.received) == 1


def test_an_unreachable_server_is_named_by_its_fault_and_shows_neither_query_nor_token(
    tokens: Tokens, slept: list[float]
) -> None:
    base_url = "http://127.0.0.1:1/api/v1"
    http = Http(base_url, tokens, sleep=slept.append)
    with pytest.raises(UnreachableError) as caught:
        http.request("GET", ("orders",), params={"cursor": "abc"}, what="listing orders")
    text = str(caught.value)
    assert "listing orders (NewConnectionError)" in text
    assert "abc" not in text
    assert "first-token" not in text
    assert caught.value.status is None


def test_a_tls_failure_names_the_certificate_and_a_dead_proxy_the_proxy(
    edge: Edge, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    base_url = edge.base_url.replace("http:", "https:")
    with pytest.raises(UnreachableError, match=r"TLS failed.*certificate.*REQUESTS_CA_BUNDLE"):
        Http(base_url, tokens, retries=0).request("GET", ("orders",), what="x")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("http_proxy", raising=False)
    base_url = "http://feedamp.invalid/api/v1"
    with pytest.raises(UnreachableError, match="The proxy failed: check HTTPS_PROXY"):
        Http(base_url, tokens, retries=0).request("GET", ("orders",), what="x")


def test_a_second_401_is_an_authentication_error(http: Http, edge: Edge, tokens: Tokens) -> None:
    edge.otherwise = Reply(401, {"message": "no"})
    with pytest.raises(AuthenticationError, match="fresh access token was refused") as caught:
        http.request("GET", ("orders", "600A"), what="reading order '600A'")
    assert "reading order '600A'" in str(caught.value)
    assert caught.value.retryable is False
    assert len(tokens.refused) == 1


def test_every_call_keeps_to_the_pace(new_http: Callable[..., Http]) -> None:
    slept: list[float] = []
    http = new_http(pacer=Pacer(2, clock=lambda: 0.0, sleep=slept.append))
    for _ in range(3):
        http.request("GET", ("orders",), what="x")
    assert slept == [0.5, 1.0]


def test_no_log_line_holds_a_token_or_a_body(
    http: Http, edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    edge.will_reply(Reply(401), Reply(503), Reply(200, {"customer": {"full_name": "Jane Smith"}}), Reply(400))
    http.request("GET", ("orders", "A"), what="reading order 'A'")
    with pytest.raises(ApiError):
        http.request("PUT", ("orders", "A"), body=b'{"full_name": "Jane Smith"}', what="x")
    assert len(caplog.records) > 2
    for secret in ("first-token", "second-token", "Jane"):
        assert secret not in caplog.text
