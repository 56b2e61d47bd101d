"""The SQL store's lease on SQLite and on real PostgreSQL and MariaDB servers."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from cryptography.fernet import Fernet

from airflow_provider_feedamp.exceptions import TokenBusyError, TokenStoreError
from airflow_provider_feedamp.tokens import sql_store
from airflow_provider_feedamp.tokens.records import TokenKey
from airflow_provider_feedamp.tokens.sql_store import SqlStore
from tests.stores import sql_support
from tests.stores.fernet import set_fernet_key
from tests.stores.sql_support import (
    CONN_ID,
    KEY,
    Watch,
    all_at_once,
    execute,
    held,
    on_update,
    record,
    statements_of,
)

if TYPE_CHECKING:
    from airflow_provider_feedamp.tokens.records import TokenRecord
    from tests.databases import DatabaseServer

pytestmark = pytest.mark.usefixtures("fernet_key")


@pytest.fixture
def store(database: str) -> SqlStore:
    """Return a store on the database."""
    return SqlStore(CONN_ID)


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
    store = SqlStore(CONN_ID)
    with held(store):
        on_update(server, SLOWLY)

    with store.lock(KEY, wait=0, stop=threading.Event()) as lease:
        [(until,)] = execute("SELECT lease_until FROM feedamp_tokens")

        assert lease.left() <= until - time.time()


def test_forgetting_a_record_does_not_free_its_lease(store: SqlStore) -> None:
    store.write(record(), expected=None)
    with held(store):
        store.delete(KEY)

        assert store.read(KEY) is None
        with pytest.raises(TokenBusyError), held(SqlStore(CONN_ID)):
            pass


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


# Waiting


def test_a_waiting_worker_leaves_when_the_record_is_what_it_wanted(store: SqlStore) -> None:
    asked: list[TokenRecord | None] = []

    def enough(found: TokenRecord | None) -> bool:
        asked.append(found)
        if len(asked) == 2:
            store.write(record(generation=1), expected=None)
        return found is not None

    with (
        held(store),
        pytest.raises(TokenBusyError, match="has renewed"),
        SqlStore(CONN_ID).lock(KEY, wait=600, stop=threading.Event(), enough=enough),
    ):
        pass

    assert asked == [None, None, store.read(KEY)]


def test_a_waiting_worker_that_cannot_read_the_record_says_so(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(record(), expected=None)
    set_fernet_key(monkeypatch, Fernet.generate_key().decode())

    with (
        held(store),
        pytest.raises(TokenStoreError, match="encryption_key"),
        SqlStore(CONN_ID).lock(KEY, wait=600, stop=threading.Event(), enough=lambda found: True),
    ):
        pass


def test_a_waiting_worker_sends_one_select_for_each_look(store: SqlStore) -> None:
    with held(store), statements_of(waiter := SqlStore(CONN_ID)) as sent:
        with pytest.raises(TokenBusyError), held(waiter, wait=1.5):
            pass

    verbs = [statement.split()[0] for statement in sent]
    assert verbs[0] == "UPDATE"
    assert len(verbs) > 3
    assert set(verbs[1:]) == {"SELECT"}


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the store itself has logged."""
    return [each.getMessage() for each in caplog.records if each.name == sql_store.__name__]


@pytest.mark.parametrize("host", [socket.gethostname(), "a-long-name." * 21])
def test_a_waiting_worker_says_once_for_whom_it_waits(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, host: str
) -> None:
    caplog.set_level(logging.INFO, logger=sql_store.__name__)
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    with held(store):
        with pytest.raises(TokenBusyError), held(SqlStore(CONN_ID)):
            pass
        assert said(caplog) == []
        with pytest.raises(TokenBusyError), held(SqlStore(CONN_ID), wait=1):
            pass

    [told] = said(caplog)
    owner = told.split()[2]
    assert told == f"Seller 'acme': {owner} renews the token. Waiting for it."
    assert owner.endswith(f":{os.getpid()}")
    assert owner.partition(":")[0] in host
    with held(SqlStore(CONN_ID)):
        pass


# Cut short, and too late


class CutError(BaseException):
    """What a signal raises in the middle of anything, as Airflow's time limit for a task does."""


def test_a_signal_while_the_database_grants_a_lease_leaves_it_free(server: DatabaseServer) -> None:
    store = SqlStore(CONN_ID)
    with held(store):
        on_update(server, SLOWLY)
    before = signal.signal(signal.SIGUSR1, _cut)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        with pytest.raises(CutError), held(store):
            pytest.fail("the signal came too late")
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)

    with held(SqlStore(CONN_ID), wait=5):
        pass


@pytest.mark.parametrize("code", range(3))
def test_to_be_slower_than_another_statement_is_no_failure(server: DatabaseServer, code: int) -> None:
    store = SqlStore(CONN_ID)
    with held(store):
        on_update(server, _too_late(server, code, "% 2 = 1"))

    with held(store, wait=10):
        written = store.write(record(), expected=None)

    assert store.read(KEY) == written
    with held(SqlStore(CONN_ID), wait=10):
        pass


def test_to_be_slower_again_and_again_is_an_error_that_a_retry_can_mend(server: DatabaseServer) -> None:
    store = SqlStore(CONN_ID)
    on_update(server, _too_late(server, 0, "> 0"))

    with pytest.raises(TokenStoreError, match=r"did not write .*Nothing was changed") as failed:
        store.write(record(), expected=None)

    assert failed.value.retryable
    assert store.read(KEY) is None


# Processes


def test_two_processes_are_never_in_the_section_together(server: DatabaseServer) -> None:
    fork = multiprocessing.get_context("fork")
    watch = Watch(fork.Barrier(2), fork.Lock(), fork.Array("i", 2, lock=False))
    workers = [fork.Process(target=sql_support.contend, args=(watch, 100)) for _ in range(2)]
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


#: What makes the granting of a lease slow, in the language of each server.
SLOWLY = {
    "postgres": "IF NEW.lease_owner IS NOT NULL THEN PERFORM pg_sleep(0.6); END IF;",
    "mysql": "IF NEW.lease_owner IS NOT NULL THEN DO SLEEP(0.6); END IF;",
}


def _too_late(server: DatabaseServer, number: int, which: str) -> dict[str, str]:
    """Return what refuses some of the updates as a database does when another statement was quicker."""
    code = {"postgres": ("40001", "40P01", "40001"), "mysql": (1213, 1020, 1205)}[server.conn_type][number]
    postgres = f"RAISE EXCEPTION 'late' USING ERRCODE = '{code}'"
    mysql = f"SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = {code}, MESSAGE_TEXT = 'late'"
    return {
        "postgres": f"IF nextval('updates') {which} THEN {postgres}; END IF;",
        "mysql": f"IF nextval(updates) {which} THEN {mysql}; END IF;",
    }


def _cut(number: int, frame: object) -> None:
    raise CutError
