"""A new refresh token is durable before anybody uses the access token that came with it, and is kept."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import pytest

from airflow_provider_feedamp.exceptions import TokenNotRenewedError, TokenStoreError
from airflow_provider_feedamp.tokens.cache import CACHE, Unsaved
from airflow_provider_feedamp.tokens.records import RecordState, TokenRecord
from airflow_provider_feedamp.tokens.renewal import TokenWriter
from tests.tokens.custody import HOUR, Bench, at_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def refuse(state: RecordState, times: int) -> Callable[[TokenRecord], None]:
    """Return a hook that refuses that many writes of records of a state."""
    left = [times]

    def hook(record: TokenRecord) -> None:
        if record.state is state and left[0] > 0:
            left[0] -= 1
            raise TokenStoreError("the store is down")

    return hook


# Write before use


def test_nobody_sees_the_access_token_before_the_record_is_stored(bench: Bench) -> None:
    custodian = bench.seeded()
    first = custodian.token()
    bench.later(HOUR - 300)
    writing, go_on = threading.Event(), threading.Event()

    def hold(record: TokenRecord) -> None:
        if record.state is RecordState.ACTIVE:
            writing.set()
            go_on.wait(60)

    bench.store.before_write = hold
    with ThreadPoolExecutor(1) as pool:
        winner = pool.submit(custodian.token)
        assert writing.wait(60)
        meanwhile = {custodian.token().value for _ in range(10)}
        cached = bench.slot().token
        go_on.set()

    assert meanwhile == {first.value}
    assert cached is not None
    assert cached.value == first.value
    assert winner.result().value == bench.record().access_token


def test_at_the_moment_any_thread_has_a_token_the_store_has_its_record(bench: Bench) -> None:
    custodian = bench.seeded()

    def stored_when_seen() -> bool:
        token = custodian.token()
        return bench.record().access_token == token.value

    assert all(at_once(20, stored_when_seen))
    assert bench.whole()


def test_tokens_are_masked_after_they_are_stored_and_before_they_are_handed_out(bench: Bench) -> None:
    masked: list[tuple[str, bool]] = []

    def mask(secret: str) -> None:
        record = bench.store.records.get(bench.key())
        stored = record is not None and secret in (record.access_token, record.refresh_token)
        masked.append((secret, stored))

    token = bench.seeded(on_secret=mask).token()

    assert {(token.value, True), (bench.live(), True)} <= set(masked)


def test_a_mask_that_fails_comes_too_late_to_lose_the_token(bench: Bench) -> None:
    spent = bench.live()

    def mask(secret: str) -> None:
        if secret != spent:
            raise RuntimeError

    custodian = bench.seeded(on_secret=mask)
    with pytest.raises(RuntimeError):
        custodian.token()

    assert bench.whole()
    assert bench.record().state is RecordState.ACTIVE


def test_a_log_that_fails_comes_too_late_to_lose_the_token(bench: Bench) -> None:
    def explode(record: logging.LogRecord) -> bool:
        raise RuntimeError

    log = logging.getLogger("airflow_provider_feedamp.tokens.renewal")
    log.setLevel(logging.DEBUG)
    log.addFilter(explode)
    bench.control.change(rotation="static")
    bench.control.fault("odd_body", replace={"expires_in": "soon"})
    try:
        with pytest.raises(RuntimeError):
            bench.seeded().token()
    finally:
        log.removeFilter(explode)
        log.setLevel(logging.NOTSET)

    assert bench.record().access_token in bench.control.access_tokens("hooli")


# The write fails


@pytest.mark.parametrize("failures", [1, 5])
def test_a_store_that_fails_for_a_while_is_tried_again_until_it_takes_the_record(
    bench: Bench, failures: int, caplog: pytest.LogCaptureFixture
) -> None:
    bench.store.before_write = refuse(RecordState.ACTIVE, failures)

    assert bench.seeded().token().renewed
    assert bench.whole()
    assert len(bench.slept) == failures
    assert "could NOT be stored" not in caplog.text


# The record changes between the spend and the save


@pytest.mark.parametrize(
    "change",
    [
        lambda bench, record: bench.store.meddle(bench.key(), released="another lease"),
        lambda bench, record: bench.store.delete(bench.key()),
    ],
    ids=["touched", "deleted"],
)
def test_a_record_that_was_touched_or_deleted_meanwhile_takes_the_new_pair_all_the_same(
    bench: Bench, change: Callable[[Bench, TokenRecord], object]
) -> None:
    bench.store.just_before(RecordState.ACTIVE, partial(change, bench))

    assert bench.seeded().token().value == bench.record().access_token
    assert bench.whole()


def test_a_record_that_holds_another_refresh_token_by_now_is_left_alone(bench: Bench) -> None:
    custodian = bench.seeded()
    theirs = {"refresh_token": "theirs", "access_token": "their access", "expires_at": bench.now() + HOUR}
    bench.store.just_before(RecordState.ACTIVE, lambda record: bench.store.meddle(bench.key(), **theirs))

    token = custodian.token()

    assert (bench.record().refresh_token, token.value) == ("theirs", "their access")


def test_a_write_that_arrived_though_it_reported_a_failure_is_recognised(bench: Bench) -> None:
    custodian = bench.seeded()

    def arrives(record: TokenRecord) -> None:
        bench.store.put_over(record)
        raise TokenStoreError("time-out")

    bench.store.just_before(RecordState.ACTIVE, arrives)

    assert custodian.token().value == bench.record().access_token
    assert bench.whole()


# Odd grants


def test_an_answer_with_a_refresh_token_only_is_stored_and_retryable(bench: Bench) -> None:
    custodian = bench.seeded()
    bench.control.fault("odd_body", remove=["access_token"])

    with pytest.raises(TokenNotRenewedError, match="no access_token") as raised:
        custodian.token()

    assert raised.value.retryable
    assert bench.whole()
    assert custodian.token().renewed


def test_an_answer_without_a_refresh_token_leaves_the_present_one_in_force(bench: Bench) -> None:
    bench.control.change(rotation="static")
    custodian = bench.seeded()
    issued = bench.now()
    custodian.token()
    bench.later(HOUR + 1)
    bench.control.fault("odd_body", remove=["refresh_token"])

    assert custodian.token().renewed
    assert bench.whole()
    assert bench.record().issued_at == pytest.approx(issued, abs=60)  # the year counts from its arrival


@pytest.mark.parametrize(
    ("expires_in", "lifetime"),
    [("1800", 1800.0), (None, 3600.0), (0, 3600.0), (-5, 3600.0), (10**9, 86400.0)],
)
def test_an_odd_lifetime_is_taken_with_care(bench: Bench, expires_in: object, lifetime: float) -> None:
    bench.control.fault("odd_body", replace={"expires_in": expires_in})

    assert bench.seeded().token().lifetime == lifetime


def test_the_life_of_a_token_counts_from_when_it_was_asked_for(bench: Bench) -> None:
    custodian = bench.seeded(endpoint=bench.endpoint(before=lambda: bench.later(30)))
    asked = bench.now()

    token = custodian.token()

    assert token.expires_at.timestamp() == pytest.approx(asked + HOUR, abs=20)


def test_a_saved_record_begins_with_a_clean_sheet(bench: Bench) -> None:
    bench.control.change(rotation="grace")
    bench.control.fault("lose_answer")
    bench.seeded().token()

    record = bench.record()

    assert (record.state, record.attempt, record.reason, record.superseded) == (
        RecordState.ACTIVE,
        None,
        "",
        None,
    )
    assert record.released
    CACHE.clear()
    assert not bench.custodian().token().renewed


def saver(bench: Bench) -> TokenWriter:
    """Return what tries to save once more, as every later call and the end of the process do."""
    return TokenWriter(bench.key(), bench.store, bench.slot(), lambda secret: None, bench.sleep)


def soon(bench: Bench) -> None:
    """Let the pause between two tries be over."""
    bench.slot().save_at = 0.0


@pytest.fixture
def unsaved(bench: Bench) -> Iterator[str]:
    """Let the store go down between the spend and the save; return the access token that was handed out."""
    custodian = bench.seeded()
    bench.store.failing = {"active"}
    yield custodian.token().value
    bench.slot().unsaved = None  # or the end of the test run would try to store it


def test_a_store_that_stays_down_lets_the_task_go_on_and_says_so_at_critical(
    bench: Bench, unsaved: str, caplog: pytest.LogCaptureFixture
) -> None:
    critical = [record for record in caplog.get_records("setup") if record.levelno == logging.CRITICAL]

    assert unsaved in bench.control.access_tokens("hooli")
    assert len(critical) == 1
    assert "'hooli'" in critical[0].getMessage()
    assert bench.live() not in caplog.text


def test_a_record_that_was_not_stored_is_stored_by_the_next_call(bench: Bench, unsaved: str) -> None:
    bench.store.failing.clear()
    soon(bench)

    assert bench.custodian().token().value == unsaved
    assert bench.whole()
    assert bench.slot().unsaved is None


def test_a_record_that_was_not_stored_is_tried_again_while_the_token_is_used(
    bench: Bench, unsaved: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.clear()
    bench.store.asked.clear()
    soon(bench)
    custodian = bench.custodian()

    for _ in range(100):
        assert (custodian.cached_token() or custodian.token()).value == unsaved
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL]
    assert bench.store.asked == ["write active"]  # and not for each order: a store may fail slowly


def test_a_pair_that_another_thread_could_not_store_meanwhile_is_not_forgotten(
    bench: Bench, unsaved: str
) -> None:
    bench.store.failing.clear()
    custodian = bench.custodian()

    def another_thread_spends(record: TokenRecord) -> None:
        # As far as this one is: its own pair is stored, and the other's is not.
        bench.store.before_write = lambda record: None
        bench.slot().unsaved = Unsaved(record.changed(refresh_token="later"), record.refresh_token)

    bench.store.before_write = another_thread_spends
    soon(bench)
    custodian.token()

    later = bench.slot().unsaved
    assert later is not None
    assert later.record.refresh_token == "later"


@pytest.mark.usefixtures("unsaved")
def test_a_record_that_was_not_stored_is_stored_at_exit(bench: Bench) -> None:
    bench.store.failing.clear()

    saver(bench).save_at_exit()

    assert bench.whole()


def test_saving_at_exit_is_a_matter_of_the_interpreter(tmp_path: Path) -> None:
    program = """
import atexit, sys
from airflow_provider_feedamp.exceptions import TokenStoreError
from airflow_provider_feedamp.tokens.store import Lease
from airflow_provider_feedamp.tokens.store import MemoryStore
from airflow_provider_feedamp.tokens.cache import CachedToken
from airflow_provider_feedamp.tokens.endpoint import TokenGrant
from airflow_provider_feedamp.tokens.records import TokenKey, seeded
from airflow_provider_feedamp.tokens.renewal import TokenWriter

class Store(MemoryStore):
    down = True
    def write(self, record, *, expected):
        if self.down:
            raise TokenStoreError("down")
        open(sys.argv[1], "w").write(record.refresh_token)
        return super().write(record, expected=expected)

key = TokenKey("https://feedamp.example", "client", "hooli")
store = Store()
saver = TokenWriter(key, store, CachedToken(), lambda secret: None, lambda seconds: None)
saver.renewed(seeded(key, "old", now=0), TokenGrant("access", "new", 3600), 0, Lease(60))
Store.down = False
"""
    out = tmp_path / "saved"

    subprocess.run([sys.executable, "-c", program, str(out)], check=True, capture_output=True)

    assert out.read_text() == "new"


@pytest.mark.parametrize("refused", [True, False])
def test_while_a_record_is_not_stored_the_spent_token_is_not_spent_again(
    bench: Bench, unsaved: str, refused: bool
) -> None:
    bench.control.change(rotation="revoke_family")
    custodian = bench.custodian()
    if not refused:
        bench.later(HOUR + 1)

    with pytest.raises(TokenStoreError, match="'hooli'") as raised:
        custodian.replace(unsaved) if refused else custodian.token()

    assert raised.value.retryable
    assert bench.posts() == 1


def test_a_401_stores_what_was_not_stored_and_renews(bench: Bench, unsaved: str) -> None:
    bench.store.failing.clear()

    assert bench.custodian().replace(unsaved).renewed
    assert bench.whole()


@pytest.mark.usefixtures("unsaved")
@pytest.mark.parametrize("authorised", [True, False])
def test_saving_late_leaves_a_persons_later_authorisation_alone_and_undoes_a_condemnation_of_the_spent_token(
    bench: Bench, authorised: bool
) -> None:
    bench.store.failing.clear()
    if authorised:
        later = bench.control.connect("hooli")
        bench.store.meddle(bench.key(), refresh_token=later, state=RecordState.ACTIVE, attempt=None)
    else:
        bench.store.meddle(bench.key(), state=RecordState.REAUTH_REQUIRED, access_token=None)

    soon(bench)
    saver(bench).save_late()

    assert bench.whole()
    assert (bench.record().state, bench.slot().unsaved) == (RecordState.ACTIVE, None)
