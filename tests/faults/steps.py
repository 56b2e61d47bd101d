"""The protocol's steps as a worker takes them, so that a test can end the worker before any of them.

The stores and the endpoint here are the real ones; each of their statements, Variables and requests is noted
first, and the process kills itself there when it is told to.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.exceptions import AnswerLostError
from airflow_provider_feedamp.sandbox.control import SandboxControl
from airflow_provider_feedamp.tokens import timed_lease
from airflow_provider_feedamp.tokens.endpoint import TokenEndpoint
from airflow_provider_feedamp.tokens.records import RecordState
from airflow_provider_feedamp.tokens.sql_store import SqlDatabase, SqlStore
from airflow_provider_feedamp.tokens.timed_lease import Timing
from airflow_provider_feedamp.tokens.variable_store import AirflowVariables, VariableStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine import Connection

    from airflow_provider_feedamp.tokens.endpoint import TokenGrant
    from airflow_provider_feedamp.tokens.records import TokenKey, TokenRecord
    from airflow_provider_feedamp.tokens.store import Lease

#: Seconds of a lease in these tests; long against one renewal, short to wait for.
LEASE = 20.0
#: The step that is not one of ours: FeedAMP has spent the token, and its answer is under way.
AWAIT = "post: await the answer"

_PURPOSES = {
    RecordState.REFRESHING: "announce",
    RecordState.UNCERTAIN: "note the loss",
    RecordState.ACTIVE: "save",
    RecordState.REAUTH_REQUIRED: "condemn",
}


@dataclass
class Steps:
    """The steps that this process has taken.

    :param kill_at: The step before which the process ends.
    """

    kill_at: str | None = None
    taken: list[str] = field(default_factory=list)
    purpose: str = "look"
    _seen: Counter[str] = field(default_factory=Counter)

    def begin(self, kill_at: str | None) -> None:
        """Forget what was done so far: the steps count from now."""
        self.kill_at = kill_at
        self.taken.clear()
        self._seen.clear()

    def take(self, what: str) -> None:
        """Note a step that comes now, or end here."""
        self._seen[f"{self.purpose}: {what}"] += 1
        count = self._seen[f"{self.purpose}: {what}"]
        name = f"{self.purpose}: {what}" + (f" ({count})" if count > 1 else "")
        self.taken.append(name)
        if name == self.kill_at:
            die()

    @contextmanager
    def during(self, purpose: str) -> Iterator[None]:
        """Say what the steps in this block are for."""
        before, self.purpose = self.purpose, purpose
        try:
            yield
        finally:
            self.purpose = before


def die() -> None:
    """End this process as the kernel's out-of-memory killer would."""
    os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()


#: This process's steps.
STEPS = Steps()


class SteppedVariables(AirflowVariables):
    """Airflow's Variables, step by step."""

    def get(self, name: str) -> str | None:
        written = STEPS.taken and STEPS.taken[-1].startswith(f"{STEPS.purpose}: write the {_kind(name)}")
        STEPS.take("read it back" if written else f"read the {_kind(name)}")
        return super().get(name)

    def set(self, name: str, value: str, description: str) -> None:
        STEPS.take(f"write the {_kind(name)}")
        super().set(name, value, description)


class SteppedDatabase(SqlDatabase):
    """The database of the SQL store, statement by statement."""

    @contextmanager
    def connect(self, what: str) -> Iterator[Connection]:
        verb, _, rest = what.partition(" the ")
        STEPS.take(f"{verb} the {_kind(rest)}")
        with super().connect(what) as connection:
            yield connection


class _Purposeful:
    """Names what a store's steps are for."""

    @contextmanager
    def lock(
        self,
        key: TokenKey,
        *,
        wait: float,
        stop: threading.Event,
        enough: Callable[[TokenRecord | None], bool] | None = None,
    ) -> Iterator[Lease]:
        section = super().lock(key, wait=wait, stop=stop, enough=enough)  # type: ignore[misc]
        with STEPS.during("lock"):
            lease = section.__enter__()
        try:
            with STEPS.during("look again"):
                yield lease
        finally:
            with STEPS.during("leave"):
                section.__exit__(None, None, None)

    def write(self, record: TokenRecord, *, expected: int | None) -> TokenRecord:
        leaving = STEPS.purpose == "leave"
        with STEPS.during("leave" if leaving else _PURPOSES[record.state]):
            written: TokenRecord = super().write(record, expected=expected)  # type: ignore[misc]
        return written


class SteppedVariableStore(_Purposeful, VariableStore):
    """The ``variable`` store with a short lease."""

    def __init__(self, conn_id: str | None = None) -> None:
        timed_lease._PROMPT = math.inf  # one worker at a time has nobody to spread from
        super().__init__(
            timing=Timing(bound=2.4, settle=2.5, ttl=LEASE, poll=0.5), variables=SteppedVariables()
        )


class SteppedSqlStore(_Purposeful, SqlStore):
    """The ``sql`` store with a short lease."""

    def __init__(self, conn_id: str | None = None) -> None:
        super().__init__(conn_id, ttl=LEASE)
        self._database = SteppedDatabase(conn_id or "")


@dataclass(frozen=True)
class SteppedEndpoint(TokenEndpoint):
    """The token endpoint, whose answers can get lost on the way.

    :param seller: Whose tokens are renewed.
    :param losing: How many answers get lost.
    """

    seller: str = ""
    losing: list[bool] = field(default_factory=list)

    def refresh(self, refresh_token: str) -> TokenGrant:
        with STEPS.during("post"):
            STEPS.take("send the request")
            name = AWAIT if AWAIT not in STEPS.taken else f"{AWAIT} (2)"
            STEPS.taken.append(name)
            if name == STEPS.kill_at:
                threading.Thread(target=self._die_once_spent, args=(self._posts(),)).start()
            grant = super().refresh(refresh_token)
        if self.losing:
            self.losing.pop()
            msg = "The answer was lost on the way."
            raise AnswerLostError(msg)
        return grant

    def _posts(self) -> int:
        counters = SandboxControl(self.url).counters()["sellers"]
        return int(counters.get(self.seller, {"token_posts": 0})["token_posts"])

    def _die_once_spent(self, before: int) -> None:
        """End this process when FeedAMP has spent the token; its answers are slow enough for that."""
        while self._posts() == before:
            time.sleep(0.01)
        die()


def _kind(name: str) -> str:
    return "lease" if "lease" in name else "record"


def trace() -> dict[str, Any]:
    """Return what a worker reports of its steps."""
    taken = list(STEPS.taken)
    before_writing = taken[: taken.index("lock: write the lease")] if "lock: write the lease" in taken else []
    return {
        "steps": taken,
        "posts": sum(name.startswith("post: send") for name in taken),
        "waited": "lock: read the lease (4)" in before_writing or "lock: take the lease (2)" in taken,
    }
