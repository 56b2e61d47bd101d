"""Start programs in sessions of their own, and end all of a session, whatever happened in between."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PATIENCE = 5.0  # seconds that a group gets to end by itself after SIGTERM


@contextmanager
def started(
    command: Sequence[str], env: Mapping[str, str], output: int | IO[Any], cwd: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program; once the block is left, however that came, it and all its children are gone."""
    process = subprocess.Popen(
        list(command),
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        end_group(process)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Ask the process group to end, and end it by force if it does not."""
    deadline = time.monotonic() + PATIENCE
    send(process, signal.SIGTERM)
    try:
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End the process group at once, and what has left it for a group of its own, as Airflow's tasks do."""
    send(process, signal.SIGKILL)
    # A child that was forked meanwhile is in no list that was read before.
    while left := members(process.pid):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    process.wait()


def members(session: int) -> list[int]:
    """Return the processes of a session that run, where the kernel lists them (Linux)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, _, _, its_session, *_ = stat.read_text().rpartition(")")[2].split()
            if int(its_session) == session and state not in "ZX":
                found.append(int(stat.parent.name))
    return found


def send(process: subprocess.Popen[bytes], which: signal.Signals) -> None:
    """Send a signal to the group; an empty group is what we want, not an error."""
    try:
        os.killpg(process.pid, which)
    except ProcessLookupError:
        return
