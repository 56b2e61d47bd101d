"""Token records in Airflow Variables: for every deployment, with nothing to install.

Variables offer neither compare-and-set nor create-if-absent: the last writer wins, and that is all. That is
an atomic register, and mutual exclusion over atomic registers has a known answer: M. Fischer's timed
algorithm, to which L. Lamport gives credit in "A fast mutual exclusion algorithm" (ACM TOCS 5(1), 1987).

With ``B`` the longest time allowed from the start of a look to the acknowledgement of the write after it, and
a settling delay ``D > B``::

    repeat
      look    read the lease, then the record; free if there is no lease, or the record names its nonce as
              released, or the lease stood unchanged for a whole TTL of my own clock; else look again later
      take    write a lease with a new nonce; if more than B has passed since the look began: stand back for
              a TTL and start again
      settle  sleep D, then read the lease: if it is mine, and enough of the TTL is left, enter

*Why two workers never enter together.* Let A enter: it wrote its lease, slept ``D`` and still found it. If C
enters as well while A's lease holds, C's lease was written after A's last read, so more than ``D`` after A's
write. C looked at most ``B < D`` before its own write was acknowledged (or it stood back), so after A's
write: it saw A's lease, not released and not a TTL old, and did not take. Only durations on one machine's
monotonic clock are compared, so the clocks of the workers may differ as they like.

*Why leaving writes nothing to the lease.* A delayed "clear" would wipe out the next owner's lease. The last
write of the record carries the lease's nonce instead, in the one atomic write that it needs anyway.

What remains: a *record* write that lands after its lease has run out could overwrite a newer record. The
writer looks before and reads back after; who needs more than that uses a SQL store.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.exceptions import (
    FeedAmpError,
    TokenBusyError,
    TokenConflictError,
    TokenStoreError,
)
from airflow_provider_feedamp.stores.base import Lease
from airflow_provider_feedamp.tokens.models import TokenRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_feedamp.tokens.models import TokenKey

log = logging.getLogger(__name__)

#: ``B``: seconds from the start of the look to the acknowledged write. A Variable takes about 15 ms to read
#: and 22 ms to write from a task.
BOUND = 1.0
#: ``D``: seconds that a lease settles before its owner enters.
SETTLE = 1.5
#: Seconds after which an unreleased lease is void; holds two POSTs, the pause between them and the writes.
TTL = 60.0
#: Seconds between two looks at a lease that somebody else holds.
_POLL = 0.5

#: Airflow 3.0 and 3.1 talk to the supervisor over one unlocked socket: our own calls never overlap.
_CALLS = threading.Lock()


class VariableStore:
    """Keeps each record in one Airflow Variable, which Airflow encrypts with the deployment's Fernet key.

    :param conn_id: Not used; Variables need no connection.
    :param settle: ``D`` of the module's text, seconds.
    """

    guarantee = (
        "The lock holds between all workers of the deployment as long as a Variable is written within a "
        "second; "
        "the conditional write is checked under the lock and read back."
    )

    def __init__(self, conn_id: str | None = None, *, settle: float = SETTLE) -> None:
        self._settle = settle

    def read(self, key: TokenKey) -> TokenRecord | None:
        """Return the record, or None."""
        text = _get(_record_name(key))
        return None if text is None else TokenRecord.from_json(text, key)

    def write(self, record: TokenRecord, *, expected: int | None) -> TokenRecord:
        """Look, replace the record, and read it back: writes can be refused or shadowed without an error."""
        key = record.key
        stored = self.read(key)
        if (stored.revision if stored else None) != expected:
            msg = f"The token record of seller {key.seller!r} has changed meanwhile."
            raise TokenConflictError(msg)
        written = record.changed(revision=(expected or 0) + 1)
        name = _record_name(key)
        _set(name, written.to_json())
        if self.read(key) != written:
            msg = (
                f"Airflow Variable {name!r} (token record of seller {key.seller!r}) was written and reads "
                "back as "
                "something else. Either the write was refused (may this task write Variables?), or a "
                "secrets backend "
                "defines the same Variable and shadows it: remove it there."
            )
            raise TokenStoreError(msg)
        return written

    def delete(self, key: TokenKey) -> None:
        """Forget the record and its lease."""
        for name in (_record_name(key), _lease_name(key)):
            if _get(name) is not None:
                _delete(name)

    @contextmanager
    def lock(self, key: TokenKey, *, wait: float, stop: threading.Event) -> Iterator[Lease]:
        """Hold the key's timed lease; the module's text says why no two workers do."""
        lease = self._take(key, wait, stop)
        try:
            yield lease
        finally:
            self._release(key, lease)

    def _take(self, key: TokenKey, wait: float, stop: threading.Event) -> Lease:
        deadline = time.monotonic() + wait
        watched, watched_since = None, 0.0
        while True:
            since = time.monotonic()
            nonce = self._standing_lease(key)
            if nonce is not None and nonce != watched:
                watched, watched_since = nonce, since
            if nonce is None or since - watched_since >= TTL:
                lease = self._try(key, since, stop)
                if lease is not None:
                    return lease
            elif since >= deadline or stop.wait(min(_POLL, max(deadline - since, 0.0))):
                msg = (
                    f"Another worker renews the token of seller {key.seller!r}. Waited {wait:.0f} s; "
                    "nothing was "
                    "spent. Try again."
                )
                raise TokenBusyError(msg)

    def _standing_lease(self, key: TokenKey) -> str | None:
        """Return the nonce of the lease that stands, or None if the way is free."""
        # The lease first: a record that was read earlier could not know of a later lease's end.
        text = _get(_lease_name(key))
        if text is None:
            return None
        nonce = str(json.loads(text)["nonce"])
        record = self.read(key)
        return None if record is not None and record.released == nonce else nonce

    def _try(self, key: TokenKey, since: float, stop: threading.Event) -> Lease | None:
        """Write a lease of our own, let it settle, and return it if it still stands."""
        lease = Lease(TTL, since)
        owner = f"{socket.gethostname()}:{os.getpid()}"
        _set(_lease_name(key), json.dumps({"nonce": lease.nonce, "owner": owner}))
        if time.monotonic() - since > BOUND:
            log.warning(
                "Airflow Variables answer slowly; standing back from seller %r for %.0f s.", key.seller, TTL
            )
            stop.wait(TTL)
            return None
        # Not cut short by `stop`: the lease is written, and leaving early would save nobody anything.
        time.sleep(self._settle)
        return lease if self._standing_lease(key) == lease.nonce else None

    def _release(self, key: TokenKey, lease: Lease) -> None:
        """Make sure that the record names the lease as released; a spend's last write has done so already."""
        if lease.left() < BOUND:
            return
        try:
            record = self.read(key)
            if record is not None and record.released != lease.nonce:
                self.write(record.changed(released=lease.nonce), expected=record.revision)
        except FeedAmpError as error:
            log.warning(
                "The lease for seller %r was not released; it ends in %.0f s. %s", key.seller, TTL, error
            )


def _record_name(key: TokenKey) -> str:
    # "token" in the name makes Airflow mask the value wherever it shows Variables.
    return f"feedamp_token_{key.digest}"


def _lease_name(key: TokenKey) -> str:
    return f"feedamp_lease_{key.digest}"


def _get(name: str) -> str | None:
    def get(variables: Any) -> Any:
        try:
            return variables.get(name, None)
        except KeyError:
            return None

    value = _call(name, "read", get)
    return None if value is None else str(value)


def _set(name: str, value: str) -> None:
    _call(name, "write", lambda variables: variables.set(name, value))


def _delete(name: str) -> None:
    _call(name, "delete", lambda variables: variables.delete(name))


def _call(name: str, verb: str, action: Callable[[Any], Any]) -> Any:
    try:
        with _CALLS:
            return action(_variables())
    except Exception as error:  # noqa: BLE001 - whatever the database or the API server raises
        # Its text may quote the value that was sent.
        msg = (
            f"Airflow Variable {name!r} could not be {_PAST[verb]} ({type(error).__name__}). Is the "
            "database up?"
        )
        raise TokenStoreError(msg) from None


_PAST = {"read": "read", "write": "written", "delete": "deleted"}


def _variables() -> Any:
    """Return the Variable class that works here: a task's own, or the one beside the metadata database."""
    if hasattr(sys.modules.get("airflow.sdk.execution_time.task_runner"), "SUPERVISOR_COMMS"):
        from airflow.providers.common.compat.sdk import Variable
    else:
        from airflow.models.variable import Variable
    return Variable
