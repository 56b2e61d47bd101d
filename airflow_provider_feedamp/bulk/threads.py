"""The threads of a long run: one that no signal can cut, and the workers that place its orders.

Airflow 3 answers SIGTERM with the operator's ``on_kill`` and lets the task go on; where it sent the signal
itself, it kills the process five seconds later. Airflow 2.11 and ``execution_timeout`` (SIGALRM) raise in the
main thread, between any two instructions.
"""

from __future__ import annotations

import _thread
import contextvars
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from airflow_provider_feedamp.exceptions import StoppedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_feedamp.bulk.source import SourceOrder
    from airflow_provider_feedamp.exceptions import FeedAmpError

    #: What became of an order: ``placed`` where FeedAMP did not say which; or why it is a reject.
    Answer = Literal["inserted", "updated", "placed"] | FeedAmpError

T = TypeVar("T")

#: Seconds that orders on their way have to be answered once a stop is requested. Of the five until
#: Airflow 3 kills the process, some are needed for the account and the checkpoint.
GRACE = 3.0
#: Seconds after a request to stop, until the end of a run is not waited for any more.
PATIENCE = 4.0
#: Seconds of one wait. A signal that comes just before a wait, or that the system delivers to another thread,
#: does not end it: the handler runs at the next turn.
_SLICE = 0.2


class Stop:
    """A request to stop a run, from any thread and from a signal handler.

    A handler may interrupt its own thread anywhere, so this takes no lock: events and conditions do, a
    ``SimpleQueue`` may be put to in the middle of its own ``get``.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self._woken: list[SimpleQueue[Any]] = []

    @property
    def requested(self) -> bool:
        """Whether a stop is requested."""
        return self._since is not None

    def request(self) -> None:
        """Request a stop; a second call changes nothing."""
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
        """Return what is left of some seconds since the stop was requested."""
        return seconds if self._since is None else self._since + seconds - time.monotonic()


def run_apart(work: Callable[[], T], stop: Stop) -> T:
    """Run ``work`` in a thread of its own, where no signal handler can cut it.

    Signal handlers run in the main thread, where nothing is under way here but waiting. What one raises
    requests a stop, and is raised once the work has ended, or has not for :data:`PATIENCE` seconds.

    :param work: Looks at ``stop`` and ends soon after it is requested.
    :param stop: Is requested here when an exception arrives, and elsewhere at will.
    :return: What ``work`` returns.
    :raises StoppedError: A stop was requested and the work did not end.
    :raises BaseException: What arrived while waiting; else what ``work`` raised.
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
        """Wait for the end of the work, but not for longer than :data:`PATIENCE` once a stop is requested."""
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


class PendingOrder:
    """One order that is not accounted for yet, and what came back.

    :param order: The order; it is let go of once it is placed.
    """

    __slots__ = ("answer", "follower", "number", "order", "size")

    def __init__(self, order: SourceOrder) -> None:
        self.order: SourceOrder | None = order
        self.number = order.number
        self.size = len(order.body or b"")
        #: None until the order is answered.
        self.answer: Answer | None = None
        #: The next order with the same number, which waits for this one.
        self.follower: PendingOrder | None = None


class Workers:
    """A few threads with one queue to them and one back; all else happens in the thread that owns this.

    Orders with the same number are never on their way together: a later one waits behind the earlier one, and
    holds up no other number.

    :param prepare: Is called once, by the first thread, before anything is placed; the others wait for it.
        None: there is nothing to prepare.
    :param place: Places one order and returns the answer to it. What it raises is not about that order: no
        order is begun after it.
    :param most: How many threads there may be; one is started per order until then.
    :param batch: How many orders have to come back until it is worth a look.
    """

    def __init__(
        self,
        prepare: Callable[[], None] | None,
        place: Callable[[SourceOrder], Answer],
        most: int,
        batch: int,
    ) -> None:
        self.failure: BaseException | None = None
        #: Orders that were given and have not come back, with those that wait behind another one.
        self.open = 0
        #: Orders that a thread has, or will take next.
        self.under_way = 0
        #: Anything in it wakes up whoever waits for orders to come back.
        self.wake: SimpleQueue[None] = SimpleQueue()
        self._back: SimpleQueue[tuple[PendingOrder, Answer | None]] = SimpleQueue()
        self._waiting = False
        self._prepare = prepare
        self._prepared = threading.Event()
        self._place = place
        self._most = most
        self._batch = batch
        self._todo: SimpleQueue[PendingOrder | None] = SimpleQueue()
        self._last_of: dict[str | None, PendingOrder] = {}  # By order number: the last one that is open.
        self._threads = 0
        self._halted = False

    def give(self, pending: PendingOrder) -> None:
        """Have an order placed, as soon as those with the same number before it are done."""
        self.open += 1
        before = self._last_of.get(pending.number)
        if pending.number is not None:
            self._last_of[pending.number] = pending
        if before is None:
            self._hand_over(pending)
        else:
            before.follower = pending

    def returned(self) -> Iterator[PendingOrder]:
        """Yield the orders that have come back, with an answer or without."""
        while not self._back.empty():
            pending, answer = self._back.get_nowait()
            pending.answer = answer
            self.open -= 1
            self.under_way -= 1
            if pending.follower is not None:
                if not self._halted:
                    self._hand_over(pending.follower)
            elif self._last_of.get(pending.number) is pending:
                del self._last_of[pending.number]
            yield pending

    def wait(self, timeout: float) -> None:
        """Wait until it is worth a look: a batch came back, or the threads run out of orders."""
        self._waiting = True
        if not self._is_worth_a_look():
            with suppress(Empty):
                self.wake.get(timeout=timeout)
        self._waiting = False

    def halt(self) -> None:
        """Begin no order any more; those that are under way come back, with an answer or without."""
        self._halted = True
        self._prepared.set()

    def end(self) -> None:
        """Let the threads end when they have nothing under way."""
        self.halt()
        for _ in range(self._threads):
            self._todo.put(None)

    def _hand_over(self, pending: PendingOrder) -> None:
        if self._threads < self._most:
            name = f"feedamp-place-{self._threads + 1}"
            context = contextvars.copy_context()
            # A daemon: an order that gets no answer must not keep a stopped task from ending.
            work = (self._work, not self._threads)
            threading.Thread(target=context.run, args=work, name=name, daemon=True).start()
            self._threads += 1
        self.under_way += 1
        self._todo.put(pending)

    def _work(self, first: bool) -> None:
        if first:
            # A token that cannot be had is asked for once, not by each thread.
            try:
                if self._prepare is not None:
                    self._prepare()
            except BaseException as error:  # noqa: BLE001 - raised by the thread that owns this
                self.failure = error
            self._prepared.set()
        self._prepared.wait()
        while (pending := self._todo.get()) is not None:
            order = pending.order
            answer: Answer | None = None
            if order is not None and not self._halted and self.failure is None:
                try:
                    answer = self._place(order)
                except BaseException as error:  # noqa: BLE001 - raised by the thread that owns this
                    self.failure = self.failure or error
            self._back.put((pending, answer))
            # To wake up the owner for each order would cost more than all the rest of this.
            if self._waiting and self._is_worth_a_look():
                self._waiting = False
                self.wake.put(None)

    def _is_worth_a_look(self) -> bool:
        back = self._back.qsize()
        return back >= self._batch or (back > 0 and self._todo.empty())
