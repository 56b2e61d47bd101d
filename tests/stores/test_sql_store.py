"""The SQL store on SQLite, PostgreSQL and MariaDB: table, conditional write, listing, failures, lease."""

from __future__ import annotations

import gc
import itertools
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from airflow.providers.common.compat.sdk import mask_secret, redact
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_feedamp.exceptions import (
    TokenBusyError,
    TokenConflictError,
    TokenRecordError,
    TokenStoreError,
)
from airflow_provider_feedamp.tokens import sql_store
from airflow_provider_feedamp.tokens.records import TokenKey
from airflow_provider_feedamp.tokens.sql_store import SqlStore
from airflow_provider_feedamp.tokens.store import records_of
from tests.stores import sql_support
from tests.stores.contract import TokenStoreContract
from tests.stores.fernet import set_fernet_key
from tests.stores.sql_support import (
    ACCESS,
    CONN_ID,
    KEY,
    REFRESH,
    Watch,
    all_at_once,
    execute,
    held,
    on_update,
    record,
    statements_of,
)
from tests.tokens.custody import until

if TYPE_CHECKING:
    from types import FrameType

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
    began = time.time()
    store.write(record(), expected=None)

    [(updated_at,)] = execute("SELECT updated_at FROM feedamp_tokens")

    # Here the database's machine is ours.
    assert began - 1 < updated_at < time.time() + 1


# The conditional write


@pytest.mark.parametrize("first", [True, False])
def test_of_many_writes_one_counts(store: SqlStore, first: bool) -> None:
    store.read(KEY)
    revision = None if first else store.write(record(), expected=None).revision

    results = all_at_once(lambda: store.write(record(generation=1), expected=revision))

    assert sum(isinstance(each, TokenConflictError) for each in results) == 7
    assert store.read(KEY) in results


def test_forgetting_a_record_removes_its_row(store: SqlStore) -> None:
    store.write(record(), expected=None)

    store.delete(KEY)

    assert execute("SELECT * FROM feedamp_tokens") == []


# Listing


def test_all_records_are_listed_by_one_query_whatever_some_of_them_hold(store: SqlStore) -> None:
    keys = [TokenKey(KEY.token_url, KEY.client_id, f"seller {number}") for number in range(20)]
    foreign, damaged, *others = keys
    written = {key: store.write(record(key), expected=None) for key in keys}
    store.write(record(TokenKey(KEY.token_url, "another client", "hooli")), expected=None)
    [(another,)] = execute("SELECT record FROM feedamp_tokens WHERE key_digest = :key", key=others[0].digest)
    for key, text in ((foreign, another), (damaged, "gAAAA-cut")):
        execute("UPDATE feedamp_tokens SET record = :text WHERE key_digest = :key", text=text, key=key.digest)

    with statements_of(store) as sent:
        listed = dict(records_of(store, KEY.token_url, KEY.client_id))

    assert len(sent) == 1
    assert set(store.keys(KEY.token_url, KEY.client_id)) == set(keys)
    assert {key: listed[key] for key in others} == {key: written[key] for key in others}
    with pytest.raises(TokenRecordError, match="another seller"):
        store.read(foreign)
    with pytest.raises(TokenStoreError, match=f"seller '{damaged.seller}'"):
        store.read(damaged)
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
        with pytest.raises(
            TokenStoreError, match="failed to read the token record of seller 'hooli'"
        ) as down:
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


# The lease


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

    with held(SqlStore(CONN_ID, ttl=0.4)), held(SqlStore(CONN_ID), wait=60):
        assert time.monotonic() - began >= 0.4


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
        on_update(server, slowly(0.6))

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


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a waiting worker look often."""
    monkeypatch.setattr(sql_store, "_POLL", (0.02, 0.04))


def look(waiter: SqlStore, times: int) -> None:
    """Wait for a lease that somebody else holds, for that many looks."""
    looks = iter(range(1, times + 1))
    with (
        pytest.raises(TokenBusyError),
        waiter.lock(KEY, wait=600, stop=threading.Event(), enough=lambda found: next(looks) == times),
    ):
        pass


@pytest.mark.usefixtures("quick_looks")
def test_a_waiting_worker_sends_one_select_for_each_look(store: SqlStore) -> None:
    with held(store), statements_of(waiter := SqlStore(CONN_ID)) as sent:
        look(waiter, 4)

    assert [statement.split()[0] for statement in sent] == ["UPDATE", *["SELECT"] * 4]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the store itself has logged."""
    return [each.getMessage() for each in caplog.records if each.name == sql_store.__name__]


@pytest.mark.usefixtures("quick_looks")
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
        look(SqlStore(CONN_ID), 4)

    [told] = said(caplog)
    owner = told.split()[2]
    assert told == f"Seller 'hooli': {owner} renews the token. Waiting for it."
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
        on_update(server, slowly(3))

    def cut_once_it_grants() -> None:
        until(lambda: execute(GRANTING[server.conn_type]))
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, _cut)
    try:
        threading.Thread(target=cut_once_it_grants).start()
        with pytest.raises(CutError), held(store):
            pytest.fail("the signal came too late")
    finally:
        signal.signal(signal.SIGUSR1, before)

    with held(SqlStore(CONN_ID), wait=30):  # less than a lease that was left would last
        pass


def test_a_signal_at_any_line_of_a_statement_stops_the_task_and_breaks_nothing(store: SqlStore) -> None:
    """Also in SQLAlchemy's own lines, which swallow what is raised there, or raise an error of their own."""
    store.write(record(), expected=None)
    before = signal.signal(signal.SIGALRM, _cut)
    cut = 0
    try:
        for step in itertools.count(1):
            try:
                run = _signalled(store, at=step)
            except CutError:
                cut += 1
            else:
                assert run < step, f"the signal of line {step} was lost"
                break
    finally:
        signal.signal(signal.SIGALRM, before)

    assert cut > 200
    assert store.read(KEY) is not None  # a pool that has lost its connections waits for one, and fails


def _signalled(store: SqlStore, at: int) -> int:
    """Read the record, with a SIGALRM at the given line that it runs; return how many lines were run."""
    steps = 0

    def trace(frame: FrameType, happened: str, argument: Any) -> Any:
        nonlocal steps
        if happened == "line":
            steps += 1
            if steps == at:
                signal.raise_signal(signal.SIGALRM)
        return trace

    former = sys.gettrace()
    gc.disable()  # what it calls swallows what is raised there, and belongs to anybody's objects
    sys.settrace(trace)
    try:
        store.read(KEY)
    finally:
        sys.settrace(former)
        gc.enable()
    return steps


@pytest.mark.parametrize("code", range(3))
def test_to_be_slower_than_another_statement_is_no_failure(server: DatabaseServer, code: int) -> None:
    store = SqlStore(CONN_ID)
    with held(store):
        on_update(server, _too_late(server, code, "% 2 = 1"))

    with held(store, wait=30):
        written = store.write(record(), expected=None)

    assert store.read(KEY) == written
    with held(SqlStore(CONN_ID), wait=30):  # less than a lease that was left would last
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
    "postgres": "IF NEW.lease_owner IS NOT NULL THEN PERFORM pg_sleep({}); END IF;",
    "mysql": "IF NEW.lease_owner IS NOT NULL THEN DO SLEEP({}); END IF;",
}
#: Finds a server that does so.
GRANTING = {
    "postgres": "SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'UPDATE feedamp%'",
    "mysql": "SELECT 1 FROM information_schema.processlist WHERE state = 'User sleep'",
}


def slowly(seconds: float) -> dict[str, str]:
    return {kind: text.format(seconds) for kind, text in SLOWLY.items()}


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
