"""A timed lease over plain reads and writes, for stores that have nothing better: Airflow's Variables.

Variables offer neither compare-and-set nor create-if-absent: the last writer wins, and that is all. That is
an atomic register, and mutual exclusion over atomic registers has a known answer: M. Fischer's timed
algorithm, to which L. Lamport gives credit in "A fast mutual exclusion algorithm" (ACM TOCS 5(1), 1987).

With ``B`` the longest time allowed from the start of a look to the acknowledgement of the write after it, and
a settling delay ``D > B``::

    repeat
      look    read the lease, then the record; free if there is no lease, or the record names its nonce as
              released, or the lease stood unchanged for a whole TTL of my own clock; else look again later.
              A look that took most of B is looked again: a lease that is written late blocks everybody
      take    write a lease with a new nonce; if more than B has passed since the look began: stand back, that
              is, start again, with this late lease to wait out like anybody else's
      settle  sleep D, then read the lease: if it is mine, and enough of the TTL is left, enter

*Why two workers never enter together.* Let A enter: it wrote its lease, slept ``D`` and still found it. If C
enters as well while A's lease holds, C's lease was written after A's last read, so more than ``D`` after A's
write. C looked at most ``B < D`` before its own write was acknowledged (or it stood back), so after A's
write: it saw A's lease, not released and not a TTL old, and did not take. Only durations on one machine's
monotonic clock are compared, so the clocks of the workers may differ as they like. Each worker's ``B`` has to
be below each worker's ``D``: a lease carries its times, and a worker with others refuses to work beside it.

*Why leaving writes nothing to the lease.* A delayed "clear" would wipe out the next owner's lease. The last
write of the record carries the lease's nonce instead, in the one atomic write that it needs anyway.
"""

from __future__ import annotations

import json
import logging
import os
import random
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_feedamp.exceptions import (
    ConfigurationError,
    FeedAmpError,
    TokenBusyError,
    TokenConflictError,
    TokenError,
    TokenStoreError,
)
from airflow_provider_feedamp.tokens.store import Lease

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from airflow_provider_feedamp.tokens.records import TokenKey, TokenRecord
    from airflow_provider_feedamp.tokens.store import Enough

log = logging.getLogger(__name__)

#: The part of the bound that a look may take; what is left is for the write.
_LOOK = 0.75
#: The part of the bound that a look takes at the most when few workers look at once.
_PROMPT = 0.1
#: How many times as long as their looks workers spread.
_SPREAD = 8.0
#: Seconds after which a lease with other times than ours is of no running worker, whatever the clocks say.
_LONG_AGO = 900.0
#: Seconds of a lease beside two POSTs: the pause between them, and the writes.
_WORK = 10.0


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

    @classmethod
    def configured(cls) -> Timing:
        """Return the times of the ``[feedamp]`` configuration.

        :raises ConfigurationError: if the argument of the lease does not hold with them.
        """
        from airflow.providers.common.compat.sdk import conf

        def seconds(option: str, default: float) -> float:
            try:
                return float(conf.get("feedamp", option, fallback=None) or default)
            except ValueError:
                raise ConfigurationError(f"[feedamp] {option} must be a number of seconds.") from None

        times = cls(seconds("lease_bound", 1.0), seconds("lease_settle", 1.5), seconds("lease_ttl", 60.0))
        needed = times.bound + times.settle + 2 * seconds("token_deadline", 15.0) + _WORK
        if not 0 < times.bound < times.settle or not needed <= times.ttl < float("inf"):
            raise ConfigurationError(
                f"[feedamp] lease_bound ({times.bound:g} s) must be above 0 and below lease_settle "
                f"({times.settle:g} s), and lease_ttl ({times.ttl:g} s) must hold both and two calls of the "
                f"token endpoint (token_deadline): {needed:g} s. Set the same times on all workers."
            )
        return times

    def as_fields(self) -> dict[str, float]:
        """Return what a lease carries of them."""
        return {"bound": self.bound, "settle": self.settle, "ttl": self.ttl}


class Look(NamedTuple):
    """What is written: the lease, and the record beside it."""

    text: str | None
    record: TokenRecord | None

    @property
    def lease(self) -> dict[str, object]:
        """The lease's fields; none of what cannot be read, which is never released."""
        try:
            fields = json.loads(self.text or "")
        except ValueError:
            fields = None
        return fields if isinstance(fields, dict) else {}

    @property
    def nonce(self) -> str | None:
        """The lease's name; None without a lease."""
        return self.text and str(self.lease.get("nonce", self.text))

    @property
    def free(self) -> bool:
        """Whether there is no lease, or its owner has finished."""
        released = self.record is not None and self.record.released == self.nonce
        return self.text is None or released

    @property
    def owner(self) -> str:
        """Host and process of the lease's owner."""
        return str(self.lease.get("owner", "an unknown worker"))


@dataclass(frozen=True, slots=True)
class Register:
    """Where the lease and its record stand, and by which clocks the lease is judged.

    The store describes ``clock`` and ``sleep``.

    :param look: Reads the lease, then the record.
    :param lease: Reads the lease alone.
    :param write: Writes the lease.
    :param release: Has the record name a lease of our own as finished.
    """

    look: Callable[[], Look]
    lease: Callable[[], str | None]
    write: Callable[[str], None]
    release: Callable[[Lease], None]
    clock: Callable[[], float]
    sleep: Callable[[float], None]


class LeaseSeeker:
    """One worker's way to the lease of one key.

    :param key: Whose lease.
    :param timing: The lease's times; the same for all workers.
    :param register: Where the lease is kept.
    """

    def __init__(self, key: TokenKey, timing: Timing, register: Register) -> None:
        self._key, self._timing, self._register = key, timing, register
        #: The lease that is written now, since when, and the one that we wrote too late.
        self._watched: str | None = None
        self._since, self._late = 0.0, ""
        self._settled_at = 0.0
        #: Why Variables were too slow to take the lease.
        self._slow = ""
        #: Whether we have spread from the others since nobody held the lease.
        self._drawn = self._waited = False
        self._announced = False

    def take(self, wait: float, stop: threading.Event, enough: Enough | None = None) -> Lease:
        """Return the lease when it is ours; ``TokenStore.lock`` describes the parameters and errors."""
        clock, bound = self._register.clock, self._timing.bound
        deadline = clock() + wait
        while True:
            since = clock()
            look = self._register.look()
            took = clock() - since
            if enough is not None and enough(look.record):
                raise TokenBusyError(f"Another worker has renewed the token of seller {self._key.seller!r}.")
            if look.nonce != self._watched:
                # From now, not from the start of the look: the lease may have been written while we read it.
                self._watched, self._since = look.nonce, clock()
            pause = self._timing.poll
            if not look.free and since - self._since < self._timing.ttl:
                self._waiting_for(look, wait)
            elif took >= _LOOK * bound:
                self._slow = f"a look took {took:.1f} s, and {_LOOK * bound:g} s are allowed"
                pause = self._lot(took)
            elif not self._drawn and (took >= _PROMPT * bound or self._waited):
                pause, self._drawn = self._lot(took), True
            elif (lease := self._try(since, look)) is not None:
                return lease
            left = deadline - since
            if left <= 0 or stop.wait(min(pause, left)):
                raise self._given_up(wait)

    def _lot(self, took: float) -> float:
        """Return a random pause before the next look.

        Many workers may look at once (that makes looks slow) or have waited for the same lease, and all of
        them would write next: they have to spread for the first one's lease to be seen by the others.
        """
        least = self._timing.settle if self._waited else 0.0
        return random.uniform(0.0, max(_SPREAD * took, least))  # noqa: S311 - spreads load, hides nothing

    def _try(self, since: float, before: Look) -> Lease | None:
        """Write a lease of our own in place of the one before, and return it if it still stands later."""
        timing = self._timing
        lease = Lease(timing.ttl, since, clock=self._register.clock)
        self._settled_at = since + timing.bound + timing.settle  # at the latest
        known = before.record is not None or bool(before.lease.get("record"))
        owner = f"{socket.gethostname()}:{os.getpid()}"
        fields = {"nonce": lease.nonce, "owner": owner, "at": time.time(), "record": known}
        try:
            return self._settled(lease, json.dumps({**fields, **timing.as_fields()}), before)
        except FeedAmpError:
            raise
        except BaseException:
            # A signal: no other worker shall wait for the end of a lease that was written and not entered.
            self._step_back(lease)
            raise

    def _settled(self, lease: Lease, text: str, before: Look) -> Lease | None:
        clock, timing, since = self._register.clock, self._timing, lease.since
        try:
            self._register.write(text)
        except TokenConflictError:
            return None  # another worker was quicker by a moment: its lease is written, or will be
        self._settled_at = clock() + timing.settle
        if (took := clock() - since) > timing.bound:
            self._late = lease.nonce
            self._slow = f"a look and a write took {took:.1f} s, and {timing.bound:g} s are allowed"
            log.warning(
                "Airflow Variables answer slowly (%s); waiting %.0f s until it is sure that nobody renews "
                "the token of seller %r.",
                self._slow,
                timing.ttl,
                self._key.seller,
            )
            return None
        self._register.sleep(timing.settle)
        found = self._register.lease()
        if found == before.text:
            raise TokenStoreError(
                f"The lease for seller {self._key.seller!r} was written and reads back as it was "
                "before. Nothing was spent. Either the write was refused (may this task write Variables?) or "
                f"a secrets backend defines the Variable feedamp_lease_{self._key.digest}: remove it there."
            )
        return lease if Look(found, None).nonce == lease.nonce else None

    def _step_back(self, lease: Lease) -> None:
        """Let a lease of our own settle, and release it as an owner does, if it still stands then."""
        self._register.sleep(max(self._settled_at - self._register.clock(), 0.0))
        if Look(self._register.lease(), None).nonce == lease.nonce:
            self._register.release(lease)

    def _waiting_for(self, look: Look, wait: float) -> None:
        """Say once for whom we wait; refuse to work beside a worker with other times."""
        self._drawn, self._waited = False, True
        if look.nonce == self._late:
            return
        self._slow = ""
        ours = self._timing.as_fields()
        others = {name: look.lease.get(name) for name in ours}
        at = look.lease.get("at")
        recent = isinstance(at, int | float) and time.time() - at < _LONG_AGO
        if recent and others != ours:
            raise TokenStoreError(
                f"Worker {look.owner} renews the token of seller {self._key.seller!r} with other times of "
                f"the lease ({others}) than this one has ({ours}). Nothing was spent. Set "
                "[feedamp] lease_bound, lease_settle and lease_ttl alike on all workers, while none runs."
            )
        if not self._announced and wait > 0:
            self._announced = True
            log.info("Waiting for the access token of seller %r: %s renews it.", self._key.seller, look.owner)

    def _given_up(self, wait: float) -> TokenError:
        seller = self._key.seller
        if self._slow:
            return TokenStoreError(
                f"Airflow Variables answer too slowly to renew the token of seller {seller!r}: {self._slow}."
                f" Waited {wait:.0f} s; nothing was spent. Raise [feedamp] lease_bound, and lease_settle "
                "above it, on all workers while none runs, or use the token store 'sql'."
            )
        return TokenBusyError(
            f"Another worker renews the token of seller {seller!r}. Waited {wait:.0f} s; nothing was spent. "
            "Try again."
        )
