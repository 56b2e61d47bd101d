"""However many ask at once, and however often FeedAMP says 401: one renewal."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from airflow_provider_feedamp.exceptions import (
    AnswerLostError,
    ClientRefusedError,
    ConfigurationError,
    TokenBusyError,
    TokenNotRenewedError,
)
from airflow_provider_feedamp.tokens.cache import CachedToken
from airflow_provider_feedamp.tokens.store import MemoryStore
from tests.tokens.custody import HOUR, Bench, TroubledStore, at_once

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_feedamp.tokens.records import TokenKey
    from airflow_provider_feedamp.tokens.store import Lease

# Single flight


def test_50_threads_on_an_expired_token_make_one_post(bench: Bench) -> None:
    custodian = bench.seeded()
    custodian.token()
    bench.later(HOUR + 1)

    tokens = at_once(50, custodian.token)

    assert len({token.value for token in tokens}) == 1
    assert [token.renewed for token in tokens].count(True) == 1
    assert bench.posts() == 2
    assert bench.whole()


def test_50_threads_wait_for_a_slow_winner_and_make_one_post(bench: Bench) -> None:
    custodian = bench.seeded()
    bench.control.fault("slow", seconds=0.5)

    tokens = at_once(50, custodian.token)

    assert len({token.value for token in tokens}) == 1
    assert bench.posts() == 1


def test_50_threads_with_a_401_make_one_post(bench: Bench) -> None:
    custodian = bench.seeded()
    refused = custodian.token().value
    bench.control.expire("acme")

    tokens = at_once(50, lambda: custodian.replace(refused).value)

    assert set(tokens) == {bench.record().access_token}
    assert bench.posts() == 2


def test_workers_of_one_store_make_one_post_though_each_has_a_cache_of_its_own(bench: Bench) -> None:
    custodian = bench.seeded()

    def as_another_process() -> str:
        return custodian._renew(CachedToken(), lambda token: True, 20.0).value

    tokens = at_once(8, as_another_process)

    assert len(set(tokens)) == 1
    assert bench.posts() == 1


def test_waiting_too_long_for_another_worker_is_a_retryable_error_and_no_post(bench: Bench) -> None:
    custodian = bench.seeded(lock_wait=0.1)

    with (
        bench.store.lock(bench.key(), wait=0, stop=threading.Event()),
        pytest.raises(TokenBusyError, match="'acme'") as raised,
    ):
        custodian.token()

    assert raised.value.retryable
    assert bench.posts() == 0


def test_waiting_too_long_for_another_thread_is_a_retryable_error_and_no_post(bench: Bench) -> None:
    custodian = bench.seeded(lock_wait=0.1)

    with bench.slot().lock, pytest.raises(TokenBusyError, match="'acme'"):
        custodian.token()

    assert bench.posts() == 0


def test_threads_share_the_failure_that_they_waited_for(bench: Bench) -> None:
    bench.control.fault("lose_answer", times=1000)
    custodian = bench.seeded()

    def ask() -> type[BaseException]:
        with pytest.raises(TokenNotRenewedError) as raised:
            custodian.token()
        return type(raised.value)

    assert at_once(16, ask) == [AnswerLostError] * 16
    assert bench.posts() == 2  # one, and its replay


@pytest.mark.parametrize(
    ("wrong", "error"),
    [({"client_secret": "mistyped"}, ClientRefusedError), ({"encoding": "form"}, ConfigurationError)],
    ids=["a wrong client secret", "a refused encoding"],
)
def test_16_threads_ask_once_what_meets_all_of_them(
    bench: Bench, wrong: dict[str, str], error: type[Exception]
) -> None:
    bench.control.change(token_encoding="json")
    custodian = bench.seeded(endpoint=bench.endpoint(**wrong))

    def ask() -> bool:
        with pytest.raises(error):
            custodian.token()
        return True

    assert all(at_once(16, ask))
    assert ask()
    assert bench.posts() == 1


# Stores of a user's own


class Plain(TroubledStore):
    """A store as a user may have written it before: its lock does not look while it waits."""

    @contextmanager
    def lock(self, key: TokenKey, *, wait: float, stop: threading.Event) -> Iterator[Lease]:  # type: ignore[override]
        with MemoryStore.lock(self, key, wait=wait, stop=stop) as lease:
            yield lease


def test_who_waits_for_a_store_without_eyes_leaves_with_the_stored_token(bench: Bench) -> None:
    store = Plain()
    custodian = bench.seeded(store=store, lock_wait=60.0)
    custodian.token()
    bench.later(HOUR + 1)
    began = time.monotonic()

    with store.lock(bench.key(), wait=0, stop=threading.Event()):  # and it stays locked
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(custodian.token)
            store.meddle(bench.key(), access_token="of-another-worker", expires_at=bench.now() + HOUR)
            assert waiting.result().value == "of-another-worker"

    assert time.monotonic() - began < 30
    assert bench.posts() == 1


# A 401 of the order API


def test_a_refused_token_costs_nothing_when_the_process_holds_a_newer_one(bench: Bench) -> None:
    custodian = bench.seeded()
    old = custodian.token().value
    bench.later(HOUR + 1)
    new = custodian.token()

    assert custodian.replace(old).value == new.value
    assert bench.posts() == 2


def test_a_refused_token_costs_nothing_when_the_store_holds_a_newer_one(bench: Bench) -> None:
    custodian = bench.seeded()
    refused = custodian.token().value
    bench.store.meddle(bench.key(), access_token="of-another-worker")

    assert custodian.replace(refused).value == "of-another-worker"
    assert bench.posts() == 1


def test_a_newer_one_that_is_about_to_end_is_no_replacement_for_a_refused_token(bench: Bench) -> None:
    custodian = bench.seeded()
    refused = custodian.token().value
    soon = bench.now() + 60
    bench.store.meddle(bench.key(), access_token="of-another-worker", expires_at=soon)

    assert custodian.replace(refused).renewed
    assert bench.posts() == 2


def test_a_401_that_stays_costs_one_spend(bench: Bench) -> None:
    custodian = bench.seeded()
    refused = custodian.token().value
    first = custodian.replace(refused)

    again = [custodian.replace(first.value) for _ in range(3)]

    assert {token.value for token in again} == {first.value}
    assert bench.posts() == 2


def test_a_replacement_that_was_accepted_may_be_replaced_in_its_turn(bench: Bench) -> None:
    custodian = bench.seeded()
    first = custodian.replace(custodian.token().value)
    custodian.accepted(first.value)

    second = custodian.replace(first.value)

    assert (second.renewed, second.value != first.value, bench.posts()) == (True, True, 3)


def test_accepting_another_token_says_nothing_about_the_replacement(bench: Bench) -> None:
    custodian = bench.seeded()
    first = custodian.replace(custodian.token().value)
    custodian.accepted("another")

    assert custodian.replace(first.value).value == first.value
