"""What every token store must do, as tests: run them against a store of your own before you trust it.

Copy this file beside your tests. A store of yours that reads ``my_package.stores.RedisStore`` is tested by
this, in a file that pytest finds::

    import pytest
    from contract import TokenStoreContract
    from my_package.stores import RedisStore


    class TestRedisStore(TokenStoreContract):
        @pytest.fixture
        def store(self):
            return RedisStore("redis_for_tests")

        def peer(self, store):
            return RedisStore("redis_for_tests")

The fixture ``store`` must give a store that holds no record. ``peer`` gives the store as another worker sees
it: over the same records, with nothing else in common. Call ``pytest.register_assert_rewrite("contract")``
in your ``conftest.py`` to have pytest explain failed assertions. Only pytest and this provider are needed;
Airflow is not.

The processes of one test are forked: a store must not share connections with the process that forked it.
What cannot be tested on one machine is yours to argue: that the lock holds between machines.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_feedamp.exceptions import TokenBusyError, TokenConflictError, TokenStoreError
from airflow_provider_feedamp.tokens.cache import CACHE
from airflow_provider_feedamp.tokens.custodian import TokenCustodian
from airflow_provider_feedamp.tokens.endpoint import TokenEndpoint, TokenGrant
from airflow_provider_feedamp.tokens.records import Attempt, RecordState, TokenKey, TokenRecord, seeded

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from airflow_provider_feedamp.tokens.store import Lease, TokenStore

_URL = "https://feedamp.example/api/v1/access_token"
_KEY = TokenKey(_URL, "client", "hooli")
_OTHER = TokenKey(_URL, "client", "globex")
#: Names that a store must not fold, cut, split or trip over.
_NAMES = (
    "hooli",
    "HOOLI",
    "hooli ",
    "a/b",
    "a__b",
    "a%2Fb",
    "a'b\"c;--\\",
    "%",
    "Käse 🧀",
    "長い",
    "x" * 500,
)


class TokenStoreContract:
    """The tests that every token store passes; subclass it as the module's text shows."""

    #: Seconds to wait for what must happen sooner or later.
    patience = 30.0
    #: How many processes renew one seller's token at once; 0 where records end with the process.
    processes = 64

    def peer(self, store: TokenStore) -> TokenStore:
        """Return the store as another worker sees it; the same object where records end with the process."""
        return store

    def test_it_says_what_it_guarantees(self, store: TokenStore) -> None:
        """A person who chooses a store reads one sentence."""
        assert store.guarantee.strip().endswith(".")

    def worker(self, store: TokenStore) -> TokenStore:
        """Return the store as one of many processes opens it, in that process; by default ``peer``."""
        return self.peer(store)

    # Records

    def test_a_seller_without_a_record_has_none(self, store: TokenStore) -> None:
        """That is no error, and neither is to delete it; a lease is no record."""
        store.delete(_KEY)

        assert store.read(_KEY) is None
        with self._lock(store):
            assert (store.read(_KEY), store.keys(_URL, "client")) == (None, [])

    def test_every_worker_reads_what_was_written(self, store: TokenStore) -> None:
        """All fields come back, and the returned record is the stored one."""
        written = store.write(full_record(_KEY), expected=None)

        assert store.read(_KEY) == written
        assert self.peer(store).read(_KEY) == written

    def test_a_write_changes_the_revision_and_nothing_else(self, store: TokenStore) -> None:
        """The store sets the revision; everything else is the caller's."""
        record = full_record(_KEY)
        first = store.write(record, expected=None)
        second = store.write(first.changed(refresh_token="next"), expected=first.revision)

        assert first == record.changed(revision=first.revision)
        assert second == first.changed(refresh_token="next", revision=second.revision)
        assert second.revision > first.revision > 0

    def test_a_record_is_not_created_over_another(self, store: TokenStore) -> None:
        """``expected=None`` means that there must be none."""
        written = store.write(full_record(_KEY), expected=None)

        with pytest.raises(TokenConflictError):
            self.peer(store).write(seeded(_KEY, "other", now=0), expected=None)

        assert store.read(_KEY) == written

    def test_a_record_that_changed_meanwhile_is_not_overwritten(self, store: TokenStore) -> None:
        """The loser of two writers learns it, and the winner's record stays."""
        first = store.write(full_record(_KEY), expected=None)
        second = self.peer(store).write(first.changed(refresh_token="winner"), expected=first.revision)

        with pytest.raises(TokenConflictError):
            store.write(first.changed(refresh_token="loser"), expected=first.revision)

        assert store.read(_KEY) == second

    def test_a_record_that_is_gone_is_not_overwritten(self, store: TokenStore) -> None:
        """An expected revision needs a record."""
        with pytest.raises(TokenConflictError):
            store.write(full_record(_KEY), expected=1)

        assert store.read(_KEY) is None

    def test_sellers_clients_and_endpoints_share_no_record_and_are_listed_apart(
        self, store: TokenStore
    ) -> None:
        """Whatever their names are, and however alike."""
        ours = [TokenKey(_URL, "client", name) for name in _NAMES]
        others = [TokenKey(_URL, client, _NAMES[-1]) for client in ("other client", "CLIENT", "client ")]
        keys = [*ours, *others, TokenKey(_URL + "/", "client", "hooli")]
        written = {
            key: store.write(seeded(key, f"token {n}", now=n), expected=None) for n, key in enumerate(keys)
        }

        assert {key: store.read(key) for key in keys} == written
        listed = self.peer(store).keys(_URL, "client")
        assert (set(listed), len(listed)) == (set(ours), len(ours))

    def test_a_long_token_of_any_characters_comes_back_as_it_was(self, store: TokenStore) -> None:
        """A JWT may have thousands of characters."""
        token = "eyJ" * 4000 + " ü🧀\"'\\%\n\t"
        store.write(full_record(_KEY).changed(refresh_token=token, access_token=token), expected=None)

        record = self.peer(store).read(_KEY)
        assert record is not None
        assert (record.refresh_token, record.access_token) == (token, token)

    def test_a_deleted_record_is_gone_for_every_worker_and_can_be_made_anew(self, store: TokenStore) -> None:
        """A person has asked for it."""
        store.write(full_record(_KEY), expected=None)
        other = store.write(full_record(_OTHER), expected=None)
        store.delete(_KEY)

        assert self.peer(store).read(_KEY) is None
        assert store.read(_OTHER) == other
        assert store.write(full_record(_KEY), expected=None) == store.read(_KEY)

    # The lock

    def test_each_lease_has_a_name_of_its_own_and_time_left(self, store: TokenStore) -> None:
        """The spend plans with the one and signs with the other."""
        store.write(full_record(_KEY), expected=None)
        with self._lock(store) as first:
            assert first.left() > 0
        with self._lock(store) as second:
            assert second.nonce != first.nonce

    def test_while_one_worker_is_inside_no_other_enters(self, store: TokenStore) -> None:
        """A try without waiting ends at once."""
        store.write(full_record(_KEY), expected=None)
        with self._lock(store):
            outcome = _in_thread(lambda: self._enter(self.peer(store), _KEY, wait=0))

        assert isinstance(outcome, TokenBusyError)

    def test_another_sellers_lock_is_another_lock(self, store: TokenStore) -> None:
        """One seller's renewal never holds up the others."""
        store.write(full_record(_KEY), expected=None)
        for _ in range(10):
            with self._lock(store) as lease:
                # Less than this lease holds, so that it is not waited out.
                other = partial(self._enter, self.peer(store), _OTHER, wait=lease.left() / 2)
                outcome = _in_thread(other)
            if not isinstance(outcome, TokenStoreError):  # else the store was too slow on a busy machine
                break

        assert outcome is None

    def test_waiting_ends_when_its_time_is_up(self, store: TokenStore) -> None:
        """With a retryable error; nobody enters unasked."""
        store.write(full_record(_KEY), expected=None)
        with self._lock(store):
            began = time.monotonic()
            outcome = _in_thread(lambda: self._enter(self.peer(store), _KEY, wait=0.3))

        assert isinstance(outcome, TokenBusyError)
        assert time.monotonic() - began >= 0.3

    def test_waiting_ends_when_it_is_called_off(self, store: TokenStore) -> None:
        """A task that is being ended does not wait for a lock."""
        stop = threading.Event()
        store.write(full_record(_KEY), expected=None)
        with self._lock(store):
            threading.Timer(0.1, stop.set).start()
            began = time.monotonic()
            outcome = _in_thread(
                lambda: self._enter(self.peer(store), _KEY, wait=10 * self.patience, stop=stop)
            )

        assert isinstance(outcome, TokenBusyError)
        assert time.monotonic() - began < self.patience

    def test_who_waits_enters_when_the_other_has_left(self, store: TokenStore) -> None:
        """And finds what the other has written."""
        record = store.write(full_record(_KEY), expected=None)
        found: list[TokenRecord | None] = []

        def follow() -> None:
            with self._lock(self.peer(store)):
                found.append(store.read(_KEY))

        with self._lock(store) as lease:
            follower = threading.Thread(target=follow)
            follower.start()
            spent = record.changed(refresh_token="next", released=lease.nonce)
            written = store.write(spent, expected=record.revision)
        follower.join(self.patience)

        assert found == [written]

    def test_an_error_inside_leaves_the_lock(self, store: TokenStore) -> None:
        """A failed renewal must not shut out the next one."""
        store.write(full_record(_KEY), expected=None)
        with pytest.raises(ZeroDivisionError), self._lock(store):
            raise ZeroDivisionError

        assert _in_thread(lambda: self._enter(self.peer(store), _KEY, wait=self.patience)) is None

    def test_of_many_workers_one_at_a_time_is_inside_and_none_loses_a_write(self, store: TokenStore) -> None:
        """The whole of it, with three workers."""
        store.write(full_record(_KEY).changed(generation=0), expected=None)
        inside, most = [0], [0]

        def work() -> None:
            worker = self.peer(store)
            with self._lock(worker) as lease:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                record = worker.read(_KEY)
                assert record is not None
                spent = record.changed(generation=record.generation + 1, released=lease.nonce)
                worker.write(spent, expected=record.revision)
                inside[0] -= 1

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(3 * self.patience)

        record = store.read(_KEY)
        assert record is not None
        assert (record.generation, most) == (3, [1])

    def test_who_waits_leaves_when_the_record_is_enough(self, store: TokenStore) -> None:
        """A lock is for those who spend; who waits for a token takes the one that is stored."""
        if "enough" not in signature(store.lock).parameters:
            return  # the custodian looks for itself, as the test with processes shows
        record = store.write(full_record(_KEY), expected=None)
        asked: list[TokenRecord | None] = []

        def enough(found: TokenRecord | None) -> bool:
            asked.append(found)
            return found is not None and found.refresh_token == "next"

        def wait() -> None:
            with self.peer(store).lock(_KEY, wait=self.patience, stop=threading.Event(), enough=enough):
                raise AssertionError

        with self._lock(store):
            waiting = ThreadPoolExecutor(1).submit(wait)
            while not asked and not waiting.done():
                time.sleep(0.01)
            written = store.write(record.changed(refresh_token="next"), expected=record.revision)
            # While somebody else is still inside.
            assert isinstance(waiting.exception(self.patience), TokenBusyError)
        assert asked[:1] == [record]
        assert asked[-1] == written

    def test_what_enough_raises_ends_the_waiting(self, store: TokenStore) -> None:
        """Such as that a person has to authorise the seller again."""
        if "enough" not in signature(store.lock).parameters:
            return
        store.write(full_record(_KEY), expected=None)

        def enough(found: TokenRecord | None) -> bool:
            raise ZeroDivisionError

        def wait() -> None:
            with self.peer(store).lock(_KEY, wait=self.patience, stop=threading.Event(), enough=enough):
                raise AssertionError

        with self._lock(store):
            assert isinstance(_in_thread(wait), ZeroDivisionError)

    def test_many_processes_with_an_expired_token_make_one_post_and_nobody_fails(
        self, store: TokenStore, tmp_path: Path
    ) -> None:
        """All of them have the new token soon after it was stored, and none queues for the lock."""
        if not self.processes:
            return
        fresh = full_record(_KEY).changed(
            state=RecordState.ACTIVE, attempt=None, expires_at=time.time() + 1e6
        )
        record = store.write(fresh, expected=None)
        # How busy the machine is: as many processes that find a good token in the store, and ask nobody.
        begun, answers = self._ask_at_once(store, tmp_path / "no posts", wait=self.patience)
        assert {answer for answer, _ in answers} == {"access"}, answers
        soon = self.patience + 3 * (max(at for _, at in answers) - begun)
        store.write(record.changed(expires_at=0.0), expected=record.revision)

        posts = tmp_path / "posts"
        _, answers = self._ask_at_once(store, posts, wait=3 * soon)

        assert [answer for answer, _ in answers if answer != "new access"] == []
        stored_at = [float(line) for line in posts.read_text().splitlines()]
        assert len(stored_at) == 1, f"{len(stored_at)} POSTs: {stored_at}"
        late = sorted(at - stored_at[0] for _, at in answers)
        assert late[-1] < soon, f"Seconds after the POST, of each process: {late}"

    def _ask_at_once(
        self, store: TokenStore, posts: Path, *, wait: float
    ) -> tuple[float, list[tuple[str, float]]]:
        """Let many processes ask for a token; return when they began, and what each got, and when.

        :param posts: Takes a line for each POST.
        :param wait: Seconds that each process may wait for the lock.
        """
        fork = multiprocessing.get_context("fork")
        start, answers = fork.Event(), fork.SimpleQueue()

        def work() -> None:
            CACHE.clear()
            endpoint = _Endpoint(_URL, _KEY.client_id, "secret", posts=posts)
            custodian = TokenCustodian(_KEY, endpoint, self.worker(store), lock_wait=wait)
            start.wait()
            try:
                answer = custodian.token().value
            except BaseException as error:  # noqa: BLE001 - told to the test
                answer = f"{type(error).__name__}: {error}"
            answers.put((answer, time.time()))
            os._exit(0)  # not by way of whatever the test's process does at its end

        workers = [fork.Process(target=work) for _ in range(self.processes)]
        for worker in workers:
            worker.start()
        start.set()
        begun = time.time()
        given = [answers.get() for _ in workers]
        for worker in workers:
            worker.join()
        return begun, given

    def _lock(self, store: TokenStore) -> AbstractContextManager[Lease]:
        return store.lock(_KEY, wait=self.patience, stop=threading.Event())

    @staticmethod
    def _enter(store: TokenStore, key: TokenKey, *, wait: float, stop: threading.Event | None = None) -> None:
        with store.lock(key, wait=wait, stop=stop or threading.Event()):
            pass


@dataclass(frozen=True)
class _Endpoint(TokenEndpoint):
    """A token endpoint without a network, which takes its time and writes down when it has answered."""

    posts: Path = Path()

    def refresh(self, refresh_token: str) -> TokenGrant:
        time.sleep(1)
        with self.posts.open("a") as file:
            file.write(f"{time.time()}\n")
        return TokenGrant("new access", "new refresh", 3600.0)


def full_record(key: TokenKey) -> TokenRecord:
    """Return a record whose every field holds something, for the tests of a store."""
    return TokenRecord(
        key=key,
        refresh_token="refresh",
        access_token="access",
        expires_at=1_900_000_000.25,
        lifetime=3600.0,
        issued_at=1_800_000_000.5,
        generation=7,
        state=RecordState.UNCERTAIN,
        attempt=Attempt("attempt", key.fingerprint("refresh"), 1_800_000_001.125),
        reason="the answer was lost",
        seeds=(key.fingerprint("one"), key.fingerprint("two")),
        superseded="former",
        refused_seed=key.fingerprint("three"),
        refused_secret=key.fingerprint("secret"),
        released="nonce",
    )


def _in_thread(work: Callable[[], None]) -> BaseException | None:
    """Run work as another worker would, and return what it raised."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).exception()
