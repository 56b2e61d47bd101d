"""One process, one cache: shared by its threads, kept apart by key, and still good after a fork."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_feedamp.tokens.cache import CACHE, CachedToken, Freshness, TokenCache, Unsaved, Windows
from airflow_provider_feedamp.tokens.custodian import TokenCustodian
from airflow_provider_feedamp.tokens.records import AccessToken, TokenKey, TokenRecord
from airflow_provider_feedamp.tokens.store import MemoryStore
from tests.tokens.conftest import endpoint_at
from tests.tokens.custody import at_once, holds_in_child
from tests.tokens.edge import TokenServer, answers
from tests.tokens.secrets import (
    ACCESS_TOKEN,
    NEW_ACCESS_TOKEN,
    PAIR,
    REFRESH_TOKEN,
    secrets_in,
)

# A fork of a process with threads is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def token(value: str = ACCESS_TOKEN) -> AccessToken:
    return AccessToken(value, "hooli", pendulum.now("UTC").add(hours=1), 3600.0, 1)


def record(key: TokenKey) -> TokenRecord:
    return TokenRecord(
        key=key,
        refresh_token=REFRESH_TOKEN,
        access_token=ACCESS_TOKEN,
        expires_at=1_800_000_000.0,
        lifetime=3600.0,
        generation=4,
        seeds=("one", "two"),
    )


@pytest.mark.parametrize(
    "other",
    [
        TokenKey("https://feedamp.test/api/v1/access_token", "client-1", "hooli "),
        TokenKey("https://feedamp.test/api/v1/access_token", "client-1", "Hooli"),
        TokenKey("https://feedamp.test/api/v1/access_token", "client-2", "hooli"),
        TokenKey("https://other.test/api/v1/access_token", "client-1", "hooli"),
    ],
)
def test_keys_that_differ_in_any_part_share_neither_slot_nor_lock(key: TokenKey, other: TokenKey) -> None:
    cache = TokenCache()
    cache.slot(key).token = token()

    assert cache.slot(other).token is None
    assert cache.slot(other).lock is not cache.slot(key).lock


class Together(dict[TokenKey, CachedToken]):
    """Lets no thread go on before all of them have looked, and found nothing."""

    def __init__(self, threads: int) -> None:
        super().__init__()
        self._all_have_looked = threading.Barrier(threads)

    def get(self, key: TokenKey, default: Any = None) -> Any:
        self._all_have_looked.wait(60)
        return default


def test_threads_that_ask_at_once_get_the_same_slot(key: TokenKey) -> None:
    cache = TokenCache()
    cache._slots = Together(16)

    slots = at_once(16, lambda: cache.slot(key))

    assert len({id(slot) for slot in slots}) == 1


def test_a_slot_takes_the_access_token_and_the_seeds_of_a_stored_record_and_no_refresh_token(
    key: TokenKey,
) -> None:
    slot = CachedToken()

    slot.take(record(key))

    assert (slot.token, slot.seeds) == (record(key).token(), frozenset({"one", "two"}))
    held = [getattr(slot, name) for name in ("token", "seeds", "retry_at", "replaced", "unsaved")]
    assert REFRESH_TOKEN not in repr([getattr(value, "value", value) for value in held])


def test_a_slot_shows_no_secret(key: TokenKey) -> None:
    slot = CachedToken(token(), replaced=NEW_ACCESS_TOKEN, unsaved=Unsaved(record(key), REFRESH_TOKEN))

    assert secrets_in(f"{slot!r} {slot} {slot.unsaved!r}") == []


def held_by_another_thread(lock: threading.Lock) -> threading.Event:
    """Have a thread take a lock and hold it until the returned event is set."""
    taken, release = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            release.wait(100)

    threading.Thread(target=hold, daemon=True).start()
    assert taken.wait(60)
    return release


def test_a_forked_child_can_make_slots_though_a_thread_of_its_parent_was_making_one(key: TokenKey) -> None:
    release = held_by_another_thread(CACHE._guard)

    try:
        assert holds_in_child(lambda: CACHE.slot(key).token is None)
    finally:
        release.set()


def test_a_forked_child_has_its_parent_s_access_token_and_leaves_it_the_record_that_is_not_saved_yet(
    key: TokenKey,
) -> None:
    slot = CACHE.slot(key)
    slot.token, slot.unsaved = token(), Unsaved(record(key), REFRESH_TOKEN)

    assert holds_in_child(lambda: CACHE.slot(key).token is not None and CACHE.slot(key).unsaved is None)
    assert slot.unsaved is not None


def test_a_forked_child_can_renew_while_its_parent_s_lock_was_held(
    key: TokenKey, server: TokenServer
) -> None:
    server.will(answers(200, PAIR))
    custodian = TokenCustodian(
        key,
        endpoint_at(server.url, deadline=15.0),
        MemoryStore(),
        seed=REFRESH_TOKEN,
        sleep=lambda seconds: None,
    )
    slot = CACHE.slot(key)
    release = held_by_another_thread(slot.lock)

    try:
        assert holds_in_child(lambda: custodian.token().value == NEW_ACCESS_TOKEN)
        assert slot.lock.acquire(blocking=False) is False  # the parent's stays held
    finally:
        release.set()
    assert len(server.received) == 1


NOW = 1_800_000_000.0
KEY = TokenKey("https://feedamp.test/api/v1/access_token", "client-1", "hooli")
SELLERS = [TokenKey(KEY.token_url, KEY.client_id, f"seller {number}") for number in range(500)]

FRESH, ADVISORY, MANDATORY = Freshness.FRESH, Freshness.ADVISORY, Freshness.MANDATORY


def lasting(left: float, lifetime: float = 3600.0) -> AccessToken:
    return AccessToken("at", "hooli", pendulum.from_timestamp(NOW + left), lifetime, 1)


def judged(left: float, lifetime: float = 3600.0, min_ttl: float | None = None) -> Freshness:
    windows = Windows(jitter=0)
    return windows.judge(
        lasting(left, lifetime), KEY, NOW, None if min_ttl is None else timedelta(seconds=min_ttl)
    )


@pytest.mark.parametrize(
    ("lifetime", "left", "freshness"),
    [
        *((3600, 3600, FRESH), (3600, 601, FRESH), (3600, 600, ADVISORY), (3600, 121, ADVISORY)),
        *((3600, 120, MANDATORY), (3600, 1, MANDATORY), (3600, 0, MANDATORY), (3600, -86400, MANDATORY)),
        # The windows shrink with a short-lived token.
        *((60, 31, FRESH), (60, 30, ADVISORY), (60, 7, ADVISORY), (60, 6, MANDATORY)),
        *((300, 151, FRESH), (300, 31, ADVISORY), (300, 30, MANDATORY)),
        *((86400, 601, FRESH), (86400, 120, MANDATORY)),
    ],
)
def test_a_token_is_judged_by_the_time_it_has_left(
    lifetime: float, left: float, freshness: Freshness
) -> None:
    assert judged(left, lifetime) is freshness


@pytest.mark.parametrize(
    ("left", "min_ttl", "freshness"),
    [
        *((1801, 1800, FRESH), (1800, 1800, MANDATORY), (301, 300, ADVISORY), (300, 300, MANDATORY)),
        *((100, 10, MANDATORY), (121, 10, ADVISORY), (121, 0, ADVISORY), (3600, 3599, FRESH)),
    ],
)
def test_min_ttl_widens_the_mandatory_window_and_never_narrows_it(
    left: float, min_ttl: float, freshness: Freshness
) -> None:
    assert judged(left, min_ttl=min_ttl) is freshness


@given(lifetime=st.floats(min_value=0.01, max_value=86400), seller=st.sampled_from(SELLERS))
def test_a_token_that_just_arrived_is_fresh_however_short_it_lives(lifetime: float, seller: TokenKey) -> None:
    assert Windows().judge(lasting(lifetime, lifetime), seller, NOW) is FRESH


@given(
    sooner=st.floats(min_value=-10, max_value=3600),
    later=st.floats(min_value=0, max_value=3600),
    lifetime=st.floats(min_value=1, max_value=86400),
)
def test_a_token_never_becomes_fresher_by_waiting(sooner: float, later: float, lifetime: float) -> None:
    order = [FRESH, ADVISORY, MANDATORY]
    left, less = max(sooner, later), min(sooner, later)

    assert order.index(judged(left, lifetime)) <= order.index(judged(less, lifetime))


@pytest.mark.parametrize(
    ("left", "freshness"),
    [
        *((721, FRESH), (600, ADVISORY)),  # it opens within the jitter for every seller
        *((121, ADVISORY), (120, MANDATORY)),  # and this window has none
    ],
)
def test_the_advisory_window_alone_opens_within_its_jitter(left: float, freshness: Freshness) -> None:
    assert {Windows().judge(lasting(left), seller, NOW) for seller in SELLERS} == {freshness}


def test_the_jitter_spreads_the_sellers_evenly() -> None:
    halfway = [Windows().judge(lasting(660), seller, NOW) for seller in SELLERS]

    assert 0.4 < halfway.count(ADVISORY) / len(SELLERS) < 0.6


def test_every_machine_finds_a_seller_at_the_same_place_of_the_jitter() -> None:
    # Written down once: what this worker computes is what any other computes.
    keys = [TokenKey("https://feedamp.test/api/v1/access_token", "client-1", name) for name in "abcdefgh"]
    opened = [Windows().judge(lasting(660), seller, NOW) is ADVISORY for seller in keys]

    assert opened == [int(seller.digest[:8], 16) / 0xFFFFFFFF >= 0.5 for seller in keys]


def test_configured_windows_are_used() -> None:
    windows = Windows(advisory=1800, jitter=0, mandatory=300)

    judged = [windows.judge(lasting(left), KEY, NOW) for left in (1801, 1800, 301, 300)]
    assert judged == [FRESH, ADVISORY, ADVISORY, MANDATORY]
