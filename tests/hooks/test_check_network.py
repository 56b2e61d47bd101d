"""The Test button against servers that answer badly, slowly or not at all, over real sockets."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
from tests.tokens.conftest import _plain_environment, certificate, server, trusted
from tests.tokens.edge import TokenServer, answers, hangs_up, sends, stays_silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from tests.hooks.conftest import SetConnection
    from tests.tokens.conftest import Certificate
    from tests.tokens.edge import Act

__all__ = ["_plain_environment", "certificate", "server", "trusted"]

PATIENCE = 10.0


@pytest.fixture
def check(set_connection: SetConnection) -> Callable[[str], tuple[bool, str]]:
    """Test a connection with this host."""

    def check_it(host: str) -> tuple[bool, str]:
        extra = {"refresh_token": "first-token"}
        client = {"conn_type": "feedamp", "login": "client", "password": "client-secret"}
        set_connection({**client, "host": host, "extra": extra})
        return FeedAmpHook().test_connection()

    return check_it


@pytest.fixture
def secure(certificate: Certificate) -> Iterator[TokenServer]:
    running = TokenServer(certificate.context)
    yield running
    running.close()


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_port_where_nobody_listens_is_told(
    check: Callable[[str], tuple[bool, str]], closed_port: int
) -> None:
    assert_failed(
        check(f"http://127.0.0.1:{closed_port}"), "127.0.0.1 refuses the connection. Check the port"
    )


def test_a_name_that_does_not_resolve_is_told(check: Callable[[str], tuple[bool, str]]) -> None:
    assert_failed(check("https://feedamp.invalid"), "the name feedamp.invalid is unknown. Check the base URL")


def test_a_certificate_that_nobody_knows_is_told(
    check: Callable[[str], tuple[bool, str]], secure: TokenServer
) -> None:
    text = assert_failed(
        check(f"https://127.0.0.1:{secure.port}"), "the certificate of 127.0.0.1 is not trus"
    )

    assert "self-signed certificate" in text
    assert "REQUESTS_CA_BUNDLE" in text
    assert secure.received == []


def test_a_certificate_for_another_name_is_told(
    check: Callable[[str], tuple[bool, str]], secure: TokenServer, trusted: Certificate
) -> None:
    assert_failed(check(f"https://localhost:{secure.port}"), "the certificate of localhost is not trusted")


def test_a_certificate_that_the_deployment_trusts_is_taken(
    check: Callable[[str], tuple[bool, str]], secure: TokenServer, trusted: Certificate
) -> None:
    secure.will(answers(401))

    assert check(f"https://127.0.0.1:{secure.port}")[0]


def test_a_server_without_tls_is_told(check: Callable[[str], tuple[bool, str]], server: TokenServer) -> None:
    server.otherwise = answers(400)

    assert_failed(check(f"https://127.0.0.1:{server.port}"), "127.0.0.1 does not speak TLS as it should")


def test_a_proxy_that_is_away_is_told(
    check: Callable[[str], tuple[bool, str]], monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{closed_port}")

    assert_failed(check("https://feedamp.invalid"), "the proxy that HTTPS_PROXY names")


def test_a_connection_that_is_cut_off_is_told(
    check: Callable[[str], tuple[bool, str]], server: TokenServer
) -> None:
    server.will(hangs_up)

    assert_failed(check(server.url), "no answer came from 127.0.0.1")


class Dripping:
    """Sends something every now and then, for as long as the other side listens."""

    def __init__(self, head: bytes, piece: bytes) -> None:
        self.head, self.piece = head, piece
        self.hung_up = threading.Event()

    def __call__(self, peer: socket.socket, closing: threading.Event) -> None:
        try:
            peer.sendall(self.head)
            while not closing.wait(0.02):
                peer.sendall(self.piece)
        except OSError:
            self.hung_up.set()


@pytest.mark.parametrize(
    "head", [b"", b"HTTP/1.1 200 OK\r\nX-Long: "], ids=["in the status line", "in a header"]
)
def test_an_answer_that_never_ends_is_given_up_and_its_connection_cut(
    check: Callable[[str], tuple[bool, str]],
    server: TokenServer,
    monkeypatch: pytest.MonkeyPatch,
    head: bytes,
) -> None:
    monkeypatch.setattr("airflow_provider_feedamp.hooks.check._DEADLINE", 1.0)
    dripping = Dripping(head, b"H")
    server.will(dripping)
    begun = time.monotonic()

    assert_failed(check(server.url), "no answer from 127.0.0.1 within 1 s. Does a firewall")

    assert time.monotonic() - begun < PATIENCE
    assert dripping.hung_up.wait(PATIENCE)


def test_a_server_that_says_nothing_is_given_up(
    check: Callable[[str], tuple[bool, str]], server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_feedamp.hooks.check._DEADLINE", 1.0)
    server.will(stays_silent)

    assert_failed(check(server.url), "no answer from 127.0.0.1 within 1 s")


def test_a_name_that_is_looked_up_for_too_long_is_given_up(
    check: Callable[[str], tuple[bool, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A name server that is silent holds the system's look-up for as long as resolv.conf says.
    looked_up = threading.Event()
    monkeypatch.setattr("airflow_provider_feedamp.hooks.check._DEADLINE", 1.0)
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: looked_up.wait(PATIENCE * 2) or [])
    begun = time.monotonic()

    assert_failed(check("https://feedamp.invalid"), "no answer from feedamp.invalid within 1 s")

    assert time.monotonic() - begun < PATIENCE
    looked_up.set()


def test_the_body_of_an_answer_is_not_read(
    check: Callable[[str], tuple[bool, str]], server: TokenServer
) -> None:
    endless = Dripping(b"HTTP/1.1 401 No\r\nContent-Type: application/json\r\n\r\n", b"x" * 65536)
    server.will(endless)

    ok, text = check(server.url)

    assert (ok, "FeedAMP answers; " in text) == (True, True)
    assert endless.hung_up.wait(PATIENCE)


@pytest.mark.parametrize("act", [answers(200, {"orders": []}), sends(b"HTTP/1.1 204 Fine\r\n\r\n")])
def test_an_api_that_lets_everybody_in_is_not_feedamp(
    check: Callable[[str], tuple[bool, str]], server: TokenServer, act: Act
) -> None:
    server.will(act)

    ok, text = check(server.url)

    assert not ok
    assert "is the base URL right?" in text


@pytest.fixture
def stored_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "somebodys.netrc"
    netrc.write_text("machine 127.0.0.1 login ann password hush-netrc\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))


@pytest.mark.usefixtures("stored_credentials")
def test_no_credentials_but_ours_are_sent(
    check: Callable[[str], tuple[bool, str]], server: TokenServer
) -> None:
    server.otherwise = answers(401)

    assert check(server.url)[0]

    assert "authorization" not in server.received[0].headers


@pytest.mark.usefixtures("stored_credentials")
def test_the_bearer_is_not_replaced_by_stored_credentials(feedamp: RunningSandbox) -> None:
    FeedAmpHook().get_access_token()

    assert "FeedAMP accepts the present access token" in FeedAmpHook().test_connection()[1]


def test_a_redirect_is_not_followed(check: Callable[[str], tuple[bool, str]], server: TokenServer) -> None:
    server.will(answers(302, headers={"Location": f"http://127.0.0.1:{server.port}/login"}))

    ok, text = check(server.url)

    assert not ok
    assert "FeedAMP answers 302" in text
    assert len(server.received) == 1


def assert_failed(outcome: tuple[bool, str], reason: str) -> str:
    ok, text = outcome
    assert not ok
    assert text.startswith(f"FeedAMP could not be reached: {reason}"), text
    return text
