"""What is kept for one seller: the key, the record and the access token that callers see."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

import pendulum

from airflow_provider_feedamp.exceptions import TokenRecordError

#: Version of the stored form. A reader refuses a newer one instead of guessing.
FORMAT = 1

#: Days that FeedAMP's refresh tokens live.
YEAR = 365
_DAY = 86400.0

#: How many connection tokens a record remembers as known; a person replaces one a year.
_SEEDS_KEPT = 16


@dataclass(frozen=True, slots=True)
class TokenKey:
    """Names one token pair: two sellers never share one, whatever their names are.

    :param token_url: The token endpoint, normalised.
    :param client_id: The marketplace's Client ID.
    :param seller: The marketplace's own name for the seller's account.
    """

    token_url: str
    client_id: str
    seller: str

    @property
    def digest(self) -> str:
        """Return 64 hexadecimal digits that no other key has, fit for any store's naming rules."""
        # JSON marks where one part ends and the next begins, so no two triples give the same text.
        # Not escaped: an escape would write a character and the two halves of it alike.
        parts = json.dumps([self.token_url, self.client_id, self.seller], ensure_ascii=False)
        return hashlib.sha256(parts.encode(errors="surrogatepass")).hexdigest()

    def fingerprint(self, secret: str) -> str:
        """Return 16 hexadecimal digits that stand for a secret of this key in records and logs.

        Keyed with the key's digest, so that the same text gives unrelated fingerprints for two sellers.
        """
        digest = hmac.new(self.digest.encode(), secret.encode(errors="surrogatepass"), hashlib.sha256)
        return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token with what a caller may know about it; only ``value`` is secret.

    :param value: The bearer token itself, hidden from ``repr``.
    :param seller: Whose account it opens.
    :param expires_at: When FeedAMP stops accepting it (UTC).
    :param lifetime: Seconds from its request to its end.
    :param generation: How many pairs this seller has had; grows by one with each renewal.
    :param renewed: Whether this very call obtained it from FeedAMP.
    """

    value: str = field(repr=False)
    seller: str
    expires_at: pendulum.DateTime
    lifetime: float
    generation: int
    renewed: bool = False


class RecordState(StrEnum):
    """Where a record stands in the spend protocol."""

    #: The refresh token is good as far as anyone knows.
    ACTIVE = "active"
    #: A worker has announced that it spends the refresh token, and has not reported back.
    REFRESHING = "refreshing"
    #: The refresh token was sent and no usable answer came back.
    UNCERTAIN = "uncertain"
    #: The refresh token was refused: a person has to authorise the seller again.
    REAUTH_REQUIRED = "reauth_required"


#: What a record says of a refresh token that nobody has doubted yet.
UNDOUBTED: dict[str, Any] = {
    "state": RecordState.ACTIVE,
    "attempt": None,
    "reason": "",
    "imported": False,
    "bare_since": 0.0,
    "probes": 0,
    "probed_at": 0.0,
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """The announced spend: which refresh token, by which attempt, since when (epoch seconds)."""

    id: str
    fingerprint: str
    started_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """All that is kept for one key, written as one value. Tokens are hidden from ``repr``.

    :param key: Whose record this is.
    :param refresh_token: The one to spend next.
    :param access_token: The newest access token, or None when there is none worth using.
    :param expires_at: End of the access token, epoch seconds.
    :param lifetime: Seconds that the access token had from the start.
    :param issued_at: When the refresh token arrived, epoch seconds; it lives a year.
    :param generation: Grows with each new token pair.
    :param revision: Grows with each write; conditional writes compare it.
    :param state: Where the record stands in the spend protocol.
    :param attempt: The announced spend, while one is under way or its outcome is unclear.
    :param reason: Why a person is needed, or what is unclear; never holds a secret.
    :param seeds: Fingerprints of the connection's refresh tokens that this record has taken in.
    :param superseded: The refresh token that a person's new one replaces, until the new one has worked.
    :param refused_seed: Fingerprint of a person's new refresh token that FeedAMP refused.
    :param refused_secret: Fingerprint of the client secret in use at a refusal: a bare 401 may mean either.
    :param released: Nonce of the last lease under which this record was finished.
    :param family: Names the authorisation that these tokens descend from: generations of one family can be
        compared, those of two families cannot.
    :param imported: Whether the refresh token came out of an export and has not been spent here yet.
    :param bare_since: When FeedAMP first refused the refresh token without an OAuth code, epoch seconds; 0
        when it has not since the last success.
    :param probes: How often a record that such refusals have condemned was asked again.
    :param probed_at: When it was last asked, epoch seconds.
    :param sealed_with: The name of the key that the store found the record under; not stored.
    """

    key: TokenKey
    refresh_token: str = field(repr=False)
    access_token: str | None = field(default=None, repr=False)
    expires_at: float = 0.0
    lifetime: float = 0.0
    issued_at: float = 0.0
    generation: int = 0
    revision: int = 0
    state: RecordState = RecordState.ACTIVE
    attempt: Attempt | None = None
    reason: str = ""
    seeds: tuple[str, ...] = ()
    superseded: str | None = field(default=None, repr=False)
    refused_seed: str = ""
    refused_secret: str = ""
    released: str = ""
    family: str = ""
    imported: bool = False
    bare_since: float = 0.0
    probes: int = 0
    probed_at: float = 0.0
    sealed_with: str = field(default="", compare=False)

    def token(self, *, renewed: bool = False) -> AccessToken | None:
        """Return the access token, or None when the record holds none."""
        if not self.access_token:
            return None
        return AccessToken(
            value=self.access_token,
            seller=self.key.seller,
            expires_at=pendulum.from_timestamp(self.expires_at),
            lifetime=self.lifetime,
            generation=self.generation,
            renewed=renewed,
        )

    def days_left(self, now: float) -> float | None:
        """Return the days to the end of the refresh token's year, below 0 after it; None without a token.

        :param now: Epoch seconds.
        """
        return YEAR - max(0.0, now - self.issued_at) / _DAY if self.refresh_token and self.issued_at else None

    def changed(self, **fields: Any) -> Self:
        """Return a copy with some fields changed."""
        return replace(self, **fields)

    def with_seed(self, seed: str | None, secret: str) -> Self:
        """Return the record as it stands if the connection holds ``seed``: a person's new token wins.

        A token that this record has taken in before is not new, however often the connection shows it: the
        stored one came after it.

        :param seed: The connection's refresh token, or None.
        :param secret: Fingerprint of the connection's client secret.
        """
        if not seed or self.key.fingerprint(seed) in self.seeds or self.refuses(seed, secret):
            return self
        known = self.knowing(seed)
        if seed == self.refresh_token:
            # Remembered all the same: once it has been spent, it must not pass for a person's new token.
            return known
        condemned = self.state is RecordState.REAUTH_REQUIRED
        return known.changed(
            refresh_token=seed,
            # The old access token may belong to another account than the new authorisation.
            access_token=None,
            expires_at=0.0,
            superseded=None if condemned else self.refresh_token,
            family=self.key.fingerprint(seed),
            **UNDOUBTED,
        )

    def knowing(self, seed: str | None) -> Self:
        """Return the record with the connection's token among those that it has taken in."""
        if not seed or self.key.fingerprint(seed) in self.seeds:
            return self
        return self.changed(seeds=(*self.seeds, self.key.fingerprint(seed))[-_SEEDS_KEPT:])

    def refuses(self, seed: str | None, secret: str) -> bool:
        """Say whether FeedAMP has refused this connection token, under this client secret."""
        refused = (self.refused_seed, self.refused_secret)
        return bool(seed) and (self.key.fingerprint(seed or ""), secret) == refused

    def to_json(self) -> str:
        """Return the stored form: one JSON object with the tokens in clear, for the store to encrypt."""
        fields = asdict(self)
        del fields["sealed_with"]
        return json.dumps({"format": FORMAT, **fields})

    @classmethod
    def from_json(cls, text: str, key: TokenKey) -> Self:
        """Read the stored form.

        :raises TokenRecordError: if the text is no record, one of a newer format, or another key's record.
        """
        try:
            data = json.loads(text)
            stored_format = data.pop("format")
            if stored_format != FORMAT:
                raise TokenRecordError(
                    f"The token record of seller {key.seller!r} has format {stored_format!r}; this version "
                    f"of the provider reads format {FORMAT}. Upgrade airflow-provider-feedamp on this worker."
                )
            record = cls(
                **{
                    **data,
                    "key": TokenKey(**data["key"]),
                    "state": RecordState(data["state"]),
                    "attempt": Attempt(**data["attempt"]) if data["attempt"] else None,
                    "seeds": tuple(data["seeds"]),
                }
            )
            texts = (record.refresh_token, record.access_token or "", record.superseded or "", *record.seeds)
            numbers = (
                *(record.expires_at, record.lifetime, record.issued_at, record.generation, record.revision),
                *(record.bare_since, record.probes, record.probed_at),
            )
            whole = {type(text) for text in texts} == {str} and {type(each) for each in numbers} <= {
                int,
                float,
            }
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            whole = False
        if not whole:
            # Without a cause: that would quote the text, which holds tokens.
            raise TokenRecordError(
                f"The stored token record of seller {key.seller!r} (client {key.client_id!r}) is damaged or "
                "was not written by this provider. Restore it from a backup, or remove it and authorise the "
                "seller again."
            )
        if record.key != key:
            raise TokenRecordError(
                "The token store answered with the record of another seller, client or endpoint than asked "
                f"for (seller {key.seller!r}, client {key.client_id!r}). Nothing was sent. If the record was "
                "copied by hand, remove it and authorise the seller again."
            )
        return record


def granted_family(at: float, name: str) -> str:
    """Return the ``family`` of a pair that a person's authorisation has brought: it says when.

    :param at: When the pair was asked for, epoch seconds.
    :param name: What no other authorisation has.
    """
    return f"{int(at * 1000):x}-{name}"


def granted_at(family: str) -> int:
    """Return when a family's authorisation was granted, epoch milliseconds; 0 if that is not known."""
    at, known, _ = family.partition("-")
    return int(at, 16) if known else 0


def seeded(key: TokenKey, seed: str, *, now: float) -> TokenRecord:
    """Return a seller's first record, made of the refresh token that the connection holds."""
    known = key.fingerprint(seed)
    return TokenRecord(key=key, refresh_token=seed, issued_at=now, seeds=(known,), family=known)
