"""The SQL store on SQLite and on real PostgreSQL and MariaDB servers: lease, conditional write, listing."""

from __future__ import annotations

import logging
import multiprocessing
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_feedamp.exceptions import (
    FeedAmpError,
    TokenBusyError,
    TokenConflictError,
    TokenStoreError,
)
from airflow_provider_feedamp.stores import open_store
from airflow_provider_feedamp.stores.contract import TokenStoreContract
from airflow_provider_feedamp.stores.sql import SqlStore
from airflow_provider_feedamp.tokens.models import TokenKey
from tests.stores import sql_support
from tests.stores.fernet import set_fernet_key
from tests.stores.sql_support import ACCESS, CONN_ID, KEY, REFRESH, VARIABLE, Watch, execute, held, record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.databases import DatabaseServer


@pytest.fixture(autouse=True)
def _fernet_key(monkeypatch: pytest.MonkeyPatch) -> None:
    set_fernet_key(monkeypatch, Fernet.generate_key().decode())


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def database(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Set the connection to a database without our table, and return its kind."""
    if request.param == "sqlite":
        monkeypatch.setenv(VARIABLE, sql_support.sqlite(tmp_path))
    else:
        server: DatabaseServer = request.getfixturevalue(request.param)
        monkeypatch.setenv(VARIABLE, server.connection)
        execute("DROP TABLE IF EXISTS feedamp_tokens")
    return str(request.param)


@pytest.fixture
def store(database: str) -> SqlStore:
    """Return a store on the database."""
    return SqlStore(CONN_ID)


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> DatabaseServer:
    """Return a server that the test may stop and start, with the connection set to it."""
    running: DatabaseServer = request.getfixturevalue(request.param)
    monkeypatch.setenv(VARIABLE, running.connection)
    execute("DROP TABLE IF EXISTS feedamp_tokens")
    return running


def all_at_once(work: Callable[[], object], threads: int = 8) -> list[object]:
    """Run the work in threads that begin together; an error of ours is a result."""
    start = threading.Barrier(threads)

    def run(_: int) -> object:
        start.wait()
        try:
            return work()
        except FeedAmpError as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(threads)))


class TestSqlStore(TokenStoreContract):
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


# The lease


def test_a_lease_keeps_others_out_and_is_free_after(store: SqlStore) -> None:
    with held(store), pytest.raises(TokenBusyError), held(SqlStore(CONN_ID)):
        pass

    with held(SqlStore(CONN_ID)):
        pass


def test_of_many_who_want_a_new_sellers_lease_one_gets_it(store: SqlStore) -> None:
    store.read(KEY)
    everybody_tried = threading.Barrier(8)

    def take() -> str:
        try:
            with held(store):
                everybody_tried.wait(30)
                return "entered"
        except TokenBusyError:
            everybody_tried.wait(30)
            return "busy"

    assert sorted(map(str, all_at_once(take))) == ["busy"] * 7 + ["entered"]


def test_a_lease_is_not_a_record(store: SqlStore) -> None:
    with held(store):
        assert store.read(KEY) is None
        assert store.keys(KEY.token_url, KEY.client_id) == []


def test_leases_of_two_sellers_do_not_meet(store: SqlStore) -> None:
    with held(store), held(store, TokenKey(KEY.token_url, KEY.client_id, "Acme")):
        pass


@pytest.mark.parametrize("wrong_by", [-3600.0, 3600.0])
def test_a_workers_wrong_clock_ends_no_lease(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch, wrong_by: float
) -> None:
    with held(store):
        right = time.time
        monkeypatch.setattr(time, "time", lambda: right() + wrong_by)

        with pytest.raises(TokenBusyError), held(SqlStore(CONN_ID)):
            pass


@pytest.mark.parametrize("wrong_by", [-3600.0, 3600.0])
def test_a_lease_runs_out_by_the_clock_of_the_database(
    database: str, monkeypatch: pytest.MonkeyPatch, wrong_by: float
) -> None:
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + wrong_by)
    began = time.monotonic()

    with held(SqlStore(CONN_ID, ttl=0.8)), held(SqlStore(CONN_ID), wait=30):
        waited = time.monotonic() - began

    assert 0.8 <= waited < 10


def test_whoever_outlives_a_lease_does_not_end_the_next_ones(database: str) -> None:
    late, next_one = SqlStore(CONN_ID, ttl=0), SqlStore(CONN_ID)
    with held(late):
        section = next_one.lock(KEY, wait=0, stop=threading.Event())
        section.__enter__()

    with pytest.raises(TokenBusyError), held(SqlStore(CONN_ID)):
        pass
    section.__exit__(None, None, None)


def test_a_lease_never_seems_longer_to_its_owner_than_it_is(server: DatabaseServer) -> None:
    # SQLite's clock is too coarse to tell.
    with SqlStore(CONN_ID).lock(KEY, wait=0, stop=threading.Event()) as lease:
        [(until,)] = execute("SELECT lease_until FROM feedamp_tokens")

        assert lease.left() <= until - time.time()


def test_forgetting_a_record_does_not_free_its_lease(store: SqlStore) -> None:
    store.write(record(), expected=None)
    with held(store):
        store.delete(KEY)

        assert store.read(KEY) is None
        with pytest.raises(TokenBusyError), held(SqlStore(CONN_ID)):
            pass


def test_forgetting_a_record_removes_its_row(store: SqlStore) -> None:
    store.write(record(), expected=None)

    store.delete(KEY)

    assert execute("SELECT * FROM feedamp_tokens") == []


def test_no_transaction_is_open_while_a_lease_is_held(database: str, store: SqlStore) -> None:
    store.write(record(), expected=None)
    with held(store):
        store.read(KEY)

        if database == "postgresql":
            query = "SELECT * FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
            assert execute(query) == []
        elif database == "mariadb":
            assert execute("SELECT * FROM information_schema.innodb_trx") == []
        # Would wait for a row, or file, that an open transaction has locked.
        execute("UPDATE feedamp_tokens SET updated_at = 0")


def test_two_processes_are_never_in_the_section_together(server: DatabaseServer) -> None:
    spawn = multiprocessing.get_context("spawn")
    watch = Watch(spawn.Barrier(2), spawn.Lock(), spawn.Array("i", 2, lock=False))
    workers = [spawn.Process(target=sql_support.contend, args=(watch, 100)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(90)
        worker.kill()

    stored = SqlStore(CONN_ID).read(KEY)

    assert [worker.exitcode for worker in workers] == [0, 0]
    assert list(watch.inside) == [0, 1]
    assert stored is not None
    assert (stored.generation, stored.revision) == (200, 200)


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
