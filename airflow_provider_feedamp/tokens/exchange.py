"""One call of FeedAMP's token endpoint, and what its answer means for the refresh token that was sent.

``POST /access_token`` serves both grants (API page "Access Token"; RFC 6749 sections 4.1.3, 5 and 6). The
call is made once: whether it may be repeated is for the custodian to decide, by the kind of failure.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import requests

from airflow_provider_feedamp import __version__
from airflow_provider_feedamp.exceptions import (
    ClientRefusedError,
    ConfigurationError,
    TokenError,
    TokenNotRenewedError,
)
from airflow_provider_feedamp.tokens.deadline import Watch, post_once

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Life of an access token when the answer does not say (API page "Access Token": one hour).
DEFAULT_LIFETIME = 3600.0
#: No access token is believed to live longer; an absurd figure must not keep a dead token in use.
MAX_LIFETIME = 86400.0

_CLIENT_CODES = frozenset({"invalid_client", "unauthorized_client"})
_GRANT_CODES = frozenset({"invalid_grant"})
#: Codes that may be shown; any other text in their place could be an echo of what was sent.
_KNOWN_CODES = (
    _CLIENT_CODES
    | _GRANT_CODES
    | {"invalid_request", "invalid_scope", "unsupported_grant_type", "access_denied"}
    | {"server_error", "temporarily_unavailable", "rate_limit_exceeded"}
    | {"invalid_payload", "missing_required_field", "field_invalid_value", "unknown_field_present"}
)
#: The server says that it did not look at the request: too early, too slow, too many.
_NOT_PROCESSED = frozenset({408, 425, 429})


class GrantRefusedError(TokenError):
    """The server refused the refresh token or the code that was sent."""

    #: Whether an earlier answer to the same refresh token was lost: then it had worked, and was used up.
    answer_lost = False
    #: Whether the refusal carried no OAuth code: it may be a gateway's.
    bare = False


class NotProcessedError(TokenNotRenewedError):
    """The request surely was not processed: the refresh token is as good as before."""


class AnswerLostError(TokenNotRenewedError):
    """The request may have been processed, and its answer is unknown."""


@dataclass(frozen=True, slots=True)
class TokenGrant:
    """What a token endpoint's 2xx answer granted.

    :param access_token: The access token; None if the answer brought a refresh token only.
    :param refresh_token: The one to use next; None if the answer left the present one in force.
    :param lifetime: Seconds that the access token lives.
    :param oddities: What was unusual about the answer, in words without values.
    """

    access_token: str | None = field(repr=False)
    refresh_token: str | None = field(repr=False)
    lifetime: float
    oddities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenEndpoint:
    """FeedAMP's token endpoint as one client uses it.

    :param url: ``{base URL}/access_token``.
    :param client_id: The marketplace's Client ID.
    :param client_secret: The marketplace's Client Secret.
    :param encoding: ``json`` or ``form``: FeedAMP's pages show both.
    :param deadline: Seconds that one call may take in total.
    :param connection: How errors name the Airflow connection that these values come from.
    """

    url: str
    client_id: str
    client_secret: str = field(repr=False)
    encoding: str = "json"
    deadline: float = 15.0
    connection: str = "the connection"

    def refresh(self, refresh_token: str) -> TokenGrant:
        """Spend a refresh token.

        :raises GrantRefusedError: if the refresh token was refused.
        :raises ClientRefusedError: if the client was refused, whatever the token.
        :raises ConfigurationError: if the endpoint refuses the kind of request.
        :raises NotProcessedError: if the token surely was not spent.
        :raises AnswerLostError: if it may have been.
        """
        return self._post({"grant_type": "refresh_token", "refresh_token": refresh_token})

    def exchange_code(self, code: str, redirect_url: str | None = None) -> TokenGrant:
        """Exchange an authorisation code; raises as :meth:`refresh` does.

        :param redirect_url: Sent along when given (RFC 6749 section 4.1.3); FeedAMP's pages show none.
        """
        redirect = {"redirect_url": redirect_url} if redirect_url else {}
        return self._post({"grant_type": "authorization_code", "code": code, **redirect})

    def _post(self, grant: Mapping[str, str]) -> TokenGrant:
        fields = {**grant, "client_id": self.client_id, "client_secret": self.client_secret}
        as_form = self.encoding == "form"
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded" if as_form else "application/json",
            "User-Agent": f"airflow-provider-feedamp/{__version__}",
        }
        data = urlencode(fields, errors="surrogatepass") if as_form else json.dumps(fields)
        watch = Watch(self.deadline)
        try:
            answer = post_once(self.url, watch, headers=headers, data=data.encode())
        except (requests.RequestException, OSError, ValueError) as error:
            # requests' own text quotes the URL at the most, but the name of the failure says all that helps.
            kind = type(error).__name__
            if watch.sent:
                # Without its cause: that one quotes what the server sent, which may be a token.
                raise AnswerLostError(
                    f"{self.url} gave no complete answer ({kind}, {self.deadline:.0f} s allowed)."
                ) from None
            raise NotProcessedError(f"{self.url} could not be reached ({kind}).") from error
        return _read(answer, self)


def _read(answer: requests.Response, endpoint: TokenEndpoint) -> TokenGrant:
    """Turn an answer into a grant, or into the error that says what became of the token that was sent."""
    body = _json_object(answer)
    code = _error_code(body)
    request_id = answer.headers.get("X-Request-Id")
    said = f"{endpoint.url} answered {answer.status_code}" + (f" ({code})" if code else "")
    details: dict[str, Any] = {"status": answer.status_code, "request_id": request_id}
    if code:
        details["codes"] = (code,)
    granted = 200 <= answer.status_code < 300
    if granted and _text(body.get("access_token")):
        return _grant(body, said, details)  # whatever else it says: what was granted must not be lost
    if code in _CLIENT_CODES:
        raise ClientRefusedError(_client_refused(said, endpoint), **details)
    if code in _GRANT_CODES:
        raise GrantRefusedError(f"{said}.", **details)
    if granted:
        return _grant(body, said, details)
    raise _failure(answer, said, details, endpoint)


def _grant(body: dict[str, Any], said: str, details: dict[str, Any]) -> TokenGrant:
    access_token = _text(body.get("access_token"))
    refresh_token = _text(body.get("refresh_token"))
    if access_token is None and refresh_token is None:
        raise AnswerLostError(f"{said}, and the body holds no access_token.", **details)
    lifetime = _lifetime(body.get("expires_in"))
    oddities = []
    if lifetime is None:
        oddities.append(f"expires_in is missing or no number of seconds; {DEFAULT_LIFETIME:.0f} is assumed")
    if refresh_token is None:
        oddities.append("refresh_token is missing; the present one stays in force")
    return TokenGrant(access_token, refresh_token, lifetime or DEFAULT_LIFETIME, tuple(oddities))


def _failure(
    answer: requests.Response, said: str, details: dict[str, Any], endpoint: TokenEndpoint
) -> TokenError | ConfigurationError:
    status = answer.status_code
    wait = _number(answer.headers.get("Retry-After"))
    if status in _NOT_PROCESSED or (status == 503 and "Retry-After" in answer.headers):
        return NotProcessedError(f"{said} and asks to come back later.", retry_after=wait, **details)
    if status >= 500 or status < 300:
        return AnswerLostError(f"{said}.", **details)
    if status == 401:
        refused = GrantRefusedError(f"{said}.", **details)
        refused.bare = True
        return refused
    if status < 400:
        msg = (
            f"{said}, a redirect, which is not followed with a secret: set the new URL as host of "
            f"{endpoint.connection}."
        )
        return ConfigurationError(msg, **details)
    msg = (
        f"{said}: it refuses the request itself, not the seller's token. Check the host of "
        f"{endpoint.connection} (is it the API's base URL?) and its extra token_request_encoding (json or "
        "form)."
    )
    return ConfigurationError(msg, **details)


def _client_refused(said: str, endpoint: TokenEndpoint) -> str:
    return (
        f"{said}: FeedAMP refuses the client, so no seller's token can be renewed. Check Client ID (login, "
        f"now {endpoint.client_id!r}) and Client Secret (password) of {endpoint.connection}. No refresh "
        "token "
        "was lost."
    )


def _json_object(answer: requests.Response) -> dict[str, Any]:
    # JSON says itself how it is encoded; a wrong charset or a stray byte must not cost a refresh token, nor
    # must a number of more digits than Python turns into an int.
    text = answer.content.decode(json.detect_encoding(answer.content), errors="replace")
    try:
        body = json.loads(text, parse_int=float)
    except (ValueError, RecursionError):
        return {}
    # FeedAMP's other errors are lists of {code, message}.
    if isinstance(body, list) and body and isinstance(body[0], dict):
        body = body[0]
    return body if isinstance(body, dict) else {}


def _error_code(body: dict[str, Any]) -> str | None:
    code = (_text(body.get("error")) or _text(body.get("code")) or "").lower()
    return code if code in _KNOWN_CODES else None


def _text(value: object) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _lifetime(value: object) -> float | None:
    number = _number(value)
    return None if number is None else min(number, MAX_LIFETIME)
