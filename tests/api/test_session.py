"""A user's own requests: where they go, with whose token, and how often they are sent."""

from __future__ import annotations

import io
import socket
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from airflow_provider_feedamp import __version__
from airflow_provider_feedamp.api.http import DEFAULT_TIMEOUT, LONGEST_WAIT
from airflow_provider_feedamp.api.session import BearerAuth, FeedAmpSession, origin_of
from airflow_provider_feedamp.exceptions import InputError, ReauthorizationRequiredError, TokenError
from tests.api.edge import Edge, Reply, Tokens, in_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FIRST, SECOND = "Bearer first-token", "Bearer second-token"


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("orders", "/api/v1/orders"),
        ("/orders", "/api/v1/orders"),
        ("orders?x=1", "/api/v1/orders?x=1"),
        ("orders?next=http://other/", "/api/v1/orders?next=http://other/"),
        ("orders/A%2F1%20%C3%BC%25", "/api/v1/orders/A%2F1%20%C3%BC%25"),
        ("", "/api/v1/"),
    ],
)
def test_a_relative_url_starts_at_the_base_url(
    edge: Edge, session: FeedAmpSession, tokens: Tokens, url: str, target: str
) -> None:
    session.get(url)
    with FeedAmpSession(f"{edge.base_url}/", BearerAuth(tokens, edge.base_url)) as with_a_slash:
        with_a_slash.get(url)
    assert [request.target for request in edge.received] == [target] * 2


def test_a_request_says_who_sends_it_and_what_it_wants_and_keeps_no_cookie(
    edge: Edge, session: FeedAmpSession
) -> None:
    edge.will_reply(Reply(200, headers={"Set-Cookie": "seller=other; Path=/"}))
    for _ in range(2):
        session.get("orders")
        headers = edge.received[-1].headers
        assert headers["User-Agent"].startswith(f"airflow-provider-feedamp/{__version__} ")
        assert (headers["Accept"], headers.get("Cookie")) == ("application/json", None)


@pytest.mark.parametrize(
    ("of_session", "of_request", "expected"),
    [(DEFAULT_TIMEOUT, None, DEFAULT_TIMEOUT), (7.5, None, 7.5), (7.5, 1.5, 1.5), (7.5, (1, 2), (1, 2))],
)
def test_every_request_has_a_timeout(
    edge: Edge, session: FeedAmpSession, of_session: Any, of_request: Any, expected: object
) -> None:
    given: list[object] = []

    class Listening(HTTPAdapter):
        def send(self, *args: Any, **options: Any) -> requests.Response:
            given.append(options["timeout"])
            return super().send(*args, **options)

    session.timeout = of_session
    session.mount("http://", Listening())
    session.get("orders", timeout=of_request)
    assert given == [expected]


def test_a_server_that_does_not_answer_in_time_ends_in_a_timeout(tokens: Tokens) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        base_url = f"http://127.0.0.1:{silent.getsockname()[1]}/api/v1"
        with FeedAmpSession(base_url, BearerAuth(tokens, base_url), timeout=0.05, retries=0) as session:
            with pytest.raises(requests.Timeout):
                session.get("orders")


def test_its_connections_are_kept_for_the_next_request(edge: Edge, session: FeedAmpSession) -> None:
    for _ in range(5):
        session.get("orders")
    assert len(set(edge.ports)) == 1


# The token


def test_it_authorises_plain_requests_code_too(edge: Edge, tokens: Tokens) -> None:
    edge.will_reply(Reply(401), Reply(200, {"ok": True}))
    answer = requests.get(f"{edge.base_url}/orders", auth=BearerAuth(tokens, edge.base_url), timeout=5)
    assert answer.json() == {"ok": True}
    assert edge.bearers == [FIRST, SECOND]


@pytest.mark.parametrize("method", ["PUT", "POST"])  # a POST that got a 401 was not taken
def test_a_refused_token_is_replaced_once_and_the_same_request_sent_again(
    edge: Edge, session: FeedAmpSession, tokens: Tokens, method: str
) -> None:
    edge.will_reply(Reply(401, {"message": "expired"}), Reply(200, {"ok": True}))
    assert session.request(method, "orders/A1?x=1", data=b'{"price": 1.10}').status_code == 200
    assert (tokens.refused, edge.bearers) == (["first-token"], [FIRST, SECOND])
    first, second = edge.received
    assert (first.method, first.target, first.body) == (second.method, second.target, second.body)


def test_a_second_401_is_handed_back(edge: Edge, session: FeedAmpSession, tokens: Tokens) -> None:
    edge.otherwise = Reply(401)
    answer = session.get("orders")
    assert answer.status_code == 401
    assert [earlier.status_code for earlier in answer.history] == [401]
    assert (tokens.refused, tokens.noted, len(edge.received)) == (["first-token"], [], 2)


def test_each_request_may_replace_the_token_that_it_carried(
    edge: Edge, session: FeedAmpSession, tokens: Tokens
) -> None:
    tokens.tokens = ["one", "two", "three", "four", "five"]
    edge.will_reply(*[Reply(401), Reply(200)] * 4)
    assert [session.get("orders").status_code for _ in range(2)] == [200, 200]
    prepared = session.prepare_request(requests.Request("GET", "orders"))
    assert [session.send(prepared).status_code for _ in range(2)] == [200, 200]
    assert tokens.refused == ["one", "two", "three", "four"]


def test_the_source_hears_once_of_each_token_that_works(
    edge: Edge, session: FeedAmpSession, tokens: Tokens
) -> None:
    edge.will_reply(Reply(), Reply(404), Reply(401), Reply())
    for _ in range(3):
        session.get("orders")
    assert tokens.noted == ["first-token", "second-token"]


def test_what_the_source_raises_comes_through(edge: Edge) -> None:
    class Ended(Tokens):
        def replace(self, refused: str) -> str:
            raise ReauthorizationRequiredError("the seller must authorise again")

    edge.otherwise = Reply(401)
    with FeedAmpSession(edge.base_url, BearerAuth(Ended("old"), edge.base_url)) as session:
        with pytest.raises(ReauthorizationRequiredError):
            session.get("orders")
    assert len(edge.received) == 1


@pytest.mark.parametrize("token", ["", "secret\nX-Other: 1", "secret token", "sécret", "secret\x00"])
def test_a_token_that_no_header_can_carry_is_refused_without_being_shown(edge: Edge, token: str) -> None:
    auth = BearerAuth(Tokens(token), edge.base_url)
    with FeedAmpSession(edge.base_url, auth) as session, pytest.raises(TokenError) as caught:
        session.get("orders")
    assert "cret" not in str(caught.value)
    assert edge.received == []


def test_threads_do_not_mix_up_their_renewals(edge: Edge, session: FeedAmpSession, tokens: Tokens) -> None:
    edge.will_reply(*[Reply(401) for _ in range(8)])
    statuses: list[int] = []
    in_threads(8, lambda: statuses.append(session.get("orders").status_code))
    assert len(edge.received) == 8 + len(tokens.refused)
    assert statuses.count(200) + statuses.count(401) == 8
    assert set(tokens.refused) <= {"first-token", "second-token"}


# The origin


@pytest.mark.parametrize(
    "same",
    ["https://host/api/v1", "https://host:443/other?x=1", "https://HOST", "HTTPS://user:word@host/"],
)
def test_urls_of_one_origin_are_the_same(same: str) -> None:
    assert origin_of(same) == ("https", "host", 443)


@pytest.mark.parametrize(
    "other",
    [
        "http://host/api/v1",
        "https://host:8443/api/v1",
        "https://host.evil.example/api/v1",
        "https://host@evil.example/api/v1",
        "https://host:443@evil.example/",
        "//host/api/v1",
        "host/api/v1",
        "",
        None,
    ],
)
def test_urls_of_another_origin_differ(other: str | None) -> None:
    assert origin_of(other) != ("https", "host", 443)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1.other.invalid/orders",
        "http://127.0.0.1:81/orders",
        "http://127.0.0.1@other.invalid/orders",
        "https://127.0.0.1/orders",
    ],
)
def test_an_origin_that_begins_like_ours_is_another_one(tokens: Tokens, url: str) -> None:
    request = requests.PreparedRequest()
    request.url, request.headers = url, requests.structures.CaseInsensitiveDict()
    with pytest.raises(InputError, match="goes elsewhere"):
        BearerAuth(tokens, "http://127.0.0.1/api/v1")(request)


def test_an_absolute_url_is_authorised_within_the_origin_and_else_refused_unsent(
    edge: Edge, elsewhere: Edge, session: FeedAmpSession
) -> None:
    session.get(f"{edge.origin}/elsewhere/on/the/host")
    with pytest.raises(InputError, match="goes elsewhere"):
        session.get(f"{elsewhere.base_url}/orders")
    assert (edge.bearers, elsewhere.received) == ([FIRST], [])


def test_a_redirect_within_the_origin_keeps_the_bearer(edge: Edge, session: FeedAmpSession) -> None:
    moved = Reply(307, headers={"Location": "/api/v1/moved"})
    edge.will_reply(moved, Reply(200), Reply(401), moved, Reply(200))
    assert [session.get("orders").status_code for _ in range(2)] == [200, 200]
    assert edge.bearers == [FIRST] * 3 + [SECOND] * 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_origin_loses_the_bearer_and_finds_no_netrc(
    edge: Edge,
    elsewhere: Edge,
    session: FeedAmpSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password something\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    edge.will_reply(Reply(status, headers={"Location": f"{elsewhere.base_url}/orders"}))
    session.get("orders")
    assert (edge.bearers, elsewhere.bearers) == ([FIRST], [None])


@pytest.mark.parametrize("plain", [False, True])
def test_a_401_of_another_origin_gets_no_token(
    edge: Edge, elsewhere: Edge, session: FeedAmpSession, tokens: Tokens, plain: bool
) -> None:
    edge.will_reply(Reply(307, headers={"Location": f"{elsewhere.base_url}/orders"}))
    elsewhere.otherwise = Reply(401)
    get: Any = requests.get if plain else session.get
    answer = get(f"{edge.base_url}/orders", auth=BearerAuth(tokens, edge.base_url), timeout=5)
    assert (answer.status_code, tokens.refused) == (401, [])


# The body, and how often it is sent


def half_read() -> io.BytesIO:
    body = io.BytesIO(b"skipped-and-sent")
    body.seek(len(b"skipped-"))
    return body


@pytest.mark.parametrize("first", [401, 503])
@pytest.mark.parametrize(
    ("body", "sent"), [(half_read, b"and-sent"), (lambda: io.BytesIO(b"whole"), b"whole")]
)
def test_a_file_is_sent_again_from_where_it_began(
    edge: Edge, session: FeedAmpSession, first: int, body: Callable[[], Any], sent: bytes
) -> None:
    edge.will_reply(Reply(first), Reply(200))
    session.put("orders/A1", data=body())
    assert [request.body for request in edge.received] == [sent, sent]


@pytest.mark.parametrize("status", [401, 503])
def test_a_body_that_cannot_be_read_twice_is_sent_once(
    edge: Edge, session: FeedAmpSession, status: int
) -> None:
    edge.otherwise = Reply(status, headers={"Connection": "close"})
    assert session.put("orders/A1", data=iter([b"once"])).status_code == status
    assert len(edge.received) == 1


def test_a_streamed_answer_is_left_to_be_read(edge: Edge, session: FeedAmpSession) -> None:
    edge.will_reply(Reply(200, b"x" * 100))
    with session.get("orders", stream=True) as answer:
        assert answer.raw.read(10) == b"x" * 10


@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520, 524])
def test_a_request_is_repeated_by_the_rules_of_the_clients_calls(
    edge: Edge, session: FeedAmpSession, slept: list[float], method: str, status: int
) -> None:
    edge.will_reply(Reply(status), Reply(status, headers={"Retry-After": "17"}), Reply(200, {"ok": True}))
    assert session.request(method, "orders/A1", data=b"{}").json() == {"ok": True}
    assert [request.body for request in edge.received] == [b"{}"] * 3
    assert slept == [1.0, 17.0]


@pytest.mark.parametrize(("status", "sent"), [(503, 1), (429, 2), (408, 2)])
def test_a_post_is_repeated_only_where_it_was_not_processed(
    edge: Edge, session: FeedAmpSession, status: int, sent: int
) -> None:
    edge.will_reply(Reply(status, headers={"Retry-After": "1"}), Reply(201))
    assert session.post("orders/A1/errors", json=[]).status_code == (201 if sent == 2 else status)
    assert len(edge.received) == sent


def test_a_request_whose_connection_is_cut_is_repeated_unless_it_is_a_post(
    edge: Edge, session: FeedAmpSession
) -> None:
    cut = Reply(cut="before the answer")
    edge.will_reply(cut, Reply(200), cut)
    assert session.get("orders").status_code == 200
    with pytest.raises(requests.ConnectionError):
        session.post("orders")
    assert len(edge.received) == 3


def test_the_last_answer_comes_back_when_the_retries_are_used_up(
    edge: Edge, session: FeedAmpSession, slept: list[float]
) -> None:
    edge.otherwise = Reply(503, {"message": "down"})
    answer = session.get("orders")
    assert (answer.status_code, answer.json()) == (503, {"message": "down"})
    assert slept == [1, 2, 4]


@pytest.mark.parametrize(
    "asked",
    [str(LONGEST_WAIT + 1), formatdate(time.time() + 3600, usegmt=True)],
    ids=["seconds", "a date"],  # a name with the time in it would differ between two workers
)
def test_a_request_does_not_wait_for_longer_than_two_minutes(
    edge: Edge, session: FeedAmpSession, slept: list[float], asked: str
) -> None:
    edge.will_reply(Reply(429, headers={"Retry-After": asked}))
    assert session.get("orders").status_code == 429
    assert (len(edge.received), slept) == (1, [])


def test_a_request_is_not_repeated_after_a_tls_fault(
    edge: Edge, session: FeedAmpSession, slept: list[float]
) -> None:
    with pytest.raises(requests.exceptions.SSLError):
        session.get(edge.base_url.replace("http:", "https:"), auth=lambda request: request)
    assert slept == []


def test_an_answer_that_is_repeated_anyway_is_not_read_to_its_end(
    edge: Edge, session: FeedAmpSession
) -> None:
    read: list[int] = []

    def endless() -> Iterator[bytes]:
        yield b"HTTP/1.1 503 Away\r\n\r\n"
        for _ in range(2000):
            read.append(1)
            yield bytes(100_000)

    edge.will_reply(Reply(wire=endless()), Reply(200))
    assert session.get("orders").status_code == 200
    assert len(read) < 1000
