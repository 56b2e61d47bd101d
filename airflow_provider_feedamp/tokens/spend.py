"""The spend protocol: one refresh token, one POST, one durable answer.

The steps run under the store's lock, and where no signal cuts them:

1. *read* - the record as it stands now, with a person's new token taken in;
2. *announce* - the intent, written first: it proves that the store can be written, and tells whoever comes
   after a crash that this refresh token may be spent;
3. *post* - once; a lost answer is asked for once more, since many servers keep a used refresh token good for
   some seconds;
4. *save* - the new pair is durable before anybody uses it (:mod:`airflow_provider_feedamp.tokens.save`).
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_feedamp.exceptions import (
    AnswerLostError,
    FeedAmpError,
    ReauthorizationRequiredError,
    TokenBusyError,
    TokenConflictError,
    TokenStoreError,
)
from airflow_provider_feedamp.tokens.exchange import GrantRefusedError
from airflow_provider_feedamp.tokens.models import Attempt, RecordState, seeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_feedamp.stores.base import Lease, TokenStore
    from airflow_provider_feedamp.tokens.exchange import TokenEndpoint, TokenGrant
    from airflow_provider_feedamp.tokens.models import AccessToken, TokenKey, TokenRecord
    from airflow_provider_feedamp.tokens.save import Saver

log = logging.getLogger(__name__)

#: Seconds before a lost answer is asked for again: inside the grace that servers give, past a hiccup.
_REPLAY_PAUSE = (2.0, 5.0)
#: Seconds of the lease that are kept free for storing the answer.
_SAVE_RESERVE = 5.0
#: An announced spend this old cannot be in flight any more, whatever the clocks of two machines say.
_LONG_AGO = 900.0
#: The lost-answer reason, told to the person who then has to authorise again.
_LOST = "an earlier answer of FeedAMP was lost, and with it the refresh token that it brought"


@dataclass(frozen=True, slots=True)
class Spender:
    """Spends refresh tokens of one key; the custodian describes the parameters."""

    key: TokenKey
    endpoint: TokenEndpoint
    store: TokenStore
    saver: Saver
    seed: str | None
    now: Callable[[], float]
    sleep: Callable[[float], None]

    @property
    def secret(self) -> str:
        """Return the fingerprint of the client secret."""
        return self.key.fingerprint(self.endpoint.client_secret)

    # 1. read

    def read(self) -> TokenRecord | None:
        """Return the record to go by: the stored one, or the connection's refresh token if that is newer."""
        record = self.store.read(self.key)
        if record is None:
            return seeded(self.key, self.seed, now=self.now()) if self.seed else None
        for secret in (record.refresh_token, record.access_token):
            if secret:
                self.saver.on_secret(secret)
        return record.with_seed(self.seed, self.secret)

    def spendable(self, record: TokenRecord | None) -> TokenRecord:
        """Return the record if its refresh token may be spent.

        :raises ReauthorizationRequiredError: if only a person can help; at once and without a request.
        """
        if record is None:
            raise ReauthorizationRequiredError(
                self._ask_person("it has no refresh token yet", authorised=False)
            )
        if record.refuses(self.seed, self.secret):
            raise ReauthorizationRequiredError(self._ask_person(_refused_seed(self.endpoint.connection)))
        condemned = record.state is RecordState.REAUTH_REQUIRED and record.refused_secret in ("", self.secret)
        if condemned or not record.refresh_token:
            raise ReauthorizationRequiredError(self._ask_person(record.reason))
        return record

    def refresh(self, record: TokenRecord | None, lease: Lease) -> AccessToken:
        """Spend the record's refresh token and return the new access token.

        :param record: What :meth:`read` returned under this lease.
        """
        record = self.spendable(record)
        try:
            return self._spend(record, lease)
        except GrantRefusedError as error:
            moved_on = self._refused(record, error, lease)
        # Only the string that was sent is condemned: another worker has stored a later one meanwhile.
        try:
            return self._spend(moved_on, lease)
        except GrantRefusedError as error:
            self._refused(moved_on, error, lease)
            raise TokenBusyError(
                f"The token record of seller {self.key.seller!r} changes under our hands; try again."
            ) from error

    def _spend(self, record: TokenRecord, lease: Lease) -> AccessToken:
        unclear = record.state in (RecordState.REFRESHING, RecordState.UNCERTAIN)
        if record.state is RecordState.REFRESHING and record.attempt is not None:
            self._wait_for_the_dead(record.attempt)
        self._check_time(lease)
        intent = self._announce(record, lease)
        sent_at = self.now()
        try:
            # A slow store may have used the lease up, and somebody else may spend now.
            self._check_time(lease)
            grant = self.endpoint.refresh(intent.refresh_token)
        except AnswerLostError as error:
            if unclear:
                self._settle(intent, RecordState.UNCERTAIN, lease)
                raise
            sent_at, grant = self._replay(intent, lease, error)
        except GrantRefusedError as error:
            error.answer_lost = unclear
            raise
        except FeedAmpError:
            # Surely not processed, or a matter of the client: the refresh token is as good as before.
            self._settle(intent, RecordState.UNCERTAIN if unclear else RecordState.ACTIVE, lease)
            raise
        return self.saver.renewed(intent, grant, sent_at, lease)

    def _check_time(self, lease: Lease) -> None:
        if lease.left() < self.endpoint.deadline + _SAVE_RESERVE:
            raise TokenBusyError(
                f"Renewing the token of seller {self.key.seller!r} took too long to begin; try again."
            )

    # 2. announce

    def _announce(self, record: TokenRecord, lease: Lease) -> TokenRecord:
        attempt = Attempt(lease.nonce, self.key.fingerprint(record.refresh_token), self.now())
        intent = record.changed(state=RecordState.REFRESHING, attempt=attempt)
        try:
            return self.store.write(intent, expected=record.revision or None)
        except TokenConflictError as error:
            raise TokenBusyError(
                f"Another worker wrote the token record of seller {self.key.seller!r}. Nothing was spent; "
                "try again."
            ) from error

    # 3. post

    def _wait_for_the_dead(self, attempt: Attempt) -> None:
        """Give a spend that a vanished worker announced the time to end, so that two are never in flight."""
        if self.now() - attempt.started_at < _LONG_AGO:
            log.warning(
                "A worker announced a renewal for seller %r and did not report back; going on in %.0f s.",
                self.key.seller,
                self.endpoint.deadline,
            )
            self.sleep(self.endpoint.deadline)

    def _replay(self, intent: TokenRecord, lease: Lease, lost: AnswerLostError) -> tuple[float, TokenGrant]:
        """Ask once more with the same refresh token, because nobody knows whether it was spent."""
        self._settle(intent, RecordState.UNCERTAIN, None)
        pause = random.uniform(*_REPLAY_PAUSE)  # noqa: S311 - spreads load, hides nothing
        if lease.left() < pause + self.endpoint.deadline + _SAVE_RESERVE:
            raise lost
        log.warning(
            "FeedAMP's answer for seller %r was lost; asking again in %.1f s. %s",
            self.key.seller,
            pause,
            lost,
        )
        self.sleep(pause)
        sent_at = self.now()
        try:
            return sent_at, self.endpoint.refresh(intent.refresh_token)
        except GrantRefusedError as error:
            error.answer_lost = True
            raise

    def _settle(self, intent: TokenRecord, state: RecordState, lease: Lease | None) -> None:
        """Record how an unsuccessful spend ended. If even that fails, the announced intent says enough."""
        reason = "FeedAMP's answer to the last renewal was lost" if state is RecordState.UNCERTAIN else ""
        attempt = intent.attempt if state is RecordState.UNCERTAIN else None
        settled = intent.changed(state=state, reason=reason, attempt=attempt)
        self._write_over(intent, settled.changed(released=lease.nonce) if lease else settled)

    def _write_over(self, intent: TokenRecord, outcome: TokenRecord) -> None:
        try:
            stored = self.store.read(self.key)
            if stored is not None and stored.attempt == intent.attempt:
                self.store.write(outcome, expected=stored.revision)
        except TokenStoreError as error:
            log.warning("How the renewal for seller %r ended could not be stored. %s", self.key.seller, error)

    def _refused(self, record: TokenRecord, error: GrantRefusedError, lease: Lease) -> TokenRecord:
        """Return the record that a later spend may use, or condemn the one that was refused.

        :raises ReauthorizationRequiredError: if the stored record still holds the refused refresh token.
        """
        stored = self.store.read(self.key)
        if stored is not None and stored.refresh_token not in (record.refresh_token, record.superseded):
            return stored
        said = f"FeedAMP refused its refresh token ({self.key.fingerprint(record.refresh_token)}): {error}"
        if record.superseded:
            said = _refused_seed(self.endpoint.connection)
            verdict = record.changed(
                refresh_token=record.superseded,
                superseded=None,
                seeds=record.seeds[:-1],
                refused_seed=record.seeds[-1],
                state=RecordState.ACTIVE,
            )
        else:
            said += f" Reason: {_LOST}." if error.answer_lost else ""
            verdict = record.changed(state=RecordState.REAUTH_REQUIRED, reason=said, access_token=None)
        verdict = verdict.changed(attempt=None, refused_secret=self.secret, released=lease.nonce)
        if stored is not None:
            self.store.write(verdict, expected=stored.revision)
        raise ReauthorizationRequiredError(
            self._ask_person(said), status=error.status, codes=error.codes, request_id=error.request_id
        ) from error

    def _ask_person(self, why: str, *, authorised: bool = True) -> str:
        again = "again " if authorised else ""
        seller = self.key.seller
        return (
            f"Seller {seller!r} has to be authorised {again}by a person: {why.rstrip('.')}. Either put a "
            f"new refresh token into the extra refresh_token of {self.endpoint.connection} (for the seller "
            f"named there), or run `feedamp sellers authorize` for {seller!r} and let the seller agree in a "
            "browser. Until then no request is made for this seller."
        )


def _refused_seed(connection: str) -> str:
    return (
        f"FeedAMP refused the new refresh token in {connection}. The one that was in use before is kept: "
        "put back "
        "the former value (or none) to go on with it"
    )
