"""Threads that place orders, and the rule that orders with one number follow each other."""

from __future__ import annotations

import contextvars
import threading
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

from airflow_provider_feedamp.bulk.rejects import order_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_feedamp.bulk.parse import SourceOrder
    from airflow_provider_feedamp.exceptions import FeedAmpError

    #: Whether FeedAMP inserted the order (None if it did not say), or why the order is a reject.
    Answer = bool | FeedAmpError | None


class _NoAnswer:
    """What stands in the place of an answer that has not come."""


NO_ANSWER: Final = _NoAnswer()


class Slot:
    """One order on its way, and what came back.

    :param order: The order; it is let go of once it is placed.
    """

    __slots__ = ("answer", "follower", "order", "size")

    def __init__(self, order: SourceOrder) -> None:
        self.order: SourceOrder | None = order
        self.size = len(order.body or b"")
        self.answer: Answer | _NoAnswer = NO_ANSWER
        self.follower: Slot | None = None


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
        self._back: SimpleQueue[tuple[Slot, Answer | _NoAnswer]] = SimpleQueue()
        self._waiting = False
        self._prepare = prepare
        self._prepared = threading.Event()
        self._place = place
        self._most = most
        self._batch = batch
        self._todo: SimpleQueue[Slot | None] = SimpleQueue()
        self._last_of: dict[str, Slot] = {}  # By order number: the last one that is open.
        self._threads = 0
        self._halted = False

    def give(self, slot: Slot) -> None:
        """Have an order placed, as soon as those with the same number before it are done."""
        self.open += 1
        number = None if slot.order is None else order_number(slot.order)
        before = None
        if number is not None:
            before = self._last_of.get(number)
            self._last_of[number] = slot
        if before is None:
            self._hand_over(slot)
        else:
            before.follower = slot

    def returned(self) -> Iterator[Slot]:
        """Yield the orders that have come back."""
        while not self._back.empty():
            slot, answer = self._back.get_nowait()
            slot.answer = answer
            self._take_back(slot)
            yield slot

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

    def _hand_over(self, slot: Slot) -> None:
        if self._threads < self._most:
            name = f"feedamp-place-{self._threads + 1}"
            context = contextvars.copy_context()
            # A daemon: an order that gets no answer must not keep a task that was told to stop from ending.
            work = (self._work, not self._threads)
            threading.Thread(target=context.run, args=work, name=name, daemon=True).start()
            self._threads += 1
        self.under_way += 1
        self._todo.put(slot)

    def _take_back(self, slot: Slot) -> None:
        self.open -= 1
        self.under_way -= 1
        if slot.follower is not None:
            if not self._halted:
                self._hand_over(slot.follower)
            return
        number = None if slot.order is None else order_number(slot.order)
        if number is not None and self._last_of.get(number) is slot:
            del self._last_of[number]

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
        while (slot := self._todo.get()) is not None:
            order = slot.order
            answer: Answer | _NoAnswer = NO_ANSWER
            if order is not None and not self._halted and self.failure is None:
                try:
                    answer = self._place(order)
                except BaseException as error:  # noqa: BLE001 - raised by the thread that owns this
                    self.failure = self.failure or error
            self._back.put((slot, answer))
            # To wake up the owner for each order would cost more than all the rest of this.
            if self._waiting and self._is_worth_a_look():
                self._waiting = False
                self.wake.put(None)

    def _is_worth_a_look(self) -> bool:
        back = self._back.qsize()
        return back >= self._batch or (back > 0 and self._todo.empty())
