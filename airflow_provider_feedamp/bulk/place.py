"""Place many orders at a time and account for them in the order of the source: placed, or rejected."""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from airflow_provider_feedamp.api.order_check import check_order
from airflow_provider_feedamp.bulk.checkpoint import Checkpoint, Saver, find_start
from airflow_provider_feedamp.bulk.interrupt import GRACE, Stop, run_apart
from airflow_provider_feedamp.bulk.progress import Gauge, Notes, PlaceCounts, orders_in_words, orders_were
from airflow_provider_feedamp.bulk.rejects import RejectsFile, can_be_continued, order_number
from airflow_provider_feedamp.bulk.source import digest
from airflow_provider_feedamp.exceptions import (
    BadRequestError,
    FeedAmpError,
    ImportStoppedError,
    InputError,
    NotFoundError,
    RejectsFileError,
    ServerError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from airflow_provider_feedamp.api.orders import OrdersApi
    from airflow_provider_feedamp.bulk.checkpoint import CheckpointStore
    from airflow_provider_feedamp.bulk.progress import Observer
    from airflow_provider_feedamp.bulk.source import OrderInput, SourceOrder

    Answer = bool | FeedAmpError | None


__all__ = ["DEFAULT_WORKERS", "PlaceCounts", "place_orders"]

log = logging.getLogger(__name__)

DEFAULT_WORKERS = 16

_LOGGED_REJECTS = 20

#: So many odd refusals without an order taken between them are no matter of the orders any more.
MOST_ODD = 50
#: A proxy that asks for its own login refuses every call.
_PROXY_LOGIN = 407

# They bound the memory, whatever the size of the source. A placed order behind one that waits is a few bytes.
_OPEN_PER_WORKER = 4
_LEAST_OPEN = 32
_HELD_PER_WORKER = 64
_HELD_BYTES = 32 * 1024 * 1024

#: Seconds between two calls of ``tick``.
TICK = 0.5


def place_orders(
    orders: Iterable[SourceOrder],
    api: OrdersApi | None,
    rejects: RejectsFile,
    *,
    max_workers: int = DEFAULT_WORKERS,
    counts: PlaceCounts | None = None,
    stop: Stop | None = None,
    tick: Callable[[int], None] | None = None,
) -> PlaceCounts:
    """Place orders, several at a time; a bad or refused one is kept as a reject.

    Those with the same number go one after the other, in the order of the source. All are accounted for in
    the order of the source, so that at any time the counts and the rejects are those of its first
    ``counts.read`` orders.

    :param api: Places them; None only checks each order, and none is placed.
    :param max_workers: How many orders are on their way at a time. Default 16.
    :param counts: The counts so far, of the orders before these; they are added to. Default: none.
    :param stop: Ends the run early, with an account of what is answered.
    :param tick: Is called about twice a second, with the number of orders taken from the source. At that
        time counts and rejects agree.
    :raises FeedAmpError: What is not about one order (token, network, 429, 5xx, a source that is cut off, a
        rejects file that cannot be written, :data:`MOST_ODD` odd refusals in a row) ends the run: no more
        orders are begun, those under way are waited for, the log has the counts until then. Sending the
        orders again is safe, as FeedAMP keys them.
    :raises ImportStoppedError: The run was told to stop before its end.
    """
    counts = PlaceCounts() if counts is None else counts
    run = _Run(api, rejects, max_workers, counts, stop or Stop(), tick)
    try:
        run.place_all(orders)
    except BaseException:
        log.warning("Stopped before the end; until then: %s", counts)
        raise
    finally:
        run.workers.end()
        run.notes.tell()
    if rejects.count > _LOGGED_REJECTS:
        log.warning("%s rejected", orders_were(rejects.count - _LOGGED_REJECTS, "more "))
    return counts


class _Run:
    """The thread that reads the source and keeps the account; the workers only place."""

    def __init__(
        self,
        api: OrdersApi | None,
        rejects: RejectsFile,
        max_workers: int,
        counts: PlaceCounts,
        stop: Stop,
        tick: Callable[[int], None] | None,
    ) -> None:
        self._most_open = max(_OPEN_PER_WORKER * max_workers, _LEAST_OPEN)
        self._most_held = _HELD_PER_WORKER * max_workers
        self.notes = Notes()
        # A quarter, so that the threads have orders left while this one looks at what came back.
        self.workers = Workers(
            api.authorise if api else None,
            lambda order: _answer(order, api, self.notes),
            max_workers,
            self._most_open // 4,
        )
        self._sends = api is not None
        stop.wakes(self.workers.wake)
        self._rejects = rejects
        self._counts = counts
        self._stop = stop
        self._tick = tick
        self._next_tick = time.monotonic() + TICK
        # In the order of the source: what is not accounted for yet.
        self._held: deque[Slot] = deque()
        self._held_bytes = 0
        # Odd refusals behind what is accounted for, before an order that FeedAMP took.
        self._odd = 0
        self._broken: Exception | None = None

    def place_all(self, orders: Iterable[SourceOrder]) -> None:
        """Place the orders and account for each."""
        try:
            self._check_stop()  # To read a query takes longer than anybody waits who has requested a stop.
            for order in self._read(orders):
                self._take(order)
                self._turn(wait=False)
                while self._is_full():
                    self._turn(wait=True)
                    if self._is_full():
                        self._judge_odd()
            while self._held:
                self._turn(wait=True)
                self._judge_odd()
        except RejectsFileError:
            self._wind_down()  # The next order in the account is the one that could not be kept.
            raise
        except BaseException:
            self._wind_down()
            self._account()
            raise
        finally:
            self._tell_what_is_not_counted()
        if self._broken is not None:
            raise self._broken

    def _read(self, orders: Iterable[SourceOrder]) -> Iterator[SourceOrder]:
        """Yield the orders; an error of the source is raised when all that was read before it is done."""
        try:
            yield from orders
        except Exception as error:  # noqa: BLE001 - raised at the end of place_all
            self._broken = error

    def _take(self, order: SourceOrder) -> None:
        self.notes.look_at(order.order)
        slot = Slot(order)
        self._held.append(slot)
        self._held_bytes += slot.size
        if order.problem is not None:
            slot.answer = InputError(order.problem)
        else:
            self.workers.give(slot)

    def _is_full(self) -> bool:
        return (
            self.workers.open >= self._most_open
            or len(self._held) >= self._most_held
            or self._held_bytes >= _HELD_BYTES
        )

    def _turn(self, *, wait: bool) -> None:
        """Take in what came back, account for what can be, and see whether to go on."""
        if wait and self.workers.open:
            self.workers.wait(max(self._next_tick - time.monotonic(), 0.0))
        self._collect()
        self._account()
        now = time.monotonic()
        if now >= self._next_tick:
            self._next_tick = now + TICK
            if self._tick is not None:
                self._tick(self._counts.read + len(self._held))
        if self.workers.failure is not None:
            raise self.workers.failure
        if self._odd >= MOST_ODD:
            raise self._too_odd()
        self._check_stop()

    def _check_stop(self) -> None:
        if self._stop.requested:
            raise ImportStoppedError(
                f"The import was told to stop after {self._counts.read} orders (SIGTERM or a time-out). "
                "Run it again to go on: FeedAMP keys orders by their number."
            )

    def _collect(self) -> None:
        for slot in self.workers.returned():
            if slot.answer is None or isinstance(slot.answer, bool):
                slot.order = None  # Placed: nothing of it is needed any more.
                self._held_bytes -= slot.size

    def _account(self) -> None:
        """Account for the first orders, as far as it is known what became of them."""
        for _ in range(self._known()):
            self._count(self._held[0])
            self._held.popleft()

    def _known(self) -> int:
        """Return how many of the first orders can be accounted for.

        An odd refusal is about its order if FeedAMP takes one behind it. Until then it is held back, with all
        that is behind it.
        """
        known = self._odd = 0
        for place, slot in enumerate(self._held, 1):
            if slot.answer is NO_ANSWER or self._odd >= MOST_ODD:
                break
            if _is_odd(slot.answer):
                self._odd += 1
            elif not self._odd or not isinstance(slot.answer, FeedAmpError):
                known, self._odd = place, 0
        return known

    def _judge_odd(self) -> None:
        """Account for odd refusals when no order behind them can tell: at the end, or when no more are held.

        They are rejects if FeedAMP has taken any order before.
        """
        if self.workers.open or not self._held:
            return
        if not self._counts.placed:
            raise self._too_odd()
        while self._held:
            self._count(self._held[0])
            self._held.popleft()

    def _too_odd(self) -> ServerError:
        first = next(answer for slot in self._held if _is_odd(answer := slot.answer))
        return ServerError(
            f"FeedAMP refused {orders_in_words(self._odd)} with none taken between, for a reason that is not "
            f"known to be about orders. The first: {first}. They are not rejected: the next try begins with "
            "them. If it stays so, ask what is between here and FeedAMP, or FeedAMP itself.",
            status=first.status,
            codes=first.codes,
            request_id=first.request_id,
            server_message=first.server_message,
        )

    def _count(self, slot: Slot) -> None:
        counts, answer = self._counts, slot.answer
        if isinstance(answer, FeedAmpError) and slot.order is not None:
            self._rejects.add(slot.order, str(answer), answer.codes, answer.server_message)
            if self._rejects.count <= _LOGGED_REJECTS:
                log.warning("Rejected %s: %s", slot.order.place, answer)
            self._held_bytes -= slot.size
            counts.rejected += 1
        else:
            counts.placed += self._sends
            counts.inserted += answer is True
            counts.updated += answer is False
        counts.read += 1

    def _wind_down(self) -> None:
        """Begin nothing any more and wait for what is under way, when told to stop for a short time only."""
        self.workers.halt()
        while self.workers.under_way and (left := self._stop.left(GRACE)) > 0:
            self.workers.wait(min(left, TICK))
            self._collect()

    def _tell_what_is_not_counted(self) -> None:
        answered = sum(slot.answer is not NO_ANSWER for slot in self._held)
        if answered:
            log.warning(
                "%s answered, but not counted, as an order before them is not: the next run sends them again",
                orders_were(answered, "more "),
            )
        if self.workers.under_way:
            log.warning(
                "%s not answered %g s after the run was told to stop, and not waited for",
                orders_were(self.workers.under_way),
                GRACE,
            )


def _answer(order: SourceOrder, api: OrdersApi | None, notes: Notes) -> Answer:
    """Return FeedAMP's answer to one order, or why that order is a reject."""
    try:
        if api is None:
            check_order(order.order or {})
            return None
        placed = api.place(order.order or {}, body=order.body)
        if placed.has_errors:
            notes.taken_with_errors(order)
        return placed.inserted
    except InputError as error:
        return error
    except (BadRequestError, NotFoundError) as error:
        if error.status == _PROXY_LOGIN:
            raise
        return error


def _is_odd(answer: object) -> TypeGuard[BadRequestError]:
    """Whether FeedAMP refused an order with a status that may be about this order or about all of them."""
    return isinstance(answer, BadRequestError) and not answer.is_about_one


def import_orders(
    source: OrderInput,
    api: OrdersApi | None,
    *,
    rejects: str | None = None,
    account: str = "",
    max_workers: int = DEFAULT_WORKERS,
    observers: Sequence[Observer] = (),
    checkpoints: CheckpointStore | None = None,
    stop: Stop | None = None,
) -> PlaceCounts:
    """Place all orders of a source and return the account.

    It runs in a thread of its own. When the caller is interrupted (SIGTERM, a time-out, Ctrl-C) or requests a
    stop, no more orders are begun, those under way have :data:`GRACE` seconds to be answered, what is
    answered is accounted for, a checkpoint is saved, and then the interruption goes on.

    :param source: Where the orders come from.
    :param api: Places them; a connection per worker should be in its pool. None reads and checks all orders,
        writes the rejects, and sends nothing.
    :param rejects: Path or URL of the rejects file. Default: none is kept.
    :param account: Whose account gets the orders; a checkpoint of another one is not gone on from.
    :param max_workers: How many orders are on their way at a time. Default 16.
    :param observers: Are told about twice a second, and at the end, how far it is.
    :param checkpoints: Where an earlier try left its checkpoint and this one leaves its own; forgotten when
        all is done. Default: nowhere, all orders are sent.
    :param stop: To request a stop with, from a signal handler or another thread.
    :raises FeedAmpError: as :func:`place_orders` does.
    """
    stop = stop or Stop()
    store = checkpoints or _Nowhere()
    work = _Import(source, api, rejects, account, max_workers, observers, store, stop)
    return run_apart(work.run, stop)


class _Import:
    def __init__(
        self,
        source: OrderInput,
        api: OrdersApi | None,
        rejects: str | None,
        account: str,
        max_workers: int,
        observers: Sequence[Observer],
        store: CheckpointStore,
        stop: Stop,
    ) -> None:
        self._source = source
        self._rejects = rejects
        self._account = account
        self._observers = observers
        self._store = store
        self._place = partial(place_orders, api=api, max_workers=max_workers, stop=stop)

    def run(self) -> PlaceCounts:
        """Go on from the checkpoint, or begin anew, and place what there is."""
        self._stamp(0)  # Before it is opened: what is changed later is seen by the retry.
        start = find_start(self._store, self._stamp, self._rejects)
        begun = Checkpoint("", PlaceCounts()) if start is None else start
        orders = self._source.open(skip=begun.counts.read)
        if start is None:
            # Before the rejects are begun anew: an old checkpoint must not speak of a new file.
            self._store.clear()
        counts = replace(begun.counts)
        with RejectsFile(self._rejects, begun.kept) as rejects:
            gauge = Gauge(counts, self._source.share)
            saver = Saver(self._store, partial(self._checkpoint, counts, rejects))

            def tick(taken: int, *, ended: bool = False) -> None:
                saver.save_if_due()
                progress = gauge.read(taken, ended=ended)
                for observer in self._observers:
                    observer(progress)

            tick(counts.read)
            try:
                self._place(orders, rejects=rejects, counts=counts, tick=tick)
            except BaseException:
                saver.save()
                raise
            finally:
                tick(counts.read, ended=True)
        self._forget()
        return counts

    def _stamp(self, read: int) -> str | None:
        mark = self._source.fingerprint(read)
        return None if mark is None else digest(mark, self._account, self._rejects)

    def _checkpoint(self, counts: PlaceCounts, rejects: RejectsFile) -> Checkpoint | None:
        if not counts.read:
            return None
        if rejects.count and not can_be_continued(self._rejects):
            return None  # The last checkpoint without rejects is the one that a retry can go on from.
        stamp = self._stamp(counts.read)
        return None if stamp is None else Checkpoint(stamp, replace(counts), rejects.size)

    def _forget(self) -> None:
        try:
            self._store.clear()
        except Exception as error:  # noqa: BLE001 - all orders are placed; a checkpoint left behind does no harm
            log.warning("The checkpoint could not be removed (%s)", type(error).__name__)


class _Nowhere:
    def load(self) -> None:
        """Nothing was saved."""

    def save(self, value: dict[str, Any]) -> None:
        """Keep nothing."""

    def clear(self) -> None:
        """There is nothing to forget."""


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
