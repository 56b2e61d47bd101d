"""The token at hand: asked for each order, so it looks at nothing but the time; never the wrong token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_feedamp.tokens.cache import CACHE, Unsaved, Windows
from tests.tokens.custody import HOUR, Bench

if TYPE_CHECKING:
    from airflow_provider_feedamp.tokens.custodian import TokenCustodian

#: Windows without the spread over sellers, so that tests know where they begin.
EVEN = Windows(jitter=0.0)


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


def test_a_token_that_was_replaced_is_not_at_hand_any_more(bench: Bench, custodian: TokenCustodian) -> None:
    refused = custodian.token()
    replaced = custodian.replace(refused.value)
    assert custodian.cached_token() is None
    assert custodian.token() is custodian.cached_token()
    assert replaced.value != refused.value


def test_a_token_that_another_custodian_replaced_is_not_at_hand_any_more(
    bench: Bench, custodian: TokenCustodian
) -> None:
    bench.custodian().replace(custodian.token().value)
    assert custodian.cached_token() is None


def test_a_pair_that_is_not_saved_yet_is_looked_after_first(bench: Bench, custodian: TokenCustodian) -> None:
    bench.slot().unsaved = Unsaved(bench.record(), "spent")
    assert custodian.cached_token() is None


def test_a_cleared_cache_has_nothing_at_hand(bench: Bench, custodian: TokenCustodian) -> None:
    CACHE.clear()
    assert custodian.cached_token() is None
