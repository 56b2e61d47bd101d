"""The Test button: says what it checked, raises nothing, spends nothing."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from airflow_provider_feedamp.exceptions import ReauthorizationRequiredError, TokenStoreError
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
from airflow_provider_feedamp.tokens.crypto import Sealer
from airflow_provider_feedamp.tokens.records import TokenRecord
from airflow_provider_feedamp.tokens.store import MemoryStore
from tests.hooks.conftest import run_python
from tests.operators.support import token_posts
from tests.tokens.conftest import _plain_environment, certificate, server, trusted
from tests.tokens.edge import TokenServer, answers, hangs_up, sends, stays_silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from airflow_provider_feedamp.tokens.records import TokenKey
    from tests.hooks.conftest import SetConnection
    from tests.tokens.conftest import Certificate
    from tests.tokens.edge import Act

    #: Tests a connection with this host.
    Check = Callable[[str], tuple[bool, str]]

__all__ = ["_plain_environment", "certificate", "server", "trusted"]


def check_without_a_post(sandbox: RunningSandbox, seller: str | None = None) -> tuple[bool, str]:
    before = token_posts(sandbox)
    answers = [FeedAmpHook(seller=seller).test_connection() for _ in range(3)]
    assert token_posts(sandbox) == before
    assert len(set(answers)) == 1
    return answers[0]


def test_a_connection_before_its_first_use_is_well(feedamp: RunningSandbox) -> None:
    ok, message = check_without_a_post(feedamp)

    assert ok
    assert feedamp.base_url in message
    assert "'hooli' has a refresh token here that was not used yet" in message
    assert "FeedAMP answers" in message
    assert feedamp.control.counters()["calls"] == {"list_orders": 3}


def test_a_connection_in_use_is_checked_with_its_access_token(feedamp: RunningSandbox) -> None:
    FeedAmpHook().get_access_token()

    ok, message = check_without_a_post(feedamp)

    assert ok
    assert "state active, generation 1" in message
    assert "FeedAMP accepts the present access token" in message


def test_a_refused_access_token_is_left_for_the_next_task(feedamp: RunningSandbox) -> None:
    FeedAmpHook().get_access_token()
    feedamp.control.expire("hooli")

    ok, message = check_without_a_post(feedamp)

    assert ok
    assert "(401); the next task renews it" in message


def test_an_access_token_that_has_ended_is_not_sent(feedamp: RunningSandbox) -> None:
    hook = FeedAmpHook()
    hook.get_access_token()
    record = hook._custodian.record()
    assert record is not None
    hook._custodian.store.write(record.changed(expires_at=time.time() - 1), expected=record.revision)

    ok, message = check_without_a_post(feedamp)

    assert ok
    assert "FeedAMP answers; " in message


def test_a_seller_who_has_to_authorise_again_is_not_well(feedamp: RunningSandbox) -> None:
    feedamp.control.revoke("hooli")
    with pytest.raises(ReauthorizationRequiredError):
        FeedAmpHook().get_access_token()

    ok, message = check_without_a_post(feedamp)

    assert not ok
    assert "has to authorise this seller again" in message


def test_a_seller_without_any_token_is_not_well_and_what_failed_comes_first(feedamp: RunningSandbox) -> None:
    ok, message = check_without_a_post(feedamp, seller="globex")

    assert not ok
    assert message.startswith("Seller 'globex' has no refresh token: neither here nor in the token store.")


def test_a_base_url_that_is_not_the_apis_is_not_well(
    feedamp: RunningSandbox, set_connection: SetConnection
) -> None:
    connection = feedamp.connection("hooli")
    set_connection(connection | {"host": feedamp.base_url.replace("/api/v1", "/elsewhere")})

    ok, message = check_without_a_post(feedamp)

    assert not ok
    assert "404" in message
    assert "is the base URL right?" in message


class AwayStore(MemoryStore):
    """A store that cannot be read, as all of this provider's own say it."""

    def read(self, key: TokenKey) -> TokenRecord | None:
        raise TokenStoreError("Airflow Variable 'feedamp_token_x' could not be read. Nothing was spent.")


class LockedStore(MemoryStore):
    """A store whose record was encrypted under a key that is not here."""

    def read(self, key: TokenKey) -> TokenRecord | None:
        return TokenRecord.from_json(Sealer().open("not-ours", key)[0], key)


@pytest.mark.parametrize(
    ("store", "reason"), [("AwayStore", "could not be read"), ("LockedStore", "cannot be decrypted")]
)
def test_a_store_that_cannot_be_read_is_no_store_without_a_record(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch, store: str, reason: str
) -> None:
    monkeypatch.setenv("AIRFLOW__FEEDAMP__TOKEN_STORE", f"{__name__}.{store}")

    ok, message = check_without_a_post(feedamp)

    assert not ok
    assert message.startswith("The token store cannot be read: ")
    assert reason in message
    assert "refresh token" not in message
    assert "FeedAMP answers; " in message


@pytest.mark.parametrize(
    ("connection", "problem"),
    [
        ({"conn_type": "http"}, "type 'http'"),
        ({"conn_type": "feedamp", "login": "client"}, "Client Secret"),
        (
            {"conn_type": "feedamp", "login": "a", "password": "b", "extra": {"timeout": "soon"}},
            "extra timeout",
        ),
    ],
)
def test_a_bad_connection_is_an_answer_and_not_an_exception(
    set_connection: SetConnection, connection: dict[str, object], problem: str
) -> None:
    set_connection(json.dumps(connection))

    ok, message = FeedAmpHook().test_connection()

    assert not ok
    assert problem in message


def test_an_empty_seller_is_an_answer_too(feedamp: RunningSandbox) -> None:
    assert FeedAmpHook(seller=" ").test_connection() == (
        False,
        "seller is empty (connection 'feedamp_default'). Name a seller, or leave it out.",
    )


def test_the_answer_holds_no_secret(feedamp: RunningSandbox) -> None:
    token = FeedAmpHook().get_access_token()

    _, message = FeedAmpHook().test_connection()

    assert token not in message
    assert not any(secret in message for secret in feedamp.control.refresh_tokens("hooli"))
    assert "demo-secret" not in message


#: As Airflow's API does it.
BESIDE_THE_DATABASE = """
import json, os, sys
from airflow.models import Connection
fields = json.loads(sys.argv[1])
conn = Connection(conn_id="qJ3xW9", **fields | {"extra": json.dumps(fields["extra"])})
os.environ["AIRFLOW_CONN_QJ3XW9"] = conn.get_uri()
print("\\n" + json.dumps(conn.test_connection()))
"""
ON_A_WORKER = """
import sys, uuid
from airflow.sdk.execution_time.connection_test_supervisor import supervise_connection_test
supervise_connection_test(
    connection_test_id=uuid.UUID(sys.argv[1]),
    connection_id="qJ3xW9",
    timeout=60,
    token="t",
    server=sys.argv[2],
)
"""


def client(host: str, **extra: Any) -> dict[str, Any]:
    return {
        "conn_type": "feedamp",
        "host": host,
        "login": "client",
        "password": "client-secret",
        "extra": extra,
    }


def pressed(home: Path, fields: dict[str, Any], **settings: str) -> tuple[bool, str]:
    """Press the button where the metadata database is at hand."""
    context = {"_AIRFLOW_PROCESS_CONTEXT": "server"}
    shown = run_python(home, BESIDE_THE_DATABASE, json.dumps(fields), **context | settings)
    ok, text = json.loads(shown.splitlines()[-1])
    return ok, text


def pressed_for_a_worker(home: Path, fields: dict[str, Any], api: TokenServer) -> tuple[bool, str]:
    """Press the button, with a worker that does the test and reports it to the API server."""
    pytest.importorskip("airflow.sdk.execution_time.connection_test_supervisor")
    fields = fields | {"conn_id": "qJ3xW9", "extra": json.dumps(fields["extra"])}
    api.will(answers(200, fields), answers(200, {}))
    run_python(home, ON_A_WORKER, str(uuid4()), f"http://127.0.0.1:{api.port}")
    report = api.received[-1].json
    return report["state"] == "success", report["result_message"]


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"token_store": "os.system", "token_store_conn_id": "touch ran"}, "token_store"),
        ({"token_store": "subprocess.Popen", "token_store_conn_id": "touch ran"}, "token_store"),
        ({"token_store_conn_id": "touch ran"}, "token_store_conn_id"),
    ],
)
def test_nothing_that_stands_in_a_connection_is_called(
    tmp_path: Path, server: TokenServer, extra: dict[str, str], named: str
) -> None:
    ok, text = pressed(tmp_path, client(server.url, **extra))

    assert not ok
    assert f"an extra {named}," in text
    assert not (tmp_path / "ran").exists()


def test_nothing_that_stands_in_a_connection_is_called_on_a_worker(
    tmp_path: Path, server: TokenServer
) -> None:
    fields = client("https://feedamp.invalid", token_store="os.system", token_store_conn_id="touch ran")

    ok, text = pressed_for_a_worker(tmp_path, fields, server)

    assert not ok
    assert "an extra token_store," in text
    assert not (tmp_path / "ran").exists()


def test_a_worker_says_that_the_token_store_was_not_checked_and_makes_no_database(
    tmp_path: Path, server: TokenServer
) -> None:
    feedamp = TokenServer()
    feedamp.otherwise = answers(401)
    fields = client(f"http://127.0.0.1:{feedamp.port}", refresh_token="first-token")

    ok, text = pressed_for_a_worker(tmp_path, fields, server)

    feedamp.close()
    assert ok
    assert "The token store was not checked from here" in text
    assert "not used yet" not in text
    assert "Fernet" not in text  # a worker of Airflow 3 needs none
    assert not list(tmp_path.rglob("*.db"))


@pytest.mark.parametrize("fields", [{"login": ""}, {"password": ""}, {"conn_type": "http"}, {"host": "x y"}])
def test_a_made_up_connection_id_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, str]
) -> None:
    connection = client("https://feedamp.invalid") | fields
    monkeypatch.setenv("AIRFLOW_CONN_QJ3XW9", json.dumps(connection))

    ok, text = FeedAmpHook("qJ3xW9").test_connection()

    assert not ok
    assert text.startswith("The connection has ")
    assert "qJ3xW9" not in text


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, True),
        ({"AIRFLOW__CORE__FERNET_KEY": "ZmVlZGFtcC10ZXN0cy1vbmx5LW5vdC1hLXNlY3JldCE="}, False),
        ({"AIRFLOW__FEEDAMP__ENCRYPTION_KEY": "ZmVlZGFtcC10ZXN0cy1vbmx5LW5vdC1hLXNlY3JldCE="}, False),
        ({"AIRFLOW__FEEDAMP__TOKEN_STORE": "memory"}, False),
    ],
    ids=["no key", "Airflow's key", "our key", "another store"],
)
def test_a_deployment_without_a_key_is_told_so(
    tmp_path: Path, server: TokenServer, settings: dict[str, str], told: bool
) -> None:
    server.otherwise = answers(401)
    database = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path / 'meta.db'}"}

    _, text = pressed(tmp_path, client(server.url, refresh_token="first-token"), **settings | database)

    assert ("No Fernet key is set" in text) == told, text


PATIENCE = 10.0


@pytest.fixture
def check(set_connection: SetConnection) -> Check:
    def check_it(host: str) -> tuple[bool, str]:
        set_connection(client(host, refresh_token="first-token"))
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


def test_a_port_where_nobody_listens_is_told(check: Check, closed_port: int) -> None:
    assert_failed(
        check(f"http://127.0.0.1:{closed_port}"), "127.0.0.1 refuses the connection. Check the port"
    )


def test_a_name_that_does_not_resolve_is_told(check: Check) -> None:
    assert_failed(check("https://feedamp.invalid"), "the name feedamp.invalid is unknown. Check the base URL")


def test_a_certificate_that_nobody_knows_is_told(check: Check, secure: TokenServer) -> None:
    text = assert_failed(
        check(f"https://127.0.0.1:{secure.port}"), "the certificate of 127.0.0.1 is not trus"
    )

    assert "self-signed certificate" in text
    assert "REQUESTS_CA_BUNDLE" in text
    assert secure.received == []


def test_a_certificate_for_another_name_is_told(
    check: Check, secure: TokenServer, trusted: Certificate
) -> None:
    assert_failed(check(f"https://localhost:{secure.port}"), "the certificate of localhost is not trusted")


def test_a_certificate_that_the_deployment_trusts_is_taken(
    check: Check, secure: TokenServer, trusted: Certificate
) -> None:
    secure.will(answers(401))

    assert check(f"https://127.0.0.1:{secure.port}")[0]


def test_a_server_without_tls_is_told(check: Check, server: TokenServer) -> None:
    server.otherwise = answers(400)

    assert_failed(check(f"https://127.0.0.1:{server.port}"), "127.0.0.1 does not speak TLS as it should")


def test_a_proxy_that_is_away_is_told(
    check: Check, monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{closed_port}")

    assert_failed(check("https://feedamp.invalid"), "the proxy that HTTPS_PROXY names")


def test_a_connection_that_is_cut_off_is_told(check: Check, server: TokenServer) -> None:
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
    check: Check,
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
    check: Check, server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_feedamp.hooks.check._DEADLINE", 1.0)
    server.will(stays_silent)

    assert_failed(check(server.url), "no answer from 127.0.0.1 within 1 s")


def test_a_name_that_is_looked_up_for_too_long_is_given_up(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A name server that is silent holds the system's look-up for as long as resolv.conf says.
    looked_up = threading.Event()
    monkeypatch.setattr("airflow_provider_feedamp.hooks.check._DEADLINE", 1.0)
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: looked_up.wait(PATIENCE * 2) or [])
    begun = time.monotonic()

    assert_failed(check("https://feedamp.invalid"), "no answer from feedamp.invalid within 1 s")

    assert time.monotonic() - begun < PATIENCE
    looked_up.set()


def test_the_body_of_an_answer_is_not_read(check: Check, server: TokenServer) -> None:
    endless = Dripping(b"HTTP/1.1 401 No\r\nContent-Type: application/json\r\n\r\n", b"x" * 65536)
    server.will(endless)

    ok, text = check(server.url)

    assert (ok, "FeedAMP answers; " in text) == (True, True)
    assert endless.hung_up.wait(PATIENCE)


@pytest.mark.parametrize(
    ("act", "status"),
    [
        (answers(200, {"orders": []}), 200),
        (sends(b"HTTP/1.1 204 Fine\r\n\r\n"), 204),
        (answers(302, headers={"Location": "/login"}), 302),
    ],
)
def test_an_api_that_lets_everybody_in_or_sends_them_elsewhere_is_not_feedamp_and_is_asked_once(
    check: Check, server: TokenServer, act: Act, status: int
) -> None:
    server.will(act)

    ok, text = check(server.url)

    assert not ok
    assert f"FeedAMP answers {status}, which is not what its API does: is the base URL right?" in text
    assert len(server.received) == 1


@pytest.fixture
def stored_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "somebodys.netrc"
    netrc.write_text("machine 127.0.0.1 login ann password hush-netrc\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))


@pytest.mark.usefixtures("stored_credentials")
def test_no_credentials_but_ours_are_sent(check: Check, server: TokenServer) -> None:
    server.otherwise = answers(401)

    assert check(server.url)[0]

    assert "authorization" not in server.received[0].headers


@pytest.mark.usefixtures("stored_credentials")
def test_the_bearer_is_not_replaced_by_stored_credentials(feedamp: RunningSandbox) -> None:
    FeedAmpHook().get_access_token()

    assert "FeedAMP accepts the present access token" in FeedAmpHook().test_connection()[1]


def assert_failed(outcome: tuple[bool, str], reason: str) -> str:
    ok, text = outcome
    assert not ok
    assert text.startswith(f"FeedAMP could not be reached: {reason}"), text
    return text
