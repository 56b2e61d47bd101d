from __future__ import annotations

import json
import logging
import socket
import threading
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from airflow_provider_feedamp.cli import sellers
from airflow_provider_feedamp.cli.base import FailedError
from airflow_provider_feedamp.cli.sellers import listening
from airflow_provider_feedamp.exceptions import TokenStoreError
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
from airflow_provider_feedamp.tokens.custodian import known_order_key, note_order
from airflow_provider_feedamp.tokens.records import RecordState
from tests.cli.support import KeptStore, in_background, parameter, run, shown_url
from tests.operators.support import order
from tests.tokens.edge import TokenServer, answers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_feedamp.cli.sellers import Listener
    from airflow_provider_feedamp.tokens.records import TokenKey, TokenRecord
    from tests.cli.support import Person, Shop

STATE = "state-of-this-test"
CODE = "the-code"
PASTED = ("sellers", "authorize", "globex", "--code-from-stdin")


def test_a_seller_is_authorised_by_the_redirect_pasted_back(shop: Shop, person: Person) -> None:
    result = run(
        "sellers", "authorize", "globex", "--redirect-url", "https://shop.example/back", "--force", code=0
    )

    assert parameter(shown_url(result.stdout), "redirect_url") == "https://shop.example/back"
    assert "Seller 'globex' is authorised. Generation 1, access token until 2" in result.stdout
    assert "Is this the account of seller 'globex'? Yes (--force)." in result.stderr
    assert shop.record("globex").refresh_token in shop.sandbox.control.refresh_tokens("globex")


def test_codes_and_tokens_are_never_echoed(shop: Shop, person: Person) -> None:
    output = run("--debug", *PASTED, "--force").output
    output += run("sellers", "refresh", "globex").output + run("sellers", "list").output

    record = shop.record("globex")
    for secret in (person.code, record.refresh_token, record.access_token or "", "demo-secret"):
        assert secret
        assert secret not in output


def at_a_terminal(monkeypatch: pytest.MonkeyPatch, answer: bool) -> list[str]:
    """Let a person sit at the terminal, and return the questions that were put."""
    asked: list[str] = []

    def confirm(text: str, **options: object) -> bool:
        asked.append(text)
        return answer

    monkeypatch.setattr(sellers, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    monkeypatch.setattr("click.confirm", confirm)
    return asked


@pytest.mark.parametrize("answer", [True, False])
def test_a_person_at_the_terminal_is_asked_whether_it_is_the_right_account(
    shop: Shop, person: Person, monkeypatch: pytest.MonkeyPatch, answer: bool
) -> None:
    asked = at_a_terminal(monkeypatch, answer)

    result = run(*PASTED, code=0 if answer else 1)

    (question,) = asked
    assert question.startswith("No order of seller 'globex' is known")
    assert (shop.store.read(shop.key("globex")) is not None) is answer
    assert ("Nothing was replaced" in result.stderr) is not answer


@pytest.mark.parametrize("answer", [True, False])
def test_the_redirect_of_an_earlier_command_is_answered_as_what_it_is(
    shop: Shop, person: Person, monkeypatch: pytest.MonkeyPatch, answer: bool
) -> None:
    person.back = "nothing pasted"
    earlier = parameter(shown_url(run(*PASTED, code=2).stdout), "state")
    person.back = f"https://shop.example/back?code={{code}}&state={earlier}"
    at_a_terminal(monkeypatch, answer)

    run(*PASTED, code=0 if answer else 1)

    assert (shop.store.read(shop.key("globex")) is not None) is answer
    assert "its tokens were dropped" in run(*PASTED).stderr or answer


@pytest.mark.parametrize("terminal", [True, False])
def test_tokens_that_the_store_did_not_take_wait_while_a_person_can_be_asked(
    shop: Shop, person: Person, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    write, fails = shop.store.write, [True]

    def once(record: TokenRecord, *, expected: int | None) -> TokenRecord:
        if record.key == shop.key("globex") and fails:
            fails.clear()
            raise TokenStoreError("The token store takes nothing now.")
        return write(record, expected=expected)

    monkeypatch.setattr(shop.store, "write", once)
    asked = at_a_terminal(monkeypatch, True) if terminal else []

    result = run(*PASTED, *([] if terminal else ["--force"]), code=0 if terminal else 1)

    said = asked[1] if terminal else result.stderr
    assert "The token store takes nothing now." in said
    assert (shop.store.read(shop.key("globex")) is not None) is terminal


def test_without_a_terminal_another_account_replaces_nothing(shop: Shop, person: Person) -> None:
    run(*PASTED, "--force", code=0)
    note_order(shop.store, shop.key("globex"), "A-1")
    before = shop.record("globex")
    person.account, person.code = "hooli", ""

    result = run(*PASTED, code=1)

    assert "does not have order 'A-1', by which seller 'globex' is known" in result.stderr
    assert "authorise once more with --force" in result.stderr
    assert shop.record("globex") == before


def test_the_account_of_before_needs_no_question(shop: Shop, person: Person) -> None:
    run(*PASTED, "--force", code=0)
    FeedAmpHook(seller="globex").client.orders.place(order("A-1"))
    person.code = ""

    result = run(*PASTED, code=0)

    assert "Generation 2" in result.stdout
    assert "?" not in result.stderr


def test_the_redirect_is_caught_on_a_port(shop: Shop, person: Person) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    browser = requests.Session()
    browser.mount("http://", HTTPAdapter(max_retries=Retry(connect=12, backoff_factor=0.02)))
    person.back = f"http://127.0.0.1:{port}/?code={{code}}&state={{state}}"

    def agrees() -> None:
        while not person.state:
            threading.Event().wait(0.02)
        browser.get(person.pastes(""), timeout=10).close()

    thread = in_background(agrees)
    result = run("sellers", "authorize", "globex", "--port", str(port), "--timeout", "20", "--force", code=0)
    thread.join(10)

    assert parameter(shown_url(result.stdout), "redirect_url") == f"http://127.0.0.1:{port}/"
    assert f"Waiting for the redirect on http://127.0.0.1:{port}/" in result.stderr
    assert shop.record("globex").generation == 1


def test_a_redirect_with_another_state_is_not_exchanged(shop: Shop, person: Person) -> None:
    person.back = "code={code}&state=somebody-elses"

    result = run(*PASTED, code=1)

    assert "Copy it whole from the browser's address bar" in result.stderr
    assert person.code not in result.output
    assert shop.sandbox.control.counters()["token_posts"] == 0


def test_a_code_that_was_used_before_is_one_clear_line(shop: Shop, person: Person) -> None:
    run(*PASTED, "--force", code=0)

    result = run(*PASTED, code=1)

    said, error = result.stderr.splitlines()
    assert said == "The browser is back; looking at the account."
    assert "A code works once" in error
    assert person.code not in result.output
    assert shop.record("globex").generation == 1


@pytest.mark.parametrize(
    ("asked", "sent"), [((), None), (("--send-redirect-url",), "https://shop.example/back")]
)
def test_the_redirect_url_is_sent_with_the_code_only_when_asked_for(
    shop: Shop,
    person: Person,
    monkeypatch: pytest.MonkeyPatch,
    asked: tuple[str, ...],
    sent: str | None,
) -> None:
    server = TokenServer()
    server.will(answers(200, {"access_token": "a" * 20, "refresh_token": "r" * 20, "expires_in": 3600}))
    server.will(answers(403))
    server.will(answers(403))
    connection = {**shop.sandbox.connection("hooli"), "host": server.url.removesuffix("/access_token")}
    monkeypatch.setenv("AIRFLOW_CONN_FEEDAMP_DEFAULT", json.dumps(connection))
    command = ("sellers", "authorize", "globex", "--redirect-url", "https://shop.example/back", *asked)

    result = run(*command, "--force")
    server.close()

    assert result.exit_code == 0, result.output
    request = server.received[0]
    assert (request.json["code"], request.json.get("redirect_url")) == (person.code, sent)


@pytest.mark.parametrize("option", [("--code-from-stdin",), ("--redirect-url", "shop.example/back")])
def test_nothing_pasted_and_a_url_that_is_none_are_misuse(shop: Shop, option: tuple[str, ...]) -> None:
    assert run("sellers", "authorize", "globex", *option, code=2).stderr.count("\n") == 1


@pytest.mark.parametrize("command", [("authorize", "globex", "--code-from-stdin"), ("refresh", "hooli")])
def test_tokens_are_not_obtained_for_a_store_that_ends_with_the_command(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("AIRFLOW__FEEDAMP__TOKEN_STORE", "memory")

    result = run("sellers", *command, code=1)

    assert "'memory'" in result.stderr
    assert shop.sandbox.control.counters()["token_posts"] == 0


def test_refresh_renews_tokens_that_are_still_good(shop: Shop) -> None:
    first = run("sellers", "refresh", "hooli")
    second = run("sellers", "refresh", "hooli")

    assert (first.exit_code, second.exit_code) == (0, 0), second.output
    assert "Renewed the tokens of seller 'hooli'. Generation 2" in second.stdout
    assert shop.record("hooli").generation == 2
    assert shop.sandbox.control.counters()["token_posts"] == 2


@pytest.mark.parametrize("logging_level", [logging.INFO, logging.WARNING])
def test_what_the_provider_tells_is_a_plain_line_for_the_person(shop: Shop, logging_level: int) -> None:
    airflows = logging.getLogger()
    former = airflows.level
    airflows.setLevel(logging_level)
    try:
        result = run("sellers", "refresh", "hooli")
    finally:
        airflows.setLevel(former)

    (line,) = result.stderr.splitlines()
    assert line.startswith("Renewed the access token of seller 'hooli': generation 1, valid until 2")


def test_what_the_provider_warns_of_is_marked_as_a_warning(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def warns(self: KeptStore, key: TokenKey) -> None:
        if key.token_url != shop.key("zeta").token_url:
            return
        logging.getLogger("airflow_provider_feedamp.tokens.store").warning(
            "The lease of\n%r stays.", key.seller
        )

    monkeypatch.setattr(KeptStore, "delete", warns)
    shop.put("zeta")

    assert run("sellers", "forget", "zeta", "--yes").stderr == "Warning: The lease of 'zeta' stays.\n"


def test_refresh_of_a_seller_whose_token_was_withdrawn_says_what_to_do(shop: Shop) -> None:
    shop.sandbox.control.revoke("hooli")

    result = run("sellers", "refresh", "hooli")

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
    note_order(shop.store, shop.key("zeta"), "A-1")
    if damaged:
        shop.store.damaged.add("zeta")

    result = run("sellers", "forget", "zeta", *arguments, stdin=stdin, code=0)

    assert shop.store.read(shop.key("zeta")) is None
    assert shop.store.read(known_order_key(shop.key("zeta"))) is None
    assert "Connection" not in result.stdout


def test_forget_tells_when_the_connection_would_begin_anew(shop: Shop) -> None:
    shop.put("hooli")

    assert "still holds a refresh token for this seller" in run("sellers", "forget", "hooli", "--yes").stdout


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


@contextmanager
def waiting() -> Iterator[Listener]:
    """Listen for the redirect with this test's state."""
    with listening(0) as listener:
        listener.state = STATE
        yield listener


def test_the_redirect_is_caught_on_loopback_and_the_page_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    with waiting() as listener:
        page = requests.get(f"{listener.url}?code={CODE}&state={STATE}", timeout=10)
        redirect = listener.wait(5)

    assert redirect == {"code": CODE, "state": STATE}
    assert "You can close this window" in page.text
    assert CODE not in page.text
    assert page.headers["Cache-Control"] == "no-store"
    assert urlsplit(listener.url).hostname == "127.0.0.1"
    assert CODE not in "".join(capfd.readouterr())


def test_other_requests_do_not_end_the_waiting() -> None:
    with waiting() as listener:
        statuses = [
            requests.get(listener.url + rest, timeout=10).status_code
            for rest in ("favicon.ico", "", "?code=forged&state=guessed", f"?code={CODE}&state={STATE}")
        ]
        redirect = listener.wait(5)

    assert (statuses, redirect["code"]) == ([404, 404, 400, 200], CODE)


def test_a_silent_connection_does_not_hold_up_the_redirect() -> None:
    with waiting() as listener:
        port = urlsplit(listener.url).port
        with socket.create_connection(("127.0.0.1", port)):
            requests.get(f"{listener.url}?code={CODE}&state={STATE}", timeout=5)

        assert listener.wait(5)["code"] == CODE


def test_a_decline_in_the_browser_ends_the_waiting() -> None:
    with waiting() as listener:
        page = requests.get(f"{listener.url}?error=access_denied&state={STATE}", timeout=10)
        assert listener.wait(5)["error"] == "access_denied"

    assert "declined" in page.text


def test_waiting_ends_when_nobody_comes() -> None:
    with waiting() as listener, pytest.raises(FailedError, match="--code-from-stdin"):
        listener.wait(0.01)


def test_a_port_that_is_taken_is_one_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(FailedError, match=f"127.0.0.1:{port}"), listening(port):
            pass
