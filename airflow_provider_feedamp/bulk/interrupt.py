"""Let a long run end in order when its task is told to stop, whatever a signal handler raises meanwhile.

Airflow 3 answers SIGTERM with the operator's ``on_kill`` and lets the task go on; where it sent the signal
itself, it kills the process five seconds later. Airflow 2.11 and ``execution_timeout`` (SIGALRM) raise in the
main thread, between any two instructions.
"""

from __future__ import annotations

import _thread
import contextvars
import threading
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from airflow_provider_feedamp.exceptions import StoppedError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

#: Seconds that orders on their way have to be answered once the run is told to stop. Of the five until
#: Airflow 3 kills the process, some are needed for the account and the checkpoint.
GRACE = 3.0
#: Seconds after which nobody waits for the end of a run any more.
PATIENCE = 4.0
#: Seconds of one wait. A signal that comes just before a wait, or that the system delivers to another thread,
#: does not end it: the handler runs at the next turn.
_SLICE = 0.2


class Stop:
    """Tells a run to stop, from any thread and from a signal handler.

    A handler may interrupt its own thread anywhere, so this takes no lock: events and conditions do, a
    ``SimpleQueue`` may be put to in the middle of its own ``get``.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self._woken: list[SimpleQueue[Any]] = []

    @property
    def requested(self) -> bool:
        """Whether the run is to stop."""
        return self._since is not None

    def request(self) -> None:
        """Tell the run to stop; a second call changes nothing."""
        if self._since is None:
            self._since = time.monotonic()
        for queue in self._woken:
            queue.put(None)

    def wakes(self, queue: SimpleQueue[Any]) -> None:
        """Have None put into a queue that the run may be waiting for."""
        self._woken.append(queue)
        if self.requested:
            queue.put(None)

    def left(self, seconds: float) -> float:
        """Return what is left of some seconds since the run was told to stop."""
        return seconds if self._since is None else self._since + seconds - time.monotonic()


def run_apart(work: Callable[[], T], stop: Stop) -> T:
    """Run ``work`` in a thread of its own, where no signal handler can cut it.

    Signal handlers run in the main thread, where nothing is under way here but waiting. What one raises tells
    the work to stop and is raised once the work has ended, or has not for :data:`PATIENCE` seconds.

    :param work: Looks at ``stop`` and ends soon after it is requested.
    :param stop: Is requested here when an exception arrives, and elsewhere at will.
    :return: What ``work`` returns.
    :raises StoppedError: if the work was told to stop and did not end.
    :raises BaseException: what arrived while waiting; else what ``work`` raised.
    """
    job = _Job(work)
    try:
        # A thread is not started from here: Thread.start() waits for an event, and an exception in that wait
        # could leave the event's lock held.
        _thread.start_new_thread(job.thread.start, ())
        job.wait(stop)
    except BaseException:
        stop.request()
        job.wait(stop)
        raise
    return job.result()


class _Job(Generic[T]):
    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._ended: SimpleQueue[None] = SimpleQueue()
        self._context = contextvars.copy_context()
        self._results: list[T] = []
        self._failures: list[BaseException] = []
        # A daemon: a run that did not stop in time must not keep the interpreter from ending.
        self.thread = threading.Thread(target=self._run, name="feedamp-import", daemon=True)

    def wait(self, stop: Stop) -> None:
        """Wait for the end of the work, but no longer than the patience once it was told to stop."""
        while not (self._results or self._failures) and stop.left(PATIENCE) > 0:
            try:
                self._ended.get(timeout=_SLICE)
            except Empty:
                continue

    def result(self) -> T:
        """Return what the work returned, or raise what it raised."""
        for failure in self._failures:
            raise failure
        if self._results:
            return self._results[0]
        raise StoppedError(
            f"The import was told to stop and had not ended {PATIENCE:g} s later, so it is left as it is. "
            "Run it again: FeedAMP keys orders by their number."
        )

    def _run(self) -> None:
        try:
            self._results.append(self._context.run(self._work))
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            self._failures.append(error)
        self._ended.put(None)
