"""The import of orders as operators and the command line run it: read, place, keep the account.

What is kept of an import so that its retry goes on where it ended stands at the end of this file.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

from airflow_provider_feedamp.api.checks import check_order
from airflow_provider_feedamp.bulk.progress import (
    Interval,
    Notes,
    PlaceCounts,
    Progress,
    orders_in_words,
    orders_were,
)
from airflow_provider_feedamp.bulk.rejects import RejectsFile, can_be_continued, still_there
from airflow_provider_feedamp.bulk.source import digest
from airflow_provider_feedamp.bulk.threads import GRACE, PendingOrder, Stop, Workers, run_apart
from airflow_provider_feedamp.exceptions import (
    BadRequestError,
    FeedAmpError,
    InputError,
    NotFoundError,
    RejectsFileError,
    ServerError,
    StoppedError,
    counted,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from airflow_provider_feedamp.api.client import OrdersApi
    from airflow_provider_feedamp.bulk.progress import Observer
    from airflow_provider_feedamp.bulk.source import OrderInput, SourceOrder
    from airflow_provider_feedamp.bulk.threads import Answer

log = logging.getLogger(__name__)

DEFAULT_WORKERS = 16
#: So many odd refusals in a row, without an order taken between them, are not about single orders.
MOST_ODD = 50
#: Seconds between two calls of ``tick``.
TICK = 0.5
#: Seconds between two checkpoints, each of which is a call to Airflow.
SAVE_EVERY = 5.0

_LOGGED_REJECTS = 20
#: A proxy that asks for its own login refuses every call.
_PROXY_LOGIN = 407
# They bound the memory for a source of any size. A placed order behind one that waits is a few bytes.
_OPEN_PER_WORKER = 4
_LEAST_OPEN = 32
_HELD_PER_WORKER = 64
_HELD_BYTES = 32 * 1024 * 1024


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
    :param account: Whose account gets the orders; a retry does not go on from the checkpoint of another one.
    :param max_workers: How many orders are on their way at a time. Default 16.
    :param observers: Are called about twice a second, and at the end, with how far it is.
    :param checkpoints: Where an earlier try left its checkpoint and this one leaves its own; forgotten when
        all is done. Default: nowhere, all orders are sent.
    :param stop: To request a stop with, from a signal handler or another thread.
    :raises FeedAmpError: as :func:`place_orders` does.
    """
    stop = stop or Stop()

    def stamp(read: int) -> str | None:
        mark = source.fingerprint(read)
        return None if mark is None else digest(mark, account, rejects)

    def work() -> PlaceCounts:
        stamp(0)  # Before it is opened: what is changed later is seen by the retry.
        saved = Checkpoints(checkpoints, stamp, rejects)
        start = saved.find_start()
        counts = replace(start.counts) if start else PlaceCounts()
        orders = source.open(skip=counts.read)
        if start is None:
            # Before the rejects are begun anew: an old checkpoint must not be used with a new file.
            saved.clear()
        began, before = time.monotonic(), counts.read
        with RejectsFile(rejects, counts.rejected, start.rejects_size if start else 0) as file:

            def tick(taken: int, *, ended: bool = False) -> None:
                saved.save_if_due(counts, file)
                seconds = time.monotonic() - began
                rate = (counts.read - before) / seconds if seconds > 0 else 0.0
                progress = Progress.of(counts, taken, source.share(), rate, ended=ended)
                for observer in observers:
                    observer(progress)

            tick(counts.read)
            try:
                place_orders(orders, api, file, max_workers=max_workers, counts=counts, stop=stop, tick=tick)
            except BaseException:
                saved.save(counts, file)
                raise
            finally:
                tick(counts.read, ended=True)
        saved.clear(must=False)
        return counts

    return run_apart(work, stop)


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
    :param counts: The counts of the orders before these; they are added to. Default: none.
    :param stop: Ends the run early, with an account of what is answered.
    :param tick: Is called about twice a second, with the number of orders taken from the source. At that
        time counts and rejects agree.
    :raises FeedAmpError: What is not about one order (token, network, 429, 5xx, a source that is cut off, a
        rejects file that cannot be written, :data:`MOST_ODD` odd refusals in a row) ends the run: no more
        orders are begun, those under way are waited for, the log has the counts until then. Sending the
        orders again is safe, as FeedAMP keys them.
    :raises StoppedError: A stop was requested before the end.
    """
    counts = PlaceCounts() if counts is None else counts
    run = _Placing(api, rejects, max_workers, counts, stop or Stop(), tick)
    try:
        run.place_all(orders)
    except BaseException:
        log.warning("Stopped before the end; until then: %s", counts)
        raise
    finally:
        run.workers.end()
        run.notes.write()
    if rejects.count > _LOGGED_REJECTS:
        log.warning("%s rejected", orders_were(rejects.count - _LOGGED_REJECTS, "more "))
    return counts


class _Placing:
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
        self._held: deque[PendingOrder] = deque()
        self._held_bytes = 0
        # Odd refusals behind what is accounted for, before an order that FeedAMP took.
        self._odd = 0
        self._broken: Exception | None = None

    def place_all(self, orders: Iterable[SourceOrder]) -> None:
        """Place the orders and account for each."""
        try:
            self._check_stop()  # To read a query may take longer than the time that a stop has.
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
            self._account(self._known())
            raise
        finally:
            self._log_what_is_not_counted()
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
        pending = PendingOrder(order)
        self._held.append(pending)
        self._held_bytes += pending.size
        if order.problem is not None:
            pending.answer = InputError(order.problem)
        else:
            self.workers.give(pending)

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
        self._account(self._known())
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
            raise StoppedError(
                f"The import was told to stop after {counted(self._counts.read, 'orders')} (SIGTERM or a "
                "time-out). "
                "Run it again to go on: FeedAMP keys orders by their number."
            )

    def _collect(self) -> None:
        for pending in self.workers.returned():
            if isinstance(pending.answer, str):
                pending.order = None  # Placed: nothing of it is needed any more.
                self._held_bytes -= pending.size

    def _known(self) -> int:
        """Return how many of the first orders can be accounted for.

        An odd refusal is about its order if FeedAMP takes one behind it. Until then it is held back, with all
        that is behind it.
        """
        known = self._odd = 0
        for place, pending in enumerate(self._held, 1):
            if pending.answer is None or self._odd >= MOST_ODD:
                break
            if _is_odd(pending.answer):
                self._odd += 1
            elif not self._odd or isinstance(pending.answer, str):
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
        self._account(len(self._held))

    def _too_odd(self) -> ServerError:
        first = next(answer for pending in self._held if _is_odd(answer := pending.answer))
        return ServerError(
            f"FeedAMP refused {orders_in_words(self._odd)} with none taken between, for a reason that is not "
            f"known to be about orders. The first: {first}. They are not rejected: the next try begins with "
            "them. If it stays so, ask what is between here and FeedAMP, or FeedAMP itself.",
            status=first.status,
            codes=first.codes,
            request_id=first.request_id,
            server_message=first.server_message,
        )

    def _account(self, number: int) -> None:
        """Account for the first orders that are held."""
        for _ in range(number):
            self._count(self._held[0])
            self._held.popleft()

    def _count(self, pending: PendingOrder) -> None:
        counts, answer = self._counts, pending.answer
        if isinstance(answer, FeedAmpError) and pending.order is not None:
            self._rejects.add(pending.order, str(answer), answer.codes, answer.server_message)
            if self._rejects.count <= _LOGGED_REJECTS:
                log.warning("Rejected %s: %s", pending.order.place, answer)
            self._held_bytes -= pending.size
            counts.rejected += 1
        else:
            counts.placed += self._sends
            counts.inserted += answer == "inserted"
            counts.updated += answer == "updated"
        counts.read += 1

    def _wind_down(self) -> None:
        """Begin no more orders and wait for those under way; after a request to stop, for a while only."""
        self.workers.halt()
        while self.workers.under_way and (left := self._stop.left(GRACE)) > 0:
            self.workers.wait(min(left, TICK))
            self._collect()

    def _log_what_is_not_counted(self) -> None:
        if answered := sum(pending.answer is not None for pending in self._held):
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
            return "placed"
        placed = api.place(order.order or {}, body=order.body)
    except InputError as error:
        return error
    except (BadRequestError, NotFoundError) as error:
        if error.status == _PROXY_LOGIN:
            raise
        return error
    if placed.has_errors:
        notes.taken_with_errors(order)
    return "placed" if placed.inserted is None else "inserted" if placed.inserted else "updated"


def _is_odd(answer: object) -> TypeGuard[BadRequestError]:
    """Whether FeedAMP refused an order with a status that may be about this order or about all of them."""
    return isinstance(answer, BadRequestError) and not answer.is_about_one


class CheckpointStore(Protocol):
    """Where a checkpoint is kept between the tries of a task."""

    def load(self) -> Any:
        """Return what was saved last, or None."""

    def save(self, value: dict[str, Any]) -> None:
        """Keep a value that JSON can hold, instead of the one before."""

    def clear(self) -> None:
        """Forget what was saved."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The first orders of a source are accounted for; it holds no personal data and no secret.

    :param stamp: What the account is about: a digest of the source and of where its orders and rejects go.
    :param counts: The account of the first ``counts.read`` orders.
    :param rejects_size: How many bytes their rejects take in the rejects file.
    """

    stamp: str
    counts: PlaceCounts
    rejects_size: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return it as a value that JSON can hold."""
        return {"stamp": self.stamp, **asdict(self.counts), "rejects_size": self.rejects_size}


def checkpoint_of(value: Any) -> Checkpoint | None:
    """Return the checkpoint that a stored value is; None if it is something else."""
    try:
        numbers = {name: int(value[name]) for name in PlaceCounts.__slots__}
        found = Checkpoint(str(value["stamp"]), PlaceCounts(**numbers), int(value["rejects_size"]))
    except (KeyError, TypeError, ValueError):
        return None
    counts = found.counts
    adds_up = counts.read == counts.placed + counts.rejected and counts.read > 0 <= found.rejects_size
    return found if adds_up else None


class Checkpoints:
    """Those of one import: where an earlier try ended, and now and then where this one is.

    :param store: Where they are kept; None keeps none.
    :param stamp: Returns what the import is about, as far as a number of orders; None if its source cannot
        be known again.
    :param rejects: The path of the rejects file; None if there is none.
    """

    def __init__(
        self, store: CheckpointStore | None, stamp: Callable[[int], str | None], rejects: str | None
    ) -> None:
        self._store = store
        self._stamp = stamp
        self._rejects = rejects
        self._every = Interval(SAVE_EVERY)
        self._failed = False

    def find_start(self) -> Checkpoint | None:
        """Return where to go on; None to begin anew, and the log says why if there was a start."""
        value = None if self._store is None else self._store.load()
        if value is None:
            return None
        found = checkpoint_of(value)
        if found is None or found.stamp != self._stamp(found.counts.read):
            reason = (
                "the source (of a query: its text or its first rows), the seller or the path of the rejects "
                "is not the same as in the try before"
            )
        elif not still_there(self._rejects, found.counts.rejected, found.rejects_size):
            reason = "the rejects file of the try before is not there, or cannot be added to"
        else:
            log.info(
                "Going on behind the first %s, of an earlier try: %s",
                counted(found.counts.read, "orders"),
                found.counts,
            )
            return found
        log.info("Sending all orders again, as %s; FeedAMP keys them by their number", reason)
        return None

    def save_if_due(self, counts: PlaceCounts, rejects: RejectsFile) -> None:
        """Save a checkpoint if the last one is old enough."""
        if self._every.is_over():
            self.save(counts, rejects)
            self._every.begin()  # from its end on: where saving is slow, it must not be all that is done

    def save(self, counts: PlaceCounts, rejects: RejectsFile) -> None:
        """Save a checkpoint, if a retry could go on from it.

        An import does not fail because its checkpoint cannot be kept: the one before still holds, and at
        worst all orders are sent again.
        """
        # Where rejects cannot be continued, a retry can go on from the last checkpoint without rejects.
        if self._store is None or not counts.read or (rejects.count and not can_be_continued(self._rejects)):
            return
        stamp = self._stamp(counts.read)
        if stamp is None:
            return
        try:
            self._store.save(Checkpoint(stamp, replace(counts), rejects.size).as_json())
        except Exception as error:  # noqa: BLE001 - best effort, see above; whatever Airflow or its API raises
            if not self._failed:
                log.warning("The checkpoint could not be kept (%s); the import goes on", type(error).__name__)
            self._failed = True

    def clear(self, *, must: bool = True) -> None:
        """Forget the checkpoint.

        :param must: Whether it is an error if one stays: after all orders are placed, it does no harm.
        """
        try:
            if self._store is not None:
                self._store.clear()
        except Exception as error:
            if must:
                raise
            log.warning("The checkpoint could not be removed (%s)", type(error).__name__)
