"""Token records in Airflow Variables: for every deployment, with nothing to install.

Variables offer neither compare-and-set nor create-if-absent: the last writer wins, and that is all. That is
an atomic register, and mutual exclusion over atomic registers has a known answer: M. Fischer's timed
algorithm, to which L. Lamport gives credit in "A fast mutual exclusion algorithm" (ACM TOCS 5(1), 1987).

With ``B`` the longest time allowed from the start of a look to the acknowledgement of the write after it, and
a settling delay ``D > B``::

    repeat
      look    read the lease, then the record; free if there is no lease, or the record names its nonce as
              released, or the lease stood unchanged for a whole TTL of my own clock; else look again later
      take    write a lease with a new nonce; if more than B has passed since the look began: stand back, that
              is, start again, with this late lease to wait out like anybody else's
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
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from airflow_provider_feedamp.exceptions import (
    FeedAmpError,
    TokenBusyError,
    TokenConflictError,
    TokenRecordError,
    TokenStoreError,
)
from airflow_provider_feedamp.stores.airflow_variables import AirflowVariables
from airflow_provider_feedamp.stores.base import Lease
from airflow_provider_feedamp.tokens.models import TokenKey, TokenRecord

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

#: What a record's Variable is called before its key's digest; "token" makes Airflow mask the value.
_RECORDS = "feedamp_token_"


class Variables(Protocol):
    """What the store needs of Airflow Variables: an atomic register for each name."""

    def get(self, name: str) -> str | None:
        """Return the value, or None."""
        ...

    def set(self, name: str, value: str) -> None:
        """Write the value; returns when every worker's next read sees it."""
        ...

    def delete(self, name: str) -> None:
        """Take the name out."""
        ...

    def starting_with(self, prefix: str) -> dict[str, str]:
        """Return the values of all names that begin with the prefix, by name."""
        ...


@dataclass(frozen=True, slots=True)
class Timing:
    """The lease's times, in seconds; the module's text says what each is for.

    :param bound: ``B``: from the start of the look to the acknowledged write. From a task a Variable takes
        about 15 ms to read and 22 ms to write.
    :param settle: ``D``: how long a lease settles before its owner enters; more than ``bound``.
    :param ttl: After this time an unreleased lease is void; it holds two POSTs, the pause between them and
        the writes.
    :param poll: Between two looks at a lease that somebody else holds.
    """

    bound: float = 1.0
    settle: float = 1.5
    ttl: float = 60.0
    poll: float = 0.5


class VariableStore:
    """Keeps each record in one Airflow Variable, which Airflow encrypts with the deployment's Fernet key.

    :param conn_id: Not used; Variables need no connection.
    :param timing: The lease's times; the same for all workers.
    :param variables: Where the Variables are. Default: Airflow's own.
    :param clock: This machine's monotonic clock.
    :param sleep: Waits while a lease settles.
    """

    guarantee = (
        "The lock holds between all workers of the deployment, however slowly Variables answer; the "
        "conditional write is checked under the lock and read back."
    )

    def __init__(
        self,
        conn_id: str | None = None,
        *,
        timing: Timing | None = None,
        variables: Variables | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._timing = timing or Timing()
        self._variables = variables or AirflowVariables()
        self._clock = clock
        self._sleep = sleep

    def read(self, key: TokenKey) -> TokenRecord | None:
        """Return the record, or None."""
        name = _record_name(key)
        text = self._variables.get(name)
        try:
            return None if text is None else TokenRecord.from_json(text, key)
        except TokenRecordError as error:
            raise TokenRecordError(
                f"{error} It is Airflow Variable {name!r}, or what a secrets backend puts in its place."
            ) from None

    def write(self, record: TokenRecord, *, expected: int | None) -> TokenRecord:
        """Look, replace the record, and read it back: writes can be refused or shadowed without an error."""
        key = record.key
        stored = self.read(key)
        if (stored.revision if stored else None) != expected:
            raise TokenConflictError(f"The token record of seller {key.seller!r} has changed meanwhile.")
        written = record.changed(revision=(expected or 0) + 1)
        name = _record_name(key)
        self._variables.set(name, written.to_json())
        if self.read(key) != written:
            raise TokenStoreError(_not_written(name, key))
        return written

    def delete(self, key: TokenKey) -> None:
        """Forget the record and its lease."""
        for name in (_record_name(key), _lease_name(key)):
            if self._variables.get(name) is not None:
                self._variables.delete(name)

    def keys(self, token_url: str, client_id: str) -> list[TokenKey]:
        """Return the keys of all records of a client.

        In a task this needs Airflow 3.3; elsewhere it asks the metadata database.
        """
        keys = [_key(name, text) for name, text in self._variables.starting_with(_RECORDS).items()]
        return [key for key in keys if key and (key.token_url, key.client_id) == (token_url, client_id)]

    @contextmanager
    def lock(self, key: TokenKey, *, wait: float, stop: threading.Event) -> Iterator[Lease]:
        """Hold the key's timed lease; the module's text says why no two workers do."""
        lease = self._take(key, wait, stop)
        try:
            yield lease
        finally:
            self._release(key, lease)

    def _take(self, key: TokenKey, wait: float, stop: threading.Event) -> Lease:
        deadline = self._clock() + wait
        watched, watched_since = None, 0.0
        while True:
            since = self._clock()
            nonce, free = self._look(key)
            if nonce != watched:
                # From now, not from the start of the look: the lease may have been written while we read it.
                watched, watched_since = nonce, self._clock()
            if free or since - watched_since >= self._timing.ttl:
                lease = self._try(key, since, nonce)
                if lease is not None:
                    return lease
            left = deadline - since
            if left <= 0 or stop.wait(min(self._timing.poll, left)):
                raise TokenBusyError(
                    f"Another worker renews the token of seller {key.seller!r}. Waited {wait:.0f} s; "
                    "nothing was spent. Try again."
                )

    def _look(self, key: TokenKey) -> tuple[str | None, bool]:
        """Return the nonce of the lease that is there, and whether the way is free."""
        # The lease first: a record that was read earlier could not know of a later lease's end.
        text = self._variables.get(_lease_name(key))
        if text is None:
            return None, True
        nonce = _nonce(text)
        record = self.read(key)
        return nonce, record is not None and record.released == nonce

    def _try(self, key: TokenKey, since: float, before: str | None) -> Lease | None:
        """Write a lease of our own in place of the one before, and return it if it still stands later."""
        lease = Lease(self._timing.ttl, since, clock=self._clock)
        name = _lease_name(key)
        owner = f"{socket.gethostname()}:{os.getpid()}"
        self._variables.set(name, json.dumps({"nonce": lease.nonce, "owner": owner}))
        if self._clock() - since > self._timing.bound:
            log.warning("Airflow Variables answer slowly; standing back from seller %r.", key.seller)
            return None
        # Not cut short by a signal: the lease is written, and leaving early would save nobody anything.
        self._sleep(self._timing.settle)
        text = self._variables.get(name)
        found = None if text is None else _nonce(text)
        if found == before:
            raise TokenStoreError(_not_written(name, key))
        return lease if found == lease.nonce else None

    def _release(self, key: TokenKey, lease: Lease) -> None:
        """Make sure that the record names the lease as released; a spend's last write has done so already."""
        if lease.left() < self._timing.settle:
            return
        try:
            record = self.read(key)
            if record is not None and record.released != lease.nonce:
                self.write(record.changed(released=lease.nonce), expected=record.revision)
        except FeedAmpError as error:
            log.warning(
                "The lease for seller %r was not released; it ends in %.0f s. %s",
                key.seller,
                self._timing.ttl,
                error,
            )


def _record_name(key: TokenKey) -> str:
    return f"{_RECORDS}{key.digest}"


def _key(name: str, text: str) -> TokenKey | None:
    """Return whose record a Variable holds; one that cannot be read must not hide the others."""
    try:
        key = TokenKey(**json.loads(text)["key"])
        if _record_name(key) == name:
            return key
    except (ValueError, TypeError, KeyError):
        pass
    log.warning("Airflow Variable %r holds no token record of this provider.", name)
    return None


def _lease_name(key: TokenKey) -> str:
    return f"feedamp_lease_{key.digest}"


def _nonce(lease: str) -> str:
    """Return a stored lease's nonce; what cannot be read is the lease of somebody who never releases it."""
    try:
        return str(json.loads(lease)["nonce"])
    except (ValueError, TypeError, KeyError):
        return lease


def _not_written(name: str, key: TokenKey) -> str:
    return (
        f"Airflow Variable {name!r} (of seller {key.seller!r}) was written and reads back as something else. "
        "Either the write was refused (may this task write Variables?), or a secrets backend defines the "
        "same Variable and shadows it: remove it there."
    )
