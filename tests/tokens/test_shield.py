"""What runs in a shielded section runs to its end, whatever signal comes, and the signal is not lost."""

from __future__ import annotations

import asyncio
import dis
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync

import airflow_provider_feedamp
from airflow_provider_feedamp.tokens import shield as shield_module
from airflow_provider_feedamp.tokens.cache import CACHE
from airflow_provider_feedamp.tokens.custodian import TokenCustodian
from airflow_provider_feedamp.tokens.endpoint import TokenEndpoint, TokenGrant
from airflow_provider_feedamp.tokens.pending import PendingAuthorisation
from airflow_provider_feedamp.tokens.records import RecordState, TokenKey, TokenRecord
from airflow_provider_feedamp.tokens.shield import Shield
from airflow_provider_feedamp.tokens.store import MemoryStore
from tests.tokens.custody import Doors, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType

    from airflow_provider_feedamp.sandbox.models import Tokens
    from tests.tokens.custody import Bench


# pytest-timeout's usual way is an alarm, and the alarm is what these tests take for themselves.
pytestmark = pytest.mark.timeout(100, method="thread")

KEY = TokenKey("https://feedamp.example/access_token", "client", "hooli")

PACKAGE = str(Path(airflow_provider_feedamp.__file__).parent)


class Interrupted(BaseException):
    """What a signal's handler raises in the main thread, as Airflow's do."""


def interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


@contextmanager
def raising(*numbers: signal.Signals) -> Iterator[None]:
    """Have signals raise; see afterwards that nobody has left a handler of his own behind."""
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
        assert [signal.getsignal(number) for number in numbers] == [interrupt] * len(numbers)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def in_section(work: Callable[[Shield], object]) -> None:
    with Shield() as shield, shield.section():
        work(shield)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGALRM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_waits_for_the_end_of_the_section(number: signal.Signals) -> None:
    steps: list[str] = []

    def work(shield: Shield) -> None:
        signal.raise_signal(number)
        steps.append(f"pending: {shield.pending}")

    with raising(number):
        with pytest.raises(Interrupted, match=str(int(number))):
            in_section(work)

    assert steps == ["pending: True"]


def test_outside_of_a_section_a_signal_raises_where_it_arrives() -> None:
    steps: list[str] = []

    def work() -> None:
        with Shield() as shield:
            shield.lower()
            steps.append("before")
            signal.raise_signal(signal.SIGALRM)
            steps.append("after")

    with raising(signal.SIGALRM), pytest.raises(Interrupted):
        work()

    assert steps == ["before"]


def test_a_second_signal_does_not_cut_the_section_either() -> None:
    steps: list[str] = []

    def work(shield: Shield) -> None:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGALRM)
        steps.append("ended")

    with raising(signal.SIGTERM, signal.SIGALRM), pytest.raises(Interrupted) as raised:
        in_section(work)

    assert steps == ["ended"]
    assert isinstance(raised.value.__context__, Interrupted)  # the handlers of both have run


def test_a_signal_wins_over_an_error_of_the_section() -> None:
    def work(shield: Shield) -> None:
        signal.raise_signal(signal.SIGALRM)
        raise ValueError

    with raising(signal.SIGALRM), pytest.raises(Interrupted):
        in_section(work)


def test_a_handler_that_does_not_raise_is_called_once_after_the_section() -> None:
    calls: list[str] = []
    before = signal.signal(signal.SIGTERM, lambda *_: calls.append("told"))
    try:
        with Shield() as shield:
            with shield.section():
                signal.raise_signal(signal.SIGTERM)
                calls.append("ended")
            calls.append("went on")
    finally:
        signal.signal(signal.SIGTERM, before)

    assert calls == ["ended", "told", "went on"]


def test_a_signal_that_nobody_wants_stays_unwanted() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Shield() as shield, shield.section():
            signal.raise_signal(signal.SIGHUP)
            assert not shield.pending
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_beside_the_main_thread_there_is_nothing_to_defer() -> None:
    ran: list[bool] = []
    work = partial(in_section, lambda shield: ran.append(signal.getsignal(signal.SIGALRM) is interrupt))

    with raising(signal.SIGALRM):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(60)

    assert ran == [True]


# A signal at every place of a renewal where Python lets one in


class Grants(TokenEndpoint):
    """A token endpoint without a network: each refresh token works once."""

    def __init__(self) -> None:
        super().__init__(KEY.token_url, KEY.client_id, "secret")
        object.__setattr__(self, "granted", ["refresh-0"])

    granted: list[str]

    def refresh(self, refresh_token: str) -> TokenGrant:
        assert refresh_token == self.granted[-1]
        self.granted.append(f"refresh-{len(self.granted)}")
        return TokenGrant("access", self.granted[-1], 3600.0)


def lets_signals_in(code: CodeType, instruction: int, before: str) -> bool:
    """Say whether CPython looks for signals at a bytecode: on entry, at a loop's turn, and after a call."""
    name = dis.opname[code.co_code[instruction]]
    return name in ("RESUME", "JUMP_BACKWARD") or before.startswith("CALL")


def asked_with_a_signal_at(
    place: int, found: TokenRecord | None = None
) -> tuple[bool, bool, MemoryStore, Grants]:
    """Ask for a token with a signal at one such place of our own code.

    :param found: What another worker has stored.
    :return: Whether there are so many places, whether the signal was raised, and what was done.
    """
    CACHE.clear()
    store, endpoint = MemoryStore(), Grants()
    if found is not None:
        store.write(found, expected=None)
    custodian = TokenCustodian(KEY, endpoint, store, seed="refresh-0", lock_wait=5.0)
    left, arrived, before = place, False, dict[int, str]()

    def trace(frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        nonlocal left, arrived
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = True
        if event != "opcode" or arrived:
            return trace
        code = frame.f_code
        if lets_signals_in(code, frame.f_lasti, before.get(id(frame), "")):
            left -= 1
        before[id(frame)] = dis.opname[code.co_code[frame.f_lasti]]
        if left < 0:
            arrived = True
            handler: Any = signal.getsignal(signal.SIGALRM)
            handler(signal.SIGALRM, frame)
        return trace

    former, raised = sys.gettrace(), False
    # From Python 3.12 on, a trace has bytecodes only if some frame asked for them before it began.
    sys._getframe().f_trace_opcodes = True
    try:
        sys.settrace(trace)
        custodian.token()
    except Interrupted:
        raised = True
    finally:
        sys.settrace(former)
    return arrived, raised, store, endpoint


def test_a_signal_at_any_place_of_a_renewal_loses_no_token_and_leaves_no_lock() -> None:
    announced = spent = 0
    with raising(signal.SIGALRM):
        for place in range(100_000):
            arrived, raised, store, endpoint = asked_with_a_signal_at(place)
            record = store.read(KEY)

            if not arrived:
                break
            assert raised, place
            assert signal.getsignal(signal.SIGALRM) is interrupt, place
            assert not CACHE.slot(KEY).lock.locked(), place
            with store.lock(KEY, wait=0, stop=threading.Event()):
                assert shield_module.in_flight() == 0, place
            assert len(endpoint.granted) <= 2, place
            if len(endpoint.granted) == 2:
                spent += 1
                assert record is not None, place
                assert (record.refresh_token, record.state) == ("refresh-1", RecordState.ACTIVE), place
            else:
                announced += record is not None
                # Told to stop before the announcement: nothing was written either.
                assert record is None, place

    assert spent > 50  # else these runs have shown nothing
    assert announced == 0
    assert place > spent + 50


def test_a_signal_while_a_stored_token_is_taken_leaves_no_lock_either() -> None:
    found = TokenRecord(
        key=KEY,
        refresh_token="refresh-0",
        access_token="stored",
        expires_at=time.time() + 3600,
        lifetime=3600.0,
        seeds=(KEY.fingerprint("refresh-0"),),
    )
    with raising(signal.SIGALRM):
        for place in range(100_000):
            arrived, raised, _, endpoint = asked_with_a_signal_at(place, found)
            if not arrived:
                break
            assert raised, place
            assert signal.getsignal(signal.SIGALRM) is interrupt, place
            assert not CACHE.slot(KEY).lock.locked(), place
            assert len(endpoint.granted) == 1, place

    assert place > 20


# The end of the process


def run(script: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False, **options
    )


_SECTION = """
import os, signal, sys, threading, time
from airflow_provider_feedamp.tokens.shield import Shield

def work(do):
    with Shield() as shield, shield.section():
        begun.set()
        do()
        print("ended", flush=True)

begun, leave = threading.Event(), threading.Event()
"""


def test_the_process_does_not_end_before_the_section_of_a_daemon_has() -> None:
    ended = run(
        _SECTION
        + "threading.Thread(target=work, args=[lambda: time.sleep(0.5)], daemon=True).start(); begun.wait()"
    )

    assert (ended.stdout, ended.returncode) == ("ended\n", 0)


def test_a_signal_that_ends_the_process_does_so_after_the_section() -> None:
    ended = run(_SECTION + "work(lambda: os.kill(os.getpid(), signal.SIGTERM)); print('went on')")

    assert (ended.stdout, ended.returncode) == ("ended\n", -signal.SIGTERM)


def test_who_waits_for_the_sections_sees_whether_all_have_ended() -> None:
    leave = threading.Event()

    def work() -> None:
        with Shield() as shield, shield.section():
            leave.wait(60)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(work)
        until(shield_module.in_flight)
        assert not shield_module.wait_idle(0.1)
        leave.set()
        assert shield_module.wait_idle()


def test_a_child_does_not_wait_for_the_sections_of_its_parents_threads() -> None:
    ended = run(
        _SECTION
        + """
threading.Thread(target=work, args=[leave.wait]).start(); begun.wait()
child = os.fork()
if child == 0:
    from airflow_provider_feedamp.tokens.shield import in_flight
    os._exit(in_flight())
print("in the child:", os.waitpid(child, 0)[1], flush=True)
leave.set()
"""
    )

    assert ended.stdout.splitlines() == ["in the child: 0", "ended"]


# A signal in the middle of a renewal: SIGTERM, and the SIGALRM of execution_timeout


@pytest.mark.parametrize("number", [signal.SIGALRM, signal.SIGTERM])
@pytest.mark.parametrize("moment", [RecordState.REFRESHING, "the answer is awaited", RecordState.ACTIVE])
def test_a_signal_while_the_record_is_written_or_the_answer_awaited_loses_nothing(
    bench: Bench, number: signal.Signals, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    custodian, tokens = bench.seeded(), bench.sandbox.state.tokens
    refresh = tokens.refresh

    def now(what: str) -> None:
        if what == moment:
            signal.pthread_kill(threading.main_thread().ident or 0, number)
            time.sleep(0.05)

    def answer(refresh_token: str) -> Tokens:
        now("the answer is awaited")  # in FeedAMP's thread
        return refresh(refresh_token)

    monkeypatch.setattr(tokens, "refresh", answer)
    bench.store.before_write = lambda record: now(record.state)
    with raising(number), pytest.raises(Interrupted):
        custodian.token()

    assert (bench.posts(), bench.whole()) == (1, True)
    assert bench.record().state is RecordState.ACTIVE
    CACHE.clear()
    assert not custodian.token().renewed


@pytest.mark.parametrize("number", [signal.SIGALRM, signal.SIGTERM])
@pytest.mark.parametrize("pending", [True, False], ids=["a person confirms it", "at once the seller's"])
def test_a_signal_while_the_pair_of_a_code_is_written_loses_nothing(
    bench: Bench, number: signal.Signals, pending: bool
) -> None:
    authorisation = PendingAuthorisation(bench.custodian(), "feedamp_default", "ada")
    state, _ = authorisation.start(600)
    code = bench.control.authorize("hooli")
    exchange = partial(authorisation.redeem, state) if pending else authorisation.custodian.exchange_code

    bench.store.just_before(RecordState.ACTIVE, lambda record: signal.raise_signal(number))
    with raising(number), pytest.raises(Interrupted):
        exchange(code)

    if pending:
        authorisation.confirm(state)
    assert (bench.posts(), bench.whole()) == (1, True)


@pytest.mark.parametrize("holder", ["another thread", "another worker"])
def test_a_signal_while_somebody_else_renews_ends_the_waiting(bench: Bench, holder: str) -> None:
    custodian, doors = bench.seeded(lock_wait=90.0), Doors()
    bench.slot().lock = doors  # type: ignore[assignment]
    lock = bench.store.lock(bench.key(), wait=0, stop=threading.Event())

    def stop_once_it_waits() -> None:
        until(lambda: doors.seen if holder == "another thread" else bench.store.asked.count("lock") == 2)
        os.kill(os.getpid(), signal.SIGTERM)

    began = time.monotonic()
    with doors.held if holder == "another thread" else lock, raising(signal.SIGTERM):
        threading.Thread(target=stop_once_it_waits).start()
        with pytest.raises(Interrupted):
            custodian.token()

    assert time.monotonic() - began < 60
    assert bench.posts() == 0


@pytest.mark.parametrize("number", [signal.SIGALRM, signal.SIGTERM])
def test_a_signal_while_a_store_hangs_ends_the_waiting_and_nothing_is_spent(
    bench: Bench, number: signal.Signals
) -> None:
    custodian = bench.seeded()

    def hang() -> None:
        """Take all the time there is: the last thing before the record is read again."""
        threading.Timer(0.1, os.kill, (os.getpid(), number)).start()
        time.sleep(90)

    bench.store.inside = hang
    began = time.monotonic()

    with raising(number), pytest.raises(Interrupted):
        custodian.token()

    assert time.monotonic() - began < 60
    assert (bench.posts(), bench.store.records) == (0, {})
    bench.store.inside = lambda: None
    assert custodian.token().renewed  # neither the slot nor the store's lock is left behind


def test_a_call_on_the_event_loop_raises_what_airflow_raises_there_and_does_not_hang(bench: Bench) -> None:
    """A task's look-ups may not be made on the loop that answers them; Airflow's own calls raise."""
    custodian = bench.seeded()

    async def answered() -> None:
        """What a look-up of Airflow's needs the loop for."""

    def look_up() -> None:
        async_to_sync(answered)()

    async def on_the_loop() -> None:
        bench.store.inside = look_up
        custodian.token()

    with pytest.raises(RuntimeError, match="async event loop"):
        asyncio.run(asyncio.wait_for(on_the_loop(), 20))

    assert bench.posts() == 0
