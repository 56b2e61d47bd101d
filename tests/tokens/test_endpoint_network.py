"""No answer, half of one, or one without end: was the refresh token spent? And proxies, TLS, netrc."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.exceptions import (
    AnswerLostError,
    NotProcessedError,
    TokenNotRenewedError,
)
from airflow_provider_feedamp.tokens.endpoint import LONGEST_BODY, Watch, post_once
from tests.tokens.conftest import Certificate, endpoint_at, failure
from tests.tokens.edge import (
    Act,
    TokenServer,
    answers,
    hangs_up,
    plain,
    pours,
    relays_to,
    resets,
    sends,
    stays_silent,
    trickles,
)
from tests.tokens.secrets import NEW_ACCESS_TOKEN, NEW_REFRESH_TOKEN, PAIR, REFRESH_TOKEN, secrets_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_feedamp.tokens.endpoint import TokenEndpoint


FEEDAMP = "feedamp.test/api/v1/access_token"


# Surely not sent


def test_a_refused_connection_leaves_the_token_unspent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    error = failure(endpoint_at(f"http://127.0.0.1:{port}/access_token"))

    assert type(error) is NotProcessedError
    assert error.retryable


def test_a_name_that_is_not_found_leaves_the_token_unspent(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    assert type(failure(endpoint_at(f"https://{FEEDAMP}"))) is NotProcessedError


@pytest.fixture
def secure(certificate: Certificate) -> Iterator[TokenServer]:
    running = TokenServer(certificate.context)
    running.otherwise = answers(200, PAIR)
    yield running
    running.close()


def test_a_certificate_that_is_not_trusted_leaves_the_token_unspent(secure: TokenServer) -> None:
    assert type(failure(endpoint_at(secure.url))) is NotProcessedError
    assert secure.received == []


@pytest.mark.usefixtures("trusted")
def test_a_certificate_of_another_host_leaves_the_token_unspent(secure: TokenServer) -> None:
    assert type(failure(endpoint_at(secure.url.replace("127.0.0.1", "localhost")))) is NotProcessedError
    assert secure.received == []


def test_a_server_that_speaks_no_tls_gets_no_token(server: TokenServer) -> None:
    error = failure(endpoint_at(server.url.replace("http:", "https:")))

    assert type(error) is NotProcessedError


@pytest.mark.usefixtures("trusted")
def test_an_authority_from_the_environment_is_trusted(secure: TokenServer) -> None:
    secure.will(answers(200, PAIR), hangs_up)

    assert endpoint_at(secure.url).refresh(REFRESH_TOKEN).access_token == NEW_ACCESS_TOKEN
    assert type(failure(endpoint_at(secure.url))) is AnswerLostError


# Perhaps sent


@pytest.mark.parametrize(
    "act",
    [
        hangs_up,
        resets,
        sends(b"HTTP/1.1 "),
        sends(b"HTTP/1.1 2"),
        sends(b"HTTP/1.1 200 OK\r\nContent-Le"),
        sends(plain(200, PAIR)[:-1]),
        sends(plain(200, PAIR)[:-60]),
        sends(plain(401, {"error": "invalid_grant"})[:-5]),
        sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{"),
        sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"),
        sends(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello"),
        sends(b"220 smtp.test ESMTP\r\n"),
        sends(b"\x00\x01\x02\x03\r\n\r\n"),
        sends(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n"),
        sends(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"),
    ],
)
def test_without_a_whole_answer_nobody_knows_whether_the_token_was_spent(
    server: TokenServer, endpoint: TokenEndpoint, act: Act
) -> None:
    server.will(act)

    error = failure(endpoint)

    assert type(error) is AnswerLostError
    assert error.retryable
    assert len(server.received) == 1  # and it was not sent again


# Proxies and stored credentials


def test_a_proxy_of_the_environment_is_used_and_an_answer_lost_behind_it_is_a_lost_answer(
    server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.port}")
    server.will(answers(200, PAIR), hangs_up)
    endpoint = endpoint_at(f"http://{FEEDAMP}")

    assert endpoint.refresh(REFRESH_TOKEN).access_token == NEW_ACCESS_TOKEN
    assert type(failure(endpoint)) is AnswerLostError
    assert [request.target for request in server.received] == [f"http://{FEEDAMP}"] * 2


def test_a_host_that_needs_no_proxy_is_reached_directly(
    server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server.will(answers(200, PAIR))

    endpoint_at(server.url).refresh(REFRESH_TOKEN)

    assert [request.target for request in server.received] == ["/api/v1/access_token"]


@pytest.fixture(params=["http", "https"])
def proxy(
    request: pytest.FixtureRequest, secure: TokenServer, trusted: Certificate, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TokenServer]:
    """A proxy, reached with and without TLS, that tunnels to the https server."""
    running = TokenServer(trusted.context if request.param == "https" else None)
    running.otherwise = relays_to(secure.port)
    monkeypatch.setenv("https_proxy", f"{request.param}://127.0.0.1:{running.port}")
    yield running
    running.close()


def test_https_goes_through_the_proxy_s_tunnel_and_the_proxy_sees_no_secret(
    proxy: TokenServer, secure: TokenServer
) -> None:
    secure.will(answers(200, PAIR), hangs_up)
    endpoint = endpoint_at(f"https://{FEEDAMP}")

    assert endpoint.refresh(REFRESH_TOKEN).access_token == NEW_ACCESS_TOKEN
    assert type(failure(endpoint)) is AnswerLostError  # lost inside the tunnel
    assert [(each.method, each.target) for each in proxy.received] == [("CONNECT", "feedamp.test:443")] * 2
    assert secrets_in(repr(proxy.received)) == []
    assert [request.json["refresh_token"] for request in secure.received] == [REFRESH_TOKEN] * 2


def test_a_deadline_holds_inside_a_tunnel(proxy: TokenServer, secure: TokenServer) -> None:
    assert_cut(secure, trickles(plain(200, PAIR)), f"https://{FEEDAMP}")


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("act", [answers(407), answers(502), hangs_up])
def test_a_proxy_that_opens_no_tunnel_leaves_the_token_unspent(
    server: TokenServer, monkeypatch: pytest.MonkeyPatch, act: Act
) -> None:
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.port}")
    server.will(act)

    assert type(failure(endpoint_at(f"https://{FEEDAMP}"))) is NotProcessedError


def test_a_password_in_a_netrc_file_is_not_sent(
    server: TokenServer, endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc-in-use"
    netrc.write_text("machine 127.0.0.1 login someone password something\ndefault login a password b\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server.will(answers(200, PAIR))

    endpoint.refresh(REFRESH_TOKEN)

    (request,) = server.received
    assert "authorization" not in request.headers


# One request has one deadline in total, however the server spreads its bytes


#: A whole answer, a byte at a time, takes 25 seconds; what is above the deadline is a slow machine's.
SLACK = 12.0


def seconds_until_failure(url: str, kind: type[TokenNotRenewedError], deadline: float) -> float:
    began = time.monotonic()
    with pytest.raises(kind):
        endpoint_at(url, deadline=deadline).refresh(REFRESH_TOKEN)
    return time.monotonic() - began


def assert_cut(server: TokenServer, act: Act, url: str | None = None) -> None:
    """Check that an answer without end is cut at the deadline, however late a busy machine sends the request.

    A request that was not sent within its deadline leaves the token unspent; the next one gets twice as long.
    """
    server.otherwise, deadline = act, 0.3
    while True:
        server.received.clear()
        began = time.monotonic()
        error = failure(endpoint_at(url or server.url, deadline=deadline))
        took = time.monotonic() - began
        if type(error) is not NotProcessedError or deadline > 5:
            break
        deadline *= 2

    assert type(error) is AnswerLostError
    assert len(server.received) <= 1  # and it is not sent again
    assert deadline * 0.9 < took < deadline + SLACK


@pytest.fixture(params=["http", "https"])
def either(request: pytest.FixtureRequest, trusted: Certificate) -> Iterator[TokenServer]:
    running = TokenServer(trusted.context if request.param == "https" else None)
    yield running
    running.close()


@pytest.mark.parametrize(
    "act",
    [
        stays_silent,
        trickles(plain(200, PAIR)),
        trickles(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + b" " * 500),
        trickles(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 100),
        trickles(b"HTTP/1.1 100 Continue\r\n\r\n" * 20),
    ],
    ids=["silence", "an answer", "a body without length", "chunks", "interim answers"],
)
def test_a_server_that_never_finishes_is_cut_at_the_deadline(either: TokenServer, act: Act) -> None:
    assert_cut(either, act)


def test_an_answer_that_trickles_in_before_the_deadline_is_read_whole(either: TokenServer) -> None:
    either.will(trickles(plain(200, PAIR), pause=0.0001))

    assert endpoint_at(either.url).refresh(REFRESH_TOKEN).refresh_token == NEW_REFRESH_TOKEN


def test_a_handshake_that_never_ends_is_cut_and_nothing_was_sent(trusted: Certificate) -> None:
    mute = TokenServer(trusted.context, handshake=False)

    try:
        assert seconds_until_failure(mute.url, NotProcessedError, 0.3) < 0.3 + SLACK
    finally:
        mute.close()


def test_a_connection_that_stands_too_late_is_not_used(server: TokenServer) -> None:
    server.otherwise = answers(200, PAIR)

    with pytest.raises(NotProcessedError):
        endpoint_at(server.url, deadline=0.0).refresh(REFRESH_TOKEN)

    assert server.received == []


def test_a_watch_says_that_a_request_may_have_been_sent_once_a_connection_is_open_in_time() -> None:
    near, far = socket.socketpair()
    with near, far, Watch(10) as watch, Watch(0) as late:
        assert watch.sent is False
        watch.connected(near)
        assert watch.sent is True
        with pytest.raises(TimeoutError):
            late.connected(near)
        assert late.sent is False


def test_the_end_that_comes_while_a_connection_is_taken_note_of_still_cuts_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    near, far = socket.socketpair()
    near.settimeout(60)
    watch = Watch(0.0)

    def just_before_the_end() -> float:
        watch._cut()  # the timer runs while the time is being read
        return -1.0

    with near, far:
        monkeypatch.setattr(time, "monotonic", just_before_the_end)
        watch.connected(near)
        monkeypatch.undo()

        assert near.recv(1) == b""  # shut down, where an uncut one would wait


def test_a_finished_request_leaves_no_timer_behind(server: TokenServer) -> None:
    server.will(answers(200, PAIR))
    before = threading.active_count()

    endpoint_at(server.url, deadline=200).refresh(REFRESH_TOKEN)

    timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    for timer in timers:
        timer.join(60)  # a cancelled one is just about to end, one that runs on takes longer
    assert [timer for timer in timers if timer.is_alive()] == []
    assert threading.active_count() <= before + 1  # the server's own thread may still be closing


def test_requests_of_several_threads_each_keep_their_own_deadline(server: TokenServer) -> None:
    server.otherwise = answers(200, PAIR)
    slow = TokenServer()
    slow.otherwise = trickles(plain(200, PAIR))

    def refresh(number: int) -> object:
        url, deadline = (server.url, 60.0) if number % 2 else (slow.url, 3.0)
        try:
            return endpoint_at(url, deadline=deadline).refresh(REFRESH_TOKEN).refresh_token
        except TokenNotRenewedError as error:
            return type(error)

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(refresh, range(8)))
    slow.close()

    assert outcomes == [AnswerLostError, NEW_REFRESH_TOKEN] * 4


WHOLE = json.dumps(PAIR).encode()
HEAD = "HTTP/1.1 {} Said\r\nContent-Type: application/json\r\n{}\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (HEAD.format(200, "X: y"), b" " * 65536),
        (HEAD.format(200, "Content-Length: 99999999999"), b" " * 65536),
        (HEAD.format(200, "Transfer-Encoding: chunked"), b"10000\r\n" + b" " * 65536 + b"\r\n"),
        (HEAD.format(200, "Content-Encoding: br"), b" " * 65536),
        (HEAD.format(302, "Location: /elsewhere"), b" " * 65536),
        (HEAD.format(401, "X: y"), b" " * 65536),
    ],
    ids=["no length", "a great length", "chunks", "an unknown coding", "a redirect", "a refusal"],
)
def test_an_answer_without_end_is_cut_off_and_counts_as_lost(
    server: TokenServer, head: str, part: bytes
) -> None:
    cut = threading.Event()
    server.will(pours(head.encode(), part, cut))

    with pytest.raises(AnswerLostError, match="more than 1 MiB"):
        endpoint_at(server.url).refresh(REFRESH_TOKEN)

    assert cut.wait(30)  # the deadline of a minute would come later


@pytest.mark.parametrize(
    ("coding", "compress"), [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_a_bomb_takes_no_memory(server: TokenServer, coding: str, compress: Callable[[bytes], bytes]) -> None:
    bomb = compress(b" " * (32 << 20))
    server.will(answers(200, bomb, {"Content-Encoding": coding}))
    tracemalloc.start()

    try:
        with pytest.raises(AnswerLostError, match="more than 1 MiB"):
            endpoint_at(server.url).refresh(REFRESH_TOKEN)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert len(bomb) < LONGEST_BODY
    assert peak < 16 << 20


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(WHOLE)),
        (" GZIP", gzip.compress(WHOLE)),
        ("deflate", zlib.compress(WHOLE)),
        ("identity", WHOLE.rjust(LONGEST_BODY)),
    ],
    ids=["gzip", "GZIP", "deflate", "the longest body that is allowed"],
)
def test_an_answer_that_is_compressed_unasked_or_long_is_read_whole(
    server: TokenServer, coding: str, body: bytes
) -> None:
    server.will(answers(200, body, {"Content-Encoding": coding}))

    assert endpoint_at(server.url).refresh(REFRESH_TOKEN).refresh_token == NEW_REFRESH_TOKEN
    assert server.received[0].headers["accept-encoding"] == "identity"


def test_each_request_has_a_connection_of_its_own(server: TokenServer) -> None:
    server.otherwise = answers(200, PAIR, {"Connection": "keep-alive"})
    first, second = Watch(10), Watch(10)

    for watch in (first, second):
        post_once(server.url, watch, headers={}, data=b"{}")

    assert (first.sent, second.sent) == (True, True)
    assert len(server.received) == 2
