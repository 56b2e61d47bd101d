"""The page as those see it who may use it: what it shows, and a whole authorisation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.plugins.conftest import PAGE, SEEN
from tests.sandbox.caller import Caller

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from tests.plugins.conftest import Page, Server

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]


def row(page: Page, seller: str) -> str:
    """Return the words of a seller's row."""
    return page.text.split(f" {seller} ", 1)[1].split("Forget")[0]


def test_the_page_shows_the_sellers_of_each_connection_with_state_and_days_left(server: Server) -> None:
    admin = server.visitor("admin")
    admin.authorised("shown", "hooli")

    page = admin.open()

    for conn_id in ("feedamp_default", "feedamp_other"):
        assert page.form("/authorise", conn_id=conn_id, seller="hooli")
    found = row(page, "shown")
    assert "active until 20" in found
    assert "0 days old, 36" in found
    assert "renewed at" in found
    assert "new none none the connection's refresh token was not used yet" in row(page, "hooli")


def test_a_new_seller_is_authorised_once_a_person_has_confirmed_the_account(
    server: Server, feedamp: RunningSandbox
) -> None:
    admin = server.visitor("admin")
    feedamp.control.connect("northwind")
    Caller(feedamp, "northwind").place("N-1")

    question = admin.open(admin.redirected("north", "northwind"))

    assert "It has order 'N-1'. Is this the account of seller 'north'?" in question.text
    assert "north " not in admin.open().text.replace("northwind", "")  # nothing is stored yet
    done = admin.send(question.form("/confirm", answer="yes"))
    assert "Seller north is authorised" in done.text
    assert "active" in row(admin.open(), "north")
    assert server.events("north") == [
        ("feedamp_authorise_start", "admin", {"connection_id": "feedamp_default", "seller": "north"}),
        ("feedamp_authorised", "admin", {"connection_id": "feedamp_default", "seller": "north"}),
    ]


def test_a_seller_who_comes_back_with_the_same_account_is_authorised_without_a_question(
    server: Server, feedamp: RunningSandbox
) -> None:
    admin = server.visitor("admin")
    feedamp.control.connect("contoso")
    Caller(feedamp, "contoso").place("C-1")
    admin.authorised("again", "contoso")

    page = admin.open(admin.redirected("again", "contoso"))

    assert "Seller again is authorised" in page.text
    assert "order 'C-1'" in page.text


def test_another_account_is_asked_about_and_no_keeps_what_was_there(
    server: Server, feedamp: RunningSandbox
) -> None:
    admin = server.visitor("admin")
    for account in ("fabrikam", "wrongone"):
        feedamp.control.connect(account)
    Caller(feedamp, "fabrikam").place("F-1")
    admin.authorised("kept", "fabrikam")
    before = row(admin.open(), "kept")

    question = admin.open(admin.redirected("kept", "wrongone"))
    assert "does not have order 'F-1'" in question.text
    dropped = admin.send(question.form("/confirm", answer="no"))

    assert "Seller kept was not authorised" in dropped.text
    assert row(admin.open(), "kept") == before
    assert [each[0] for each in server.events("kept")][2:] == [
        "feedamp_authorise_start",
        "feedamp_authorise_failed",
    ]
    late = admin.send(question.form("/confirm", answer="yes"))
    assert late.answer.status_code == 400
    assert "its tokens were dropped" in late.text


def test_forget_asks_first(server: Server) -> None:
    admin = server.visitor("admin")
    admin.authorised("gone", "hooli")

    question = admin.send(admin.open().form("/forget", conn_id="feedamp_default", seller="gone"))
    assert "Forget seller gone?" in question.text
    assert "active" in row(admin.open(), "gone")
    done = admin.send(question.form("/forget", answer="yes"))

    assert "Seller gone is forgotten" in done.text
    assert " gone " not in admin.open().text
    assert server.events("gone")[-1][:2] == ("feedamp_forgotten", "admin")
    again = admin.send(question.form("/forget", answer="yes"))
    assert again.answer.status_code == 400
    assert "There are no tokens of seller 'gone'" in again.text


def test_a_connection_from_the_environment_is_shown_by_its_id(server: Server) -> None:
    admin = server.visitor("admin")

    page = admin.open(f"{PAGE}?conn_id=feedamp_env")

    assert "feedamp_env" in page.text
    assert "feedamp_default" not in page.text
    assert admin.send(page.form("/authorise", conn_id="feedamp_env", seller=""), seller="e").answer.ok
    missing = admin.open(f"{PAGE}?conn_id=nowhere")
    assert "There is no Airflow connection 'nowhere'" in missing.text


def test_no_token_and_no_secret_is_in_any_page_in_the_log_or_in_the_audit_log(
    server: Server, feedamp: RunningSandbox
) -> None:
    admin = server.visitor("admin")
    admin.authorised("secretive", "hooli")
    admin.authorised("secretive", "globex")
    admin.open()

    tokens = [
        token
        for seller in feedamp.control.sellers()
        for token in (*feedamp.control.refresh_tokens(seller), *feedamp.control.access_tokens(seller))
    ]
    assert len(tokens) > 4
    events = json.dumps(server.events("secretive"))
    everything = "".join([*SEEN, server.log, events])
    assert [token for token in [*tokens, feedamp.state.settings.client_secret] if token in everything] == []
    assert "sbx-code" not in "".join([server.log, events])
    assert "/feedamp/callback" in server.log


def test_light_and_dark_and_narrow_are_styled_and_nothing_is_loaded(server: Server) -> None:
    text = server.visitor("admin").open().answer.text

    assert "prefers-color-scheme: dark" in text
    assert "max-width: 46rem" in text
    assert 'name="viewport"' in text
    assert not [each for each in ("<script", "src=", "@import", "url(", "<link") if each in text]
