"""The triggers of the sensors and of the authorising task, and where triggers do what blocks.

That of the sensors asks FeedAMP until a condition is met.

The client and everything below it (connections, token custody, Variables) is written once, for tasks, and
blocks. A trigger must not, so it calls it in a thread, by asgiref's ``sync_to_async``: Airflow 3.0 and 3.1
find their way from such a thread to the triggerer's event loop, and from no other. All triggers of a process
share a few threads, and one client per seller.
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_provider_feedamp import exceptions
from airflow_provider_feedamp.api.conditions import (
    FulfilledOrders,
    RefundsToProcess,
    ReturnsInStatus,
    SellerActivity,
)
from airflow_provider_feedamp.exceptions import FeedAmpError, TriggerEventError, forget_variables
from airflow_provider_feedamp.tokens import shield

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from types import FrameType

    from airflow_provider_feedamp.api.client import FeedAmpClient
    from airflow_provider_feedamp.api.conditions import Condition

T = TypeVar("T")
Key = tuple[str, str | None]

log = logging.getLogger(__name__)

#: What can be waited for, by the name that the trigger is given.
CONDITIONS: dict[str, Callable[..., Condition]] = {
    each.__name__: each for each in (FulfilledOrders, SellerActivity, RefundsToProcess, ReturnsInStatus)
}
#: Polls in a row that may fail for a reason that passes. The client repeats each call several times itself.
MOST_FAILURES = 5
#: Seconds that a poll may go on behind the deadline.
GRACE = 30.0

#: 200 triggers that ask once a minute and get each answer in a second need three or four threads; the others
#: are for answers that take long. More would only take the interpreter from the event loop in turns.
THREADS = 16
#: A seller whose account asks to wait holds its threads meanwhile; the other sellers' triggers go on.
THREADS_PER_SELLER = 8
#: Seconds after which the connection is read anew; after an error that is so at once.
CLIENT_LIFETIME = 300.0
#: Seconds between two looks at whether a process that was told to end may do so.
_LOOK = 0.05

#: What an event has of an error, beside its class and message.
_FIELDS = ("status", "codes", "request_id", "retry_after")

_executor = ThreadPoolExecutor(THREADS, thread_name_prefix="feedamp-trigger")
_seats: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Key, asyncio.Semaphore]] = WeakKeyDictionary()
_clients: dict[Key, tuple[float, FeedAmpClient]] = {}
_guard = threading.Lock()


class FeedAmpPollingTrigger(BaseTrigger):
    """Ask FeedAMP from time to time whether a condition is met, and resume the task with one event.

    :param condition: The name of a class of ``api.conditions``, such as ``FulfilledOrders``.
    :param arguments: The condition's arguments, plain JSON.
    :param deadline: When to give up, ISO 8601 in UTC.
    :param feedamp_conn_id: The FeedAMP connection. Default ``feedamp_default``.
    :param seller: The seller. Default: the connection's.
    :param poll_interval: Seconds between two polls. Default 60.
    """

    def __init__(
        self,
        *,
        condition: str,
        arguments: Mapping[str, Any],
        deadline: str,
        feedamp_conn_id: str = "feedamp_default",
        seller: str | None = None,
        poll_interval: float = 60.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.condition = condition
        self.arguments = dict(arguments)
        self.deadline = deadline
        self.feedamp_conn_id = feedamp_conn_id
        self.seller = seller
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments; there is no secret among them."""
        names = ("condition", "arguments", "deadline", "feedamp_conn_id", "seller", "poll_interval")
        path = "airflow_provider_feedamp.triggers.polling.FeedAmpPollingTrigger"
        return path, {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: the condition is met, the time is up, or something is wrong."""
        yield TriggerEvent(await self._outcome())  # type: ignore[no-untyped-call]

    async def _outcome(self) -> dict[str, Any]:
        condition = CONDITIONS[self.condition](**self.arguments)
        # The task has asked just before it deferred. And the many triggers of a new triggerer spread so.
        wait = random.uniform(0, self.poll_interval)  # noqa: S311 - no secret
        failures = 0
        while True:
            await pause(max(0.0, min(wait, self._left())))
            wait = self.poll_interval
            try:
                found = await self._poll(condition)
            except FeedAmpError as error:
                failures += 1
                forget_client(self._key)
                if not error.retryable or failures >= MOST_FAILURES:
                    return failed(error)
                log.warning("Poll %d in a row failed, %d may: %s", failures, MOST_FAILURES - 1, error)
                wait = max(wait, error.retry_after or 0.0)
            else:
                failures = 0
                if found is not None:
                    return {"status": "success", "message": f"{len(found)} found", "found": found}
            if self._left() <= 0:
                text = f"What is waited for has not happened until {self.deadline}."
                return {"status": "timeout", "message": text}

    async def _poll(self, condition: Condition) -> list[Any] | None:
        """Ask once; a poll that takes far longer than there is time counts as one that found nothing."""

        def ask() -> list[Any] | None:
            try:
                return condition.met(client_for(self._key))
            except FeedAmpError as error:
                forget_variables(error)
                raise

        try:
            async with asyncio.timeout(max(0.0, self._left()) + GRACE) as limit:
                return await in_thread(self._key, ask)
        except TimeoutError:
            if not limit.expired():
                raise
            return None

    def _left(self) -> float:
        return (datetime.fromisoformat(self.deadline) - datetime.now(UTC)).total_seconds()

    @property
    def _key(self) -> Key:
        return self.feedamp_conn_id, self.seller


def failed(error: FeedAmpError) -> dict[str, Any]:
    """Return the event of an error, with all that its class needs to be raised again."""
    kind = next(each.__name__ for each in type(error).__mro__ if each.__module__ == exceptions.__name__)
    data = {name: getattr(error, name) for name in _FIELDS}
    return {"status": "error", "message": str(error), "error": kind, "data": data | {"codes": [*error.codes]}}


def result_of(event: Mapping[str, Any] | None) -> list[Any]:
    """Return what a trigger has found.

    :param event: The event, as Airflow hands it over.
    :raises AirflowSensorTimeout: The time was up.
    :raises FeedAmpError: What went wrong in the trigger, by the same class as there.
    """
    from airflow.providers.common.compat.sdk import AirflowSensorTimeout

    match dict(event or {}):
        case {"status": "success", "found": list(found)}:
            return found
        case {"status": "timeout", **told}:
            raise AirflowSensorTimeout(str(told.get("message")))
        case {"status": "error", **told}:
            kind, data = getattr(exceptions, str(told.get("error")), None), told.get("data")
            if not (isinstance(kind, type) and issubclass(kind, FeedAmpError)):
                kind = TriggerEventError
            known = {name: data[name] for name in _FIELDS if name in data} if isinstance(data, dict) else {}
            raise kind(str(told.get("message")), **known)
    raise TriggerEventError(
        f"The trigger resumed this task with {'nothing' if event is None else 'something unknown'}: "
        "is the same version of this provider installed in the triggerer and the workers?"
    )


async def in_thread(key: Key, work: Callable[[], T]) -> T:
    """Call something that blocks, without blocking the event loop.

    A trigger that is cancelled ends at once and lets the thread go on to its end: with Airflow 3.0 and 3.1, a
    call cut off in between would leave an answer behind in the channel that all triggers share.

    :param key: Connection id and seller that the call is for.
    """
    _Ending.guard(asyncio.get_running_loop())
    seats = _seats.setdefault(asyncio.get_running_loop(), {})
    async with seats.setdefault(key, asyncio.Semaphore(THREADS_PER_SELLER)):
        call = asyncio.ensure_future(sync_to_async(work, thread_sensitive=False, executor=_executor)())
        # Its outcome is taken, though nobody may wait for it any more.
        call.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return await asyncio.shield(call)


async def pause(seconds: float) -> None:
    """Wait between two polls; in a process that was told to end, until it does.

    Airflow takes no events from it any more: what a poll finds then would be lost, and a mark that is moved
    on would hide it from the next triggerer.
    """
    await asyncio.sleep(seconds)
    if _Ending.begun:
        await asyncio.Event().wait()


class _Ending:
    """Holds a signal that ends the process back from Airflow's own handler until renewals are stored.

    Airflow's triggerer forks a runner, which runs the triggers in its main thread. Told to stop, the runner
    at once closes its channel to Airflow (3.2 on), through which Variables are written, or dies on the spot
    (3.0); it never waits for a thread. So the signal is held back while a refresh token is being spent, and
    no further spend begins. The runner gets 20 s from Airflow before it is killed. Airflow 2 runs triggers in
    another thread, which hears of no signal, and lets the threads of pools end.
    """

    begun = False

    def __init__(self, loop: asyncio.AbstractEventLoop, which: signal.Signals, before: Any) -> None:
        self.loop = loop
        self._which = which
        self._before = before

    @classmethod
    def guard(cls, loop: asyncio.AbstractEventLoop) -> None:
        """Hold back the signals that end this process, if its main thread runs the loop."""
        if threading.current_thread() is not threading.main_thread():
            return
        for which in (signal.SIGINT, signal.SIGTERM):
            before = signal.getsignal(which)
            if isinstance(before, cls):
                if before.loop is loop:
                    continue
                before = before._before
            if not _may_go_on(before):
                signal.signal(which, cls(loop, which, before))

    def __call__(self, which: int, frame: FrameType | None) -> None:
        """Handle the signal. It may have come while this very thread holds a lock: the loop does the work."""
        if self.loop.is_running():
            self.loop.call_soon_threadsafe(self._end)
        else:
            self._let_go()

    def _end(self) -> None:
        _Ending.begun = True
        shield.close()
        if shield.in_flight():
            self.loop.call_later(_LOOK, self._end)
        else:
            self._let_go()

    def _let_go(self) -> None:
        signal.signal(self._which, self._before)
        signal.raise_signal(self._which)


def _may_go_on(handler: Any) -> bool:
    """Whether a process lives on after a signal: it is ignored, or becomes a shell's KeyboardInterrupt."""
    runner = getattr(getattr(handler, "func", None), "__self__", None)
    return handler in (None, signal.SIG_IGN, signal.default_int_handler) or isinstance(runner, asyncio.Runner)


def client_for(key: Key) -> FeedAmpClient:
    """Return the process's client for a seller; called in a thread."""
    from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

    with _guard:
        made_at, client = _clients.get(key, (-CLIENT_LIFETIME, None))
        if client is not None and time.monotonic() - made_at < CLIENT_LIFETIME:
            return client
    conn_id, seller = key
    # Not under the lock: reading a connection may take its time.
    client = FeedAmpHook(conn_id, seller, pool_size=THREADS_PER_SELLER).client
    with _guard:
        _clients[key] = (time.monotonic(), client)
    return client


def forget_client(key: Key) -> None:
    """Have the connection read anew the next time: it may be what was wrong."""
    with _guard:
        _clients.pop(key, None)


class _Unshown(dict[str, Any]):
    def __repr__(self) -> str:
        return "***"


class RedirectTrigger(BaseTrigger):
    """Waits for a person's answer as the standard provider does, and keeps it out of the log.

    The task that authorises a seller waits with it on Airflow 3.1 and 3.2; later ones need no trigger.

    The triggerer logs each event as it is, and what the person has pasted holds a code that is not spent yet.

    :param arguments: Those of the standard provider's ``HITLTrigger``.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.arguments = arguments

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        return f"{__name__}.{type(self).__name__}", self.arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the answer, and yield it."""
        from airflow.providers.standard.triggers.hitl import HITLTrigger  # from Airflow 3.1 on

        # A copy: it takes its parameters apart.
        async for event in HITLTrigger(**deepcopy(self.arguments)).run():
            if event.payload.get("params_input"):
                event.payload["params_input"] = _Unshown(event.payload["params_input"])
            yield event
