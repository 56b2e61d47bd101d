"""The SQL store on SQLite, PostgreSQL and MariaDB: table, conditional write, listing, failures."""

from __future__ import annotations

import logging
import time
import traceback
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from airflow.providers.common.compat.sdk import mask_secret, redact
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_feedamp.exceptions import TokenConflictError, TokenRecordError, TokenStoreError
from airflow_provider_feedamp.tokens.records import TokenKey
from airflow_provider_feedamp.tokens.sql_store import SqlStore
from airflow_provider_feedamp.tokens.store import open_store, records_of
from tests.stores.contract import TokenStoreContract
from tests.stores.fernet import set_fernet_key
from tests.stores.sql_support import (
    ACCESS,
    CONN_ID,
    KEY,
    REFRESH,
    all_at_once,
    execute,
    held,
    record,
    statements_of,
)

if TYPE_CHECKING:
    from tests.databases import DatabaseServer


pytestmark = pytest.mark.usefixtures("fernet_key")


@pytest.fixture
def store(database: str) -> SqlStore:
    """Return a store on the database."""
    return SqlStore(CONN_ID)


class TestSqlStore(TokenStoreContract):
    @pytest.fixture(autouse=True)
    def _fewer_on_sqlite(self, database: str) -> None:
        # It takes one writer at a time; on the two servers as many as usual meet.
        self.processes = 16 if database == "sqlite" else 64

    def peer(self, store: object) -> SqlStore:
        return SqlStore(CONN_ID)


# The table


def test_the_store_is_opened_by_its_name(database: str) -> None:
    assert isinstance(open_store("sql", CONN_ID), SqlStore)


def test_workers_that_make_the_table_at_the_same_time_all_go_on(database: str) -> None:
    results = all_at_once(lambda: SqlStore(CONN_ID).read(KEY))

    assert results == [None] * 8


def test_a_row_shows_whose_it_is_and_no_token(store: SqlStore) -> None:
    store.write(record(), expected=None)

    rows = execute("SELECT * FROM feedamp_tokens")

    assert {KEY.digest, KEY.token_url, KEY.client_id, KEY.seller} <= set(rows[0])
    assert REFRESH not in str(rows)
    assert ACCESS not in str(rows)


def test_the_row_says_when_it_was_written_by_the_clock_of_the_database(store: SqlStore) -> None:
    store.write(record(), expected=None)

    [(updated_at,)] = execute("SELECT updated_at FROM feedamp_tokens")

    # Here the database's machine is ours.
    assert abs(updated_at - time.time()) < 10


# The conditional write


def test_of_many_first_writes_one_counts(store: SqlStore) -> None:
    store.read(KEY)

    results = all_at_once(lambda: store.write(record(), expected=None))

    assert sum(isinstance(each, TokenConflictError) for each in results) == 7
    assert store.read(KEY) in results


def test_of_many_later_writes_one_counts(store: SqlStore) -> None:
    revision = store.write(record(), expected=None).revision

    results = all_at_once(lambda: store.write(record(generation=1), expected=revision))

    assert sum(isinstance(each, TokenConflictError) for each in results) == 7
    assert store.read(KEY) in results


def test_forgetting_a_record_removes_its_row(store: SqlStore) -> None:
    store.write(record(), expected=None)

    store.delete(KEY)

    assert execute("SELECT * FROM feedamp_tokens") == []


# Listing


def test_listing_finds_the_sellers_of_one_client_at_one_endpoint(store: SqlStore) -> None:
    sellers = ["acme", "acme ", "ACME", "a/b", "Größe ß", "商店 😀", 'quote " and \\', "x" * 500]
    ours = [TokenKey(KEY.token_url, KEY.client_id, seller) for seller in sellers]
    others = [
        TokenKey(KEY.token_url, "client-1 ", "other"),
        TokenKey(KEY.token_url, "CLIENT-1", "other"),
        TokenKey(f"{KEY.token_url}/", KEY.client_id, "other"),
    ]
    for key in (*ours, *others):
        store.write(record(key), expected=None)

    assert set(store.keys(KEY.token_url, KEY.client_id)) == set(ours)


def test_a_record_that_cannot_be_decrypted_is_listed(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(record(), expected=None)
    set_fernet_key(monkeypatch, Fernet.generate_key().decode())

    assert store.keys(KEY.token_url, KEY.client_id) == [KEY]


def test_all_records_are_listed_by_one_query_whatever_some_of_them_hold(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [TokenKey(KEY.token_url, KEY.client_id, f"seller {number}") for number in range(20)]
    foreign, damaged, *others = keys
    written = {key: store.write(record(key), expected=None) for key in keys}
    store.write(record(TokenKey(KEY.token_url, "another client", "acme")), expected=None)
    [(another,)] = execute("SELECT record FROM feedamp_tokens WHERE key_digest = :key", key=others[0].digest)
    for key, text in ((foreign, another), (damaged, "gAAAA-cut")):
        execute("UPDATE feedamp_tokens SET record = :text WHERE key_digest = :key", text=text, key=key.digest)

    with statements_of(store) as sent:
        listed = dict(records_of(store, KEY.token_url, KEY.client_id))

    assert len(sent) == 1
    assert {key: listed[key] for key in others} == {key: written[key] for key in others}
    assert isinstance(listed.pop(foreign), TokenRecordError)
    assert isinstance(listed.pop(damaged), TokenStoreError)
    assert listed.keys() == set(others)


def test_listing_hides_no_token_from_the_log_since_it_shows_none(store: SqlStore) -> None:
    unheard = record(refresh_token=f"never-masked-{uuid4()}")
    store.write(unheard, expected=None)

    [(_, listed)] = records_of(store, KEY.token_url, KEY.client_id)

    assert listed == unheard.changed(revision=1)
    assert redact(unheard.refresh_token) != "***"  # Airflow 2.11 masks single letters of earlier tests in it
    mask_secret(unheard.refresh_token)
    assert redact(unheard.refresh_token) == "***"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seller=st.text(min_size=1, max_size=500))
def test_any_sellers_name_is_stored_and_listed(store: SqlStore, seller: str) -> None:
    key = TokenKey(KEY.token_url, "client-of-many", seller)

    written = store.write(record(key), expected=None)

    assert store.read(key) == written
    assert store.keys(key.token_url, key.client_id) == [key]
    store.delete(key)


# The database fails


def test_a_server_that_is_down_is_an_error_that_a_retry_can_mend(server: DatabaseServer) -> None:
    store = SqlStore(CONN_ID)
    written = store.write(record(), expected=None)
    server.stop()
    try:
        with pytest.raises(TokenStoreError, match="failed to read the token record of seller 'acme'") as down:
            store.read(KEY)
        with pytest.raises(TokenStoreError, match="failed to take the lease"), held(store):
            pass
        with pytest.raises(TokenStoreError):
            SqlStore(CONN_ID).read(KEY)
    finally:
        server.start()

    assert down.value.retryable
    assert store.read(KEY) == written


def test_a_server_that_goes_down_under_a_lease_does_not_undo_what_was_done(server: DatabaseServer) -> None:
    store = SqlStore(CONN_ID)
    try:
        with held(store):
            written = store.write(record(), expected=None)
            server.stop()
    finally:
        server.start()

    assert store.read(KEY) == written


def test_an_error_of_the_database_tells_no_value(store: SqlStore, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    store.write(record(), expected=None)
    execute("ALTER TABLE feedamp_tokens RENAME COLUMN revision TO version")

    with pytest.raises(TokenStoreError) as failed:
        store.write(record(generation=1), expected=1)

    told = "".join(traceback.format_exception(failed.value)) + caplog.text
    assert "feedamp_tokens" in told
    for hidden in (REFRESH, ACCESS, "gAAAA", "pass-of-the-test-database"):
        assert hidden not in told
