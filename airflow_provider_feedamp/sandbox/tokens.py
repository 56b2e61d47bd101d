"""The sandbox's authorisation server (feedamp-api.md A2): token requests, codes and tokens."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.settings import SandboxClock, SandboxSettings

INVALID_CLIENT = "invalid_client"
INVALID_GRANT = "invalid_grant"
INVALID_REQUEST = "invalid_request"
UNSUPPORTED_GRANT = "unsupported_grant_type"


class GrantRefused(Exception):
    """The token endpoint says no.

    :param error: OAuth error code.
    :param description: The reason in words; never a token.
    :param seller: Whose code or refresh token it was, when it was one at all.
    """

    def __init__(self, error: str, description: str, seller: str | None = None) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description
        self.seller = seller


@dataclass(frozen=True, slots=True)
class Grant:
    """What a successful token call hands out."""

    seller: str
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in: int


@dataclass(slots=True)
class _RefreshToken:
    value: str = field(repr=False)
    seller: str
    family: int
    expires_at: datetime
    revoked: bool = False
    replaced_by: str | None = field(default=None, repr=False)
    replaced_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class _AccessToken:
    seller: str
    family: int
    expires_at: datetime


class TokenIssuer:
    """Issue, rotate, expire and revoke the tokens of all sellers of one client.

    Tokens are derived from the seed, the seller and a count per seller, so that a run can be repeated exactly
    and no seller's token ever equals another's.
    """

    def __init__(self, settings: SandboxSettings, clock: SandboxClock) -> None:
        self._settings = settings
        self._clock = clock
        self._counts: dict[str, int] = {}
        self._families = 0
        self._codes: dict[str, tuple[str, datetime]] = {}
        self._used_codes: dict[str, str] = {}
        self._refresh: dict[str, _RefreshToken] = {}
        self._access: dict[str, _AccessToken] = {}

    def check_client(self, client_id: str, client_secret: str) -> None:
        """Refuse any other client, and this one without its secret.

        :raises GrantRefused: ``invalid_client``.
        """
        if (client_id, client_secret) != (self._settings.client_id, self._settings.client_secret):
            raise GrantRefused(INVALID_CLIENT, "unknown client_id or wrong client_secret")

    def authorize(self, seller: str) -> str:
        """Return a new single-use code for the seller."""
        code = self._value("code", seller)
        self._codes[code] = (seller, self._clock.now() + timedelta(seconds=self._settings.code_ttl))
        return code

    def connect(self, seller: str) -> str:
        """Return the refresh token of a new authorisation, as if the seller had clicked through it."""
        return self._new_refresh(seller, self._new_family()).value

    def grant(self, fields: TokenFields) -> Grant:
        """Answer a token request.

        :param fields: Its fields.
        :raises GrantRefused: when something is missing, or the client, the code or the token is not good.
        """
        asked = fields.needed("grant_type")
        self.check_client(fields.needed("client_id"), fields.needed("client_secret"))
        if asked == "authorization_code":
            return self.exchange(fields.needed("code"))
        if asked == "refresh_token":
            return self.refresh(fields.needed("refresh_token"))
        raise GrantRefused(UNSUPPORTED_GRANT, f"grant_type must be {' or '.join(GRANTS)}")

    def exchange(self, code: str) -> Grant:
        """Spend an authorisation code.

        :raises GrantRefused: when it is unknown, was used before, or is too old.
        """
        if code in self._used_codes:
            raise GrantRefused(INVALID_GRANT, "the code was used before", self._used_codes[code])
        if code not in self._codes:
            raise GrantRefused(INVALID_GRANT, "unknown code")
        seller, expires_at = self._codes.pop(code)
        self._used_codes[code] = seller
        if self._clock.now() >= expires_at:
            raise GrantRefused(INVALID_GRANT, "the code has expired", seller)
        return self._grant(self._new_refresh(seller, self._new_family()))

    def refresh(self, refresh_token: str) -> Grant:
        """Spend a refresh token, by the rules of the rotation mode.

        :raises GrantRefused: when it is unknown, expired, revoked, or replaced and the mode does not forgive.
        """
        token = self._refresh.get(refresh_token)
        if token is None:
            raise GrantRefused(INVALID_GRANT, "unknown refresh token")
        now = self._clock.now()
        if token.replaced_by is not None:
            token = self._forgive(token, now)
        if token.revoked or now >= token.expires_at:
            reason = "was revoked" if token.revoked else "has expired"
            raise GrantRefused(INVALID_GRANT, f"the refresh token {reason}", token.seller)
        if self._settings.rotation == "static" or token.value != refresh_token:
            return self._grant(token)
        successor = self._new_refresh(token.seller, token.family)
        token.replaced_by, token.replaced_at = successor.value, now
        return self._grant(successor)

    def seller_of(self, access_token: str) -> str | None:
        """Return the seller whose live access token this is, if it is one."""
        token = self._access.get(access_token)
        return token.seller if token is not None and self._clock.now() < token.expires_at else None

    def expire(self, seller: str) -> int:
        """End the seller's live access tokens and return how many there were."""
        live = self.live(seller)["access_tokens"]
        for value in live:
            del self._access[value]
        return len(live)

    def revoke(self, seller: str) -> int:
        """End the seller's live refresh tokens, as a seller who withdraws does; return how many."""
        live = self.live(seller)["refresh_tokens"]
        for value in live:
            self._refresh[value].revoked = True
        return len(live)

    def live(self, seller: str) -> dict[str, list[str]]:
        """Return the seller's usable tokens, oldest first."""
        now = self._clock.now()
        refresh = [
            token.value
            for token in self._refresh.values()
            if token.seller == seller
            and not token.revoked
            and token.replaced_by is None
            and now < token.expires_at
        ]
        access = [
            value
            for value, token in self._access.items()
            if token.seller == seller and now < token.expires_at
        ]
        return {"refresh_tokens": refresh, "access_tokens": access}

    def _forgive(self, token: _RefreshToken, now: datetime) -> _RefreshToken:
        """Return the newest of the family in grace; otherwise refuse the replaced token."""
        mode = self._settings.rotation
        if mode == "grace" and token.replaced_at is not None:
            if now < token.replaced_at + timedelta(seconds=self._settings.grace_seconds):
                while token.replaced_by is not None:
                    token = self._refresh[token.replaced_by]
                return token
        if mode == "revoke_family":
            self._revoke_family(token.family)
            raise GrantRefused(
                INVALID_GRANT, "the refresh token was used again: its family is revoked", token.seller
            )
        raise GrantRefused(INVALID_GRANT, "the refresh token was used before", token.seller)

    def _revoke_family(self, family: int) -> None:
        for token in self._refresh.values():
            if token.family == family:
                token.revoked = True
        self._access = {value: token for value, token in self._access.items() if token.family != family}

    def _grant(self, refresh: _RefreshToken) -> Grant:
        if self._settings.revoke_old_access_token:
            self.expire(refresh.seller)
        ttl = self._settings.access_token_ttl
        value = self._value("access", refresh.seller)
        expires_at = self._clock.now() + timedelta(seconds=ttl)
        self._access[value] = _AccessToken(refresh.seller, refresh.family, expires_at)
        return Grant(refresh.seller, value, refresh.value, ttl)

    def _new_refresh(self, seller: str, family: int) -> _RefreshToken:
        expires_at = self._clock.now() + timedelta(seconds=self._settings.refresh_token_ttl)
        token = _RefreshToken(self._value("refresh", seller), seller, family, expires_at)
        self._refresh[token.value] = token
        return token

    def _new_family(self) -> int:
        self._families += 1
        return self._families

    def _value(self, kind: str, seller: str) -> str:
        count = self._counts[seller] = self._counts.get(seller, 0) + 1
        text = "\0".join((self._settings.seed, kind, seller, str(count)))
        return f"sbx-{kind}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:40]}"


JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
_ENCODINGS = {"both": (JSON, FORM), "json": (JSON,), "form": (FORM,)}
GRANTS = ("authorization_code", "refresh_token")


class TokenFields(dict[str, str]):
    """The fields of one token request."""

    def needed(self, name: str) -> str:
        """Return a field that must be there and not empty.

        :raises GrantRefused: ``invalid_request``.
        """
        if not self.get(name):
            raise GrantRefused(INVALID_REQUEST, f"{name} is required")
        return self[name]

    @property
    def grant(self) -> str:
        """The grant that is asked for, or ``unknown``."""
        asked = self.get("grant_type", "")
        return asked if asked in GRANTS else "unknown"


def token_fields(body: bytes, content_type: str, encoding: str) -> TokenFields:
    """Return the fields of a token request, in either of the two encodings that FeedAMP's pages show.

    :param body: The body as it came.
    :param content_type: Its Content-Type header.
    :param encoding: The ``token_encoding`` setting.
    :raises GrantRefused: ``invalid_request``.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in _ENCODINGS[encoding]:
        raise GrantRefused(INVALID_REQUEST, f"send {' or '.join(_ENCODINGS[encoding])}")
    fields = _json_fields(body) if kind == JSON else _form_fields(body)
    for name, value in fields.items():
        if not isinstance(value, str):
            raise GrantRefused(INVALID_REQUEST, f"{name} must be a string")
    return TokenFields((name, str(value)) for name, value in fields.items())


def _json_fields(body: bytes) -> dict[str, object]:
    try:
        value = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise GrantRefused(INVALID_REQUEST, "the body is not JSON") from error
    if not isinstance(value, dict):
        raise GrantRefused(INVALID_REQUEST, "the body must be an object")
    return value


def _form_fields(body: bytes) -> dict[str, object]:
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise GrantRefused(INVALID_REQUEST, "the body is not a form") from error
    if len(dict(pairs)) != len(pairs):
        raise GrantRefused(INVALID_REQUEST, "a field is given twice")
    return dict(pairs)
