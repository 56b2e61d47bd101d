"""What stops a spend before its POST, and what the next worker makes of one that was broken off."""

from __future__ import annotations

import pytest

from airflow_provider_feedamp.exceptions import (
    ClientRefusedError,
    ReauthorizationRequiredError,
    TokenBusyError,
    TokenNotRenewedError,
    TokenStoreError,
)
from airflow_provider_feedamp.tokens.records import Attempt, RecordState, TokenRecord, seeded
from airflow_provider_feedamp.tokens.store import Lease
from tests.tokens.custody import HOUR, Bench

LOST = "an earlier answer of FeedAMP was lost"


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


def test_a_store_that_cannot_be_written_is_found_out_before_the_post(bench: Bench) -> None:
    bench.store.failing = {"write"}

    with pytest.raises(TokenStoreError):
        bench.seeded().token()

    assert bench.posts() == 0


@pytest.mark.parametrize("failing", ["read", "lock"])
def test_a_store_that_is_down_costs_no_post(bench: Bench, failing: str) -> None:
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

    def somebody_writes(record: TokenRecord) -> None:
        bench.store.before_write = lambda record: None
        bench.store.meddle(bench.key(), generation=record.generation)

    bench.store.before_write = somebody_writes

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

    def slowly(record: TokenRecord) -> None:
        if record.state is RecordState.REFRESHING:
            bench.later(50.0)

    bench.store.before_write = slowly
    with pytest.raises(TokenBusyError):
        custodian.token()

    assert (bench.posts(), bench.record().state) == (0, RecordState.ACTIVE)


def test_a_lease_too_short_for_asking_again_leaves_the_matter_open(bench: Bench) -> None:
    bench.store.lease = Lease(21.0)
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
