"""An authorisation that a person has begun, until its tokens become the seller's, or are dropped.

``start`` writes a *mark* into the token store, since the servers and workers of a deployment share nothing
else, and returns a ``state``: the mark's name and a signature. The browser comes back with a code and the
state. ``redeem`` claims the mark, so that of two redirects one goes on, exchanges the code and keeps the new
pair with the mark. The seller's own record stays as it is until ``confirm``.

A mark is a record under a key that is no seller's. ``seeds`` holds its :class:`Mark` as JSON: nothing that a
token record has beside tokens fits, and a worker of an earlier version can still read it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import re
import secrets
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.exceptions import (
    AnswerLostError,
    CodeRefusedError,
    FeedAmpError,
    NotProcessedError,
    RedirectRefusedError,
    TokenBusyError,
    TokenConflictError,
    TokenRecordError,
    TokenStoreError,
)
from airflow_provider_feedamp.tokens.cache import CACHE, Unsaved
from airflow_provider_feedamp.tokens.custodian import note_order
from airflow_provider_feedamp.tokens.endpoint import GrantRefusedError
from airflow_provider_feedamp.tokens.records import (
    UNDOUBTED,
    RecordState,
    TokenKey,
    TokenRecord,
    granted_at,
    granted_family,
)
from airflow_provider_feedamp.tokens.renewal import SAVE_RESERVE, save
from airflow_provider_feedamp.tokens.shield import Shield

if TYPE_CHECKING:
    from airflow_provider_feedamp.tokens.custodian import TokenCustodian
    from airflow_provider_feedamp.tokens.endpoint import TokenGrant
    from airflow_provider_feedamp.tokens.records import AccessToken
    from airflow_provider_feedamp.tokens.store import Lease, TokenStore

log = logging.getLogger(__name__)

#: In place of a token endpoint's URL: so no listing of a client's sellers ever shows a mark.
_MARKS = "authorisation"
#: A mark's name begins with the end of its time; a signature follows.
_STATE = re.compile(r"([0-9a-f]{1,10}-[0-9a-f]{32})\.[A-Za-z0-9_-]{43}")
_PURPOSE = b"airflow-provider-feedamp: the state of an authorisation"
#: Seconds between the tries to store a new pair.
_PAUSES = (0.2, 0.5, 1.0, 2.0)

BEGUN, CLAIMED, GRANTED, CONFIRMED, DISCARDED = "begun", "claimed", "granted", "confirmed", "discarded"
#: What has become of an authorisation whose redirect URL comes a second time, or too late to be confirmed.
_BECAME = {
    CLAIMED: "its code is being exchanged just now, or the process that did so was ended",
    GRANTED: "its tokens wait for a person's answer",
    CONFIRMED: "its tokens are stored",
    DISCARDED: "its tokens were dropped",
}
_ANEW = "The seller's tokens of before are untouched. Start the authorisation anew."
_AGAIN = "The seller's tokens of before are untouched. Open FeedAMP's page again and agree once more."


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What is known of an authorisation that was begun; nothing of it is secret.

    :param conn_id: The Airflow connection.
    :param seller: Who is to be authorised.
    :param by: Who began it: a user's name, a task's key, or the command.
    :param client: Stands for the connection's host, Client ID and Client Secret.
    :param seconds: How long its redirect may come, and after that how long it may be confirmed.
    :param until: When the present one of these ends, epoch seconds.
    :param stage: How far it is.
    """

    conn_id: str
    seller: str
    by: str
    client: str
    seconds: float
    until: float
    stage: str = BEGUN


@dataclass(frozen=True, slots=True)
class PendingAuthorisation:
    """The authorisations of one seller that one person begins and ends.

    :param custodian: Keeps the seller's tokens.
    :param conn_id: The Airflow connection.
    :param by: Who asks.
    """

    custodian: TokenCustodian
    conn_id: str
    by: str

    def start(self, seconds: float) -> tuple[str, float]:
        """Write a mark, and return its state and when its time is over (epoch seconds).

        :param seconds: How long the redirect may take.
        :raises TokenStoreError: if the store cannot be written.
        """
        self._sweep()
        until = int(self.custodian.now() + seconds)
        name = f"{until:x}-{secrets.token_hex(16)}"
        mark = Mark(
            conn_id=self.conn_id,
            seller=self.custodian.key.seller,
            by=self.by,
            client=self._client,
            seconds=seconds,
            until=until,
        )
        empty = TokenRecord(key=_mark_key(name), refresh_token="", state=RecordState.REAUTH_REQUIRED)
        self.custodian.store.write(_with(empty, mark), expected=None)
        return self._state(name), until

    def check(self, state: str) -> str:
        """Return the name of the mark of a state that was made for this seller, connection and person.

        :raises RedirectRefusedError: if it was not; says why.
        :raises TokenStoreError: if that cannot be told.
        """
        found = _STATE.fullmatch(state)
        if found is None:
            raise RedirectRefusedError(
                "The redirect URL is cut, or something in it was changed. Copy it whole from the browser's "
                "address bar."
            )
        name = found[1]
        if not hmac.compare_digest(state.encode(), self._state(name).encode()):
            raise self._whose(name)
        return name

    def redeem(self, state: str, code: str, redirect_url: str | None = None) -> AccessToken | None:
        """Exchange the code, keep the new pair with the mark, and return its access token.

        :param state: It comes back with the code; it works once.
        :param code: The code.
        :param redirect_url: Sent along when given, see :meth:`.TokenCustodian.exchange_code`.
        :return: The access token; None if FeedAMP gave a refresh token only.
        :raises RedirectRefusedError: if the state is another's, too old, or was used before.
        :raises CodeRefusedError: if FeedAMP gave no tokens for the code.
        :raises NotProcessedError: if FeedAMP surely did not look at it: the same redirect may come again.
        :raises TokenStoreError: if the store fails.
        """
        name = self.check(state)
        if int(name.partition("-")[0], 16) < self.custodian.now():
            raise _too_old()
        store, key = self.custodian.store, _mark_key(name)

        def work(shield: Shield) -> AccessToken | None:
            # Imports and connections of the first read are no part of the lease.
            self._begun(name)
            with store.lock(key, wait=self.custodian.lock_wait, stop=threading.Event()) as lease:
                try:
                    return self._exchange(name, code, redirect_url, lease, shield)
                finally:
                    shield.up = True  # the lock is left undisturbed

        with Shield() as shield:
            return shield.exposed(work)

    def confirm(self, state: str, *, same_account: bool = False) -> TokenRecord:
        """Put the new pair in the place of the seller's tokens, and return the seller's record.

        It may be asked for again after a failure: a pair that has become the seller's is not put there twice.

        :param same_account: Whether the new pair opens the account of the seller's known order; if not, that
            order is forgotten.
        :raises RedirectRefusedError: if there is no pair that waits for it.
        :raises TokenStoreError: if the store fails; the pair still waits.
        """
        name, custodian = self.check(state), self.custodian
        store, key = custodian.store, custodian.key
        self._read(name)

        def work(shield: Shield) -> TokenRecord:
            with store.lock(key, wait=custodian.lock_wait, stop=threading.Event()) as lease:
                try:
                    # Under the lock: a pair that was confirmed meanwhile may have been renewed since.
                    with shield.section():
                        record = self._replace(name, lease, same_account=same_account)
                        # Not after the lock: whoever confirms next must see it.
                        with suppress(FeedAmpError):
                            self._end(name, CONFIRMED)
                        return record
                finally:
                    shield.up = True

        with Shield() as shield:
            record = shield.exposed(work)
        for secret in (record.access_token, record.refresh_token):
            if secret:
                custodian.on_secret(secret)
        CACHE.slot(key).take(record)
        log.info("Seller %r is authorised: generation %d.", key.seller, record.generation)
        return record

    def discard(self, state: str, *, again: bool = False) -> None:
        """Drop the new pair, if there is one.

        :param again: Whether the state may bring another one within its time. Default: it works no more.
        :raises RedirectRefusedError: if the state is not of this seller, connection and person, or if the
            pair is the seller's already.
        :raises TokenStoreError: if the store fails.
        """
        name = self.check(state)
        pair, mark = self._read(name)
        own = None
        with suppress(TokenRecordError):  # what cannot be used is not this pair
            own = self.custodian.record()
        if mark.stage == CONFIRMED or (own is not None and own.family == self._family(name, pair)):
            raise _used(replace(mark, stage=CONFIRMED))
        self._end(name, BEGUN if again else DISCARDED)

    # The state

    @property
    def _client(self) -> str:
        key, secret = self.custodian.key, self.custodian.endpoint.client_secret
        return key.fingerprint(f"{key.token_url} {key.client_id} {secret}")

    def _state(self, name: str) -> str:
        """Return a mark's name with its signature.

        Signed with a key that comes from the client secret: whoever may act for the connection has it, on
        every server and worker. Airflow's own secret key is not on all of them.
        """
        custodian = self.custodian
        key = custodian.key
        own = hmac.new(
            custodian.endpoint.client_secret.encode(errors="surrogatepass"), _PURPOSE, hashlib.sha256
        )
        bound = json.dumps([name, self.by, self.conn_id, key.token_url, key.client_id, key.seller])
        signature = hmac.new(own.digest(), bound.encode(), hashlib.sha256).digest()
        return f"{name}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"

    def _whose(self, name: str) -> RedirectRefusedError:
        """Return why a state is not one of ours."""
        mark = self._read(name)[1]
        seller = self.custodian.key.seller
        if mark.conn_id != self.conn_id:
            why = (
                f"This redirect URL belongs to the Airflow connection {mark.conn_id!r}, not {self.conn_id!r}."
            )
        elif mark.seller != seller:
            why = f"This redirect URL authorises seller {mark.seller!r}, not {seller!r}."
        elif mark.client != self._client:
            return RedirectRefusedError(
                f"The Airflow connection {self.conn_id!r} has another host, Client ID or Client Secret than "
                f"when this authorisation was begun. {_ANEW}"
            )
        elif mark.by != self.by:
            why = (
                "This redirect URL belongs to an authorisation that another person has begun, or the same "
                "person in another browser."
            )
        else:
            why = "The redirect URL is cut, or something in it was changed."
        return RedirectRefusedError(
            f"{why} Its code was not used. Use the URL that the browser came back to from the page that you "
            "were shown."
        )

    def _family(self, name: str, pair: TokenRecord) -> str:
        return granted_family(pair.issued_at, self.custodian.key.fingerprint(name))

    # Marks

    def _read(self, name: str) -> tuple[TokenRecord, Mark]:
        """Return a mark's record and the mark.

        :raises RedirectRefusedError: if there is none any more.
        """
        record = self.custodian.store.read(_mark_key(name))
        if record is not None:
            return record, _mark(record)
        if int(name.partition("-")[0], 16) < self.custodian.now():
            raise _too_old()
        raise RedirectRefusedError(
            "No authorisation was begun here with the state of this redirect URL: it is cut, or belongs to "
            "another deployment of Airflow. Its code was not used."
        )

    def _begun(self, name: str) -> tuple[TokenRecord, Mark]:
        """Return a mark whose redirect has not come yet.

        :raises RedirectRefusedError: if it has.
        """
        record, mark = self._read(name)
        if mark.stage != BEGUN:
            raise _used(mark)
        return record, mark

    def _exchange(
        self, name: str, code: str, redirect_url: str | None, lease: Lease, shield: Shield
    ) -> AccessToken | None:
        custodian = self.custodian
        record, mark = self._begun(name)
        _check_time(lease, custodian.endpoint.deadline + SAVE_RESERVE, mark)
        with shield.section():
            try:
                # This decides which of two redirects goes on, and proves that the store can be written.
                claimed = self._write(record, replace(mark, stage=CLAIMED))
            except TokenConflictError:
                raise _used(replace(mark, stage=CLAIMED)) from None
            sent_at = custodian.now()
            try:
                grant = custodian.endpoint.exchange_code(code, redirect_url)
            except FeedAmpError as error:
                self._note(claimed, mark, lease)  # a state works until it has brought tokens
                if isinstance(error, GrantRefusedError | AnswerLostError):
                    said = (
                        f"FeedAMP did not exchange the authorisation code for seller {mark.seller!r}: {error}"
                    )
                    text = f"{said} A code works once and for a short time. {_AGAIN}"
                    raise CodeRefusedError(text, **_details(error)) from error
                if isinstance(error, NotProcessedError):
                    said = f"FeedAMP could not be asked for the tokens of seller {mark.seller!r}: {error}"
                    text = f"{said} The code was not used. Use the same redirect URL again."
                    raise NotProcessedError(text, **_details(error)) from error
                raise
            # Nothing that can fail may stand between the answer and this write.
            kept = self._keep(claimed, grant, mark, sent_at, lease)
        for secret in (kept.access_token, kept.refresh_token):
            if secret:
                custodian.on_secret(secret)
        if not kept.refresh_token:
            self._note(_without_tokens(kept), mark, lease)
            raise CodeRefusedError(
                f"FeedAMP gave no refresh token for seller {mark.seller!r}, so its access would end within "
                f"the hour. {_AGAIN}"
            )
        token = kept.token(renewed=True)
        return replace(token, seller=mark.seller) if token else None

    def _keep(
        self, claimed: TokenRecord, grant: TokenGrant, mark: Mark, sent_at: float, lease: Lease
    ) -> TokenRecord:
        """Store what was granted with the mark, whatever it takes."""
        custodian = self.custodian
        record = _with(claimed, replace(mark, stage=GRANTED, until=sent_at + mark.seconds)).changed(
            refresh_token=grant.refresh_token or "",
            access_token=grant.access_token,
            expires_at=sent_at + grant.lifetime,
            lifetime=grant.lifetime,
            issued_at=sent_at,
            generation=1,
            state=RecordState.ACTIVE,
            released=lease.nonce,
        )
        try:
            return save(custodian.store, Unsaved(record, claimed.refresh_token), custodian.sleep, *_PAUSES)
        except Exception as error:  # noqa: BLE001 - a new refresh token must outlive any failure of a store
            raise TokenStoreError(
                f"FeedAMP authorised seller {mark.seller!r}, and the token store did not take the new tokens "
                f"({type(error).__name__}). Repair the store. {_ANEW}"
            ) from None

    def _replace(self, name: str, lease: Lease, *, same_account: bool) -> TokenRecord:
        custodian = self.custodian
        store, key = custodian.store, custodian.key
        pair, mark = self._read(name)
        before, family = store.read(key), self._family(name, pair)
        if before is not None and before.family == family:
            return before
        if mark.stage != GRANTED:
            raise _used(mark)
        if mark.until < custodian.now():
            raise _too_old()
        if before is not None and granted_at(before.family) > granted_at(family):
            raise RedirectRefusedError(
                f"Seller {key.seller!r} has been authorised again since these tokens were granted. The newer "
                "tokens stay, and these are not stored."
            )
        # The seller's new authorisation is younger than what the connection holds.
        known = (before or TokenRecord(key=key, refresh_token="")).knowing(custodian.seed)
        record = known.changed(
            **{field: getattr(pair, field) for field in _PAIR},
            generation=known.generation + 1,
            superseded=None,
            refused_seed="",
            refused_secret="",
            family=family,
            released=lease.nonce,
            **UNDOUBTED,
        )
        _check_time(lease, SAVE_RESERVE, mark)
        if not same_account:
            # Before: an order of another account must never vouch for that account again.
            note_order(store, key, None, anew=True)
        return store.write(record, expected=before.revision if before else None)

    def _end(self, name: str, stage: str) -> None:
        """Take the tokens out of a mark that stays until its time is over: it says what has become of it."""
        record, mark = self._read(name)
        if mark.stage == CONFIRMED:
            return
        self._write(_without_tokens(record), replace(mark, stage=stage))

    def _write(self, record: TokenRecord, mark: Mark) -> TokenRecord:
        return self.custodian.store.write(_with(record, mark), expected=record.revision)

    def _note(self, record: TokenRecord, mark: Mark, lease: Lease) -> None:
        """Write how far a mark is, if that can be done: what has happened is raised in any case."""
        with suppress(TokenStoreError):
            self._write(record.changed(released=lease.nonce), mark)

    def _sweep(self) -> None:
        """Remove marks whose time is over, where the store can list them."""
        store, now = self.custodian.store, self.custodian.now()
        keys: list[TokenKey] = []
        with suppress(TokenStoreError):
            keys = [key for key in store.keys(_MARKS, "") if int(key.seller.partition("-")[0], 16) < now]
        for key in keys:
            with suppress(TokenStoreError):  # one that cannot be read keeps no other one here
                record = store.read(key)
                if record is None or _mark(record).until < now:
                    store.delete(key)


#: What of a new pair's record becomes the seller's.
_PAIR = ("refresh_token", "access_token", "expires_at", "lifetime", "issued_at")


def whose(store: TokenStore, state: str) -> tuple[str, str]:
    """Return the connection id and the seller that a state was made for, as its mark has them.

    It only says whom to ask next: whether the state is theirs, :meth:`PendingAuthorisation.check` says.

    :raises RedirectRefusedError: if no authorisation was begun with it.
    :raises TokenStoreError: if that cannot be told.
    """
    found = _STATE.fullmatch(state)
    record = store.read(_mark_key(found[1])) if found else None
    if record is None:
        raise RedirectRefusedError(
            "No authorisation waits for this redirect URL: it is cut, too old, or belongs to another "
            "deployment of Airflow. Its code was not used. Start the authorisation anew."
        )
    mark = _mark(record)
    return mark.conn_id, mark.seller


def _mark_key(name: str) -> TokenKey:
    return TokenKey(_MARKS, "", name)


def _mark(record: TokenRecord) -> Mark:
    return Mark(**json.loads(record.seeds[0]))


def _with(record: TokenRecord, mark: Mark) -> TokenRecord:
    return record.changed(seeds=(json.dumps(asdict(mark)),))


def _without_tokens(record: TokenRecord) -> TokenRecord:
    return record.changed(refresh_token="", access_token=None, state=RecordState.REAUTH_REQUIRED)


def _check_time(lease: Lease, needed: float, mark: Mark) -> None:
    """Refuse to begin what the lease may not hold to its end."""
    if lease.left() < needed:
        raise TokenBusyError(
            f"The token store took too long for the authorisation of seller {mark.seller!r}. Nothing was "
            "done; try the same again."
        )


def _details(error: FeedAmpError) -> dict[str, Any]:
    return {name: getattr(error, name) for name in ("status", "codes", "request_id", "retry_after")}


def _too_old() -> RedirectRefusedError:
    return RedirectRefusedError(f"The time of this authorisation is over. {_ANEW}")


def _used(mark: Mark) -> RedirectRefusedError:
    became = _BECAME.get(mark.stage)
    if became is None:
        return RedirectRefusedError(
            "Nothing was exchanged for this authorisation yet, so nothing can be stored: the URL that the "
            "browser came back to is needed first."
        )
    return RedirectRefusedError(f"This redirect URL was used before: {became}. A redirect URL works once.")
