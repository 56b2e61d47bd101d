"""The spend protocol: one refresh token, one POST, one durable answer.

The steps run under the store's lock, and where no signal cuts them:

1. *read* - the record as it stands now, with a person's new token taken in;
2. *announce* - the intent, written first: it proves that the store can be written, and tells whoever comes
   after a crash that this refresh token may be spent;
3. *post* - once; a lost answer is asked for once more, since many servers keep a used refresh token good for
   some seconds;
4. *save* - the new pair is durable before anybody uses it, whatever the store does.
"""

from __future__ import annotations

import atexit
import logging
import math
import random
import secrets
import time
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_feedamp.exceptions import (
    AnswerLostError,
    ClientRefusedError,
    CodeRefusedError,
    ConfigurationError,
    FeedAmpError,
    NotProcessedError,
    ReauthorizationRequiredError,
    TokenBusyError,
    TokenConflictError,
    TokenNotRenewedError,
    TokenStoreError,
)
from airflow_provider_feedamp.tokens.cache import CACHE, Unsaved
from airflow_provider_feedamp.tokens.endpoint import GrantRefusedError
from airflow_provider_feedamp.tokens.records import (
    UNDOUBTED,
    AccessToken,
    Attempt,
    RecordState,
    TokenKey,
    TokenRecord,
    granted_family,
    seeded,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_feedamp.tokens.cache import CachedToken
    from airflow_provider_feedamp.tokens.endpoint import TokenEndpoint, TokenGrant
    from airflow_provider_feedamp.tokens.shield import Shield
    from airflow_provider_feedamp.tokens.store import Lease, TokenStore

log = logging.getLogger(__name__)

#: Seconds before a lost answer is asked for again: inside the grace that servers give, past a hiccup.
_REPLAY_PAUSE = (2.0, 5.0)
#: Seconds of the lease that are kept free for storing the answer.
SAVE_RESERVE = 5.0
#: An announced spend this old cannot be in flight any more, whatever the clocks of two machines say.
_LONG_AGO = 900.0
#: Seconds before a request that was not processed is repeated, unless FeedAMP asks for more.
_BACKOFF = (1.0, 2.0, 4.0, 8.0)
#: Seconds of one wait between two looks at whether we are told to stop.
_SLICE = 0.5
#: Seconds for which a refusal of the client is not asked for again, and counts for its other sellers.
_REFUSAL_LASTS = 60.0
#: Seconds between two refusals without a reason that condemn a refresh token together.
_STRIKES_APART = 600.0
#: How often, and how many seconds apart, a record that they have condemned is asked again.
_PROBES, _PROBES_APART = 24, 3600.0
#: Seconds between the tries of the write that must not fail.
_PAUSES = (0.2, 0.5, 1.0, 2.0, 4.0)
#: Seconds between later tries: each order asks for the token, and a failing store may take its time to fail.
_LATER = 30.0
#: The reason shown to the person who then has to authorise again.
_LOST = "an earlier answer of FeedAMP was lost, and with it the refresh token that it brought"


@dataclass(frozen=True, slots=True)
class Spender:
    """Spends refresh tokens of one key; the custodian describes the parameters.

    :param shield: Keeps signals out of what must not be cut.
    :param patient: Whether a request that was not processed is repeated; nobody waits for it otherwise.
    """

    key: TokenKey
    endpoint: TokenEndpoint
    store: TokenStore
    saver: TokenWriter
    seed: str | None
    now: Callable[[], float]
    sleep: Callable[[float], None]
    shield: Shield
    patient: bool = True

    @property
    def secret(self) -> str:
        """Return the fingerprint of the client secret."""
        return self.key.fingerprint(self.endpoint.client_secret)

    # 1. read

    def current(self, stored: TokenRecord | None) -> TokenRecord | None:
        """Return the record to go by: the stored one, or the connection's refresh token if that is newer."""
        if stored is None:
            return seeded(self.key, self.seed, now=self.now()) if self.seed else None
        record = stored.with_seed(self.seed, self.secret)
        # Nobody knows how long a person has had it; it is younger than what it replaces.
        return record if record.family == stored.family else record.changed(issued_at=self.now())

    def spendable(self, record: TokenRecord | None) -> TokenRecord:
        """Return the record if its refresh token may be spent.

        :raises ReauthorizationRequiredError: if only a person can help; at once and without a request.
        """
        if record is None:
            raise ReauthorizationRequiredError(self._ask_person("it has no refresh token yet", again=""))
        if record.refuses(self.seed, self.secret):
            raise ReauthorizationRequiredError(self._ask_person(_refused_seed(self.endpoint.connection)))
        condemned = record.state is RecordState.REAUTH_REQUIRED and record.refused_secret in ("", self.secret)
        # What only refusals without a reason have condemned is asked again from time to time.
        may_probe = (
            bool(record.bare_since)
            and record.probes < _PROBES
            and self.now() - record.probed_at >= _PROBES_APART
        )
        if (condemned and not may_probe) or not record.refresh_token:
            raise ReauthorizationRequiredError(self._ask_person(record.reason))
        return record

    def refresh(self, stored: TokenRecord | None, lease: Lease) -> AccessToken:
        """Spend the record's refresh token and return the new access token.

        :param stored: What the store holds under this lease.
        """
        record = self.spendable(self.current(stored))
        # A refusal of the client meets all its sellers and threads alike, and many of them ask at once.
        since, refusal = CACHE.refused.get(self._asked_with, (-math.inf, None))
        if refusal is not None and time.monotonic() - since < _REFUSAL_LASTS:
            raise copy(refusal)
        for _ in range(2):
            outcome = self._spend(record, lease)
            if isinstance(outcome, AccessToken):
                return outcome
            # Only the string that was sent is condemned: another worker has stored a later one meanwhile.
            record = outcome
        raise TokenBusyError(
            f"The token record of seller {self.key.seller!r} changes under our hands; try again."
        )

    def _spend(self, record: TokenRecord, lease: Lease) -> AccessToken | TokenRecord:
        """Return the new access token, or the record that another worker has stored meanwhile."""
        self.saver.on_secret(record.refresh_token)
        unclear = record.state in (RecordState.REFRESHING, RecordState.UNCERTAIN)
        if (
            record.state is RecordState.REFRESHING
            and record.attempt is not None
            and self.now() - record.attempt.started_at < _LONG_AGO
        ):
            # That worker has vanished; its spend gets the time to end, so that two are never in flight.
            text = "A worker announced a renewal for seller %r and did not report back; going on in %.0f s."
            log.warning(text, self.key.seller, self.endpoint.deadline)
            self.sleep(self.endpoint.deadline)
        self._check_time(lease)
        # From the announcement on nothing cuts this; after a stop before it nothing is announced or spent.
        with self.shield.section():
            intent = self._announce(record, lease)
            try:
                sent_at, grant = self._obtain(intent, lease, unclear=unclear)
            except GrantRefusedError as error:
                return self._refused(record, error, lease)
            except FeedAmpError as error:
                if isinstance(error, ClientRefusedError | ConfigurationError):
                    CACHE.refused[self._asked_with] = (time.monotonic(), copy(error))
                # If it was surely not processed, the refresh token is as good as before.
                lost = unclear or isinstance(error, AnswerLostError)
                outcome = _uncertain(intent) if lost else record.changed(attempt=None)
                self._write_over(intent, outcome.changed(released=lease.nonce))
                raise
            return self.saver.renewed(intent, grant, sent_at, lease)

    def _check_time(self, lease: Lease) -> None:
        if not self._holds_post(lease.left()):
            raise TokenBusyError(
                f"Renewing the token of seller {self.key.seller!r} took too long to begin; try again."
            )

    def _holds_post(self, seconds: float) -> bool:
        return seconds >= self.endpoint.deadline + SAVE_RESERVE

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

    def ask(self, post: Callable[[], TokenGrant], lease: Lease) -> tuple[float, TokenGrant]:
        """Make one POST that is processed, and return when it was sent (epoch seconds) and what it granted.

        A request that was surely not processed is free to repeat, and the only one that is.

        :param post: Makes the request.
        :param lease: Has to hold each request and the write after it.
        """
        waited = 0.0
        for pause in (*_BACKOFF, None):
            # A slow store may have used the lease up, and somebody else may spend now.
            self._check_time(lease)
            sent_at = self.now()
            try:
                return sent_at, post()
            except NotProcessedError as error:
                if pause is None or not self.patient:
                    raise
                pause = max(pause, error.retry_after or 0.0)
                if not self._holds_post(lease.left() - waited - pause):
                    raise
                text = "FeedAMP did not process the renewal for seller %r; asking again in %.1f s. %s"
                log.info(text, self.key.seller, pause, error)
                if not self._pause(pause):
                    raise
                waited += pause
        raise AssertionError

    def _pause(self, seconds: float) -> bool:
        """Wait between two requests; False when we are told to stop meanwhile."""
        while seconds > 0 and not self.shield.pending:
            self.sleep(min(seconds, _SLICE))
            seconds -= _SLICE
        return not self.shield.pending

    @property
    def _asked_with(self) -> tuple[str, ...]:
        """What decides whether FeedAMP takes the client and the kind of request."""
        url, client, secret = self.endpoint.url, self.endpoint.client_id, self.endpoint.client_secret
        return url, client, TokenKey(url, client, "").fingerprint(secret), self.endpoint.encoding

    def _obtain(self, intent: TokenRecord, lease: Lease, *, unclear: bool) -> tuple[float, TokenGrant]:
        """Spend the refresh token; a lost answer is asked for once more: nobody knows whether it was spent.

        :param unclear: Whether an earlier answer to the same refresh token was lost.
        """
        try:
            return self.ask(lambda: self.endpoint.refresh(intent.refresh_token), lease)
        except GrantRefusedError as error:
            error.answer_lost = unclear
            raise
        except AnswerLostError as error:
            if unclear:
                raise
            lost = error
        self._write_over(intent, _uncertain(intent))
        pause = random.uniform(*_REPLAY_PAUSE)  # noqa: S311 - spreads load, hides nothing
        if not self._holds_post(lease.left() - pause):
            raise lost
        text = "FeedAMP's answer for seller %r was lost; asking again in %.1f s. %s"
        log.warning(text, self.key.seller, pause, lost)
        if not self._pause(pause):
            raise lost
        sent_at = self.now()
        try:
            return sent_at, self.endpoint.refresh(intent.refresh_token)
        except GrantRefusedError as error:
            error.answer_lost = True
            raise
        except FeedAmpError as error:
            # Whatever became of the second request, the first one's answer is still lost.
            raise lost from error

    def _write_over(self, intent: TokenRecord, outcome: TokenRecord) -> None:
        """Record how an unsuccessful spend ended. If even that fails, the announced intent says enough."""
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
        if error.bare and not error.answer_lost and not record.imported:
            record = self._struck(record, said, error, stored, lease)
        else:
            record = record.changed(bare_since=0.0)
        if record.superseded:
            said = _refused_seed(self.endpoint.connection)
            verdict = record.changed(
                refresh_token=record.superseded,
                superseded=None,
                seeds=record.seeds[:-1],
                family=self.key.fingerprint(record.superseded),
                refused_seed=record.seeds[-1],
                state=RecordState.ACTIVE,
                bare_since=0.0,
            )
        else:
            said += f" Reason: {_LOST}." if error.answer_lost else ""
            verdict = record.changed(state=RecordState.REAUTH_REQUIRED, reason=said, access_token=None)
        self._note(verdict, stored, lease)
        raise ReauthorizationRequiredError(
            self._ask_person(said), status=error.status, codes=error.codes, request_id=error.request_id
        ) from error

    def _note(self, verdict: TokenRecord, stored: TokenRecord | None, lease: Lease) -> None:
        if stored is not None:
            verdict = verdict.changed(attempt=None, refused_secret=self.secret, released=lease.nonce)
            self.store.write(verdict, expected=stored.revision)

    # A refusal without an OAuth code may be a gateway's

    def _struck(
        self,
        record: TokenRecord,
        said: str,
        error: GrantRefusedError,
        stored: TokenRecord | None,
        lease: Lease,
    ) -> TokenRecord:
        """Return the record to condemn after a refusal that names no reason.

        The first one condemns nothing, nor does one within minutes of it, or beside another seller's: a
        gateway or the client may be the cause. A record that is condemned in this way is asked again later.

        :raises TokenNotRenewedError: if the refusal condemns nothing; it is noted.
        """
        now, here = self.now(), time.monotonic()
        if record.state is RecordState.REAUTH_REQUIRED:
            return record.changed(probes=record.probes + 1, probed_at=now)
        sellers = CACHE.bare.setdefault((self.key.token_url, self.key.client_id), {})
        sellers[self.key.seller] = here
        others = [at for seller, at in list(sellers.items()) if seller != self.key.seller]
        alone = all(here - at > _REFUSAL_LASTS for at in others)
        since = record.bare_since or now
        if alone and now - since >= _STRIKES_APART:
            return record.changed(bare_since=since, probes=0, probed_at=now)
        noted = record.changed(state=RecordState.ACTIVE, reason=said, bare_since=since if alone else 0.0)
        self._note(noted, stored, lease)
        beside = "" if alone else ", and refused another seller of this client in the same minute"
        raise TokenNotRenewedError(
            f"{said} It named no reason{beside}. A gateway or the client may be the cause, so nothing is "
            "decided yet: try again later.",
            status=error.status,
            request_id=error.request_id,
        ) from error

    def _ask_person(self, why: str, again: str = "again ") -> str:
        seller = self.key.seller
        return (
            f"Seller {seller!r} has to be authorised {again}by a person: {why.rstrip('.')}. Either put a "
            f"new refresh token into the extra refresh_token of {self.endpoint.connection} (for the seller "
            f"named there), or run `feedamp sellers authorize` for {seller!r} and let the seller agree in a "
            "browser. Until then no request is made for this seller."
        )

    # An authorisation code

    def exchange_code(self, code: str, redirect_url: str | None, lease: Lease) -> AccessToken:
        """Exchange a code as a refresh token is spent: store proved first, answer stored before use.

        :param lease: Has to hold the request and the write after it; the custodian describes the rest.
        :raises CodeRefusedError: if FeedAMP did not give a token pair for it.
        """
        key = self.key
        before = self.store.read(key)
        proof = before or TokenRecord(
            key=key,
            refresh_token="",
            state=RecordState.REAUTH_REQUIRED,
            reason="its authorisation was begun and not finished",
        )
        with self.shield.section():
            proved = self.store.write(proof, expected=before.revision if before else None)
            try:
                sent_at, grant = self.ask(lambda: self.endpoint.exchange_code(code, redirect_url), lease)
            except (GrantRefusedError, AnswerLostError) as error:
                raise CodeRefusedError(
                    f"FeedAMP did not exchange the authorisation code for seller {key.seller!r}: {error} A "
                    "code works once and for a short time: open the authorisation URL again and use the new "
                    "code at once.",
                    status=error.status,
                    codes=error.codes,
                    request_id=error.request_id,
                ) from error
            # The seller's new authorisation is younger than what the connection holds.
            known = proved.knowing(self.seed)
            new = known.changed(family=granted_family(sent_at, secrets.token_hex(8)))
            return self.saver.renewed(new, grant, sent_at, lease, replaces=proved.family)


def _uncertain(intent: TokenRecord) -> TokenRecord:
    reason = "FeedAMP's answer to the last renewal was lost"
    return intent.changed(state=RecordState.UNCERTAIN, reason=reason)


def _refused_seed(connection: str) -> str:
    return (
        f"FeedAMP refused the new refresh token in {connection}. The one that was in use before is kept: "
        "put back the former value (or none) to go on with it"
    )


def save(store: TokenStore, new: Unsaved, sleep: Callable[[float], None], *pauses: float) -> TokenRecord:
    """Write a new pair if the stored refresh token is the spent one, and return what is stored then.

    :param new: Its record has the revision of the announced spend.
    :param pauses: Seconds before each further try, which is made whatever the store has failed with.
    """
    for pause in pauses:
        with suppress(Exception):
            return save_once(store, new)
        sleep(pause)
    return save_once(store, new)


def save_once(store: TokenStore, new: Unsaved) -> TokenRecord:
    """Write as :func:`save` does, in one try."""
    try:
        return store.write(new.record, expected=new.record.revision)
    except TokenConflictError:
        stored = store.read(new.record.key)
    if stored is None or stored.refresh_token == new.spent or stored.family == new.replaces:
        return store.write(new.record, expected=stored.revision if stored else None)
    # Either this very pair has arrived after all, or another worker's later one is in force.
    return stored


@dataclass(frozen=True, slots=True)
class TokenWriter:
    """Stores what was granted; the custodian describes the parameters.

    :param slot: This process's place for the key: the access token goes there once it is stored, and a record
        that the store does not take stays there until it does.
    """

    key: TokenKey
    store: TokenStore
    slot: CachedToken
    on_secret: Callable[[str], None]
    sleep: Callable[[float], None]

    def renewed(
        self, spent: TokenRecord, grant: TokenGrant, sent_at: float, lease: Lease, replaces: str | None = None
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
            superseded=None,
            refused_seed="",
            refused_secret="",
            released=lease.nonce,
            **UNDOUBTED,
        )
        record = self._save(Unsaved(record, spent.refresh_token, replaces))
        for secret in filter(None, (record.access_token, record.refresh_token)):
            self.on_secret(secret)
        for oddity in grant.oddities:
            log.warning("FeedAMP's token answer for seller %r is unusual: %s.", self.key.seller, oddity)
        token = record.token(renewed=True)
        if token is None:
            raise TokenNotRenewedError(
                f"FeedAMP's token answer for seller {self.key.seller!r} had no access_token. The refresh "
                "token that came with it is stored, so nothing is lost. Try again."
            )
        self.slot.take(record)
        text = "Renewed the access token of seller %r: generation %d, valid until %s."
        log.info(text, self.key.seller, token.generation, token.expires_at.isoformat())
        return token

    def _save(self, new: Unsaved) -> TokenRecord:
        """Return the record as stored; one that the store does not take exists in this process alone."""
        try:
            return save(self.store, new, self.sleep, *_PAUSES)
        except Exception as error:  # noqa: BLE001 - a new refresh token must outlive any failure of a store
            failure = type(error).__name__
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
        return new.record

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
            save_once(self.store, new)
        except Exception as error:  # noqa: BLE001 - the next call tries again; the present token works
            text = "The new refresh token of seller %r is still not stored (%s)."
            log.critical(text, self.key.seller, type(error).__name__)
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
