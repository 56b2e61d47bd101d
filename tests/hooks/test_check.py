"""The Test button: says what it checked, raises nothing, spends nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from airflow_provider_feedamp.exceptions import ReauthorizationRequiredError, TokenStoreError
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
from airflow_provider_feedamp.tokens.crypto import Sealer
from airflow_provider_feedamp.tokens.records import TokenRecord
from airflow_provider_feedamp.tokens.store import MemoryStore

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from airflow_provider_feedamp.tokens.records import TokenKey
    from tests.hooks.conftest import SetConnection


def posts(sandbox: RunningSandbox) -> int:
    return int(sandbox.control.counters()["token_posts"])


def check_without_a_post(sandbox: RunningSandbox, seller: str | None = None) -> tuple[bool, str]:
    before = posts(sandbox)
    answers = [FeedAmpHook(seller=seller).test_connection() for _ in range(3)]
    assert posts(sandbox) == before
    assert len(set(answers)) == 1
    return answers[0]


def test_a_connection_before_its_first_use_is_well(feedamp: RunningSandbox) -> None:
    ok, message = check_without_a_post(feedamp)

    assert ok
    assert feedamp.base_url in message
    assert "'acme' has a refresh token here that was not used yet" in message
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
    feedamp.control.expire("acme")

    ok, message = check_without_a_post(feedamp)

    assert ok
    assert "(401); the next task renews it" in message


def test_a_seller_who_has_to_authorise_again_is_not_well(feedamp: RunningSandbox) -> None:
    feedamp.control.revoke("acme")
    with pytest.raises(ReauthorizationRequiredError):
        FeedAmpHook().get_access_token()

    ok, message = check_without_a_post(feedamp)

    assert not ok
    assert "has to authorise this seller again" in message


def test_a_seller_without_any_token_is_not_well(feedamp: RunningSandbox) -> None:
    ok, message = check_without_a_post(feedamp, seller="globex")

    assert not ok
    assert "'globex' has no refresh token" in message


def test_a_base_url_that_is_not_the_apis_is_not_well(
    feedamp: RunningSandbox, set_connection: SetConnection
) -> None:
    connection = feedamp.connection("acme")
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
        return TokenRecord.from_json(Sealer().open("not-ours", key).text, key)


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


def test_what_failed_comes_first(feedamp: RunningSandbox) -> None:
    _, message = check_without_a_post(feedamp, seller="globex")

    assert message.startswith("Seller 'globex' has no refresh token: neither here nor in the token store.")


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
    assert not any(secret in message for secret in feedamp.control.refresh_tokens("acme"))
    assert "demo-secret" not in message
