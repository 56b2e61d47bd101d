"""A new refresh token that the store does not take lives on in this process until the store does."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from airflow_provider_feedamp.exceptions import TokenStoreError
from airflow_provider_feedamp.tokens.cache import Unsaved
from airflow_provider_feedamp.tokens.records import RecordState, TokenRecord
from airflow_provider_feedamp.tokens.renewal import TokenWriter
from tests.tokens.custody import HOUR, Bench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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

    assert unsaved in bench.control.access_tokens("acme")
    assert len(critical) == 1
    assert "'acme'" in critical[0].getMessage()
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

key = TokenKey("https://feedamp.example", "client", "acme")
store = Store()
saver = TokenWriter(key, store, CachedToken(), lambda secret: None, lambda seconds: None)
saver.renewed(seeded(key, "old", now=0), TokenGrant("access", "new", 3600), 0, Lease(60))
Store.down = False
"""
    out = tmp_path / "saved"

    subprocess.run([sys.executable, "-c", program, str(out)], check=True, capture_output=True)

    assert out.read_text() == "new"


@pytest.mark.usefixtures("unsaved")
def test_while_a_record_is_not_stored_the_spent_token_is_not_spent_again(bench: Bench) -> None:
    bench.control.change(rotation="revoke_family")
    bench.later(HOUR + 1)

    with pytest.raises(TokenStoreError, match="'acme'") as raised:
        bench.custodian().token()

    assert raised.value.retryable
    assert bench.posts() == 1


def test_a_401_while_a_record_is_not_stored_does_not_spend_the_spent_token_again(
    bench: Bench, unsaved: str
) -> None:
    with pytest.raises(TokenStoreError):
        bench.custodian().replace(unsaved)

    assert bench.posts() == 1


def test_a_401_stores_what_was_not_stored_and_renews(bench: Bench, unsaved: str) -> None:
    bench.store.failing.clear()

    assert bench.custodian().replace(unsaved).renewed
    assert bench.whole()


@pytest.mark.usefixtures("unsaved")
def test_saving_late_leaves_a_persons_later_authorisation_alone(bench: Bench) -> None:
    bench.store.failing.clear()
    later = bench.control.connect("acme")
    bench.store.meddle(bench.key(), refresh_token=later, state=RecordState.ACTIVE, attempt=None)

    soon(bench)
    saver(bench).save_late()

    assert bench.record().refresh_token == later
    assert bench.slot().unsaved is None


@pytest.mark.usefixtures("unsaved")
def test_saving_late_makes_good_a_condemnation_of_the_spent_token(bench: Bench) -> None:
    bench.store.failing.clear()
    bench.store.meddle(bench.key(), state=RecordState.REAUTH_REQUIRED, access_token=None)

    soon(bench)
    saver(bench).save_late()

    assert bench.whole()
    assert bench.record().state is RecordState.ACTIVE
