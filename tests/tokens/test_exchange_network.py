"""No answer, or half of one: was the refresh token spent? And the ways there: proxies, TLS, netrc."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.exceptions import AnswerLostError, FeedAmpError, NotProcessedError
from tests.tokens.conftest import Certificate, endpoint_at
from tests.tokens.edge import (
    Act,
    TokenServer,
    answers,
    hangs_up,
    plain,
    relays_to,
    resets,
    sends,
    trickles,
)
from tests.tokens.secrets import NEW_ACCESS_TOKEN, NEW_REFRESH_TOKEN, REFRESH_TOKEN, secrets_in, told

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_feedamp.tokens.endpoint import TokenEndpoint

PAIR = {"access_token": NEW_ACCESS_TOKEN, "refresh_token": NEW_REFRESH_TOKEN, "expires_in": 3600}
FEEDAMP = "feedamp.test/api/v1/access_token"


def failure(endpoint: TokenEndpoint) -> FeedAmpError:
    """Return the error that a refresh ends with, after a look at all that it tells."""
    with pytest.raises(FeedAmpError) as caught:
        endpoint.refresh(REFRESH_TOKEN)
    assert secrets_in(told(caught.value)) == []
    assert endpoint.url in str(caught.value)
    return caught.value


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
    assert endpoint_at(secure.url).refresh(REFRESH_TOKEN).access_token == NEW_ACCESS_TOKEN


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


@pytest.mark.usefixtures("trusted")
def test_an_answer_lost_over_tls_is_a_lost_answer(secure: TokenServer) -> None:
    secure.will(hangs_up)

    assert type(failure(endpoint_at(secure.url))) is AnswerLostError


# Proxies and stored credentials


def test_a_proxy_of_the_environment_is_used(server: TokenServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.port}")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.port}")
    server.will(answers(200, PAIR))

    grant = endpoint_at(f"http://{FEEDAMP}").refresh(REFRESH_TOKEN)

    assert grant.access_token == NEW_ACCESS_TOKEN
    assert [request.target for request in server.received] == [f"http://{FEEDAMP}"]


def test_an_answer_lost_behind_a_proxy_is_a_lost_answer(
    server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.port}")
    server.will(hangs_up)

    assert type(failure(endpoint_at(f"http://{FEEDAMP}"))) is AnswerLostError


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
    grant = endpoint_at(f"https://{FEEDAMP}").refresh(REFRESH_TOKEN)

    (outside,) = proxy.received
    assert grant.access_token == NEW_ACCESS_TOKEN
    assert (outside.method, outside.target) == ("CONNECT", "feedamp.test:443")
    assert secrets_in(repr(outside)) == []
    assert [request.json["refresh_token"] for request in secure.received] == [REFRESH_TOKEN]


def test_a_deadline_holds_inside_a_tunnel(proxy: TokenServer, secure: TokenServer) -> None:
    secure.will(trickles(plain(200, PAIR)))
    began = time.monotonic()

    assert type(failure(endpoint_at(f"https://{FEEDAMP}", deadline=0.3))) is AnswerLostError
    assert time.monotonic() - began < 1.5


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("act", [answers(407), answers(502), hangs_up])
def test_a_proxy_that_opens_no_tunnel_leaves_the_token_unspent(
    server: TokenServer, monkeypatch: pytest.MonkeyPatch, act: Act
) -> None:
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.port}")
    server.will(act)

    assert type(failure(endpoint_at(f"https://{FEEDAMP}"))) is NotProcessedError


def test_an_answer_lost_inside_the_tunnel_is_a_lost_answer(proxy: TokenServer, secure: TokenServer) -> None:
    secure.will(hangs_up)

    assert type(failure(endpoint_at(f"https://{FEEDAMP}"))) is AnswerLostError
    assert len(secure.received) == len(proxy.received) == 1


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
