"""Fault 16 in a worker: it forks while another of its threads holds a lock, and the child wants the token."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

from tests.faults.worker import hook

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds that a child gets before it counts as hung.
PATIENCE = 180


def while_renewing(job: dict[str, Any]) -> dict[str, Any]:
    """Fork while a thread waits for FeedAMP's answer; parent and child both get the token."""
    made = hook(job)
    custodian = made._custodian
    asked = threading.Event()
    endpoint = type(custodian.endpoint).refresh

    def refresh(self: Any, refresh_token: str) -> Any:
        asked.set()
        return endpoint(self, refresh_token)

    type(custodian.endpoint).refresh = refresh  # type: ignore[method-assign]
    got: list[str] = []
    thread = threading.Thread(target=lambda: got.append(made.get_access_token()))
    thread.start()
    assert asked.wait(PATIENCE)
    child = in_child(made.get_access_token)
    thread.join()
    return {"parent": got[0], "child": child()}


def while_reading(job: dict[str, Any]) -> dict[str, Any]:
    """Fork while a thread is in the middle of reading the store; the child gets the token."""
    made = hook(job)
    made.get_access_token()
    reading, forked = threading.Event(), threading.Event()
    name = "execute" if job["store"] == "sql" else "get"
    owner = _owner(job["store"])
    original = getattr(owner, name)

    def slow(*args: Any, **kwargs: Any) -> Any:
        if threading.current_thread() is thread and not forked.is_set():
            reading.set()
            forked.wait(PATIENCE)
        return original(*args, **kwargs)

    thread = threading.Thread(target=made._custodian.record)
    setattr(owner, name, staticmethod(slow) if job["store"] == "variable" else slow)
    thread.start()
    assert reading.wait(PATIENCE)
    refused = made.get_access_token()
    child = in_child(lambda: made._custodian.replace(refused).value)
    forked.set()
    thread.join()
    return {"child": child(), "refused": refused}


def _owner(store: str) -> Any:
    """Return the class of somebody else that the store calls while it holds its own locks."""
    if store == "sql":
        from sqlalchemy.engine import Connection

        return Connection
    from airflow.models.variable import Variable

    return Variable


def in_child(work: Callable[[], str]) -> Callable[[], str]:
    """Fork, and do the work in the child; the returned function waits for its result, "" if it hung."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE)
        try:
            os.write(write, work().encode())
        finally:
            os._exit(0)
    os.close(write)

    def result() -> str:
        with os.fdopen(read) as pipe:
            text = pipe.read()
        os.waitpid(child, 0)
        return text

    return result
