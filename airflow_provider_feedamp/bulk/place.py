"""Place many orders at a time and account for them in the order of the source: placed, or rejected."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING, TypeGuard

from airflow_provider_feedamp.api.checks import check_order
from airflow_provider_feedamp.bulk.counts import Notes, PlaceCounts, orders_in_words, orders_were
from airflow_provider_feedamp.bulk.interrupt import GRACE, Stop
from airflow_provider_feedamp.bulk.workers import NO_ANSWER, Slot, Workers
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
    from collections.abc import Callable, Iterable, Iterator

    from airflow_provider_feedamp.api.client import OrdersApi
    from airflow_provider_feedamp.bulk.parse import SourceOrder
    from airflow_provider_feedamp.bulk.rejects import RejectsFile
    from airflow_provider_feedamp.bulk.workers import Answer

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
