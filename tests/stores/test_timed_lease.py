"""The variable store's timed lease, driven through hours of interleavings: the real code in virtual time."""

from __future__ import annotations

import json
import math
import threading
import time
from contextlib import suppress
from functools import partial
from random import seed as seed_pauses
from typing import TYPE_CHECKING

import pytest

from airflow_provider_feedamp.exceptions import (
    ConfigurationError,
    FeedAmpError,
    TokenBusyError,
    TokenConflictError,
    TokenStoreError,
)
from airflow_provider_feedamp.tokens.records import TokenKey, TokenRecord, seeded
from airflow_provider_feedamp.tokens.timed_lease import Timing
from airflow_provider_feedamp.tokens.variable_store import VariableStore, _lease_name, _record_name
from tests.stores.virtual import SlowVariables, VirtualEvent, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

    from airflow_provider_feedamp.tokens.store import Lease

pytestmark = pytest.mark.once
KEY = TokenKey("https://feedamp.example/access_token", "client", "hooli")
#: As in production, but for a lease that is shorter than the longest delay.
TIMING = Timing(bound=1.0, settle=1.5, ttl=20.0)
WORKERS = 4
#: The longest that a worker stays inside; it enters only with this much left of its lease.
STAY = 5.0


class ClearingStore(VariableStore):
    """What must not be done: it takes its lease away when it leaves."""

    def _release(self, key: TokenKey, lease: Lease) -> None:
        super()._release(key, lease)
        self._variables.delete(_lease_name(key))


class Section:
    """What must not be entered by two; counts entries, and those while somebody else was inside."""

    def __init__(self) -> None:
        self.inside = self.entered = self.doubled = 0

    def stay(self, world: World, seconds: float) -> None:
        self.entered += 1
        self.doubled += self.inside > 0
        self.inside += 1
        world.sleep(seconds)
        self.inside -= 1


def delay(random: Random) -> float:
    """Return how long one operation takes: mostly milliseconds, now and then up to 25 seconds."""
    draw = random.random()
    if draw < 0.85:
        return random.uniform(0.005, 0.1)
    return random.uniform(0.1, 3.0) if draw < 0.95 else random.uniform(3.0, 25.0)


def at_once(random: Random) -> float:
    """Return how long an operation takes where the way there is short."""
    return 0.0


def values() -> dict[str, str]:
    """Return the Variables of a seller that nobody renews."""
    return {_record_name(KEY): seeded(KEY, "refresh", now=0).to_json()}


def store_of(
    world: World, variables: SlowVariables | dict[str, str], *, timing: Timing = TIMING
) -> VariableStore:
    """Return a worker's store over Variables; over plain values the way is short."""
    slow = SlowVariables(world, at_once, variables) if isinstance(variables, dict) else variables
    return VariableStore(timing=timing, variables=slow, clock=world.clock, sleep=world.sleep)


def inside(world: World, store: VariableStore, *, stay: float = 0.0) -> float:
    """Let one worker in, and return when it was inside."""
    entered: list[float] = []

    def work() -> None:
        with store.lock(KEY, wait=100.0, stop=VirtualEvent(world)):
            entered.append(world.time)
            world.sleep(stay)

    world.run(work)
    [moment] = entered
    return moment


def turned_away(
    world: World,
    store: VariableStore,
    error: type[FeedAmpError] = TokenBusyError,
    *others: Callable[[], None],
    wait: float,
    match: str | None = None,
    stop: threading.Event | None = None,
) -> FeedAmpError:
    """Let one worker wait in vain, beside others, and return what it was told."""
    told: list[FeedAmpError] = []

    def work() -> None:
        with pytest.raises(error, match=match) as raised:
            with store.lock(KEY, wait=wait, stop=stop or VirtualEvent(world)):
                pass
        told.append(raised.value)

    world.run(work, *others)
    return told[0]


def simulate(
    seed: int, *, rounds: int, kind: type[VariableStore] = VariableStore, timing: Timing = TIMING
) -> Section:
    """Let several workers, each with a store of its own, go in and out."""
    world, section = World(seed), Section()
    seed_pauses(seed)
    variables = SlowVariables(world, delay, values())

    def work() -> None:
        store = kind(timing=timing, variables=variables, clock=world.clock, sleep=world.sleep)
        for _ in range(rounds):
            world.sleep(world.random.uniform(0.0, 10.0))
            visit(store, world, section)

    world.run(*[work] * WORKERS)
    return section


def visit(store: VariableStore, world: World, section: Section) -> None:
    """Enter the section once, if there is time, as a spend does."""
    try:
        with store.lock(KEY, wait=100.0, stop=VirtualEvent(world)) as lease:
            if lease.left() >= STAY:
                section.stay(world, world.random.uniform(0.0, STAY))
    except (TokenBusyError, TokenStoreError):
        return


@pytest.mark.parametrize("seed", range(2))
def test_no_two_workers_are_inside_at_once_however_slowly_variables_answer(seed: int) -> None:
    section = simulate(seed, rounds=300)

    assert section.entered > 500
    assert section.doubled == 0


@pytest.mark.parametrize(
    ("kind", "timing"),
    [
        pytest.param(
            VariableStore, Timing(bound=math.inf, settle=1.5, ttl=20.0), id="the bound is not measured"
        ),
        pytest.param(VariableStore, Timing(bound=1.0, settle=0.0, ttl=20.0), id="the lease does not settle"),
        pytest.param(ClearingStore, TIMING, id="the lease is cleared on leaving"),
    ],
)
def test_the_simulation_finds_two_inside_at_once_when(kind: type[VariableStore], timing: Timing) -> None:
    assert simulate(6, rounds=200, kind=kind, timing=timing).doubled > 0


# Single moves


@pytest.fixture
def world() -> World:
    return World(0)


def test_a_slow_look_does_not_make_a_young_lease_old(world: World) -> None:
    variables, section = values(), Section()
    first_pause = iter([26.0])

    def enter(start: float, store: VariableStore, seconds: float) -> None:
        world.sleep(start)
        with store.lock(KEY, wait=100.0, stop=VirtualEvent(world)):
            section.stay(world, seconds)

    prompt = store_of(world, variables)
    # Its first read takes effect after 13 s, when the prompt one's lease is a second old.
    late = store_of(world, SlowVariables(world, lambda random: next(first_pause, 0.0), variables))
    world.run(partial(enter, 12.0, prompt, 15.0), partial(enter, 0.0, late, 1.0))

    assert (section.entered, section.doubled) == (2, 0)


def test_the_next_one_enters_without_waiting_for_the_end_of_a_released_lease(world: World) -> None:
    store = store_of(world, values())

    def work() -> None:
        for _ in range(2):
            with store.lock(KEY, wait=100.0, stop=VirtualEvent(world)):
                pass

    world.run(work)

    assert world.time == 2 * TIMING.settle


def test_a_dead_workers_lease_ends_after_its_time(world: World) -> None:
    variables = values() | {_lease_name(KEY): '{"nonce": "of the dead"}'}

    entered = inside(world, store_of(world, variables))

    # All that have waited for it spread first: else all of them would write a lease at the same moment.
    assert TIMING.ttl + TIMING.settle <= entered <= TIMING.ttl + 2 * TIMING.settle + TIMING.poll


@pytest.mark.parametrize(
    ("wait", "stop", "waited"), [(0.0, False, 0.0), (7.0, False, 7.0), (1000.0, True, 0.0)]
)
def test_who_waits_in_vain_stops_in_time_and_at_once_when_called_off(
    world: World, wait: float, stop: bool, waited: float
) -> None:
    called_off = threading.Event()
    called_off.set()
    variables = values() | {_lease_name(KEY): '{"nonce": "of another"}'}

    turned_away(world, store_of(world, variables), wait=wait, stop=called_off if stop else None)

    assert world.time == waited


@pytest.mark.parametrize("wait", [0.0, 7.0])
def test_who_writes_too_slowly_does_not_enter_and_does_not_wait_for_longer_than_asked(
    world: World, wait: float
) -> None:
    store = store_of(world, SlowVariables(world, lambda random: 1.2, values()))

    turned_away(world, store, TokenStoreError, wait=wait, match=r"answer too slowly .*lease_bound")

    assert world.time < wait + 5.0


def test_a_lease_that_is_overwritten_while_it_settles_does_not_let_its_owner_in(world: World) -> None:
    variables = values()

    def overwrite() -> None:
        world.sleep(1.0)
        variables[_lease_name(KEY)] = '{"nonce": "of another"}'

    turned_away(world, store_of(world, variables), TokenBusyError, overwrite, wait=5.0)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Standing back is logged, and happens thousands of times here."""
    with caplog.at_level("ERROR"):
        yield


@pytest.mark.parametrize(("stay", "released"), [(TIMING.ttl / 2, True), (TIMING.ttl - 1.0, False)])
def test_a_lease_that_is_nearly_over_is_left_to_end(world: World, stay: float, released: bool) -> None:
    """By the time that its release is written it could be another worker's turn."""
    variables = values()

    inside(world, store_of(world, variables), stay=stay)

    record = TokenRecord.from_json(variables[_record_name(KEY)], KEY)
    assert bool(record.released) is released


@pytest.mark.parametrize("stage", ["write", "sleep"])
def test_a_signal_while_the_lease_settles_makes_nobody_wait_for_its_end(world: World, stage: str) -> None:
    variables = values()
    entered: list[float] = []

    class Interrupted(BaseException):
        pass

    class Cut(SlowVariables):
        def set(self, name: str, value: str, description: str) -> None:
            super().set(name, value, description)
            if stage == "write" and name == _lease_name(KEY):
                raise Interrupted

    def sleep(seconds: float) -> None:
        world.sleep(seconds / 2)
        if stage == "sleep" and not entered:
            entered.append(-1.0)
            raise Interrupted
        world.sleep(seconds / 2)

    def cut() -> None:
        variables_of_one = Cut(world, at_once, variables)
        store = VariableStore(timing=TIMING, variables=variables_of_one, clock=world.clock, sleep=sleep)
        with pytest.raises(Interrupted), store.lock(KEY, wait=100.0, stop=VirtualEvent(world)):
            pass

    def follow() -> None:
        world.sleep(0.1)
        store = store_of(world, variables)
        with store.lock(KEY, wait=100.0, stop=VirtualEvent(world)):
            entered.append(world.time)

    world.run(cut, follow)

    assert 0 < entered[-1] < TIMING.ttl / 2


@pytest.mark.parametrize("waited", [True, False], ids=["that wait for a dead lease", "that come at once"])
def test_workers_spread_before_they_write(world: World, waited: bool) -> None:
    """All of them would write at the same moment, and of many writes at once some are late."""
    seed_pauses(7)
    variables = values() | ({_lease_name(KEY): lease(nonce="of the dead")} if waited else {})
    written: list[float] = []

    class Counted(SlowVariables):
        def set(self, name: str, value: str, description: str) -> None:
            if name == _lease_name(KEY):
                written.append(world.time)
            super().set(name, value, description)

    def slow(random: Random) -> float:
        return 0.1  # as one of many workers on one machine

    def work() -> None:
        store = store_of(world, Counted(world, slow, variables))
        with suppress(TokenBusyError), store.lock(KEY, wait=40.0, stop=VirtualEvent(world)):
            pass

    world.run(*[work] * 32)
    assert sum(moment - written[0] < 0.2 for moment in written) < 16


# Who waits, and for whom


def lease(**fields: object) -> str:
    """Return the lease of another worker that runs."""
    times = {"bound": TIMING.bound, "settle": TIMING.settle, "ttl": TIMING.ttl}
    return json.dumps({"nonce": "theirs", "owner": "host-7:42", "at": time.time(), **times, **fields})


def test_who_waits_says_once_for_whom(world: World, caplog: pytest.LogCaptureFixture) -> None:
    variables = values() | {_lease_name(KEY): lease()}

    with caplog.at_level("INFO"):
        turned_away(world, store_of(world, variables), wait=7.0)

    assert [each.getMessage() for each in caplog.records] == [
        "Waiting for the access token of seller 'hooli': host-7:42 renews it."
    ]


def test_a_worker_with_other_times_refuses_to_work_beside_this_one(world: World) -> None:
    variables = values() | {_lease_name(KEY): lease(bound=5.0, settle=6.0)}
    words = r"host-7:42 .*'settle': 6\.0.*'settle': 1\.5"

    told = turned_away(world, store_of(world, variables), TokenStoreError, wait=60.0, match=words)

    assert told.retryable
    assert world.time == 0.0


@pytest.mark.parametrize("fields", [{"at": time.time() - 1000.0}, {"nonce": "released"}])
def test_the_lease_of_a_worker_that_is_gone_may_have_other_times(
    world: World, fields: dict[str, object]
) -> None:
    """Times are changed while no worker runs; the last lease from before is still there."""
    record = seeded(KEY, "refresh", now=0).changed(released="released")
    variables = {_record_name(KEY): record.to_json(), _lease_name(KEY): lease(bound=5.0, **fields)}

    assert inside(world, store_of(world, variables)) > 0


def test_a_slow_look_is_looked_again_and_blocks_nobody(world: World) -> None:
    """A lease that would be written late is not written at all."""
    took = iter([0.4, 0.4])  # the first look's two reads

    inside(world, store_of(world, SlowVariables(world, lambda random: next(took, 0.0), values())))

    assert world.time < TIMING.ttl / 2  # not after the end of a late lease of its own


def test_a_race_for_the_lease_that_was_lost_is_no_failure(world: World) -> None:
    """Airflow 2.11 and 3.0 write a Variable as DELETE and INSERT: of two that meet, one gets an error."""
    variables = values()

    class Racing(SlowVariables):
        def set(self, name: str, value: str, description: str) -> None:
            if name == _lease_name(KEY) and name not in variables:
                variables[name] = lease(nonce="released")
                raise TokenConflictError("written by another worker at the same moment")
            super().set(name, value, description)

    variables[_record_name(KEY)] = seeded(KEY, "refresh", now=0).changed(released="released").to_json()

    assert inside(world, store_of(world, Racing(world, at_once, variables))) > 0


@pytest.mark.parametrize(
    "options",
    [
        {"LEASE_BOUND": "2"},  # not below the settling time
        {"LEASE_BOUND": "0"},
        {"LEASE_BOUND": "fast"},
        {"LEASE_TTL": "30"},  # cannot hold two calls of the token endpoint
        {"LEASE_TTL": "inf"},
        {"TOKEN_DEADLINE": "28"},
    ],
)
def test_times_with_which_the_lease_does_not_hold_are_refused(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    for name, value in options.items():
        monkeypatch.setenv(f"AIRFLOW__FEEDAMP__{name}", value)

    with pytest.raises(ConfigurationError, match=r"lease_bound|lease_ttl"):
        VariableStore()


def test_the_times_of_the_lease_come_from_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LEASE_BOUND": "4", "LEASE_SETTLE": "6", "LEASE_TTL": "90"}.items():
        monkeypatch.setenv(f"AIRFLOW__FEEDAMP__{name}", value)

    assert Timing.configured() == Timing(bound=4.0, settle=6.0, ttl=90.0)
