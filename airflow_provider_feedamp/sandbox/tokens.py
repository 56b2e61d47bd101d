"""The sandbox's authorisation server (feedamp-api.md A2): token requests, codes and tokens."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from pydantic import ValidationError

from airflow_provider_feedamp.sandbox.models import TokenRequest, Tokens, in_words

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.settings import SandboxClock, SandboxSettings

INVALID_CLIENT = "invalid_client"
INVALID_GRANT = "invalid_grant"
INVALID_REQUEST = "invalid_request"
UNSUPPORTED_GRANT = "unsupported_grant_type"

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
_ENCODINGS = {"both": (JSON, FORM), "json": (JSON,), "form": (FORM,)}


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
        self._counts: Counter[str] = Counter()
        self._families = 0
        self._codes: dict[str, tuple[str, datetime]] = {}
        self._used_codes: dict[str, str] = {}
        self._refresh: dict[str, _RefreshToken] = {}
        self._access: dict[str, _AccessToken] = {}

    def authorize(self, seller: str) -> str:
        """Return a new single-use code for the seller."""
        code = self._value("code", seller)
        self._codes[code] = (seller, self._clock.now() + timedelta(seconds=self._settings.code_ttl))
        return code

    def connect(self, seller: str) -> str:
        """Return the refresh token of a new authorisation, as if the seller had clicked through it."""
        self._families += 1
        return self._new_refresh(seller, self._families).value

    def grant(self, fields: dict[str, Any]) -> Tokens:
        """Answer a token request.

        :param fields: Its fields.
        :raises GrantRefused: when something is missing, or the client, the code or the token is not good.
        """
        # What is empty is not there.
        given = {name: value for name, value in fields.items() if value != ""}
        try:
            asked = TokenRequest.model_validate(given)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            code = UNSUPPORTED_GRANT if first["type"] == "literal_error" else INVALID_REQUEST
            raise GrantRefused(code, f"{first['loc'][0]} {in_words(first)[1]}") from None
        settings = self._settings
        if (asked.client_id, asked.client_secret) != (settings.client_id, settings.client_secret):
            raise GrantRefused(INVALID_CLIENT, "unknown client_id or wrong client_secret")
        code_grant = asked.grant_type == "authorization_code"
        value = asked.code if code_grant else asked.refresh_token
        if value is None:
            raise GrantRefused(INVALID_REQUEST, f"{'code' if code_grant else 'refresh_token'} is required")
        return self.exchange(value) if code_grant else self.refresh(value)

    def exchange(self, code: str) -> Tokens:
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
        return self._granted(self._refresh[self.connect(seller)])

    def refresh(self, refresh_token: str) -> Tokens:
        """Spend a refresh token, by the rules of the rotation mode.

        :raises GrantRefused: when it is unknown, expired, revoked, or replaced and the mode does not forgive.
        """
        token = self._refresh.get(refresh_token)
        if token is None:
            raise GrantRefused(INVALID_GRANT, "unknown refresh token")
        now, rotation = self._clock.now(), self._settings.rotation
        if token.replaced_at is not None:
            grace = timedelta(seconds=self._settings.grace_seconds)
            if rotation != "grace" or now >= token.replaced_at + grace:
                raise self._reused(token)
            while token.replaced_by is not None:
                token = self._refresh[token.replaced_by]
        if token.revoked or now >= token.expires_at:
            reason = "was revoked" if token.revoked else "has expired"
            raise GrantRefused(INVALID_GRANT, f"the refresh token {reason}", token.seller)
        if rotation == "static" or token.value != refresh_token:
            return self._granted(token)
        successor = self._new_refresh(token.seller, token.family)
        token.replaced_by, token.replaced_at = successor.value, now
        return self._granted(successor)

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

        def usable(tokens: dict[str, Any]) -> list[str]:
            return [name for name, each in tokens.items() if each.seller == seller and now < each.expires_at]

        kept = {
            value: token
            for value, token in self._refresh.items()
            if not token.revoked and token.replaced_by is None
        }
        return {"refresh_tokens": usable(kept), "access_tokens": usable(self._access)}

    def _reused(self, token: _RefreshToken) -> GrantRefused:
        """Return the refusal of a replaced token; the mode may end all that came of it."""
        if self._settings.rotation != "revoke_family":
            return GrantRefused(INVALID_GRANT, "the refresh token was used before", token.seller)
        for each in self._refresh.values():
            each.revoked = each.revoked or each.family == token.family
        self._access = {value: each for value, each in self._access.items() if each.family != token.family}
        reason = "the refresh token was used again: its family is revoked"
        return GrantRefused(INVALID_GRANT, reason, token.seller)

    def _granted(self, refresh: _RefreshToken) -> Tokens:
        seller, ttl = refresh.seller, self._settings.access_token_ttl
        if self._settings.revoke_old_access_token:
            self.expire(seller)
        value = self._value("access", seller)
        self._access[value] = _AccessToken(seller, refresh.family, self._clock.now() + timedelta(seconds=ttl))
        pair = {"access_token": value, "token_type": "Bearer", "refresh_token": refresh.value}
        return Tokens(**pair, expires_in=ttl, seller=seller)

    def _new_refresh(self, seller: str, family: int) -> _RefreshToken:
        expires_at = self._clock.now() + timedelta(seconds=self._settings.refresh_token_ttl)
        token = _RefreshToken(self._value("refresh", seller), seller, family, expires_at)
        self._refresh[token.value] = token
        return token

    def _value(self, kind: str, seller: str) -> str:
        self._counts[seller] += 1
        text = "\0".join((self._settings.seed, kind, seller, str(self._counts[seller])))
        return f"sbx-{kind}-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:40]}"


def token_fields(body: bytes, content_type: str, encoding: str) -> dict[str, Any]:
    """Return the fields of a token request, in either of the two encodings that FeedAMP's pages show.

    :param encoding: The ``token_encoding`` setting.
    :raises GrantRefused: ``invalid_request``.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in _ENCODINGS[encoding]:
        raise GrantRefused(INVALID_REQUEST, f"send {' or '.join(_ENCODINGS[encoding])}")
    try:
        if kind == JSON:
            fields = json.loads(body.decode("utf-8"))
        else:
            pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict")
            fields = dict(pairs)
    except (ValueError, RecursionError) as error:
        raise GrantRefused(INVALID_REQUEST, f"the body is not {kind}") from error
    if not isinstance(fields, dict):
        raise GrantRefused(INVALID_REQUEST, "the body must be an object")
    if kind == FORM and len(fields) != len(pairs):
        raise GrantRefused(INVALID_REQUEST, "a field is given twice")
    return fields
