"""When the custodian uses a token, when it renews one, and that it renews it once, whoever asks."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from airflow_provider_feedamp.exceptions import (
    AnswerLostError,
    ClientRefusedError,
    ConfigurationError,
    InputError,
    ReauthorizationRequiredError,
    TokenBusyError,
    TokenNotRenewedError,
)
from airflow_provider_feedamp.tokens.cache import CACHE, CachedToken, Unsaved, Windows
from airflow_provider_feedamp.tokens.records import RecordState, seeded
from airflow_provider_feedamp.tokens.store import MemoryStore
from tests.tokens.custody import HOUR, Bench, Doors, TroubledStore, at_once, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_feedamp.tokens.custodian import TokenCustodian
    from airflow_provider_feedamp.tokens.records import TokenKey
    from airflow_provider_feedamp.tokens.store import Lease


#: Windows without the spread over sellers, so that tests know where they begin.
EVEN = Windows(jitter=0.0)

#: Seconds after which a token of one hour is in its advisory, and in its mandatory window.
ADVISORY, MANDATORY = HOUR - 500, HOUR - 100


# Where tokens come from


def test_the_first_token_comes_from_the_connections_refresh_token(bench: Bench) -> None:
    token = bench.seeded().token()

    assert token.value in bench.control.access_tokens("hooli")
    assert (token.renewed, token.generation, bench.posts()) == (True, 1, 1)
    assert bench.whole()


def test_a_new_process_takes_the_token_from_the_store_without_a_post(bench: Bench) -> None:
    first = bench.seeded().token()
    CACHE.clear()

    again = bench.custodian().token()

    assert (again.value, again.renewed, bench.posts()) == (first.value, False, 1)


def test_a_fresh_token_is_shared_by_the_custodians_of_the_process_without_asking_the_store(
    bench: Bench,
) -> None:
    custodian = bench.seeded()
    first = custodian.token()
    bench.store.asked.clear()

    assert {each.token().value for each in (custodian, bench.custodian())} == {first.value}
    assert bench.store.asked == []


def test_a_seller_without_any_refresh_token_needs_a_person_and_no_post(bench: Bench) -> None:
    with pytest.raises(ReauthorizationRequiredError, match=r"'globex'.*no refresh token yet") as raised:
        bench.custodian("globex").token()

    assert not raised.value.retryable
    assert bench.posts() == 0


def test_two_sellers_never_get_each_others_token(bench: Bench) -> None:
    tokens = {seller: bench.seeded(seller).token().value for seller in ("hooli", "globex")}

    assert {seller: bench.control.access_tokens(seller) for seller in tokens} == {
        seller: [value] for seller, value in tokens.items()
    }


# The three windows


def test_in_the_advisory_window_the_first_caller_renews(bench: Bench) -> None:
    custodian = bench.seeded(windows=EVEN)
    first = custodian.token()
    bench.later(ADVISORY)

    second = custodian.token()

    assert (second.renewed, second.value != first.value, bench.posts()) == (True, True, 2)


def test_in_the_advisory_window_others_go_on_at_once_while_one_renews(bench: Bench) -> None:
    custodian = bench.seeded(windows=EVEN)
    present = custodian.token()
    bench.later(ADVISORY)
    reached, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        go_on.wait(60)

    bench.store.inside = hold
    with ThreadPoolExecutor(1) as pool:
        winner = pool.submit(custodian.token)
        assert reached.wait(60)
        others = [custodian.token() for _ in range(20)]  # would not end if they waited for the winner
        go_on.set()

    assert {token.value for token in others} == {present.value}
    assert (winner.result().renewed, bench.posts()) == (True, 2)


def test_in_the_advisory_window_another_workers_lock_is_not_waited_for(bench: Bench) -> None:
    custodian = bench.seeded(windows=EVEN)
    present = custodian.token()
    bench.later(ADVISORY)

    with bench.store.lock(bench.key(), wait=0, stop=threading.Event()):
        assert custodian.token().value == present.value

    assert bench.posts() == 1


def test_a_renewal_ahead_of_time_that_fails_is_logged_once_and_paused(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    custodian = bench.seeded(windows=EVEN)
    present = custodian.token()
    bench.later(ADVISORY)
    bench.store.failing = {"read"}

    used = [custodian.token() for _ in range(5)]

    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert {token.value for token in used} == {present.value}
    assert (len(warnings), bench.store.asked.count("read")) == (1, 3)  # two of the first token
    bench.store.failing.clear()
    assert not custodian.token().renewed
    bench.slot().retry_at = 0.0  # after the pause
    assert custodian.token().renewed


def test_in_the_mandatory_window_a_token_that_another_worker_obtained_is_adopted(bench: Bench) -> None:
    ours = bench.seeded(windows=EVEN)
    ours.token()
    slot = bench.slot()
    stale, seeds = slot.token, slot.seeds
    bench.later(MANDATORY)
    theirs = ours.token()  # what another process would do
    slot.token, slot.seeds = stale, seeds

    adopted = ours.token()

    assert (adopted.value, adopted.renewed, bench.posts()) == (theirs.value, False, 2)


def test_min_ttl_widens_the_mandatory_window_for_one_call(bench: Bench) -> None:
    custodian = bench.seeded(windows=EVEN)
    first = custodian.token()
    bench.later(HOUR / 2)

    assert custodian.token().value == first.value
    assert custodian.token(timedelta(minutes=45)).renewed


@pytest.mark.parametrize("min_ttl", [3600, 3601, 86400])
def test_a_min_ttl_that_no_token_ever_has_is_refused(bench: Bench, min_ttl: int) -> None:
    custodian = bench.seeded()

    with pytest.raises(InputError, match=rf"min_ttl of {min_ttl} s .*'hooli'.* lives 3600 s"):
        custodian.token(timedelta(seconds=min_ttl))

    assert bench.posts() == 1
    assert bench.whole()


def test_a_min_ttl_is_judged_on_the_token_obtained_just_now(bench: Bench) -> None:
    custodian = bench.seeded()
    bench.control.change(access_token_ttl=1)
    custodian.token()
    bench.control.change(access_token_ttl=3600)
    CACHE.clear()

    assert custodian.token(timedelta(minutes=10)).lifetime == 3600


# What costs nothing


def test_making_a_custodian_asks_nobody_and_reading_the_record_spends_nothing(bench: Bench) -> None:
    bench.store.put(seeded(bench.key(), bench.live(), now=bench.now()))
    custodian = bench.seeded()
    assert (bench.posts(), bench.store.asked) == (0, [])

    custodian.record()
    assert (bench.posts(), bench.store.asked) == (0, ["read"])


def test_an_endpoint_that_refuses_the_kind_of_request_condemns_nobody(bench: Bench) -> None:
    bench.control.change(token_encoding="form")
    with pytest.raises(ConfigurationError, match="request_encoding"):
        bench.seeded().token()

    assert bench.record().state is RecordState.ACTIVE
    assert bench.custodian(endpoint=bench.endpoint(encoding="form")).token().renewed


def test_an_unreachable_endpoint_is_a_retryable_error_and_condemns_nobody(bench: Bench) -> None:
    nowhere = bench.endpoint(url="http://127.0.0.1:9/access_token")

    with pytest.raises(TokenNotRenewedError) as raised:
        bench.seeded(endpoint=nowhere).token()

    assert raised.value.retryable
    assert bench.record().state is RecordState.ACTIVE


@pytest.mark.parametrize("cached", [False, True])
def test_a_person_who_replaces_the_connections_token_wins_over_the_stored_and_the_cached_one(
    bench: Bench, cached: bool
) -> None:
    bench.seeded().token()
    theirs = bench.control.connect("hooli")
    if not cached:
        CACHE.clear()

    token = bench.custodian(seed=theirs).token()

    assert token.renewed
    assert bench.key().fingerprint(theirs) in bench.record().seeds
    assert bench.whole()


@pytest.mark.parametrize("rollovers", [1, 3])
def test_a_connection_token_that_was_taken_in_before_never_wins_again(bench: Bench, rollovers: int) -> None:
    seed = bench.live()
    for _ in range(rollovers):
        bench.custodian(seed=seed).token()
        bench.later(HOUR + 1)
        CACHE.clear()

    bench.custodian(seed=seed).token()

    assert bench.control.counters()["tokens"] == {"refresh_token": {"issued": rollovers + 1}}
    assert bench.whole()


def test_two_connections_with_different_tokens_of_one_seller_share_the_record(bench: Bench) -> None:
    first, second = bench.live(), bench.control.connect("hooli")
    bench.custodian(seed=first).token()
    bench.custodian(seed=second).token()

    tokens = {bench.custodian(seed=seed).token().value for seed in (first, second, first)}

    assert len(tokens) == 1
    assert bench.posts() == 2


def test_the_stored_token_put_into_the_connection_is_not_a_new_one_after_it_was_spent(bench: Bench) -> None:
    bench.control.change(rotation="revoke_family")
    bench.custodian().exchange_code(bench.control.authorize("hooli"))
    custodian = bench.custodian(seed=bench.live())
    custodian.token()
    bench.later(HOUR + 1)
    custodian.token()
    bench.later(HOUR + 1)

    custodian.token()

    assert bench.whole()


def test_a_refused_new_connection_token_keeps_the_former_one_and_is_not_sent_again(bench: Bench) -> None:
    former = bench.live()
    bench.custodian(seed=former).token()
    for _ in range(3):
        CACHE.clear()
        with pytest.raises(ReauthorizationRequiredError, match="The one that was in use before is kept"):
            bench.custodian(seed="mistyped").token()

    assert (bench.posts(), bench.whole()) == (2, True)
    assert bench.custodian(seed=former).token().renewed


def test_a_refused_new_connection_token_is_tried_again_under_another_client_secret(bench: Bench) -> None:
    bench.control.change(token_error_body="empty")  # a bare 401: it may mean the client or the token
    bench.seeded().token()
    new = bench.control.connect("hooli")
    CACHE.clear()
    mistyped = bench.custodian(seed=new, endpoint=bench.endpoint(client_secret="mistyped"))
    with pytest.raises(TokenNotRenewedError):
        mistyped.token()
    bench.later(601)
    with pytest.raises(ReauthorizationRequiredError):
        mistyped.token()

    assert bench.custodian(seed=new).token().renewed
    assert bench.whole()


def test_a_condemned_seller_is_freed_by_a_persons_new_connection_token(bench: Bench) -> None:
    bench.seeded().token()
    bench.control.revoke("hooli")
    bench.later(HOUR + 1)
    with pytest.raises(ReauthorizationRequiredError):
        bench.custodian().token()

    assert bench.custodian(seed=bench.control.connect("hooli")).token().renewed
    assert bench.record().state is RecordState.ACTIVE


def test_a_sellers_own_refusal_leaves_the_other_seller_alone(bench: Bench) -> None:
    bench.control.revoke("hooli")
    with pytest.raises(ReauthorizationRequiredError):
        bench.custodian(seed="revoked").token()

    assert bench.seeded("globex").token().renewed


@pytest.fixture
def custodian(bench: Bench) -> TokenCustodian:
    """A custodian that has been asked twice: the first call renewed, the second found the token fresh."""
    custodian = bench.seeded(windows=EVEN)
    custodian.token()
    custodian.token()
    bench.store.asked.clear()
    return custodian


def test_it_is_the_token_that_would_be_handed_out_and_costs_no_store_access(
    bench: Bench, custodian: TokenCustodian
) -> None:
    assert custodian.cached_token() is custodian.token()
    assert bench.store.asked == []


def test_there_is_none_before_anybody_has_looked(bench: Bench) -> None:
    assert bench.seeded().cached_token() is None


@pytest.mark.parametrize(("age", "warm"), [(HOUR - 660, True), (HOUR - 599, False), (HOUR + 1, False)])
def test_it_ends_where_the_token_stops_being_fresh(
    bench: Bench, custodian: TokenCustodian, age: float, warm: bool
) -> None:
    bench.later(age)
    assert (custodian.cached_token() is not None) is warm


def test_it_ends_where_a_wide_mandatory_window_begins(bench: Bench) -> None:
    custodian = bench.seeded(windows=Windows(advisory=10, jitter=0, mandatory=300))
    custodian.token()
    custodian.token()
    bench.later(HOUR - 299)
    assert custodian.cached_token() is None


def replaced_by(custodian: TokenCustodian, refused: str) -> None:
    assert custodian.replace(refused).value != refused


@pytest.mark.parametrize(
    "change",
    [
        lambda bench, custodian: replaced_by(custodian, custodian.token().value),
        lambda bench, custodian: replaced_by(bench.custodian(), custodian.token().value),
        lambda bench, custodian: setattr(bench.slot(), "unsaved", Unsaved(bench.record(), "spent")),
        lambda bench, custodian: CACHE.clear(),
    ],
    ids=["replaced", "replaced by another custodian", "a pair that is not saved yet", "a cleared cache"],
)
def test_it_is_not_at_hand_any_more_after(
    bench: Bench, custodian: TokenCustodian, change: Callable[[Bench, TokenCustodian], None]
) -> None:
    change(bench, custodian)
    assert custodian.cached_token() is None


def test_a_replacement_is_at_hand_once_it_was_asked_for(bench: Bench, custodian: TokenCustodian) -> None:
    custodian.replace(custodian.token().value)
    assert custodian.token() is custodian.cached_token()


# However many ask at once, and however often FeedAMP says 401: one renewal

# Single flight


@pytest.mark.parametrize("slow", [0.0, 0.5])
def test_50_threads_on_an_expired_token_make_one_post_however_slow_the_winner_is(
    bench: Bench, slow: float
) -> None:
    custodian = bench.seeded()
    custodian.token()
    bench.later(HOUR + 1)
    bench.control.fault("slow", seconds=slow)

    tokens = at_once(50, custodian.token)

    assert len({token.value for token in tokens}) == 1
    assert [token.renewed for token in tokens].count(True) == 1
    assert bench.posts() == 2
    assert bench.whole()


def test_50_threads_with_a_401_make_one_post(bench: Bench) -> None:
    custodian = bench.seeded()
    refused = custodian.token().value
    bench.control.expire("hooli")

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


def test_a_token_that_another_worker_stores_just_before_the_lock_is_ours_is_adopted(bench: Bench) -> None:
    custodian = bench.seeded()
    custodian.token()
    bench.later(HOUR + 1)

    def another_worker_stores() -> None:
        bench.store.meddle(bench.key(), access_token="of-another-worker", expires_at=bench.now() + HOUR)

    bench.store.inside = another_worker_stores

    assert custodian.token().value == "of-another-worker"
    assert bench.posts() == 1


@pytest.mark.parametrize("holder", ["another thread", "another worker"])
def test_waiting_too_long_is_a_retryable_error_and_no_post(bench: Bench, holder: str) -> None:
    custodian = bench.seeded(lock_wait=0.1)
    worker = bench.store.lock(bench.key(), wait=0, stop=threading.Event())

    with bench.slot().lock if holder == "another thread" else worker:
        with pytest.raises(TokenBusyError, match="'hooli'") as raised:
            custodian.token()

    assert raised.value.retryable
    assert bench.posts() == 0


def test_threads_share_the_failure_that_they_waited_for(bench: Bench) -> None:
    bench.control.fault("lose_answer", times=1000)
    doors = Doors()
    bench.slot().lock = doors  # type: ignore[assignment]
    # Who comes later than the failure has waited for nothing, and asks for itself.
    everybody = bench.endpoint(before=lambda: until(lambda: len(doors.seen) == 16))
    custodian = bench.seeded(endpoint=everybody)

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

    with store.lock(bench.key(), wait=0, stop=threading.Event()):  # and it stays locked: who queues is busy
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(custodian.token)
            store.meddle(bench.key(), access_token="of-another-worker", expires_at=bench.now() + HOUR)
            assert waiting.result().value == "of-another-worker"

    assert bench.posts() == 1


# A 401 of the order API


def test_a_refused_token_costs_nothing_when_the_process_holds_a_newer_one(bench: Bench) -> None:
    custodian = bench.seeded()
    old = custodian.token().value
    bench.later(HOUR + 1)
    new = custodian.token()

    assert custodian.replace(old).value == new.value
    assert bench.posts() == 2


@pytest.mark.parametrize("left", [HOUR, 60.0])
def test_a_refused_token_costs_nothing_when_the_store_holds_a_newer_one_that_is_not_about_to_end(
    bench: Bench, left: float
) -> None:
    custodian = bench.seeded()
    refused = custodian.token().value
    bench.store.meddle(bench.key(), access_token="of-another-worker", expires_at=bench.now() + left)

    token = custodian.replace(refused)

    assert (token.value == "of-another-worker", bench.posts()) == ((True, 1) if left == HOUR else (False, 2))


def test_a_401_that_stays_costs_one_spend(bench: Bench) -> None:
    custodian = bench.seeded()
    refused = custodian.token().value
    first = custodian.replace(refused)

    again = [custodian.replace(first.value) for _ in range(3)]

    assert {token.value for token in again} == {first.value}
    assert bench.posts() == 2


@pytest.mark.parametrize("itself", [True, False])
def test_a_replacement_that_was_accepted_itself_may_be_replaced_in_its_turn(
    bench: Bench, itself: bool
) -> None:
    custodian = bench.seeded()
    first = custodian.replace(custodian.token().value)
    custodian.accepted(first.value if itself else "another")

    second = custodian.replace(first.value)

    assert (second.value != first.value, bench.posts()) == (itself, 2 + itself)
