"""What runs under the shield runs once and to its end, whatever signal comes, and the signal is not lost."""

from __future__ import annotations

import contextvars
import os
import random
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.tokens import shield
from airflow_provider_feedamp.tokens.shield import shielded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

# pytest-timeout's usual way is an alarm, and the alarm is what these tests take for themselves.
pytestmark = pytest.mark.timeout(60, method="thread")

#: Seconds that the work of one run takes; signals come at any time from before it begins to after it ends.
WORK = 0.0015
RUNS = 300


class Interrupted(BaseException):
    """What a signal's handler raises in the main thread."""


class Work:
    """Something that must not be cut, and that knows how far it has come."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self._pause = threading.Event()

    def __call__(self, stop: threading.Event) -> str:
        self.steps.append("begun")
        self._pause.wait(WORK)
        self.steps.append("ended")
        return "result"


@contextmanager
def raising(number: signal.Signals, work: Work, came_at: list[str]) -> Iterator[None]:
    """Have a signal raise, as Airflow's time-out and task runner do, and note how far the work was."""

    def handler(signum: int, frame: FrameType | None) -> None:
        came_at.append("-".join(work.steps))
        raise Interrupted

    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def run_under_alarm(after: float) -> tuple[Work, list[str], bool]:
    """Run the work with an alarm that rings after some time; say what came of it."""
    work, came_at, raised = Work(), [], False  # type: tuple[Work, list[str], bool]
    with raising(signal.SIGALRM, work, came_at):
        try:
            signal.setitimer(signal.ITIMER_REAL, after)
            shielded(work)
            signal.setitimer(signal.ITIMER_REAL, 0)  # in here: until this has returned, it may ring
        except Interrupted:
            raised = True
            came_at.append("-".join(work.steps))
    return work, came_at, raised


@pytest.mark.parametrize("latest", [0.0004, WORK * 2], ids=["while it begins", "at any time"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_alarm_never_cuts_the_work_nor_runs_it_twice(latest: float) -> None:
    rng, inside = random.Random(20), 0
    for _ in range(RUNS):
        work, came_at, raised = run_under_alarm(rng.uniform(1e-6, latest))

        assert work.steps in ([], ["begun", "ended"])
        if came_at and came_at[0] == "begun":
            inside += 1
            assert raised
            assert came_at[1] == "begun-ended"  # raised only after the work had ended

    if latest > WORK:
        assert inside > RUNS / 10  # else these runs have shown nothing


def test_a_sigterm_at_any_time_never_cuts_the_work() -> None:
    rng = random.Random(15)
    for _ in range(RUNS):
        work, came_at = Work(), list[str]()
        pause = threading.Event()

        def send(after: float = rng.uniform(0, WORK * 2), pause: threading.Event = pause) -> None:
            pause.wait(after)
            os.kill(os.getpid(), signal.SIGTERM)

        with raising(signal.SIGTERM, work, came_at):
            sender = threading.Thread(target=send)
            try:
                sender.start()
                result = shielded(work)
                assert result == "result"
                while not came_at:
                    pause.wait(0.001)
            except Interrupted:
                came_at.append("-".join(work.steps))
            sender.join()

        assert work.steps in ([], ["begun", "ended"])
        if came_at[0] == "begun":
            assert came_at[1:] == ["begun-ended"]


def run_interrupted_at(step: int) -> tuple[Work, bool, bool]:
    """Raise at one bytecode of the waiting thread, which is where a signal's handler can raise.

    :return: The work, whether this run had so many bytecodes, and whether the work had ended by then.
    """
    work, left, raised = Work(), step, False

    def trace(frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        nonlocal left, raised
        frame.f_trace_opcodes = True
        left -= event == "opcode"
        if left < 0 and not raised:
            raised = True
            raise Interrupted
        return trace

    before = sys.gettrace()
    # From Python 3.12 on, a trace has bytecodes only if some frame asked for them before it began.
    sys._getframe().f_trace_opcodes = True
    try:
        sys.settrace(trace)
        shielded(work)
    except Interrupted:
        sys.settrace(before)
        return work, True, work.steps != ["begun"]
    finally:
        sys.settrace(before)
    return work, raised, True


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_exception_at_any_bytecode_neither_cuts_the_work_nor_doubles_nor_blocks_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shield, "_SLICE", 0.0001)  # many turns of the waiting loop in one piece of work
    outcomes = []
    for step in range(2000):
        work, interrupted, whole = run_interrupted_at(step)
        assert whole, f"raised at bytecode {step} while the work was under way"
        assert work.steps in ([], ["begun", "ended"]), step
        outcomes.append(tuple(work.steps))
        if not interrupted:
            break

    assert not interrupted  # every bytecode has had its turn
    assert () in outcomes  # some came before the work had begun


def test_a_second_signal_does_not_cut_the_work_either() -> None:
    begun, steps = threading.Event(), list[str]()

    def work(stop: threading.Event) -> None:
        begun.set()
        for _ in range(5):
            os.kill(os.getpid(), signal.SIGUSR1)
            stop.wait(0.02)
            threading.Event().wait(0.02)
        steps.append("ended")

    def handler(signum: int, frame: FrameType | None) -> None:
        steps.append("signal")
        raise Interrupted(len(steps))

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(Interrupted) as first:
            shielded(work)
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert first.value.args == (1,)
    assert steps.count("signal") >= 2
    assert steps[-1] == "ended"


def test_a_signal_is_told_to_the_work_so_that_it_can_give_up_waiting() -> None:
    told: list[bool] = []

    def work(stop: threading.Event) -> None:
        told.append(stop.is_set())
        os.kill(os.getpid(), signal.SIGALRM)
        told.append(stop.wait(5))

    with raising(signal.SIGALRM, Work(), []), pytest.raises(Interrupted):
        shielded(work)

    assert told == [False, True]


def test_a_signal_wins_over_an_error_of_the_work() -> None:
    def work(stop: threading.Event) -> None:
        os.kill(os.getpid(), signal.SIGALRM)
        stop.wait(5)
        raise ValueError

    with raising(signal.SIGALRM, Work(), []), pytest.raises(Interrupted):
        shielded(work)


def test_the_result_comes_back() -> None:
    result = object()

    assert shielded(lambda stop: result) is result


@pytest.mark.parametrize("nothing", [None, 0, "", False])
def test_a_result_that_is_nothing_comes_back_too(nothing: object) -> None:
    assert shielded(lambda stop: nothing) is nothing


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(3)])
def test_an_error_of_the_work_is_raised_as_it_is(error: BaseException) -> None:
    def work(stop: threading.Event) -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        shielded(work)

    assert raised.value is error


def test_the_work_runs_beside_the_main_thread_in_one_that_the_interpreter_waits_for() -> None:
    helper = shielded(lambda stop: threading.current_thread())

    assert helper is not threading.main_thread()
    assert helper.daemon is False


def test_beside_the_main_thread_the_work_stays_in_the_thread_that_asks() -> None:
    ran_in: list[threading.Thread] = []
    thread = threading.Thread(
        target=lambda: ran_in.append(shielded(lambda stop: threading.current_thread())), daemon=False
    )
    thread.start()
    thread.join(10)

    assert ran_in == [thread]


def test_a_thread_that_the_interpreter_does_not_wait_for_gets_one_that_it_does() -> None:
    ran_in: list[threading.Thread] = []
    thread = threading.Thread(
        target=lambda: ran_in.append(shielded(lambda stop: threading.current_thread())), daemon=True
    )
    thread.start()
    thread.join(10)

    assert [each.daemon for each in ran_in] == [False]


def test_the_work_sees_the_caller_s_context() -> None:
    task: contextvars.ContextVar[str] = contextvars.ContextVar("task")
    task.set("place_orders")

    assert shielded(lambda stop: task.get()) == "place_orders"


@pytest.mark.parametrize("module", ["_thread.start_new_thread", "threading.Thread.start"])
def test_work_that_cannot_begin_for_lack_of_threads_fails_and_does_not_hang(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    work = Work()

    def no_more(*args: object, **kwargs: object) -> int:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    monkeypatch.setattr(module, no_more)

    with pytest.raises(RuntimeError, match="can't start new thread"):
        shielded(work)

    assert work.steps == []


def test_shields_of_many_threads_do_not_disturb_each_other() -> None:
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: results.append(shielded(lambda stop: n))) for n in range(32)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert sorted(results) == list(range(32))
