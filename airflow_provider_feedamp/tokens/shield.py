"""Runs a critical section where no signal can cut it."""

from __future__ import annotations

import _thread
import contextvars
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

from airflow_provider_feedamp.exceptions import TokenBusyError

T = TypeVar("T")

#: Seconds of one wait. A signal that comes just before a wait, or that the system delivers to another thread,
#: does not end it: the handler runs at the next turn.
_SLICE = 0.2


class _Sections:
    """The protected sections of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.in_flight = 0
        self.closed = False

    def __enter__(self) -> None:
        with self.lock:
            if self.closed:
                raise TokenBusyError(
                    "This process ends, so no renewal begins in it. Nothing was spent; try again."
                )
            self.in_flight += 1

    def __exit__(self, *exc: object) -> None:
        with self.lock:
            self.in_flight -= 1


_sections = _Sections()


def in_flight() -> int:
    """Return how many protected sections are under way in this process."""
    return _sections.in_flight


def close() -> None:
    """Let no protected section begin any more, because this process ends; those under way go on."""
    with _sections.lock:
        _sections.closed = True


def shielded(work: Callable[[threading.Event], T]) -> T:
    """Run ``work`` to its end in a helper thread, whatever is raised in the calling thread meanwhile.

    Python delivers signals to the main thread only, so SIGTERM and Airflow's ``execution_timeout`` (SIGALRM)
    raise here, where nothing is under way but waiting. The exception is kept until the work has ended, and
    then raised in place of the result. One that arrives before the work has begun is raised at once, and the
    work is not begun any more.

    :param work: Is handed an event that is set once such an exception has arrived: work that has not yet
        begun what must not be cut should then give up.
    :return: What ``work`` returns.
    :raises BaseException: what arrived while waiting; else what ``work`` raised.
    """

    def counted(stop: threading.Event) -> T:
        with _sections:  # not in the caller's thread, where a signal could leave its lock held
            return work(stop)

    return _shielded(counted)


def _shielded(work: Callable[[threading.Event], T]) -> T:
    caller = threading.current_thread()
    if caller is not threading.main_thread() and not caller.daemon:
        return work(threading.Event())
    helper = _Helper(work)
    interrupts: list[BaseException] = []
    launched = False
    while True:
        try:
            if not launched:
                launched = True
                _thread.start_new_thread(helper.launch, ())
            helper.wait()  # not a loop here: Python 3.12 lets a signal past the try where the loop turns
            break
        except BaseException as error:
            if helper.claim.acquire(blocking=False):
                raise
            interrupts.append(error)
            helper.stop.set()
    for failure in (*interrupts, *helper.failures):
        raise failure
    return helper.results[0]


class _Helper(Generic[T]):
    """The thread that does the work.

    The caller must not wait for an Event, nor inside ``Thread.start()``, which does: an exception at the
    wrong moment would leave the lock inside the Event held, and everybody would wait for ever. So the caller
    waits for a bare lock, and a passing thread starts the one that counts.
    """

    def __init__(self, work: Callable[[threading.Event], T]) -> None:
        self.stop = threading.Event()
        #: Taken by the helper when it begins, or by the caller to call it off: work runs once or not at all.
        self.claim = threading.Lock()
        #: Held until the work has ended.
        self.running = threading.Lock()
        self.running.acquire()
        self.results: list[T] = []
        self.failures: list[BaseException] = []
        self._work = work
        self._context = contextvars.copy_context()
        # Not a daemon: the interpreter does not end before the work has.
        self._thread = threading.Thread(target=self._run, name="feedamp-token", daemon=False)

    def wait(self) -> None:
        while not (self.results or self.failures):
            self.running.acquire(timeout=_SLICE)

    def launch(self) -> None:
        try:
            self._thread.start()
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            self.failures.append(error)
            self.running.release()

    def _run(self) -> None:
        if not self.claim.acquire(blocking=False):
            return
        try:
            self.results.append(self._context.run(self._work, self.stop))
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            self.failures.append(error)
        self.running.release()
