"""The spend protocol: one POST, whatever is refused, lost, cut off, or found half done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.exceptions import (
    ClientRefusedError,
    ReauthorizationRequiredError,
    TokenBusyError,
    TokenNotRenewedError,
    TokenStoreError,
)
from airflow_provider_feedamp.tokens import renewal
from airflow_provider_feedamp.tokens.cache import CACHE
from airflow_provider_feedamp.tokens.endpoint import TokenEndpoint
from airflow_provider_feedamp.tokens.records import Attempt, RecordState, TokenRecord, seeded
from airflow_provider_feedamp.tokens.store import Lease
from tests.tokens.custody import HOUR, Bench, BusyEndpoint

if TYPE_CHECKING:
    from airflow_provider_feedamp.tokens.endpoint import TokenGrant

LOST = "an earlier answer of FeedAMP was lost"


# A refusal


def test_a_refused_refresh_token_needs_a_person_and_costs_no_later_post_of_any_process(bench: Bench) -> None:
    custodian = bench.seeded()
    bench.control.revoke("hooli")

    for status in (401, None, None):
        CACHE.clear()
        with pytest.raises(
            ReauthorizationRequiredError, match=r"'hooli'.*feedamp sellers authorize"
        ) as raised:
            custodian.token()
        assert (raised.value.retryable, raised.value.status) == (False, status)
        assert LOST not in str(raised.value)

    assert (bench.posts(), bench.record().state) == (1, RecordState.REAUTH_REQUIRED)


def test_a_refusal_never_deletes_the_record(bench: Bench) -> None:
    custodian = bench.seeded()
    custodian.token()
    spent = bench.record()
    bench.control.revoke("hooli")
    bench.later(HOUR + 1)

    with pytest.raises(ReauthorizationRequiredError):
        custodian.token()

    record = bench.record()
    assert (record.refresh_token, record.generation) == (spent.refresh_token, spent.generation)


def test_a_refusal_of_a_token_that_was_replaced_meanwhile_uses_the_later_one(bench: Bench) -> None:
    def another_worker_stores() -> None:
        if bench.posts() == 0:
            later = bench.control.connect("hooli")
            bench.store.meddle(bench.key(), refresh_token=later, state=RecordState.ACTIVE, attempt=None)

    endpoint = bench.endpoint(before=another_worker_stores)

    token = bench.custodian(seed="superseded-by-then", endpoint=endpoint).token()

    assert token.value in bench.control.access_tokens("hooli")
    assert (bench.posts(), bench.whole()) == (2, True)


def test_a_record_that_moves_on_with_every_refusal_is_left_alone_after_the_second_post(bench: Bench) -> None:
    def another_worker_stores() -> None:
        bench.store.meddle(bench.key(), refresh_token=f"bad-{bench.posts()}")

    endpoint = bench.endpoint(before=another_worker_stores)

    with pytest.raises(TokenBusyError) as raised:
        bench.custodian(seed="bad", endpoint=endpoint).token()

    assert raised.value.retryable
    assert (bench.posts(), bench.record().state != RecordState.REAUTH_REQUIRED) == (2, True)


def test_a_refused_client_condemns_no_seller_and_is_asked_again_after_a_minute(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = bench.endpoint(client_secret="mistyped")

    def refused(seller: str) -> None:
        with pytest.raises(ClientRefusedError, match="Client Secret"):
            bench.seeded(seller, endpoint=wrong).token()

    for seller in ("hooli", "globex", "hooli"):
        refused(seller)
    assert bench.posts() == 1  # the others share what the first one was told
    monkeypatch.setattr(renewal, "_REFUSAL_LASTS", 0.0)
    refused("hooli")

    assert bench.posts() == 2
    assert bench.record().state is RecordState.ACTIVE
    assert bench.seeded().token().renewed


# A lost answer


@pytest.mark.parametrize("kind", ["lose_answer", "drop"])
@pytest.mark.parametrize("rotation", ["static", "grace"])
def test_a_lost_answer_is_asked_for_again_once(bench: Bench, rotation: str, kind: str) -> None:
    bench.control.change(rotation=rotation)
    bench.control.fault(kind)

    token = bench.seeded().token()

    assert token.value in bench.control.access_tokens("hooli")
    assert (bench.posts(), bench.whole()) == (2, True)
    assert 2.0 <= sum(bench.slept) <= 5.0


def test_before_it_is_asked_again_the_record_says_that_its_fate_is_unclear(bench: Bench) -> None:
    bench.control.change(rotation="grace")
    bench.control.fault("lose_answer")
    states: list[RecordState] = []

    bench.seeded(sleep=lambda seconds: states.append(bench.record().state)).token()

    assert set(states) == {RecordState.UNCERTAIN}


@pytest.mark.parametrize("rotation", ["rotate", "revoke_family"])
def test_a_lost_answer_of_a_server_without_grace_needs_a_person_who_is_told_why(
    bench: Bench, rotation: str
) -> None:
    bench.control.change(rotation=rotation)
    bench.control.fault("lose_answer")

    with pytest.raises(ReauthorizationRequiredError, match=LOST):
        bench.seeded().token()

    assert LOST in bench.record().reason
    assert bench.posts() == 2


@pytest.mark.parametrize("rotation", ["grace", "rotate"])
def test_a_second_loss_leaves_the_matter_open_for_the_next_call_which_asks_once(
    bench: Bench, rotation: str
) -> None:
    bench.control.change(rotation=rotation)
    custodian = bench.seeded()
    bench.control.fault("lose_answer", times=2)

    with pytest.raises(TokenNotRenewedError) as raised:
        custodian.token()

    assert raised.value.retryable
    assert (bench.posts(), bench.record().state) == (2, RecordState.UNCERTAIN)
    if rotation == "grace":
        assert custodian.token().renewed
        assert bench.whole()
    else:
        with pytest.raises(ReauthorizationRequiredError, match=LOST):
            custodian.token()
    assert bench.posts() == 3


def test_a_record_of_unclear_fate_costs_one_post_per_call_while_answers_get_lost(bench: Bench) -> None:
    custodian = bench.seeded()
    bench.control.fault("lose_answer", times=4)
    for _ in range(3):
        with pytest.raises(TokenNotRenewedError):
            custodian.token()

    assert (bench.posts(), bench.record().state) == (4, RecordState.UNCERTAIN)


# A request that was not processed


@pytest.mark.parametrize("status", [408, 425, 429, 503])
def test_a_server_that_asks_to_come_back_later_is_asked_again_after_as_long_as_it_says(
    bench: Bench, status: int
) -> None:
    bench.control.fault("http_error", status=status, wait=7)

    assert bench.seeded().token().renewed

    assert 7 <= sum(bench.slept) < 8
    assert bench.store.asked.count("lock") == 1  # under the lease that was taken once
    assert (bench.posts(), bench.whole()) == (2, True)


def test_a_server_that_wants_more_time_than_the_lease_has_leaves_the_record_as_it_was(bench: Bench) -> None:
    bench.control.fault("http_error", status=429, wait=120)

    with pytest.raises(TokenNotRenewedError) as raised:
        bench.seeded().token()

    assert raised.value.retry_after == 120
    record = bench.record()
    assert (bench.posts(), record.state, record.attempt) == (1, RecordState.ACTIVE, None)
    assert bench.slept == []


def test_a_lease_that_is_too_short_for_the_wait_is_left_and_taken_again(bench: Bench) -> None:
    bench.control.fault("http_error", status=429, wait=40)

    assert bench.seeded(lock_wait=90.0).token().renewed

    assert bench.store.asked.count("lock") == 2
    assert (bench.posts(), bench.whole()) == (2, True)


def test_a_server_that_takes_nothing_is_given_up_when_the_time_is_over(bench: Bench) -> None:
    bench.control.fault("http_error", status=429, wait=1, times=1000)

    with pytest.raises(TokenNotRenewedError):
        bench.seeded(lock_wait=30.0).token()

    assert bench.record().state is RecordState.ACTIVE
    assert sum(bench.slept) < 3 * 30


def test_ahead_of_time_a_server_that_asks_to_come_back_later_is_left_alone(bench: Bench) -> None:
    custodian = bench.seeded()
    custodian.token()
    bench.later(HOUR - 300)
    bench.control.fault("http_error", status=429, wait=1)

    assert not custodian.token().renewed

    assert bench.posts() == 2
    assert bench.slept == []


def test_a_condemned_seller_stays_so_when_another_try_is_not_processed(bench: Bench) -> None:
    bench.seeded().token()
    bench.store.meddle(
        bench.key(), state=RecordState.REAUTH_REQUIRED, access_token=None, bare_since=1.0, reason="401"
    )
    CACHE.clear()
    bench.control.fault("http_error", status=429, wait=120)

    with pytest.raises(TokenNotRenewedError):
        bench.custodian().token()

    record = bench.record()
    assert (record.state, record.reason, record.attempt) == (RecordState.REAUTH_REQUIRED, "401", None)


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        *[("http_error", {"status": status, "processed": True}) for status in (500, 502, 504)],
        *[("odd_body", {"body": body}) for body in ("html", "empty", "truncated")],
    ],
)
def test_a_server_error_or_a_spoilt_answer_may_have_spent_the_token_and_is_asked_again(
    bench: Bench, kind: str, fault: dict[str, Any]
) -> None:
    bench.control.change(rotation="grace")
    bench.control.fault(kind, **fault)

    assert bench.seeded().token().value in bench.control.access_tokens("hooli")
    assert (bench.posts(), bench.whole()) == (2, True)


def test_an_error_under_200_is_no_token(bench: Bench) -> None:
    bench.control.change(rotation="static")
    bench.control.fault("odd_body", body="error", times=2)

    with pytest.raises(TokenNotRenewedError):
        bench.seeded().token()

    assert bench.slot().token is None


def test_an_answer_slower_than_the_deadline_is_cut_off_and_asked_for_again(bench: Bench) -> None:
    """The first request gets a second, and the next one all the time that a busy machine may need."""

    @dataclass(frozen=True)
    class Impatient(BusyEndpoint):
        def refresh(self, refresh_token: str) -> TokenGrant:
            seconds = 60.0 if bench.posts() else 1.0
            return TokenEndpoint.refresh(replace(self, deadline=seconds), refresh_token)

    bench.control.change(rotation="grace")
    bench.control.fault("slow", seconds=10.0)
    endpoint = Impatient(bench.key().token_url, "demo-client", "demo-secret")

    assert bench.seeded(endpoint=endpoint).token().renewed
    assert bench.posts() == 2


# What stops a spend before its POST, and what the next worker makes of one that was broken off


# A record that somebody left behind


def left_behind(bench: Bench, state: RecordState, *, age: float = 60.0) -> None:
    """Store what a worker leaves that dies during a spend."""
    record = seeded(bench.key(), bench.live(), now=bench.now())
    attempt = Attempt("dead", bench.key().fingerprint(record.refresh_token), bench.now() - age)
    bench.store.put(record.changed(state=state, attempt=attempt))


@pytest.mark.parametrize(
    ("state", "age", "waited"),
    [
        (RecordState.REFRESHING, 60.0, [15.0]),
        (RecordState.REFRESHING, -300.0, [15.0]),  # the dead worker's clock was ahead
        (RecordState.REFRESHING, 1000.0, []),
        (RecordState.UNCERTAIN, 60.0, []),
    ],
)
def test_a_spend_that_a_dead_worker_announced_is_given_time_to_end(
    bench: Bench, state: RecordState, age: float, waited: list[float]
) -> None:
    left_behind(bench, state, age=age)

    assert bench.custodian().token().renewed
    assert (bench.slept, bench.posts(), bench.whole()) == (waited, 1, True)


@pytest.mark.parametrize("state", [RecordState.REFRESHING, RecordState.UNCERTAIN])
def test_a_token_that_a_dead_worker_spent_needs_a_person_who_is_told_why(
    bench: Bench, state: RecordState
) -> None:
    left_behind(bench, state)
    bench.sandbox.state.tokens.refresh(bench.live())

    with pytest.raises(ReauthorizationRequiredError, match=LOST):
        bench.custodian().token()

    assert bench.posts() == 1


@pytest.mark.parametrize("state", [RecordState.REFRESHING, RecordState.UNCERTAIN])
def test_a_refused_client_leaves_an_unclear_record_unclear(bench: Bench, state: RecordState) -> None:
    left_behind(bench, state)

    with pytest.raises(ClientRefusedError):
        bench.custodian(endpoint=bench.endpoint(client_secret="mistyped")).token()

    assert bench.record().state is RecordState.UNCERTAIN


# The lease and the store, before anything is spent


@pytest.mark.parametrize("failing", ["read", "lock", "write"])
def test_a_store_that_is_down_or_cannot_be_written_costs_no_post(bench: Bench, failing: str) -> None:
    bench.store.failing = {failing}

    with pytest.raises(TokenStoreError):
        bench.seeded().token()

    assert bench.posts() == 0


def test_the_intent_is_stored_when_the_post_is_made(bench: Bench) -> None:
    seen: list[TokenRecord] = []
    bench.store.before_write = lambda record: seen.append(record)
    custodian = bench.seeded()
    spent = custodian.seed or ""

    custodian.token()

    assert [record.state for record in seen] == [RecordState.REFRESHING, RecordState.ACTIVE]
    assert seen[0].attempt is not None
    assert seen[0].attempt.fingerprint == bench.key().fingerprint(spent)


def test_a_record_that_changes_at_the_last_moment_costs_no_post(bench: Bench) -> None:
    custodian = bench.seeded()
    custodian.token()
    bench.later(HOUR + 1)

    bench.store.just_before(RecordState.REFRESHING, lambda record: bench.store.meddle(bench.key()))
    with pytest.raises(TokenBusyError, match="Nothing was spent"):
        custodian.token()

    assert bench.posts() == 1


def test_a_lease_too_short_for_the_post_costs_no_post(bench: Bench) -> None:
    bench.store.lease = Lease(15.0)

    with pytest.raises(TokenBusyError) as raised:
        bench.seeded().token()

    assert raised.value.retryable
    assert bench.posts() == 0


def test_a_lease_that_a_slow_store_used_up_costs_no_post(bench: Bench) -> None:
    bench.store.lease = Lease(60.0, bench.now(), clock=bench.now)
    custodian = bench.seeded()

    bench.store.just_before(RecordState.REFRESHING, lambda record: bench.later(50.0))
    with pytest.raises(TokenBusyError):
        custodian.token()

    assert (bench.posts(), bench.record().state) == (0, RecordState.ACTIVE)


def test_a_lease_too_short_for_asking_again_leaves_the_matter_open(bench: Bench) -> None:
    bench.store.lease = Lease(21.0, 0.0, clock=lambda: 0.0)
    bench.control.fault("lose_answer")

    with pytest.raises(TokenNotRenewedError):
        bench.seeded().token()

    assert (bench.posts(), bench.record().state) == (1, RecordState.UNCERTAIN)


def test_how_a_spend_ended_is_not_written_over_the_announcement_of_another_worker(bench: Bench) -> None:
    """Such as of one that has taken over a lease that ran out."""
    theirs = Attempt("of another worker", "fingerprint", 1.0)

    def another_worker_announces() -> None:
        bench.store.meddle(bench.key(), state=RecordState.REFRESHING, attempt=theirs)

    endpoint = bench.endpoint(before=another_worker_announces, client_secret="mistyped")
    with pytest.raises(ClientRefusedError):
        bench.seeded(endpoint=endpoint).token()

    assert (bench.record().state, bench.record().attempt) == (RecordState.REFRESHING, theirs)
