"""Makes a new token pair durable before anybody uses it, whatever the store does."""

from __future__ import annotations

import atexit
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_feedamp.exceptions import TokenConflictError, TokenNotRenewedError, TokenStoreError
from airflow_provider_feedamp.tokens.cache import Unsaved
from airflow_provider_feedamp.tokens.models import RecordState

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_feedamp.stores.base import Lease, TokenStore
    from airflow_provider_feedamp.tokens.cache import Slot
    from airflow_provider_feedamp.tokens.exchange import TokenGrant
    from airflow_provider_feedamp.tokens.models import AccessToken, TokenKey, TokenRecord

log = logging.getLogger(__name__)

#: Seconds between the tries of the write that must not fail.
_PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)
#: Seconds between later tries: each order asks for the token, and a failing store may take its time to fail.
_LATER = 30.0


@dataclass(frozen=True, slots=True)
class Saver:
    """Stores what was granted; the custodian describes the parameters.

    :param slot: This process's place for the key: the access token goes there once it is stored, and a record
        that the store does not take stays there until it does.
    """

    key: TokenKey
    store: TokenStore
    slot: Slot
    on_secret: Callable[[str], None]
    sleep: Callable[[float], None]

    def renewed(
        self,
        spent: TokenRecord,
        grant: TokenGrant,
        sent_at: float,
        lease: Lease,
        *,
        replaces: str | None = None,
    ) -> AccessToken:
        """Store the granted pair, and only then return the access token.

        :param spent: The stored record whose refresh token was spent.
        :param grant: What the server granted for it.
        :param sent_at: When it was asked, epoch seconds: the token's life counts from then.
        :param replaces: The family of tokens that a person's new authorisation replaces, even if another
            worker has renewed one of them meanwhile.
        :raises TokenNotRenewedError: if the grant held a refresh token only; it is stored.
        """
        # Nothing that can fail may stand between the answer and this write: no log line, no mask, no check.
        record = spent.changed(
            refresh_token=grant.refresh_token or spent.refresh_token,
            access_token=grant.access_token,
            expires_at=sent_at + grant.lifetime,
            lifetime=grant.lifetime,
            issued_at=sent_at if grant.refresh_token else spent.issued_at,
            generation=spent.generation + 1,
            state=RecordState.ACTIVE,
            attempt=None,
            reason="",
            superseded=None,
            refused_seed="",
            refused_secret="",
            imported=False,
            bare_since=0.0,
            probes=0,
            probed_at=0.0,
            released=lease.nonce,
        )
        saved = self._save(Unsaved(record, spent.refresh_token, replaces), spent.revision)
        return self._hand_out(saved, grant.oddities)

    def _save(self, new: Unsaved, expected: int) -> TokenRecord:
        failure = ""
        for pause in (0.0, *_PAUSES):
            if pause:
                self.sleep(pause)
            try:
                return self._save_once(new, expected)
            except Exception as error:  # noqa: BLE001 - a new refresh token must outlive any failure of a store
                failure = type(error).__name__
        self._keep(new, failure)
        return new.record

    def _save_once(self, new: Unsaved, expected: int | None) -> TokenRecord:
        """Write if the stored refresh token is the spent one, whatever else has changed meanwhile."""
        record = new.record
        try:
            return self.store.write(record, expected=expected)
        except TokenConflictError:
            stored = self.store.read(self.key)
        if stored is None or stored.refresh_token == new.spent or stored.family == new.replaces:
            return self.store.write(record, expected=stored.revision if stored else None)
        # Either this very pair has arrived after all, or another worker's later one is in force.
        return stored

    def _keep(self, new: Unsaved, failure: str) -> None:
        """Hold the only copy of a new refresh token in memory, and tell everybody."""
        self.slot.unsaved = new
        self.slot.save_at = time.monotonic() + _LATER
        atexit.register(self.save_at_exit)
        log.critical(
            "The new refresh token of seller %r could NOT be stored (%s): it exists in this process only. "
            "Storing it is tried again every %.0f s while calls are made, and at exit. Repair the token "
            "store before this task ends, or the seller has to authorise again.",
            self.key.seller,
            failure,
            _LATER,
        )

    def save_late(self) -> None:
        """Try again to store a record that the store did not take, unless that was tried just now.

        Only the thread that holds the slot's lock may ask for this.
        """
        new = self.slot.unsaved
        if new is None or time.monotonic() < self.slot.save_at:
            return
        self.slot.save_at = time.monotonic() + _LATER
        try:
            # By the revision of the announced spend: if the record moved on since, it stays as it is.
            self._save_once(new, new.record.revision)
        except Exception as error:  # noqa: BLE001 - the next call tries again; the present token works
            failure = type(error).__name__
            log.critical(
                "The new refresh token of seller %r is still not stored (%s).", self.key.seller, failure
            )
            return
        if self.slot.unsaved is new:
            self.slot.unsaved = None
        log.warning("The new refresh token of seller %r has now been stored.", self.key.seller)

    def save_at_exit(self) -> None:
        """Try for the last time to store a record that the store did not take."""
        if self.slot.lock.acquire(timeout=_LATER):
            try:
                self.slot.save_at = 0.0
                self.save_late()
            finally:
                self.slot.lock.release()

    def check_saved(self) -> None:
        """Make sure that no renewed record waits for the store, which still holds the spent refresh token.

        :raises TokenStoreError: if the store does not take it yet; nothing was spent.
        """
        self.slot.save_at = 0.0
        self.save_late()
        if self.slot.unsaved is not None:
            raise TokenStoreError(
                f"The token store does not take the new refresh token of seller {self.key.seller!r}, so the "
                "next access token has to wait. Repair the token store while this process lives."
            )

    def _hand_out(self, record: TokenRecord, oddities: tuple[str, ...]) -> AccessToken:
        for secret in (record.access_token, record.refresh_token):
            if secret:
                self.on_secret(secret)
        for oddity in oddities:
            log.warning("FeedAMP's token answer for seller %r is unusual: %s.", self.key.seller, oddity)
        token = record.token(renewed=True)
        if token is None:
            raise TokenNotRenewedError(
                f"FeedAMP's token answer for seller {self.key.seller!r} had no access_token. The refresh "
                "token that came with it is stored, so nothing is lost. Try again."
            )
        self.slot.take(record)
        log.info(
            "Renewed the access token of seller %r: generation %d, valid until %s.",
            self.key.seller,
            token.generation,
            token.expires_at.isoformat(),
        )
        return token
