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

from airflow_provider_feedamp.sandbox.models import Problem, Refusal, TokenRequest, Tokens, in_words

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.settings import SandboxClock, SandboxSettings


JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
_ENCODINGS = {"both": (JSON, FORM), "json": (JSON,), "form": (FORM,)}


class GrantRefused(Refusal):
    """The token endpoint says no, in OAuth's words; never with a token.

    :param seller: Whose code or refresh token it was, when it was one at all.
    """

    def __init__(self, error: str, words: str, seller: str | None = None, status: int = 400) -> None:
        super().__init__(status, Problem(code=error, message=words))
        self.seller = seller


@dataclass(slots=True)
class _Token:
    value: str = field(repr=False)
    seller: str
    family: int
    expires_at: datetime
    revoked: bool = False
    replaced_by: str | None = field(default=None, repr=False)
    replaced_at: datetime | None = None


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
        self._refresh: dict[str, _Token] = {}
        self._access: dict[str, _Token] = {}

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
            code = "unsupported_grant_type" if first["type"] == "literal_error" else "invalid_request"
            raise GrantRefused(code, f"{first['loc'][0]} {in_words(first)[1]}") from None
        settings = self._settings
        if (asked.client_id, asked.client_secret) != (settings.client_id, settings.client_secret):
            raise self._refusal("unknown client_id or wrong client_secret", error="invalid_client")
        code_grant = asked.grant_type == "authorization_code"
        value = asked.code if code_grant else asked.refresh_token
        if value is None:
            raise GrantRefused("invalid_request", f"{'code' if code_grant else 'refresh_token'} is required")
        return self.exchange(value) if code_grant else self.refresh(value)

    def exchange(self, code: str) -> Tokens:
        """Spend an authorisation code.

        :raises GrantRefused: when it is unknown, was used before, or is too old.
        """
        if code in self._used_codes:
            raise self._refusal("the code was used before", self._used_codes[code])
        if code not in self._codes:
            raise self._refusal("unknown code")
        seller, expires_at = self._codes.pop(code)
        self._used_codes[code] = seller
        if self._clock.now() >= expires_at:
            raise self._refusal("the code has expired", seller)
        return self._granted(self._refresh[self.connect(seller)])

    def refresh(self, refresh_token: str) -> Tokens:
        """Spend a refresh token, by the rules of the rotation mode.

        :raises GrantRefused: when it is unknown, expired, revoked, or replaced and the mode does not forgive.
        """
        token = self._refresh.get(refresh_token)
        if token is None:
            raise self._refusal("unknown refresh token")
        now, rotation = self._clock.now(), self._settings.rotation
        if token.replaced_at is not None:
            grace = timedelta(seconds=self._settings.grace_seconds)
            if rotation != "grace" or now >= token.replaced_at + grace:
                raise self._reused(token)
            while token.replaced_by is not None:
                token = self._refresh[token.replaced_by]
        if token.revoked or now >= token.expires_at:
            reason = "was revoked" if token.revoked else "has expired"
            raise self._refusal(f"the refresh token {reason}", token.seller)
        if rotation == "static" or token.value != refresh_token:
            return self._granted(token)
        successor = self._new_refresh(token.seller, token.family)
        token.replaced_by, token.replaced_at = successor.value, now
        return self._granted(successor)

    def seller_of(self, access_token: str) -> str | None:
        """Return the seller whose live access token this is, if it is one."""
        token = self._access.get(access_token)
        live = token is not None and not token.revoked and self._clock.now() < token.expires_at
        return token.seller if token is not None and live else None

    def expire(self, seller: str) -> int:
        """End the seller's live access tokens and return how many there were."""
        return self._end(self._access, seller)

    def revoke(self, seller: str) -> int:
        """End the seller's live refresh tokens, as a seller who withdraws does; return how many."""
        return self._end(self._refresh, seller)

    def live(self, seller: str) -> dict[str, list[str]]:
        """Return the seller's usable tokens, oldest first."""
        kinds = {"refresh_tokens": self._refresh, "access_tokens": self._access}
        return {kind: [each.value for each in self._live(tokens, seller)] for kind, tokens in kinds.items()}

    def _live(self, tokens: dict[str, _Token], seller: str) -> list[_Token]:
        now, mine = self._clock.now(), [each for each in tokens.values() if each.seller == seller]
        return [each for each in mine if not each.revoked and not each.replaced_by and now < each.expires_at]

    def _end(self, tokens: dict[str, _Token], seller: str) -> int:
        live = self._live(tokens, seller)
        for each in live:
            each.revoked = True
        return len(live)

    def _refusal(self, words: str, seller: str | None = None, error: str = "invalid_grant") -> GrantRefused:
        return GrantRefused(error, words, seller, self._settings.token_error_status)

    def _reused(self, token: _Token) -> GrantRefused:
        """Return the refusal of a replaced token; the mode may end all that came of it."""
        if self._settings.rotation != "revoke_family":
            return self._refusal("the refresh token was used before", token.seller)
        for each in (*self._refresh.values(), *self._access.values()):
            each.revoked = each.revoked or each.family == token.family
        reason = "the refresh token was used again: its family is revoked"
        return self._refusal(reason, token.seller)

    def _granted(self, refresh: _Token) -> Tokens:
        seller, ttl = refresh.seller, self._settings.access_token_ttl
        if self._settings.revoke_old_access_token:
            self.expire(seller)
        value = self._value("access", seller)
        expires_at = self._clock.now() + timedelta(seconds=ttl)
        self._access[value] = _Token(value, seller, refresh.family, expires_at)
        pair = {"access_token": value, "token_type": "Bearer", "refresh_token": refresh.value}
        return Tokens(**pair, expires_in=ttl, seller=seller)

    def _new_refresh(self, seller: str, family: int) -> _Token:
        expires_at = self._clock.now() + timedelta(seconds=self._settings.refresh_token_ttl)
        token = _Token(self._value("refresh", seller), seller, family, expires_at)
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
        raise GrantRefused("invalid_request", f"send {' or '.join(_ENCODINGS[encoding])}")
    try:
        if kind == JSON:
            fields = json.loads(body.decode("utf-8"))
        else:
            pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict")
            fields = dict(pairs)
    except (ValueError, RecursionError) as error:
        raise GrantRefused("invalid_request", f"the body is not {kind}") from error
    if not isinstance(fields, dict):
        raise GrantRefused("invalid_request", "the body must be an object")
    if kind == FORM and len(fields) != len(pairs):
        raise GrantRefused("invalid_request", "a field is given twice")
    return fields
