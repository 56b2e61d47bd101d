"""The variable store's timed lease, driven through hours of interleavings: the real code in virtual time."""

from __future__ import annotations

import math
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

from airflow_provider_feedamp.exceptions import TokenBusyError, TokenStoreError
from airflow_provider_feedamp.stores.timed_lease import Timing
from airflow_provider_feedamp.stores.variable import VariableStore, _lease_name, _record_name
from airflow_provider_feedamp.tokens.models import TokenKey, seeded
from tests.stores.virtual import SlowVariables, VirtualEvent, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from airflow_provider_feedamp.stores.base import Lease

pytestmark = pytest.mark.once
KEY = TokenKey("https://feedamp.example/access_token", "client", "acme")
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


def store_of(world: World, variables: SlowVariables, *, timing: Timing = TIMING) -> VariableStore:
    return VariableStore(timing=timing, variables=variables, clock=world.clock, sleep=world.sleep)


def simulate(
    seed: int, *, rounds: int, kind: type[VariableStore] = VariableStore, timing: Timing = TIMING
) -> Section:
    """Let several workers, each with a store of its own, go in and out."""
    world, section = World(seed), Section()
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
    assert simulate(1, rounds=200, kind=kind, timing=timing).doubled > 0


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

    prompt = store_of(world, SlowVariables(world, at_once, variables))
    # Its first read takes effect after 13 s, when the prompt one's lease is a second old.
    late = store_of(world, SlowVariables(world, lambda random: next(first_pause, 0.0), variables))
    world.run(partial(enter, 12.0, prompt, 15.0), partial(enter, 0.0, late, 1.0))

    assert (section.entered, section.doubled) == (2, 0)


def test_the_next_one_enters_without_waiting_for_the_end_of_a_released_lease(world: World) -> None:
    store = store_of(world, SlowVariables(world, at_once, values()))

    def work() -> None:
        for _ in range(2):
            with store.lock(KEY, wait=100.0, stop=VirtualEvent(world)):
                pass

    world.run(work)

    assert world.time == 2 * TIMING.settle


def test_a_dead_workers_lease_ends_after_its_time(world: World) -> None:
    variables = values() | {_lease_name(KEY): '{"nonce": "of the dead"}'}
    store = store_of(world, SlowVariables(world, at_once, variables))
    entered: list[float] = []

    def work() -> None:
        with store.lock(KEY, wait=100.0, stop=VirtualEvent(world)):
            entered.append(world.time)

    world.run(work)

    assert entered == [TIMING.ttl + TIMING.settle]


@pytest.mark.parametrize("wait", [0.0, 7.0])
def test_who_waits_in_vain_stops_in_time(world: World, wait: float) -> None:
    variables = values() | {_lease_name(KEY): '{"nonce": "of another"}'}
    store = store_of(world, SlowVariables(world, at_once, variables))

    def work() -> None:
        with pytest.raises(TokenBusyError), store.lock(KEY, wait=wait, stop=VirtualEvent(world)):
            pass

    world.run(work)

    assert world.time == wait


@pytest.mark.parametrize("wait", [0.0, 7.0])
def test_who_writes_too_slowly_does_not_enter_and_does_not_wait_for_longer_than_asked(
    world: World, wait: float
) -> None:
    store = store_of(world, SlowVariables(world, lambda random: 1.2, values()))

    def work() -> None:
        with (
            pytest.raises(TokenStoreError, match="answer too slowly .*lease_bound"),
            store.lock(KEY, wait=wait, stop=VirtualEvent(world)),
        ):
            pass

    world.run(work)

    assert world.time < wait + 5.0


def test_a_lease_that_is_overwritten_while_it_settles_does_not_let_its_owner_in(world: World) -> None:
    variables = values()
    store = store_of(world, SlowVariables(world, at_once, variables))

    def overwrite() -> None:
        world.sleep(1.0)
        variables[_lease_name(KEY)] = '{"nonce": "of another"}'

    def work() -> None:
        with pytest.raises(TokenBusyError), store.lock(KEY, wait=5.0, stop=VirtualEvent(world)):
            pass

    world.run(work, overwrite)


def test_waiting_that_is_called_off_ends_at_once(world: World) -> None:
    stop = threading.Event()
    stop.set()
    variables = values() | {_lease_name(KEY): '{"nonce": "of another"}'}
    store = store_of(world, SlowVariables(world, at_once, variables))

    def work() -> None:
        with pytest.raises(TokenBusyError), store.lock(KEY, wait=1000.0, stop=stop):
            pass

    world.run(work)

    assert world.time == 0.0


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Standing back is logged, and happens thousands of times here."""
    with caplog.at_level("ERROR"):
        yield
