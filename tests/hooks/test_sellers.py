from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_feedamp.exceptions import TokenStoreError
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
from airflow_provider_feedamp.stores import open_store
from airflow_provider_feedamp.stores.memory import MemoryStore
from airflow_provider_feedamp.tokens.models import RecordState, TokenKey, TokenRecord

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
