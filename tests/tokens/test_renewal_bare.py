"""A refusal that names no reason may be a gateway's: it condemns no seller at once."""

from __future__ import annotations

import pytest

from airflow_provider_feedamp.exceptions import ReauthorizationRequiredError, TokenNotRenewedError
from airflow_provider_feedamp.tokens import renewal
from airflow_provider_feedamp.tokens.cache import CACHE
from airflow_provider_feedamp.tokens.records import RecordState
from tests.tokens.custody import HOUR, Bench

TEN_MINUTES = 600.0


def refuse(bench: Bench, times: int = 1000) -> None:
    """Let FeedAMP answer token calls with a bare 401, as a gateway does, spending nothing."""
    bench.control.fault("http_error", status=401, times=times)


def end_of_the_gateway(bench: Bench) -> None:
    bench.control.clear_faults()


@pytest.fixture(autouse=True)
def even(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin with a seller whose access token has ended."""
    bench.control.change(token_error_body="empty")
    bench.seeded().token()
    bench.later(HOUR + 1)


def refused(bench: Bench) -> TokenNotRenewedError:
    with pytest.raises(TokenNotRenewedError) as raised:
        bench.custodian().token()
    assert raised.value.retryable
    return raised.value


def test_the_first_one_is_retryable_and_noted(bench: Bench) -> None:
    refuse(bench)

    assert "named no reason" in str(refused(bench))

    assert bench.record().state is RecordState.ACTIVE
    end_of_the_gateway(bench)
    assert bench.custodian().token().renewed
    assert (bench.whole(), bench.record().bare_since) == (True, 0.0)


def test_one_within_minutes_of_the_first_condemns_nothing_either(bench: Bench) -> None:
    refuse(bench)
    for _ in range(3):
        refused(bench)
        bench.later(TEN_MINUTES / 4)

    assert bench.record().state is RecordState.ACTIVE


def condemned(bench: Bench) -> None:
    """Let a gateway condemn the seller."""
    refuse(bench)
    refused(bench)
    bench.later(TEN_MINUTES)
    with pytest.raises(ReauthorizationRequiredError):
        bench.custodian().token()
    assert bench.record().state is RecordState.REAUTH_REQUIRED


def test_one_ten_minutes_later_condemns(bench: Bench) -> None:
    condemned(bench)
    posts = bench.posts()

    with pytest.raises(ReauthorizationRequiredError):
        bench.custodian().token()

    assert bench.posts() == posts


def test_who_was_condemned_so_is_asked_again_after_an_hour_and_costs_no_visit(bench: Bench) -> None:
    condemned(bench)
    bench.later(HOUR)
    end_of_the_gateway(bench)

    assert bench.custodian().token().renewed

    record = bench.record()
    assert (record.state, record.probes, record.probed_at) == (RecordState.ACTIVE, 0, 0.0)
    assert bench.whole()


def test_it_is_asked_once_an_hour_and_24_times_at_the_most(bench: Bench) -> None:
    condemned(bench)
    posts = bench.posts()
    for _ in range(30):
        bench.later(HOUR)
        for _ in range(2):
            CACHE.clear()
            with pytest.raises(ReauthorizationRequiredError):
                bench.custodian().token()

    assert bench.posts() - posts == 24


def test_a_reason_ends_the_asking(bench: Bench) -> None:
    condemned(bench)
    end_of_the_gateway(bench)
    bench.control.change(token_error_body="oauth")
    bench.control.revoke("hooli")
    for _ in range(3):
        bench.later(HOUR)
        with pytest.raises(ReauthorizationRequiredError):
            bench.custodian().token()

    assert bench.record().bare_since == 0.0
    assert bench.posts() == 1 + 2 + 1


def test_a_reason_condemns_at_once(bench: Bench) -> None:
    bench.control.change(token_error_body="oauth")
    bench.control.revoke("hooli")

    with pytest.raises(ReauthorizationRequiredError):
        bench.custodian().token()


def test_after_a_lost_answer_it_condemns_at_once_and_for_good(bench: Bench) -> None:
    bench.store.meddle(bench.key(), state=RecordState.UNCERTAIN)
    refuse(bench)
    with pytest.raises(ReauthorizationRequiredError):
        bench.custodian().token()
    posts = bench.posts()
    bench.later(HOUR)
    with pytest.raises(ReauthorizationRequiredError):
        bench.custodian().token()

    assert bench.posts() == posts


def test_an_imported_record_is_condemned_at_once_and_for_good(bench: Bench) -> None:
    bench.store.meddle(bench.key(), imported=True)
    refuse(bench)
    with pytest.raises(ReauthorizationRequiredError):
        bench.custodian().token()

    assert bench.record().bare_since == 0.0


def test_another_client_secret_lifts_it(bench: Bench) -> None:
    condemned(bench)
    end_of_the_gateway(bench)
    bench.store.meddle(bench.key(), refused_secret="of another secret")

    assert bench.custodian().token().renewed


def test_two_sellers_in_the_same_minute_point_at_the_client_and_condemn_nobody(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.seeded("globex").token()
    bench.later(HOUR + 1)
    refuse(bench)
    refused(bench)
    bench.later(TEN_MINUTES)

    with pytest.raises(TokenNotRenewedError):
        bench.custodian("globex").token()
    assert "another seller" in str(refused(bench))
    assert [bench.record(each).state for each in ("hooli", "globex")] == [RecordState.ACTIVE] * 2

    # Long after, one alone is a matter of its own.
    monkeypatch.setattr(renewal, "_REFUSAL_LASTS", 0.0)
    refused(bench)
    bench.later(TEN_MINUTES)
    with pytest.raises(ReauthorizationRequiredError):
        bench.custodian().token()


def test_a_persons_new_token_is_given_the_same_patience(bench: Bench) -> None:
    new = bench.control.connect("hooli")
    refuse(bench)
    with pytest.raises(TokenNotRenewedError):
        bench.custodian(seed=new).token()
    end_of_the_gateway(bench)

    assert bench.custodian(seed=new).token().renewed
    assert bench.whole()
