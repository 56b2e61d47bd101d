"""An authorisation code becomes a stored token pair, and a bad one loses nothing that was stored before."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from airflow_provider_feedamp.exceptions import (
    ClientRefusedError,
    CodeRefusedError,
    ReauthorizationRequiredError,
    TokenBusyError,
    TokenStoreError,
)
from airflow_provider_feedamp.tokens.cache import CACHE
from airflow_provider_feedamp.tokens.records import RecordState, TokenRecord
from tests.tokens.custody import HOUR, Bench, BusyEndpoint

if TYPE_CHECKING:
    from airflow_provider_feedamp.tokens.endpoint import TokenGrant


def test_a_code_becomes_a_token_pair_that_every_process_finds(bench: Bench) -> None:
    token = bench.custodian().exchange_code(bench.control.authorize("hooli"))
    CACHE.clear()

    found = bench.custodian().token()

    assert (found.value, found.renewed) == (token.value, False)
    assert (bench.posts(), bench.whole()) == (1, True)
    bench.later(HOUR + 1)
    assert bench.custodian().token().generation == 2
    assert bench.whole()


@pytest.mark.parametrize("condemned", [True, False])
def test_a_code_replaces_the_token_that_this_process_holds_and_frees_a_condemned_seller(
    bench: Bench, condemned: bool
) -> None:
    custodian = bench.seeded()
    custodian.token()
    if condemned:
        bench.control.revoke("hooli")
        bench.later(HOUR + 1)
        with pytest.raises(ReauthorizationRequiredError):
            custodian.token()

    token = custodian.exchange_code(bench.control.authorize("hooli"))

    assert custodian.token().value == token.value
    assert (bench.record().generation, bench.record().state) == (2, RecordState.ACTIVE)
    assert token.value in bench.control.access_tokens("hooli")


def test_what_the_connection_holds_is_older_than_the_code_and_does_not_override_it(bench: Bench) -> None:
    custodian = bench.seeded()
    token = custodian.exchange_code(bench.control.authorize("hooli"))
    CACHE.clear()

    assert custodian.token().value == token.value
    bench.later(HOUR + 1)
    assert custodian.token().renewed
    assert bench.control.counters()["tokens"] == {
        "authorization_code": {"issued": 1},
        "refresh_token": {"issued": 1},
    }
    assert bench.whole()


def test_a_connection_token_put_in_after_the_code_still_wins(bench: Bench) -> None:
    bench.seeded().exchange_code(bench.control.authorize("hooli"))

    assert bench.custodian(seed=bench.control.connect("hooli")).token().renewed
    assert bench.whole()


# A code that is refused, or whose answer is lost


def test_a_refused_code_says_to_begin_anew(bench: Bench) -> None:
    with pytest.raises(CodeRefusedError, match=r"'hooli'.*open the authorisation URL again") as raised:
        bench.custodian().exchange_code("never-issued")

    assert (raised.value.status, raised.value.retryable) == (401, False)
    assert "never-issued" not in str(raised.value)


@pytest.mark.parametrize("used", [True, False], ids=["a code that was used before", "one never issued"])
def test_a_refused_code_leaves_the_stored_tokens_as_they_were(bench: Bench, used: bool) -> None:
    code = bench.control.authorize("hooli")
    custodian = bench.custodian() if used else bench.seeded()
    token = custodian.exchange_code(code) if used else custodian.token()

    with pytest.raises(CodeRefusedError):
        custodian.exchange_code(code if used else "never-issued")

    CACHE.clear()
    assert custodian.token().value == token.value
    assert bench.whole()


def test_a_refused_code_of_a_new_seller_asks_for_a_person_or_the_connections_token(bench: Bench) -> None:
    with pytest.raises(CodeRefusedError):
        bench.seeded().exchange_code("never-issued")

    with pytest.raises(ReauthorizationRequiredError, match="begun and not finished"):
        bench.custodian().token()

    assert bench.posts() == 1
    assert bench.seeded().token().renewed
    assert bench.whole()


def test_a_lost_answer_to_a_code_says_to_begin_anew(bench: Bench) -> None:
    bench.control.fault("lose_answer")

    with pytest.raises(CodeRefusedError, match="open the authorisation URL again"):
        bench.custodian().exchange_code(bench.control.authorize("hooli"))

    assert bench.posts() == 1


def test_a_refused_client_is_not_taken_for_a_refused_code(bench: Bench) -> None:
    code = bench.control.authorize("hooli")
    with pytest.raises(ClientRefusedError):
        bench.custodian(endpoint=bench.endpoint(client_secret="mistyped")).exchange_code(code)

    assert bench.custodian().exchange_code(code).renewed


# The store


@pytest.mark.parametrize("failing", ["read", "write", "lock"])
def test_a_code_is_not_spent_while_the_store_is_down(bench: Bench, failing: str) -> None:
    code = bench.control.authorize("hooli")
    bench.store.failing = {failing}
    with pytest.raises(TokenStoreError):
        bench.custodian().exchange_code(code)
    assert bench.posts() == 0

    bench.store.failing.clear()
    assert bench.custodian().exchange_code(code).renewed


def test_a_code_is_not_spent_while_another_worker_renews(bench: Bench) -> None:
    code = bench.control.authorize("hooli")

    with (
        bench.store.lock(bench.key(), wait=0, stop=threading.Event()),
        pytest.raises(TokenBusyError),
    ):
        bench.custodian(lock_wait=0.1).exchange_code(code)

    assert bench.posts() == 0


def test_a_pair_that_the_store_does_not_take_is_kept_and_stored_later(bench: Bench) -> None:
    bench.store.failing = {"active"}
    token = bench.custodian().exchange_code(bench.control.authorize("hooli"))

    bench.store.failing.clear()
    bench.slot().save_at = 0.0

    assert bench.custodian().token().value == token.value
    assert bench.whole()


def test_a_code_wins_over_a_renewal_of_the_former_tokens(bench: Bench) -> None:
    bench.control.change(rotation="static")
    custodian = bench.seeded()
    former = custodian.token()
    before = bench.record()

    def another_worker_has_renewed(record: TokenRecord) -> None:
        if record.family != before.family:
            bench.store.before_write = lambda record: None
            bench.store.meddle(bench.key(), refresh_token="renewed", generation=before.generation + 1)

    bench.store.before_write = another_worker_has_renewed
    token = custodian.exchange_code(bench.control.authorize("hooli"))

    assert token.value != former.value
    assert bench.record().access_token == token.value
    assert bench.record().family not in ("", before.family)


def test_a_renewal_gives_way_to_the_code_of_another_worker(bench: Bench) -> None:
    bench.control.change(rotation="static")
    custodian = bench.seeded()
    custodian.token()
    bench.later(HOUR + 1)

    def another_worker_has_exchanged(record: TokenRecord) -> None:
        if record.state is RecordState.ACTIVE:
            bench.store.before_write = lambda record: None
            bench.store.meddle(bench.key(), refresh_token="of the code", family="new", access_token="new")

    bench.store.before_write = another_worker_has_exchanged

    assert custodian.token().value == "new"
    assert bench.record().refresh_token == "of the code"


def test_the_redirect_url_is_sent_when_it_is_given(bench: Bench) -> None:
    sent: list[object] = []

    @dataclass(frozen=True)
    class Noting(BusyEndpoint):
        def exchange_code(self, code: str, redirect_url: str | None = None) -> TokenGrant:
            sent.append(redirect_url)
            return super().exchange_code(code)

    custodian = bench.custodian(endpoint=Noting(bench.key().token_url, "demo-client", "demo-secret"))
    custodian.exchange_code(bench.control.authorize("hooli"))
    custodian.exchange_code(bench.control.authorize("hooli"), "https://shop.example/back")

    assert sent == [None, "https://shop.example/back"]


def test_a_pair_that_waits_for_the_store_gives_way_to_the_one_of_a_later_code(bench: Bench) -> None:
    custodian = bench.seeded()
    bench.store.failing = {"active"}
    custodian.token()
    bench.store.failing.clear()

    token = custodian.exchange_code(bench.control.authorize("hooli"))

    assert custodian.token().value == token.value
    assert bench.whole()
