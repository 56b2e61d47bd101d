from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_feedamp.exceptions import ReauthorizationRequiredError, TokenStoreError
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
from airflow_provider_feedamp.tokens.records import RecordState, TokenKey, TokenRecord
from airflow_provider_feedamp.tokens.store import MemoryStore, open_store

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from tests.hooks.conftest import SetConnection


def store_record(sandbox: RunningSandbox, seller: str, *, client_id: str = "demo-client") -> None:
    key = TokenKey(f"{sandbox.base_url}/access_token", client_id, seller)
    record = TokenRecord(key=key, refresh_token="r", state=RecordState.REAUTH_REQUIRED)
    open_store("memory", None).write(record, expected=None)


def test_sellers_are_those_of_the_store_and_the_connections_own(feedamp: RunningSandbox) -> None:
    store_record(feedamp, "zeta")
    store_record(feedamp, "beta")
    store_record(feedamp, "another-clients", client_id="another")

    assert FeedAmpHook().sellers() == ["acme", "beta", "zeta"]


def test_the_connections_own_seller_is_named_once(feedamp: RunningSandbox) -> None:
    store_record(feedamp, "acme")

    assert FeedAmpHook().sellers() == ["acme"]


def test_a_connection_without_a_refresh_token_has_the_sellers_of_the_store_only(
    sandbox: RunningSandbox, set_connection: SetConnection
) -> None:
    set_connection(sandbox.connection("acme", refresh_token=None))
    store_record(sandbox, "zeta")

    assert FeedAmpHook().sellers() == ["zeta"]


def test_the_hooks_own_seller_does_not_matter(feedamp: RunningSandbox) -> None:
    assert FeedAmpHook(seller="nobody").sellers() == ["acme"]


def test_a_store_that_cannot_be_listed_is_an_error_not_an_empty_list(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(self: MemoryStore, token_url: str, client_id: str) -> list[TokenKey]:
        msg = "The store cannot be reached."
        raise TokenStoreError(msg)

    monkeypatch.setattr(MemoryStore, "keys", unreachable)

    with pytest.raises(TokenStoreError):
        FeedAmpHook().sellers()


def test_listing_spends_nothing(feedamp: RunningSandbox) -> None:
    FeedAmpHook().sellers()

    assert feedamp.control.counters()["token_posts"] == 0


def refusal(seller: str | None) -> str:
    with pytest.raises(ReauthorizationRequiredError) as caught:
        FeedAmpHook(seller=seller).get_access_token()
    return str(caught.value)


def test_an_error_about_an_unknown_seller_names_those_that_are_known_and_the_most_alike_first(
    feedamp: RunningSandbox,
) -> None:
    for number in range(30):
        store_record(feedamp, f"shop-{number}")
    store_record(feedamp, "another-clients", client_id="another")

    told = refusal("Shop-27")

    assert "Known to this connection are: 'shop-27', " in told
    assert told.endswith(" and 11 more.")
    assert told.count("'shop-") == 20
    assert "another-clients" not in told


def test_a_known_seller_who_must_authorise_again_is_not_told_of_others(
    feedamp: RunningSandbox,
) -> None:
    store_record(feedamp, "zeta")
    feedamp.control.revoke("acme")

    assert "Known to this connection" not in refusal("zeta")
    assert "Known to this connection" not in refusal("acme")


def test_where_nobody_is_known_or_the_store_cannot_list_the_error_is_the_same_as_ever(
    sandbox: RunningSandbox, set_connection: SetConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_connection(sandbox.connection("acme", refresh_token=None))
    told = refusal("nobody")
    assert "'nobody' has to be authorised by a person" in told
    assert "Known to this connection" not in told

    def cannot_list(self: MemoryStore, token_url: str, client_id: str) -> list[TokenKey]:
        raise TokenStoreError("The keys cannot be listed from here.")

    store_record(sandbox, "zeta")
    assert "Known to this connection are: 'zeta'." in refusal("nobody")
    monkeypatch.setattr(MemoryStore, "keys", cannot_list)
    assert refusal("nobody") == told
