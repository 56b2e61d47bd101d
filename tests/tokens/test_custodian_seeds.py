"""Which refresh token is the one to use: the stored one, or what a person has put into the connection."""

from __future__ import annotations

import pytest

from airflow_provider_feedamp.exceptions import ReauthorizationRequiredError, TokenNotRenewedError
from airflow_provider_feedamp.tokens.cache import CACHE
from airflow_provider_feedamp.tokens.records import RecordState
from tests.tokens.custody import HOUR, Bench


def test_a_person_who_replaces_the_connections_token_wins_over_the_stored_one(bench: Bench) -> None:
    bench.seeded().token()
    theirs = bench.control.connect("acme")
    CACHE.clear()

    token = bench.custodian(seed=theirs).token()

    assert token.renewed
    assert bench.key().fingerprint(theirs) in bench.record().seeds
    assert bench.whole()


def test_a_replaced_connection_token_is_taken_in_though_the_cached_one_is_fresh(bench: Bench) -> None:
    bench.seeded().token()

    assert bench.custodian(seed=bench.control.connect("acme")).token().renewed


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
    first, second = bench.live(), bench.control.connect("acme")
    bench.custodian(seed=first).token()
    bench.custodian(seed=second).token()

    tokens = {bench.custodian(seed=seed).token().value for seed in (first, second, first)}

    assert len(tokens) == 1
    assert bench.posts() == 2


def test_the_stored_token_put_into_the_connection_is_not_a_new_one_after_it_was_spent(bench: Bench) -> None:
    bench.control.change(rotation="revoke_family")
    bench.custodian().exchange_code(bench.control.authorize("acme"))
    custodian = bench.custodian(seed=bench.live())
    custodian.token()
    bench.later(HOUR + 1)
    custodian.token()
    bench.later(HOUR + 1)

    custodian.token()

    assert bench.whole()


def test_a_refused_new_connection_token_keeps_the_former_one(bench: Bench) -> None:
    former = bench.live()
    bench.custodian(seed=former).token()
    CACHE.clear()

    with pytest.raises(ReauthorizationRequiredError, match="The one that was in use before is kept"):
        bench.custodian(seed="mistyped").token()

    assert bench.whole()
    assert bench.custodian(seed=former).token().renewed


def test_a_refused_new_connection_token_is_not_sent_again(bench: Bench) -> None:
    bench.seeded().token()
    for _ in range(3):
        CACHE.clear()
        with pytest.raises(ReauthorizationRequiredError):
            bench.custodian(seed="mistyped").token()

    assert bench.posts() == 2


def test_a_refused_new_connection_token_is_tried_again_under_another_client_secret(bench: Bench) -> None:
    bench.control.change(token_error_body="empty")  # a bare 401: it may mean the client or the token
    bench.seeded().token()
    new = bench.control.connect("acme")
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
    bench.control.revoke("acme")
    bench.later(HOUR + 1)
    with pytest.raises(ReauthorizationRequiredError):
        bench.custodian().token()

    assert bench.custodian(seed=bench.control.connect("acme")).token().renewed
    assert bench.record().state is RecordState.ACTIVE


def test_a_sellers_own_refusal_leaves_the_other_seller_alone(bench: Bench) -> None:
    bench.control.revoke("acme")
    with pytest.raises(ReauthorizationRequiredError):
        bench.custodian(seed="revoked").token()

    assert bench.seeded("globex").token().renewed
