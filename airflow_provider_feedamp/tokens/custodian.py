"""Hands out access tokens of one seller, and renews them when it is time.

The path of a token: the store's record (or the connection's refresh token, or an authorisation code) -> one
spend at the token endpoint (:mod:`~airflow_provider_feedamp.tokens.renewal`) -> the record in the store ->
this process's cache -> the caller's bearer header.

Beside the record stands the number of an order that is in the seller's account: by it a new authorisation is
known to open the same account.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_feedamp.exceptions import (
    FeedAmpError,
    InputError,
    NotProcessedError,
    TokenBusyError,
    TokenConflictError,
)
from airflow_provider_feedamp.tokens.cache import CACHE, CachedToken, Freshness, Windows
from airflow_provider_feedamp.tokens.records import TokenRecord
from airflow_provider_feedamp.tokens.renewal import Spender, TokenWriter
from airflow_provider_feedamp.tokens.shield import Shield, check_open

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import timedelta

    from airflow_provider_feedamp.tokens.endpoint import TokenEndpoint
    from airflow_provider_feedamp.tokens.records import AccessToken, TokenKey
    from airflow_provider_feedamp.tokens.store import Enough, Lease, TokenStore

log = logging.getLogger(__name__)
T = TypeVar("T")

#: Seconds without a further try after a renewal ahead of time has failed: the present token still works.
_ADVISORY_PAUSE = 30.0
#: Seconds between two looks at whether the waiting for another thread was called off.
_SLICE = 0.1
#: Seconds between two looks at the record while a store that does not read it itself waits for its lock.
_LOOK = 0.5
#: Behind a token endpoint's URL, which has no fragment: the key of a seller's known order.
_KNOWN_ORDER = "#known-order"


@dataclass(frozen=True, slots=True)
class TokenCustodian:
    """Keeps one seller's tokens: the one place that decides when a refresh token is spent.

    :param key: Whose tokens.
    :param endpoint: Where refresh tokens are spent.
    :param store: Where the record lives.
    :param seed: The refresh token that the connection holds for this seller, if it holds one.
    :param windows: When a token is renewed.
    :param lock_wait: Seconds to wait while another worker renews the token.
    :param on_secret: Called with every token as soon as it is safely stored, to mask it.
    :param on_event: Called with a word and an outcome when no lease is held: ``renewed`` with ``ok`` or the
        error's class, ``waited`` for another worker, ``adopted`` another worker's token. It must not raise.
    :param now: Wall clock, epoch seconds.
    :param sleep: Waits between tries.
    """

    key: TokenKey
    endpoint: TokenEndpoint
    store: TokenStore
    seed: str | None = field(default=None, repr=False)
    windows: Windows = field(default_factory=Windows)
    lock_wait: float = 90.0
    on_secret: Callable[[str], None] = lambda secret: None
    on_event: Callable[[str, str], None] = lambda event, outcome: None
    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    # The slot and token that were fresh when last looked at, and until when; at most one.
    _warm: list[tuple[CachedToken, AccessToken, float]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    def token(self, min_ttl: timedelta | None = None) -> AccessToken:
        """Return an access token that is good for now, renewed first if need be.

        :param min_ttl: The least time that it must have left; default: the mandatory window.
        :raises ReauthorizationRequiredError: if a person has to authorise the seller (again).
        :raises ClientRefusedError: if FeedAMP refuses the client.
        :raises TokenNotRenewedError: if a later try can succeed.
        :raises TokenStoreError: if the store fails; nothing was spent.
        :raises InputError: if not even the token obtained just now lives as long as ``min_ttl``.
        """
        slot = CACHE.slot(self.key)
        if slot.unsaved is not None and time.monotonic() >= slot.save_at:
            with suppress(TokenBusyError):  # another thread is at work
                self._alone(slot, 0, lambda shield: self._saver(slot).save_late())
        cached = slot.token if self._knows_seed(slot) else None
        freshness = self._judge(cached, min_ttl)
        if cached is not None and freshness is Freshness.FRESH:
            self._warm[:] = [(slot, cached, self.windows.fresh_until(cached, self.key))]
            return cached
        if cached is not None and freshness is Freshness.ADVISORY:
            return self._renew_ahead(slot, cached)
        wanted = (Freshness.FRESH, Freshness.ADVISORY)
        token = self._renew(slot, lambda each: self._judge(each, min_ttl) in wanted, self.lock_wait)
        # Of a token obtained just now: how long an earlier one lived says nothing.
        if token.renewed and min_ttl is not None and min_ttl.total_seconds() >= token.lifetime:
            raise InputError(
                f"min_ttl of {min_ttl.total_seconds():.0f} s cannot be met for seller {token.seller!r}: the "
                f"access token that FeedAMP gave just now lives {token.lifetime:.0f} s. Ask for less."
            )
        return token

    def cached_token(self) -> AccessToken | None:
        """Return the token that :meth:`token` would return, if nothing but the time has to be looked at.

        It is asked for each order, so it costs a few comparisons: no lock, no store.
        """
        for slot, token, until in self._warm:
            if slot.token is not token or self.now() >= until:
                continue
            if slot.unsaved is None or time.monotonic() < slot.save_at:
                return token
        return None

    def replace(self, refused: str) -> AccessToken:
        """Return the token to use instead of one that FeedAMP answered with 401.

        A newer one that this process or the store already holds costs nothing; else one renewal is made. A
        token that was itself such a replacement and has never been accepted is handed back: then the account
        refuses us, and spending more refresh tokens would not help.

        :param refused: The refused access token.
        :raises TokenError: as :meth:`token` does.
        """
        slot = CACHE.slot(self.key)
        cached = slot.token
        if cached is not None and (cached.value != refused or slot.replaced == refused):
            return cached

        def usable(token: AccessToken) -> bool:
            return token.value != refused and self._judge(token) is not Freshness.MANDATORY

        token = self._renew(slot, usable, self.lock_wait)
        if token.renewed:
            slot.replaced = token.value
        return token

    def accepted(self, value: str) -> None:
        """Take note that FeedAMP has accepted an access token, so that a later 401 is about its end."""
        slot = CACHE.slot(self.key)
        if slot.replaced == value:
            slot.replaced = None

    def exchange_code(self, code: str, redirect_url: str | None = None) -> AccessToken:
        """Exchange an authorisation code, and store the seller's new token pair in place of any earlier one.

        :param code: The code; it works once.
        :param redirect_url: Sent along when given (RFC 6749 section 4.1.3); FeedAMP's pages show none.
        :raises CodeRefusedError: if the code was refused: used, expired or another client's.
        :raises TokenError: as :meth:`token` does.
        """
        slot = CACHE.slot(self.key)

        def exchange(shield: Shield) -> AccessToken:
            self.store.read(self.key)  # imports and connections of the first read are no part of the lease
            with self.store.lock(self.key, wait=self.lock_wait, stop=threading.Event()) as lease:
                try:
                    return self._spender(slot, shield).exchange_code(code, redirect_url, lease)
                finally:
                    shield.up = True  # the lock is left undisturbed

        return self._alone(slot, self.lock_wait, exchange)

    def record(self) -> TokenRecord | None:
        """Return the stored record, spending nothing."""
        return self.store.read(self.key)

    def _knows_seed(self, slot: CachedToken) -> bool:
        # A token that a person has put into the connection since must be taken in first.
        return self.seed is None or self.key.fingerprint(self.seed) in slot.seeds

    def _judge(self, token: AccessToken | None, min_ttl: timedelta | None = None) -> Freshness:
        return self.windows.judge(token, self.key, self.now(), min_ttl)

    def _renew_ahead(self, slot: CachedToken, present: AccessToken) -> AccessToken:
        """Renew the token if nobody else does just now; whatever happens, the present one still works."""
        if slot.lock.locked() or time.monotonic() < slot.retry_at:
            return present
        try:
            return self._renew(slot, lambda each: self._judge(each) is Freshness.FRESH, 0)
        except TokenBusyError:
            return present
        except FeedAmpError as error:
            slot.retry_at = time.monotonic() + _ADVISORY_PAUSE
            text = "The access token of seller %r could not be renewed ahead of time; it is used until %s. %s"
            log.warning(text, self.key.seller, present.expires_at.isoformat(), error)
            return present

    def _renew(self, slot: CachedToken, usable: Callable[[AccessToken], bool], wait: float) -> AccessToken:
        """Adopt a usable token that another thread or worker obtained, else spend the refresh token."""

        def renew(shield: Shield) -> AccessToken:
            if slot.token is not None and self._knows_seed(slot) and usable(slot.token):
                return slot.token
            if slot.failure is not None and slot.failure[0] >= asked_at:
                raise copy(slot.failure[1])  # whoever waited for a renewal shares how it failed
            try:
                token = self._renew_alone(slot, usable, wait, shield)
            except TokenBusyError:
                raise
            except FeedAmpError as error:
                slot.failure = (time.monotonic(), copy(error))  # a traceback would hold on to tokens
                self.on_event("renewed", type(error).__name__)
                raise
            self.on_event("renewed" if token.renewed else "adopted", "ok")
            return token

        began, waited, pause = time.monotonic(), 0.0, 1.0
        while True:
            asked_at = time.monotonic()
            try:
                return self._alone(slot, wait, renew)
            except NotProcessedError as error:
                # Nothing was spent, and no lease is held: queue again while the time lasts.
                pause = max(2 * pause, error.retry_after or 0.0)
                if max(waited, time.monotonic() - began) + pause >= wait:
                    raise
                self.sleep(pause)
                waited += pause

    def _renew_alone(
        self, slot: CachedToken, usable: Callable[[AccessToken], bool], wait: float, shield: Shield
    ) -> AccessToken:
        spender = self._spender(slot, shield, patient=wait > 0)
        spender.saver.check_saved()
        adopted: list[AccessToken] = []

        def enough(stored: TokenRecord | None) -> bool:
            """Adopt the token that another worker has stored, or raise what it has met."""
            record = spender.current(stored)
            token = record.token() if record is not None else None
            if record is None or token is None or not usable(token):
                spender.spendable(record)
                return False
            self.on_secret(token.value)
            slot.take(record)
            adopted.append(token)
            return True

        # Most renewals end here: another worker has done it, and no lock was needed to see that.
        if enough(self.store.read(self.key)):
            return adopted[0]
        check_open()  # before a lease is taken that the end of the process would leave behind
        try:
            with self._lock(wait, enough) as lease:
                try:
                    stored = self.store.read(self.key)
                    return adopted[-1] if enough(stored) else spender.refresh(stored, lease)
                finally:
                    shield.up = True  # the lock is left undisturbed
        except TokenBusyError:
            if wait:
                self.on_event("waited", "ok" if adopted else TokenBusyError.__name__)
            if adopted:
                return adopted[-1]
            raise

    @contextmanager
    def _lock(self, wait: float, enough: Enough) -> Iterator[Lease]:
        """Hold the store's lock, unless ``enough`` ends the waiting for it with TokenBusyError."""
        stop = threading.Event()
        if "enough" in inspect.signature(self.store.lock).parameters:
            with self.store.lock(self.key, wait=wait, stop=stop, enough=enough) as lease:
                yield lease
            return
        # A store of a user's own that does not look while it waits: a thread beside it does.
        over = threading.Event()

        def look() -> None:
            while not over.wait(_LOOK):
                # Of an error the next look may know nothing, and the lock has its own end.
                with suppress(FeedAmpError):
                    if enough(self.store.read(self.key)):
                        return stop.set()

        threading.Thread(target=look, daemon=True).start()
        try:
            with self.store.lock(self.key, wait=wait, stop=stop) as lease:
                over.set()
                yield lease
        finally:
            over.set()

    def _spender(self, slot: CachedToken, shield: Shield, *, patient: bool = True) -> Spender:
        saver = self._saver(slot)
        return Spender(
            self.key, self.endpoint, self.store, saver, self.seed, self.now, self.sleep, shield, patient
        )

    def _saver(self, slot: CachedToken) -> TokenWriter:
        return TokenWriter(self.key, self.store, slot, self.on_secret, self.sleep)

    def _alone(self, slot: CachedToken, wait: float, work: Callable[[Shield], T]) -> T:
        """Do the work in one thread of this process at a time; no signal leaves the slot locked."""
        with Shield() as shield:
            deadline = time.monotonic() + wait
            while not slot.lock.acquire(timeout=min(_SLICE, wait)):
                if shield.pending or time.monotonic() >= deadline:
                    raise TokenBusyError(
                        f"Another thread renews the token of seller {self.key.seller!r}. "
                        f"Waited {wait:.0f} s; try again."
                    )
            try:
                return shield.exposed(work)
            finally:
                shield.up = True  # a plain assignment: no signal comes between it and the release
                slot.lock.release()


def known_order(store: TokenStore, key: TokenKey) -> str | None:
    """Return the number of an order that is in the seller's account, or None when none was noted.

    :raises TokenStoreError: if the store fails.
    """
    record = store.read(known_order_key(key))
    return record.seeds[0] if record is not None and record.seeds else None


def note_order(store: TokenStore, key: TokenKey, number: str | None, *, anew: bool = False) -> None:
    """Note the number of an order that is in the seller's account.

    :param number: The number; None forgets the one of before.
    :param anew: Whether it takes the place of one that was noted before.
    :raises TokenStoreError: if the store fails.
    """
    side = known_order_key(key)
    before = store.read(side)
    if before is not None and not anew:
        return
    if number is None:
        if before is not None:
            store.delete(side)
        return
    record = (before or TokenRecord(key=side, refresh_token="")).changed(seeds=(number,))
    with suppress(TokenConflictError):  # another import has noted one meanwhile, which is as good
        store.write(record, expected=before.revision if before else None)


def known_order_key(key: TokenKey) -> TokenKey:
    """Return the key under which a seller's known order is noted."""
    return replace(key, token_url=key.token_url + _KNOWN_ORDER)
