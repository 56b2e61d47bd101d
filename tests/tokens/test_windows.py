from __future__ import annotations

from datetime import timedelta

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_feedamp.exceptions import InputError
from airflow_provider_feedamp.tokens.cache import Freshness, Windows
from airflow_provider_feedamp.tokens.records import AccessToken, TokenKey

NOW = 1_800_000_000.0
KEY = TokenKey("https://feedamp.test/api/v1/access_token", "client-1", "acme")
SELLERS = [TokenKey(KEY.token_url, KEY.client_id, f"seller {number}") for number in range(500)]

FRESH, ADVISORY, MANDATORY = Freshness.FRESH, Freshness.ADVISORY, Freshness.MANDATORY


def token(left: float, lifetime: float = 3600.0) -> AccessToken:
    return AccessToken("at", "acme", pendulum.from_timestamp(NOW + left), lifetime, 1)


def judged(left: float, lifetime: float = 3600.0, min_ttl: float | None = None) -> Freshness:
    windows = Windows(jitter=0)
    return windows.judge(
        token(left, lifetime), KEY, NOW, None if min_ttl is None else timedelta(seconds=min_ttl)
    )


@pytest.mark.parametrize(
    ("left", "freshness"),
    [
        (3600, FRESH),
        (601, FRESH),
        (600, ADVISORY),
        (121, ADVISORY),
        (120, MANDATORY),
        (1, MANDATORY),
        (0, MANDATORY),
        (-86400, MANDATORY),
    ],
)
def test_an_hour_s_token_is_judged_by_the_time_it_has_left(left: float, freshness: Freshness) -> None:
    assert judged(left) is freshness


@pytest.mark.parametrize(
    ("lifetime", "left", "freshness"),
    [
        (60, 31, FRESH),
        (60, 30, ADVISORY),
        (60, 7, ADVISORY),
        (60, 6, MANDATORY),
        (300, 151, FRESH),
        (300, 31, ADVISORY),
        (300, 30, MANDATORY),
        (86400, 601, FRESH),
        (86400, 120, MANDATORY),
    ],
)
def test_the_windows_shrink_with_a_short_lived_token(
    lifetime: float, left: float, freshness: Freshness
) -> None:
    assert judged(left, lifetime) is freshness


@given(lifetime=st.floats(min_value=0.01, max_value=86400), seller=st.sampled_from(SELLERS))
def test_a_token_that_just_arrived_is_fresh_however_short_it_lives(lifetime: float, seller: TokenKey) -> None:
    assert Windows().judge(token(lifetime, lifetime), seller, NOW) is FRESH


@given(
    sooner=st.floats(min_value=-10, max_value=3600),
    later=st.floats(min_value=0, max_value=3600),
    lifetime=st.floats(min_value=1, max_value=86400),
)
def test_a_token_never_becomes_fresher_by_waiting(sooner: float, later: float, lifetime: float) -> None:
    order = [FRESH, ADVISORY, MANDATORY]
    left, less = max(sooner, later), min(sooner, later)

    assert order.index(judged(left, lifetime)) <= order.index(judged(less, lifetime))


def test_no_token_has_to_be_renewed_first() -> None:
    assert Windows().judge(None, KEY, NOW) is MANDATORY


def test_no_token_has_to_be_renewed_first_even_when_min_ttl_is_beyond_reach() -> None:
    assert Windows().judge(None, KEY, NOW, timedelta(days=400)) is MANDATORY


@pytest.mark.parametrize(
    ("left", "min_ttl", "freshness"),
    [
        (1801, 1800, FRESH),
        (1800, 1800, MANDATORY),
        (301, 300, ADVISORY),
        (300, 300, MANDATORY),
        (100, 10, MANDATORY),
        (121, 10, ADVISORY),
        (121, 0, ADVISORY),
        (3600, 3599, FRESH),
    ],
)
def test_min_ttl_widens_the_mandatory_window_and_never_narrows_it(
    left: float, min_ttl: float, freshness: Freshness
) -> None:
    assert judged(left, min_ttl=min_ttl) is freshness


@pytest.mark.parametrize("min_ttl", [3600, 3601, 86400])
def test_a_min_ttl_that_no_token_ever_has_is_refused(min_ttl: float) -> None:
    with pytest.raises(InputError, match=r"'acme'.*lives 3600 s") as refused:
        Windows.check(token(3600), timedelta(seconds=min_ttl))

    assert f"{min_ttl} s" in str(refused.value)


def test_the_advisory_window_opens_within_its_jitter_for_every_seller() -> None:
    windows = Windows()

    assert {windows.judge(token(600), seller, NOW) for seller in SELLERS} == {ADVISORY}
    assert {windows.judge(token(721), seller, NOW) for seller in SELLERS} == {FRESH}


def test_the_jitter_spreads_the_sellers_evenly() -> None:
    halfway = [Windows().judge(token(660), seller, NOW) for seller in SELLERS]

    assert 0.4 < halfway.count(ADVISORY) / len(SELLERS) < 0.6


def test_every_machine_finds_a_seller_at_the_same_place_of_the_jitter() -> None:
    # Written down once: what this worker computes is what any other computes.
    keys = [TokenKey("https://feedamp.test/api/v1/access_token", "client-1", name) for name in "abcdefgh"]
    opened = [Windows().judge(token(660), seller, NOW) is ADVISORY for seller in keys]

    assert opened == [int(seller.digest[:8], 16) / 0xFFFFFFFF >= 0.5 for seller in keys]


def test_the_mandatory_window_has_no_jitter() -> None:
    windows = Windows()

    assert {windows.judge(token(121), seller, NOW) for seller in SELLERS} == {ADVISORY}
    assert {windows.judge(token(120), seller, NOW) for seller in SELLERS} == {MANDATORY}


def test_configured_windows_are_used() -> None:
    windows = Windows(advisory=1800, jitter=0, mandatory=300)

    assert [windows.judge(token(left), KEY, NOW) for left in (1801, 1800, 301, 300)] == [
        FRESH,
        ADVISORY,
        ADVISORY,
        MANDATORY,
    ]
