from __future__ import annotations

import json
import logging
import secrets
import socket
import threading
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from airflow_provider_feedamp.tokens.records import RecordState
from tests.cli.support import KeptStore, browse, in_background, parameter, run, shown_url
from tests.tokens.edge import TokenServer, answers

if TYPE_CHECKING:
    from airflow_provider_feedamp.tokens.records import TokenKey
    from tests.cli.support import Shop

STATE = "state-of-this-test"


@pytest.fixture
def known_state(monkeypatch: pytest.MonkeyPatch) -> str:
    """Make the state one that a test can put into a redirect before the command has printed it."""
    monkeypatch.setattr(secrets, "token_urlsafe", lambda size: STATE)
    return STATE


def authorise(shop: Shop, seller: str, redirect: str) -> tuple[str, str]:
    """Return the code and the redirect that a seller's browser brings back."""
    code = shop.sandbox.control.authorize(seller)
    return code, redirect.format(code=quote(code), state=STATE)


@pytest.mark.usefixtures("known_state")
def test_a_seller_is_authorised_by_the_redirect_pasted_back(shop: Shop) -> None:
    code, back = authorise(shop, "globex", "https://shop.example/back?code={code}&state={state}")

    result = run(
        "sellers", "authorize", "globex", "--redirect-url", "https://shop.example/back", stdin=back + "\n"
    )

    assert result.exit_code == 0, result.output
    assert parameter(shown_url(result.stdout), "redirect_url") == "https://shop.example/back"
    assert "Seller 'globex' is authorised. Generation 1, access token until 2" in result.stdout
    assert shop.record("globex").refresh_token in shop.sandbox.control.refresh_tokens("globex")
    assert code not in result.output


@pytest.mark.usefixtures("known_state")
def test_codes_and_tokens_are_never_echoed(shop: Shop) -> None:
    code, back = authorise(shop, "globex", "code={code}&state={state}")

    output = run("--debug", "sellers", "authorize", "globex", "--code-from-stdin", stdin=back).output
    output += run("sellers", "refresh", "globex").output + run("sellers", "list").output

    record = shop.record("globex")
    for secret in (code, record.refresh_token, record.access_token or "", "demo-secret"):
        assert secret
        assert secret not in output


@pytest.mark.usefixtures("known_state")
def test_the_redirect_is_caught_on_a_port(shop: Shop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"{shop.sandbox.base_url}/authorize?response_type=code&client_id=demo-client&state={STATE}"
    back = browse(f"{url}&redirect_url={quote(f'http://127.0.0.1:{port}/')}&sandbox_seller=globex")
    browser = requests.Session()
    browser.mount("http://", HTTPAdapter(max_retries=Retry(connect=12, backoff_factor=0.02)))
    thread = in_background(lambda: browser.get(back, timeout=10).close())

    result = run("sellers", "authorize", "globex", "--port", str(port), "--timeout", "20")
    thread.join(10)

    assert result.exit_code == 0, result.output
    assert parameter(shown_url(result.stdout), "redirect_url") == f"http://127.0.0.1:{port}/"
    assert f"Waiting for the redirect on http://127.0.0.1:{port}/" in result.stderr
    assert shop.record("globex").generation == 1


def test_the_printed_url_has_a_new_state_each_time(shop: Shop) -> None:
    def state() -> str:
        result = run("sellers", "authorize", "globex", "--code-from-stdin")
        return parameter(shown_url(result.stdout), "state")

    first, second = state(), state()

    assert first != second
    assert len(first) >= len(secrets.token_urlsafe(32))


def test_a_redirect_with_another_state_is_not_exchanged(shop: Shop) -> None:
    code, back = authorise(shop, "globex", "code={code}&state=somebody-elses")

    result = run("sellers", "authorize", "globex", "--code-from-stdin", stdin=back)

    assert result.exit_code == 1
    assert "state is not the one" in result.stderr
    assert code not in result.output
    assert shop.sandbox.control.counters()["token_posts"] == 0


@pytest.mark.usefixtures("known_state")
def test_a_code_that_was_used_before_is_one_clear_line(shop: Shop) -> None:
    code, back = authorise(shop, "globex", "code={code}&state={state}")
    run("sellers", "authorize", "globex", "--code-from-stdin", stdin=back)

    result = run("sellers", "authorize", "globex", "--code-from-stdin", stdin=back)

    assert result.exit_code == 1
    said, error = result.stderr.splitlines()
    assert said == "The code is here; storing the tokens."
    assert "A code works once" in error
    assert code not in result.output
    assert shop.record("globex").generation == 1


@pytest.mark.usefixtures("known_state")
@pytest.mark.parametrize(
    ("asked", "sent"), [((), None), (("--send-redirect-url",), "https://shop.example/back")]
)
def test_the_redirect_url_is_sent_with_the_code_only_when_asked_for(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, asked: tuple[str, ...], sent: str | None
) -> None:
    server = TokenServer()
    server.will(answers(200, {"access_token": "a" * 20, "refresh_token": "r" * 20, "expires_in": 3600}))
    connection = {**shop.sandbox.connection("acme"), "host": server.url.removesuffix("/access_token")}
    monkeypatch.setenv("AIRFLOW_CONN_FEEDAMP_DEFAULT", json.dumps(connection))
    command = ("sellers", "authorize", "globex", "--redirect-url", "https://shop.example/back", *asked)

    result = run(*command, stdin=f"code=a-code&state={STATE}")
    server.close()

    assert result.exit_code == 0, result.output
    (request,) = server.received
    assert (request.json["code"], request.json.get("redirect_url")) == ("a-code", sent)


def test_nothing_pasted_is_misuse(shop: Shop) -> None:
    result = run("sellers", "authorize", "globex", "--code-from-stdin")

    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("command", [("authorize", "globex", "--code-from-stdin"), ("refresh", "acme")])
def test_tokens_are_not_obtained_for_a_store_that_ends_with_the_command(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("AIRFLOW__FEEDAMP__TOKEN_STORE", "memory")

    result = run("sellers", *command)

    assert result.exit_code == 1
    assert "'memory'" in result.stderr
    assert shop.sandbox.control.counters()["token_posts"] == 0


def test_refresh_renews_tokens_that_are_still_good(shop: Shop) -> None:
    first = run("sellers", "refresh", "acme")
    second = run("sellers", "refresh", "acme")

    assert (first.exit_code, second.exit_code) == (0, 0), second.output
    assert "Renewed the tokens of seller 'acme'. Generation 2" in second.stdout
    assert shop.record("acme").generation == 2
    assert shop.sandbox.control.counters()["token_posts"] == 2


@pytest.mark.parametrize("logging_level", [logging.INFO, logging.WARNING])
def test_what_the_provider_tells_is_a_plain_line_for_the_person(shop: Shop, logging_level: int) -> None:
    airflows = logging.getLogger()
    former = airflows.level
    airflows.setLevel(logging_level)
    try:
        result = run("sellers", "refresh", "acme")
    finally:
        airflows.setLevel(former)

    (line,) = result.stderr.splitlines()
    assert line.startswith("Renewed the access token of seller 'acme': generation 1, valid until 2")


def test_what_the_provider_warns_of_is_marked_as_a_warning(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def warns(self: KeptStore, key: TokenKey) -> None:
        logging.getLogger("airflow_provider_feedamp.tokens.store").warning(
            "The lease of\n%r stays.", key.seller
        )

    monkeypatch.setattr(KeptStore, "delete", warns)
    shop.put("zeta")

    assert run("sellers", "forget", "zeta", "--yes").stderr == "Warning: The lease of 'zeta' stays.\n"


def test_refresh_of_a_seller_whose_token_was_withdrawn_says_what_to_do(shop: Shop) -> None:
    shop.sandbox.control.revoke("acme")

    result = run("sellers", "refresh", "acme")

    assert (result.exit_code, result.stderr.count("Error: ")) == (1, 1), result.stderr
    assert "authorised again by a person" in result.stderr


def test_refresh_of_an_unknown_seller_fails_without_a_request(shop: Shop) -> None:
    result = run("sellers", "refresh", "nobody")

    assert result.exit_code == 1
    assert shop.sandbox.control.counters()["token_posts"] == 0


def test_forget_asks_first(shop: Shop) -> None:
    shop.put("zeta")

    declined = run("sellers", "forget", "zeta", stdin="n\n")
    unanswered = run("sellers", "forget", "zeta")

    assert (declined.exit_code, unanswered.exit_code) == (1, 1)
    assert shop.record("zeta")


@pytest.mark.parametrize(("arguments", "stdin"), [((), "y\n"), (("--yes",), "")])
def test_forget_removes_the_record(shop: Shop, arguments: tuple[str, ...], stdin: str) -> None:
    shop.put("zeta")

    result = run("sellers", "forget", "zeta", *arguments, stdin=stdin)

    assert result.exit_code == 0
    assert shop.store.read(shop.key("zeta")) is None
    assert "Connection" not in result.stdout


def test_forget_removes_a_record_that_cannot_be_read(shop: Shop) -> None:
    shop.put("zeta")
    shop.store.damaged.add("zeta")

    assert run("sellers", "forget", "zeta", "--yes").exit_code == 0
    assert shop.store.read(shop.key("zeta")) is None


def test_forget_tells_when_the_connection_would_begin_anew(shop: Shop) -> None:
    shop.put("acme")

    result = run("sellers", "forget", "acme", "--yes")

    assert "still holds a refresh token for this seller" in result.stdout


def test_forget_waits_for_a_renewal_that_is_under_way(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__FEEDAMP__LOCK_WAIT", "0.1")
    shop.put("zeta", state=RecordState.REFRESHING)

    with shop.store.lock(shop.key("zeta"), wait=1, stop=threading.Event()):
        result = run("sellers", "forget", "zeta", "--yes")

    assert result.exit_code == 1
    assert shop.record("zeta")


def test_forgetting_nobody_is_an_error(shop: Shop) -> None:
    result = run("sellers", "forget", "nobody", "--yes")

    assert (result.exit_code, result.stderr) == (
        1,
        "Error: There is no token record of seller 'nobody' for connection 'feedamp_default'.\n",
    )
