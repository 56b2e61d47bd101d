"""Many workers in virtual time: real code runs in threads of which one at a time is awake.

A run is decided by its seed alone, and an hour of waiting takes no time.
"""

from __future__ import annotations

import threading
from heapq import heappop, heappush
from random import Random
from typing import TYPE_CHECKING

from airflow_provider_feedamp.tokens.variable_store import AirflowVariables

if TYPE_CHECKING:
    from collections.abc import Callable


class World:
    """A clock and the workers that live by it."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.time = 0.0
        self._waiting: list[tuple[float, int, threading.Lock]] = []
        self._turns = 0
        self._here = threading.local()
        self._over = threading.Lock()
        self._failures: list[BaseException] = []

    def clock(self) -> float:
        """Return the virtual time."""
        return self.time

    def sleep(self, seconds: float) -> None:
        """Let the others live for a while; to be called by a worker."""
        gate: threading.Lock = self._here.gate
        self._queue(seconds, gate)
        self._next()
        gate.acquire()

    def run(self, *workers: Callable[[], None]) -> None:
        """Run the workers until each has ended, and raise what one of them raised."""
        for work in workers:
            gate = threading.Lock()
            gate.acquire()
            threading.Thread(target=self._live, args=(work, gate), daemon=True).start()
            self._queue(0.0, gate)
        self._over.acquire()
        self._next()
        self._over.acquire()
        if self._failures:
            raise self._failures[0]

    def _live(self, work: Callable[[], None], gate: threading.Lock) -> None:
        self._here.gate = gate
        gate.acquire()
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised by run()
            self._failures.append(error)
        self._next()

    def _queue(self, seconds: float, gate: threading.Lock) -> None:
        self._turns += 1
        heappush(self._waiting, (self.time + seconds, self._turns, gate))

    def _next(self) -> None:
        """Wake whoever's time comes first."""
        if self._waiting:
            self.time, _, gate = heappop(self._waiting)
            gate.release()
        else:
            self._over.release()


class VirtualEvent(threading.Event):
    """An event that is never set, and is waited for in virtual time."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def wait(self, timeout: float | None = None) -> bool:
        self._world.sleep(timeout or 0.0)
        return False


class KeptVariables(AirflowVariables):
    """Variables in a dictionary, which can be relied on."""

    proves_absence = True
    logs_values = False

    def __init__(self, values: dict[str, str] | None = None) -> None:
        self.texts = {} if values is None else values

    def get(self, name: str) -> str | None:
        return self.texts.get(name)

    def set(self, name: str, value: str, description: str) -> None:
        self.texts[name] = value

    def delete(self, name: str) -> None:
        self.texts.pop(name, None)

    def names(self, prefix: str) -> list[str]:
        """Return the names that begin with the prefix."""
        return [name for name in self.texts if name.startswith(prefix)]

    def values(self, prefix: str) -> dict[str, str | None]:
        """Return the values of all names that begin with the prefix."""
        return {name: self.texts[name] for name in self.names(prefix)}


class SlowVariables(KeptVariables):
    """Variables whose every operation takes its time, before and after the moment at which it happens."""

    def __init__(
        self, world: World, delay: Callable[[Random], float], values: dict[str, str] | None = None
    ) -> None:
        super().__init__(values)
        self._world = world
        self._delay = delay

    def get(self, name: str) -> str | None:
        self._pass()
        value = super().get(name)
        self._pass()
        return value

    def set(self, name: str, value: str, description: str) -> None:
        self._pass()
        super().set(name, value, description)
        self._pass()

    def delete(self, name: str) -> None:
        self._pass()
        super().delete(name)
        self._pass()

    def _pass(self) -> None:
        self._world.sleep(self._delay(self._world.random) / 2)
