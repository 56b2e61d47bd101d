"""Show a progress bar while the demo's DAG imports orders, from what FeedAMP and the rejects file have."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from http.client import HTTPException
from typing import TYPE_CHECKING, TextIO

from airflow_provider_feedamp.bulk.progress import Progress
from airflow_provider_feedamp.cli.orders import Bar
from airflow_provider_feedamp.sandbox.control import SandboxControl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

POLL = 0.1  # seconds


@contextmanager
def following(
    base_url: str, seller: str, orders: Path, rejects: Path, out: TextIO | None = None
) -> Iterator[Callable[[str], None]]:
    """Draw a bar on a terminal for as long as the block runs; without one draw nothing.

    :param base_url: The sandbox.
    :param seller: Whose account gets the orders.
    :param orders: The file of orders, one a line.
    :param rejects: The file of rejected orders.
    :param out: Where to. Default: standard output.
    :return: Writes a line above the bar.
    """
    follower = _Follower(base_url, seller, orders, rejects, out or sys.stdout)
    if not follower.out.isatty():
        yield follower.write
        return
    thread = threading.Thread(target=follower.run, daemon=True)
    thread.start()
    try:
        yield follower.write
    finally:
        follower.ended.set()
        thread.join()


class _Follower:
    def __init__(self, base_url: str, seller: str, orders: Path, rejects: Path, out: TextIO) -> None:
        self.out = out
        self.ended = threading.Event()
        self._control = SandboxControl(base_url)
        self._seller = seller
        self._total = _lines(orders)
        self._rejects = rejects
        self._bar = Bar(out)
        self._lock = threading.Lock()

    def write(self, line: str) -> None:
        with self._lock:
            self._bar.clear()
            print(line, file=self.out, flush=True)

    def run(self) -> None:
        began = 0.0
        while not self.ended.wait(POLL):
            try:
                placed = self._control.sellers().get(self._seller, 0)
            except (OSError, HTTPException, ValueError):
                continue  # The bar is for the eye; whether all is well is said elsewhere.
            rejected = _lines(self._rejects)
            done = placed + rejected
            began = began or (time.monotonic() if done else 0.0)
            if not done:
                continue
            rate = done / max(time.monotonic() - began, POLL)
            ended = done >= self._total
            with self._lock:
                self._bar(Progress(done, placed, rejected, self._total, rate, ended=ended))
            if ended:
                return
        with self._lock:
            self._bar.clear()


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
