"""A seller authorises the marketplace: the URL for the browser, and the code that comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_feedamp.exceptions import CodeRefusedError, InputError
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
from tests.tokens.conftest import server
from tests.tokens.edge import answers

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from tests.hooks.conftest import SetConnection
    from tests.tokens.edge import TokenServer

__all__ = ["server"]


def token_posts(sandbox: RunningSandbox) -> int:
    return int(sandbox.control.counters()["token_posts"])


def test_the_authorisation_url_is_the_documented_one(
    sandbox: RunningSandbox, set_connection: SetConnection
) -> None:
    set_connection(sandbox.connection("acme") | {"login": "client & co", "host": "https://a.example/api/v1"})

    url = FeedAmpHook().authorize_url("https://shop.example/back?x=1&y=ü", "s t&te")

    parts = urlsplit(url)
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == "https://a.example/api/v1/authorize"
    assert parse_qs(parts.query) == {
        "response_type": ["code"],
        "client_id": ["client & co"],
        "state": ["s t&te"],
        "redirect_url": ["https://shop.example/back?x=1&y=ü"],
    }


@pytest.mark.parametrize(
    ("redirect_url", "state", "field"),
    [
        ("", "s", "redirect_url"),
        ("/back", "s", "redirect_url"),
        ("shop.example/back", "s", "redirect_url"),
        ("ftp://shop.example", "s", "redirect_url"),
        ("https://shop.example/back", "", "state"),
    ],
)
def test_an_authorisation_url_that_cannot_work_is_not_made(
    feedamp: RunningSandbox, redirect_url: str, state: str, field: str
) -> None:
    with pytest.raises(InputError, match=f"^{field} ") as caught:
        FeedAmpHook().authorize_url(redirect_url, state)

    assert isinstance(caught.value, AirflowFailException)


def test_a_code_makes_a_seller_ready(feedamp: RunningSandbox) -> None:
    hook = FeedAmpHook(seller="globex")

    hook.exchange_code(f" {feedamp.control.authorize('globex')}\n")

    assert hook.get_access_token() in feedamp.control.access_tokens("globex")
    assert token_posts(feedamp) == 1


@pytest.mark.parametrize("redirect_url", [None, "https://shop.example/back"])
def test_a_server_that_asks_for_the_redirect_url_again_gets_it(
    server: TokenServer, set_connection: SetConnection, redirect_url: str | None
) -> None:
    server.will(answers(200, {"access_token": "an-access-token", "refresh_token": "a-refresh-token"}))
    client = {"conn_type": "feedamp", "login": "client", "password": "client-secret"}
    set_connection(client | {"host": server.url.removesuffix("/access_token")})

    FeedAmpHook().exchange_code("a-code", redirect_url)

    [request] = server.received
    assert request.json["code"] == "a-code"
    assert request.json.get("redirect_url") == redirect_url
    assert "redirect_url" in request.json or redirect_url is None


def spent_code(sandbox: RunningSandbox) -> str:
    code = sandbox.control.authorize("globex")
    FeedAmpHook(seller="globex").exchange_code(code)
    return code


@pytest.mark.parametrize("make_code", [spent_code, lambda sandbox: "never-issued"])
def test_a_refused_code_is_explained_without_being_quoted(
    feedamp: RunningSandbox, make_code: Callable[[RunningSandbox], str]
) -> None:
    code = make_code(feedamp)

    with pytest.raises(CodeRefusedError, match=r"'globex'.*works once") as caught:
        FeedAmpHook(seller="globex").exchange_code(code)

    assert code not in repr(caught.value)
    assert isinstance(caught.value, AirflowFailException)


@pytest.mark.parametrize("code", ["", "  "])
def test_an_empty_code_is_refused_before_anything_is_sent(feedamp: RunningSandbox, code: str) -> None:
    with pytest.raises(InputError, match="code is empty"):
        FeedAmpHook().exchange_code(code)

    assert token_posts(feedamp) == 0
