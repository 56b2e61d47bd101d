"""Where triggers do what blocks: a few threads and one client per seller, for all triggers of a process.

The client and everything below it (connections, token custody, Variables) is written once, for tasks, and
blocks. A trigger must not, so it calls it in a thread, by asgiref's ``sync_to_async``: Airflow 3.0 and 3.1
find their way from such a thread to the triggerer's event loop, and from no other.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async

from airflow_provider_feedamp.tokens import shield

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from airflow_provider_feedamp.api.client import FeedAmpClient

T = TypeVar("T")
Key = tuple[str, str | None]

#: 200 triggers that ask once a minute and get each answer in a second need three or four threads; the others
#: are for answers that take long. More would only take the interpreter from the event loop in turns.
THREADS = 16
#: A seller whose account asks to wait holds its threads meanwhile; the other sellers' triggers go on.
THREADS_PER_SELLER = 8
#: Seconds after which the connection is read anew; after an error that is so at once.
CLIENT_LIFETIME = 300.0
#: Seconds between two looks at whether a process that was told to end may do so.
_LOOK = 0.05

_executor = ThreadPoolExecutor(THREADS, thread_name_prefix="feedamp-trigger")
_seats: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Key, asyncio.Semaphore]] = WeakKeyDictionary()
_clients: dict[Key, tuple[float, FeedAmpClient]] = {}
_guard = threading.Lock()


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
        call.add_done_callback(_forget)
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
    """Stands before Airflow's own handler of a signal that ends the process, until renewals are stored.

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
    """Whether a handler makes KeyboardInterrupt of a signal: a notebook or a shell lives on after Ctrl-C."""
    runner = getattr(getattr(handler, "func", None), "__self__", None)
    return handler in (None, signal.default_int_handler) or isinstance(runner, asyncio.Runner)


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


def _forget(call: asyncio.Future[Any]) -> None:
    """Take the outcome of a call that nobody waits for any more."""
    with suppress(asyncio.CancelledError):
        call.exception()
