"""Hands out access tokens of one seller, and renews them when it is time.

The path of a token: the store's record (or the connection's refresh token, or an authorisation code) -> one
spend at the token endpoint (:mod:`airflow_provider_feedamp.tokens.spend`) -> the record in the store -> this
process's cache -> the caller's bearer header.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_feedamp.exceptions import FeedAmpError, TokenBusyError
from airflow_provider_feedamp.tokens.authorise import exchange_code
from airflow_provider_feedamp.tokens.cache import CACHE, Slot
from airflow_provider_feedamp.tokens.save import Saver
from airflow_provider_feedamp.tokens.shield import shielded
from airflow_provider_feedamp.tokens.spend import Spender
from airflow_provider_feedamp.tokens.windows import Freshness, Windows

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from datetime import timedelta

    from airflow_provider_feedamp.stores.base import TokenStore
    from airflow_provider_feedamp.tokens.exchange import TokenEndpoint
    from airflow_provider_feedamp.tokens.models import AccessToken, TokenKey, TokenRecord

log = logging.getLogger(__name__)

#: Seconds without a further try after a renewal ahead of time has failed: the present token still works.
_ADVISORY_PAUSE = 30.0
#: Seconds between two looks at whether the waiting for another thread was called off.
_SLICE = 0.1


@dataclass(frozen=True, slots=True)
class TokenCustodian:
    """Keeps one seller's tokens: the one place that decides when a refresh token is spent.

    :param key: Whose tokens.
    :param endpoint: Where refresh tokens are spent.
    :param store: Where the record lives.
    :param seed: The refresh token that the connection holds for this seller, if it holds one.
    :param windows: When a token is renewed.
    :param lock_wait: Seconds to wait while another worker renews the token.
    :param on_secret: Is handed every token as soon as it is safely stored, to have it masked.
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
    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    # The slot and token that were fresh when last looked at, and until when; at most one.
    _warm: list[tuple[Slot, AccessToken, float]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    def token(self, min_ttl: timedelta | None = None) -> AccessToken:
        """Return an access token that is good for now, renewed first if need be.

        :param min_ttl: The least time that it must have left; default: the mandatory window.
        :raises ReauthorizationRequiredError: if a person has to authorise the seller (again).
        :raises ClientRefusedError: if FeedAMP refuses the client.
        :raises TokenNotRenewedError: if a later try can succeed.
        :raises TokenStoreError: if the store fails; nothing was spent.
        :raises InputError: if FeedAMP's tokens never live as long as ``min_ttl``.
        """
        slot = CACHE.slot(self.key)
        if slot.unsaved is not None:
            self._saver(slot).save_late()
        cached = slot.token if self._knows_seed(slot) else None
        freshness = self.windows.judge(cached, self.key, self.now(), min_ttl)
        if cached is not None and freshness is Freshness.FRESH:
            self._warm[:] = [(slot, cached, self.windows.fresh_until(cached, self.key))]
            return cached
        if cached is not None and freshness is Freshness.ADVISORY:
            return self._renew_ahead(slot, cached)

        def usable(token: AccessToken) -> bool:
            return self.windows.judge(token, self.key, self.now(), min_ttl) is not Freshness.MANDATORY

        token = self._renew(slot, usable, self.lock_wait)
        self.windows.judge(token, self.key, self.now(), min_ttl)  # refuses a min_ttl that no token ever has
        return token

    def warm(self) -> AccessToken | None:
        """Return the token that :meth:`token` would return, if nothing but the time has to be looked at.

        It is asked for each order, so it costs a few comparisons: no lock, no store.
        """
        for slot, token, until in self._warm:
            if slot.token is token and slot.unsaved is None and self.now() < until:
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
            freshness = self.windows.judge(token, self.key, self.now())
            return token.value != refused and freshness is not Freshness.MANDATORY

        token = self._renew(slot, usable, self.lock_wait)
        if token.renewed:
            slot.replaced = token.value
        return token

    def accepted(self, value: str) -> None:
        """Take note that FeedAMP has accepted an access token, so that a later 401 is about its end."""
        slot = CACHE.slot(self.key)
        if slot.replaced == value:
            slot.replaced = None

    def exchange_code(self, code: str) -> AccessToken:
        """Exchange an authorisation code, and store the seller's new token pair in place of any earlier one.

        :raises CodeRefusedError: if the code was refused: used, expired or another client's.
        :raises TokenError: as :meth:`token` does.
        """
        slot = CACHE.slot(self.key)

        def exchange(stop: threading.Event) -> AccessToken:
            with self.store.lock(self.key, wait=self.lock_wait, stop=stop) as lease:
                return exchange_code(self._spender(slot), code, lease)

        return self._alone(slot, self.lock_wait, exchange)

    def record(self) -> TokenRecord | None:
        """Return the stored record as it stands, spending nothing."""
        return self.store.read(self.key)

    def _knows_seed(self, slot: Slot) -> bool:
        # A token that a person has put into the connection since must be taken in first.
        return self.seed is None or self.key.fingerprint(self.seed) in slot.seeds

    def _renew_ahead(self, slot: Slot, present: AccessToken) -> AccessToken:
        """Renew the token if nobody else does just now; whatever happens, the present one still works."""
        if slot.lock.locked() or time.monotonic() < slot.retry_at:
            return present

        def usable(token: AccessToken) -> bool:
            return self.windows.judge(token, self.key, self.now()) is Freshness.FRESH

        try:
            return self._renew(slot, usable, 0)
        except TokenBusyError:
            return present
        except FeedAmpError as error:
            slot.retry_at = time.monotonic() + _ADVISORY_PAUSE
            log.warning(
                "The access token of seller %r could not be renewed ahead of time; it is used until %s. %s",
                self.key.seller,
                present.expires_at.isoformat(),
                error,
            )
            return present

    def _renew(self, slot: Slot, usable: Callable[[AccessToken], bool], wait: float) -> AccessToken:
        """Adopt a usable token that another thread or worker obtained, else spend the refresh token."""

        def renew(stop: threading.Event) -> AccessToken:
            if slot.token is not None and self._knows_seed(slot) and usable(slot.token):
                return slot.token
            return self._renew_alone(slot, usable, wait, stop)

        return self._alone(slot, wait, renew)

    def _renew_alone(
        self, slot: Slot, usable: Callable[[AccessToken], bool], wait: float, stop: threading.Event
    ) -> AccessToken:
        spender = self._spender(slot)
        spender.saver.check_saved()
        record = spender.read()
        # Most renewals end here: another worker has done it, and no lock was needed to see that.
        if (token := self._adopt(slot, record, usable)) is not None:
            return token
        spender.spendable(record)
        with self.store.lock(self.key, wait=wait, stop=stop) as lease:
            record = spender.read()
            if (token := self._adopt(slot, record, usable)) is not None:
                return token
            return spender.refresh(record, lease)

    def _adopt(
        self, slot: Slot, record: TokenRecord | None, usable: Callable[[AccessToken], bool]
    ) -> AccessToken | None:
        token = record.token() if record is not None else None
        if record is None or token is None or not usable(token):
            return None
        slot.take(record)
        return token

    def _spender(self, slot: Slot) -> Spender:
        return Spender(
            key=self.key,
            endpoint=self.endpoint,
            store=self.store,
            saver=self._saver(slot),
            seed=self.seed,
            now=self.now,
            sleep=self.sleep,
        )

    def _saver(self, slot: Slot) -> Saver:
        return Saver(self.key, self.store, slot, self.on_secret, self.sleep)

    def _alone(self, slot: Slot, wait: float, work: Callable[[threading.Event], AccessToken]) -> AccessToken:
        """Do the work in one thread of this process at a time, where no signal cuts it."""
        deadline = time.monotonic() + wait

        def run(stop: threading.Event) -> AccessToken:
            while not slot.lock.acquire(timeout=min(_SLICE, wait)):
                if stop.is_set() or time.monotonic() >= deadline:
                    raise TokenBusyError(
                        f"Another thread renews the token of seller {self.key.seller!r}. "
                        f"Waited {wait:.0f} s; try again."
                    )
            try:
                return work(stop)
            finally:
                slot.lock.release()

        # The lock is taken in there too: here, a signal right after it was taken would leave it held.
        return shielded(run)
