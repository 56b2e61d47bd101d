from __future__ import annotations

import json
import logging
import secrets
import socket
import threading
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from airflow_provider_feedamp.cli.base import FailedError, MisuseError
from airflow_provider_feedamp.cli.sellers import code_of, listening, redirect_query
from airflow_provider_feedamp.tokens.records import RecordState
from tests.cli.support import KeptStore, browse, in_background, parameter, run, shown_url
from tests.tokens.edge import TokenServer, answers

if TYPE_CHECKING:
    from airflow_provider_feedamp.tokens.records import TokenKey
    from tests.cli.support import Shop

STATE = "state-of-this-test"
CODE = "the-code"


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

    result = run("sellers", "authorize", "globex", "--port", str(port), "--timeout", "20", code=0)
    thread.join(10)

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

    result = run("sellers", "authorize", "globex", "--code-from-stdin", stdin=back, code=1)

    assert "state is not the one" in result.stderr
    assert code not in result.output
    assert shop.sandbox.control.counters()["token_posts"] == 0


@pytest.mark.usefixtures("known_state")
def test_a_code_that_was_used_before_is_one_clear_line(shop: Shop) -> None:
    code, back = authorise(shop, "globex", "code={code}&state={state}")
    run("sellers", "authorize", "globex", "--code-from-stdin", stdin=back)

    result = run("sellers", "authorize", "globex", "--code-from-stdin", stdin=back, code=1)

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


@pytest.mark.parametrize("option", [("--code-from-stdin",), ("--redirect-url", "shop.example/back")])
def test_nothing_pasted_and_a_url_that_is_none_are_misuse(shop: Shop, option: tuple[str, ...]) -> None:
    assert run("sellers", "authorize", "globex", *option, code=2).stderr.count("\n") == 1


@pytest.mark.parametrize("command", [("authorize", "globex", "--code-from-stdin"), ("refresh", "acme")])
def test_tokens_are_not_obtained_for_a_store_that_ends_with_the_command(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("AIRFLOW__FEEDAMP__TOKEN_STORE", "memory")

    result = run("sellers", *command, code=1)

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
    run("sellers", "refresh", "nobody", code=1)

    assert shop.sandbox.control.counters()["token_posts"] == 0


def test_forget_asks_first(shop: Shop) -> None:
    shop.put("zeta")

    for typed in ("n\n", ""):
        run("sellers", "forget", "zeta", stdin=typed, code=1)
    assert shop.record("zeta")


@pytest.mark.parametrize(
    ("arguments", "stdin", "damaged"), [((), "y\n", False), (("--yes",), "", False), (("--yes",), "", True)]
)
def test_forget_removes_the_record_also_one_that_cannot_be_read(
    shop: Shop, arguments: tuple[str, ...], stdin: str, damaged: bool
) -> None:
    shop.put("zeta")
    if damaged:
        shop.store.damaged.add("zeta")

    result = run("sellers", "forget", "zeta", *arguments, stdin=stdin, code=0)

    assert shop.store.read(shop.key("zeta")) is None
    assert "Connection" not in result.stdout


def test_forget_tells_when_the_connection_would_begin_anew(shop: Shop) -> None:
    shop.put("acme")

    assert "still holds a refresh token for this seller" in run("sellers", "forget", "acme", "--yes").stdout


def test_forget_waits_for_a_renewal_that_is_under_way(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__FEEDAMP__LOCK_WAIT", "0.1")
    shop.put("zeta", state=RecordState.REFRESHING)

    with shop.store.lock(shop.key("zeta"), wait=1, stop=threading.Event()):
        result = run("sellers", "forget", "zeta", "--yes")

    assert result.exit_code == 1
    assert shop.record("zeta")


def test_forgetting_nobody_is_an_error(shop: Shop) -> None:
    assert run("sellers", "forget", "nobody", "--yes", code=1).stderr == (
        "Error: There is no token record of seller 'nobody' for connection 'feedamp_default'.\n"
    )


@pytest.mark.parametrize(
    "pasted",
    [
        f"https://shop.example/back?code={CODE}&state={STATE}",
        f"https://shop.example/back?tenant=1&state={STATE}&code={CODE}#top",
        f"  http://127.0.0.1/?code={CODE}&state={STATE}\n",
        f"?code={CODE}&state={STATE}",
        f"code={CODE}&state={STATE}",
    ],
)
def test_the_code_is_taken_out_of_what_was_pasted(pasted: str) -> None:
    assert code_of(redirect_query(pasted), STATE) == CODE


@pytest.mark.parametrize(
    "pasted",
    [
        "",
        CODE,
        "https://shop.example/back",
        f"https://shop.example/back?code={CODE}",
        f"https://shop.example/back?state={STATE}",
        f"https://shop.example/back?code={CODE}&code=other&state={STATE}",
        f"https://shop.example/back?code={CODE}&state=x&state={STATE}",
        "http://[?code=a&state=b",
    ],
)
def test_what_is_no_redirect_is_refused_as_misuse(pasted: str) -> None:
    with pytest.raises(MisuseError) as caught:
        code_of(redirect_query(pasted), STATE)

    assert CODE not in str(caught.value)


@pytest.mark.parametrize("state", ["another", STATE + "x", STATE[:-1], STATE.upper(), "\udcff", "ü"])
def test_a_redirect_with_another_state_is_refused(state: str) -> None:
    with pytest.raises(FailedError, match="was not used") as caught:
        code_of(redirect_query(f"code={CODE}&state={state}"), STATE)

    assert CODE not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "said"),
    [("access_denied", r"\(access_denied\)"), ("%1b[2J<script>", r"\(no reason that can be shown\)")],
)
def test_a_decline_is_told_with_its_reason_unless_that_is_strange(error: str, said: str) -> None:
    with pytest.raises(FailedError, match=said):
        code_of(redirect_query(f"error={error}&state={STATE}"), STATE)


def test_a_decline_with_another_state_says_nothing_about_ours() -> None:
    with pytest.raises(FailedError, match="was not used"):
        code_of(redirect_query("error=access_denied&state=another"), STATE)


def test_the_redirect_is_caught_on_loopback_and_the_page_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    with listening(0, STATE) as listener:
        page = requests.get(f"{listener.url}?code={CODE}&state={STATE}", timeout=10)
        code = listener.wait(5)

    assert code == CODE
    assert "You can close this window" in page.text
    assert CODE not in page.text
    assert page.headers["Cache-Control"] == "no-store"
    assert urlsplit(listener.url).hostname == "127.0.0.1"
    assert CODE not in "".join(capfd.readouterr())


def test_other_requests_do_not_end_the_waiting() -> None:
    with listening(0, STATE) as listener:
        statuses = [
            requests.get(listener.url + rest, timeout=10).status_code
            for rest in ("favicon.ico", "", "?code=forged&state=guessed", f"?code={CODE}&state={STATE}")
        ]
        code = listener.wait(5)

    assert (statuses, code) == ([404, 404, 400, 200], CODE)


def test_a_silent_connection_does_not_hold_up_the_redirect() -> None:
    with listening(0, STATE) as listener:
        port = urlsplit(listener.url).port
        with socket.create_connection(("127.0.0.1", port)):
            requests.get(f"{listener.url}?code={CODE}&state={STATE}", timeout=5)

        assert listener.wait(5) == CODE


def test_a_decline_in_the_browser_ends_the_waiting() -> None:
    with listening(0, STATE) as listener:
        page = requests.get(f"{listener.url}?error=access_denied&state={STATE}", timeout=10)

        with pytest.raises(FailedError, match="access_denied"):
            listener.wait(5)

    assert "declined" in page.text


def test_waiting_ends_when_nobody_comes() -> None:
    with listening(0, STATE) as listener, pytest.raises(FailedError, match="--code-from-stdin"):
        listener.wait(0.01)


def test_a_port_that_is_taken_is_one_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(FailedError, match=f"127.0.0.1:{port}"), listening(port, STATE):
            pass
