"""Where triggers do what blocks: a few threads and one client per seller, for all triggers of a process.

The client and everything below it (connections, token custody, Variables) is written once, for tasks, and
blocks. A trigger must not, so it calls it in a thread, by asgiref's ``sync_to_async``: Airflow 3.0 and 3.1
find their way from such a thread to the triggerer's event loop, and from no other.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async

if TYPE_CHECKING:
    from collections.abc import Callable

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
    seats = _seats.setdefault(asyncio.get_running_loop(), {})
    async with seats.setdefault(key, asyncio.Semaphore(THREADS_PER_SELLER)):
        call = asyncio.ensure_future(sync_to_async(work, thread_sensitive=False, executor=_executor)())
        call.add_done_callback(_forget)
        return await asyncio.shield(call)


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
