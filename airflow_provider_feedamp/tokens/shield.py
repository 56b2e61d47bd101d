"""Runs a critical section where no signal can cut it."""

from __future__ import annotations

import contextvars
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def shielded(work: Callable[[threading.Event], T]) -> T:
    """Run ``work`` to its end in a helper thread, whatever is raised in the calling thread meanwhile.

    Python delivers signals to the main thread only, so SIGTERM and Airflow's ``execution_timeout`` (SIGALRM)
    raise here, where nothing is under way but waiting. The exception is kept until the work has ended, and
    then raised in place of the result.

    :param work: Is handed an event that is set once such an exception has arrived: work that has not yet
        begun what must not be cut should then give up.
    :return: What ``work`` returns.
    :raises BaseException: what arrived while waiting; else what ``work`` raised.
    """
    stop = threading.Event()
    done = threading.Event()
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(context.run(work, stop))
        except BaseException as error:  # noqa: BLE001 - handed to the caller below
            failures.append(error)
        finally:
            done.set()

    context = contextvars.copy_context()
    thread = threading.Thread(target=run, name="feedamp-token", daemon=False)
    interrupts: list[BaseException] = []
    while not done.is_set():
        try:
            if thread.ident is None:
                thread.start()
            done.wait()
        except BaseException as error:  # noqa: BLE001 - raised below, once the work has ended
            interrupts.append(error)
            stop.set()
    if interrupts:
        raise interrupts[0]
    if failures:
        raise failures[0]
    return results[0]
