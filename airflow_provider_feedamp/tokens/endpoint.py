"""One call of FeedAMP's token endpoint, and what its answer means for the refresh token that was sent.

``POST /access_token`` serves both grants (API page "Access Token"; RFC 6749 sections 4.1.3, 5 and 6). The
call is made once: whether it may be repeated is for the custodian to decide, by the kind of failure.
"""

from __future__ import annotations

import json
import math
import socket
import threading
import time
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import requests
from requests.adapters import HTTPAdapter
from urllib3 import connection, connectionpool
from urllib3.exceptions import HTTPError

from airflow_provider_feedamp import __version__
from airflow_provider_feedamp.exceptions import (
    AnswerLostError,
    ClientRefusedError,
    ConfigurationError,
    NotProcessedError,
    TokenError,
)
from airflow_provider_feedamp.retry_after import seconds_asked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


#: Life of an access token when the answer does not say (API page "Access Token": one hour).
DEFAULT_LIFETIME = 3600.0
#: No access token is believed to live longer; an absurd figure must not keep a dead token in use.
MAX_LIFETIME = 86400.0

_CLIENT_CODES = ("invalid_client", "unauthorized_client")
_GRANT_CODES = ("invalid_grant",)
#: Codes that may be shown; any other text in their place could be an echo of what was sent. Of several in one
#: answer the first here counts: a client that is refused says nothing about a seller's token.
_KNOWN_CODES = (
    *_CLIENT_CODES,
    *_GRANT_CODES,
    *("invalid_request", "invalid_scope", "unsupported_grant_type", "access_denied"),
    *("server_error", "temporarily_unavailable", "rate_limit_exceeded"),
    *("invalid_payload", "missing_required_field", "field_invalid_value", "unknown_field_present"),
)
#: Where codes are found: OAuth's own place, that of FeedAMP's lists, and the usual envelopes around either.
_CODE_FIELDS = ("error", "code", "errors")
_DEEPEST_CODE = 4
#: The server says that it did not look at the request: too early, too slow, too many.
_NOT_PROCESSED = frozenset({408, 425, 429})
#: The caller is refused. Who says so without a code may be FeedAMP or a gateway before it.
_BARE_REFUSALS = frozenset({401, 403})


class GrantRefusedError(TokenError):
    """The server refused the refresh token or the code that was sent."""

    #: Whether an earlier answer to the same refresh token was lost: then it had worked, and was used up.
    answer_lost = False
    #: Whether no OAuth code says so: a 401 or 403 without one may as well come from a broken gateway.
    bare = False


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

        :param code: The code.
        :param redirect_url: Where the seller's browser was sent with it. FeedAMP's pages show no such field;
            servers that keep to RFC 6749 section 4.1.3 want it. Default: it is not sent.
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
            answer, body = post_once(self.url, watch, headers=headers, data=data.encode())
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            # requests' own text quotes the URL at the most, but the name of the failure says all that helps.
            kind = type(error).__name__
            if watch.sent:
                # Without its cause: that one quotes what the server sent, which may be a token.
                raise AnswerLostError(
                    f"{self.url} gave no complete answer ({kind}, {self.deadline:.0f} s allowed)."
                ) from None
            raise NotProcessedError(f"{self.url} could not be reached ({kind}).") from error
        # JSON says itself how it is encoded; a wrong charset or a stray byte must not cost a refresh token,
        # nor must a number of more digits than Python turns into an int.
        text = body.decode(json.detect_encoding(body), errors="replace")
        parsed = None
        with suppress(ValueError, RecursionError):
            parsed = json.loads(text, parse_int=float)
        return _read(answer, parsed, self)


def _read(answer: requests.Response, parsed: object, endpoint: TokenEndpoint) -> TokenGrant:
    """Turn an answer into a grant, or into the error that says what became of the token that was sent."""
    found = set(_codes(parsed))
    code = next((known for known in _KNOWN_CODES if known in found), None)
    # FeedAMP's other answers are lists.
    body = parsed[0] if isinstance(parsed, list) and parsed else parsed
    if not isinstance(body, dict):
        body = {}
    request_id = answer.headers.get("X-Request-Id")
    said = f"{endpoint.url} answered {answer.status_code}" + (f" ({code})" if code else "")
    details: dict[str, Any] = {"status": answer.status_code, "request_id": request_id}
    if code:
        details["codes"] = (code,)
    granted = 200 <= answer.status_code < 300
    if granted and _non_empty(body.get("access_token")):
        return _grant(body, said, details)  # whatever else it says: what was granted must not be lost
    if code in _CLIENT_CODES:
        raise ClientRefusedError(
            f"{said}: FeedAMP refuses the client, so no seller's token can be renewed. Check Client ID "
            f"(login, now {endpoint.client_id!r}) and Client Secret (password) of {endpoint.connection}. No "
            "refresh token was lost.",
            **details,
        )
    if code in _GRANT_CODES:
        raise GrantRefusedError(f"{said}.", **details)
    if granted:
        return _grant(body, said, details)
    raise _failure(answer, said, details, endpoint)


def _grant(body: dict[str, Any], said: str, details: dict[str, Any]) -> TokenGrant:
    access_token = _non_empty(body.get("access_token"))
    refresh_token = _non_empty(body.get("refresh_token"))
    if access_token is None and refresh_token is None:
        raise AnswerLostError(f"{said}, and the body holds no access_token.", **details)
    lifetime, oddities, given = math.nan, [], body.get("expires_in")
    if isinstance(given, int | float | str) and not isinstance(given, bool):
        with suppress(ValueError, OverflowError):
            lifetime = float(given)
    if not (math.isfinite(lifetime) and lifetime > 0):
        lifetime = DEFAULT_LIFETIME
        oddities.append(f"expires_in is missing or no number of seconds; {DEFAULT_LIFETIME:.0f} is assumed")
    if refresh_token is None:
        oddities.append("refresh_token is missing; the present one stays in force")
    return TokenGrant(access_token, refresh_token, min(lifetime, MAX_LIFETIME), tuple(oddities))


def _failure(
    answer: requests.Response, said: str, details: dict[str, Any], endpoint: TokenEndpoint
) -> TokenError | ConfigurationError:
    status = answer.status_code
    if status in _NOT_PROCESSED or (status == 503 and "Retry-After" in answer.headers):
        return NotProcessedError(
            f"{said} and asks to come back later.", retry_after=seconds_asked(answer), **details
        )
    if status >= 500 or status < 300:
        return AnswerLostError(f"{said}.", **details)
    if status in _BARE_REFUSALS:
        refused = GrantRefusedError(f"{said}.", **details)
        refused.bare = True
        return refused
    if status < 400:
        return ConfigurationError(
            f"{said}, a redirect, which is not followed with a secret: set the new URL as host of "
            f"{endpoint.connection}.",
            **details,
        )
    return ConfigurationError(
        f"{said}: it refuses the request itself, not the seller's token. Check the host of "
        f"{endpoint.connection} (is it the API's base URL?) and its extra request_encoding (json or form).",
        **details,
    )


def _codes(parsed: object, depth: int = _DEEPEST_CODE) -> Iterator[str]:
    """Yield what stands where an error's code stands, in lower case, known or not."""
    if isinstance(parsed, str):
        yield parsed.strip().lower()
    elif depth and isinstance(parsed, list):
        for each in parsed:
            yield from _codes(each, depth - 1)
    elif depth and isinstance(parsed, dict):
        for name in _CODE_FIELDS:
            yield from _codes(parsed.get(name), depth - 1)


def _non_empty(value: object) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


#: Bytes of an answer's body, decompressed; a token's has a few hundred.
LONGEST_BODY = 1 << 20
_ZLIB_CODINGS = frozenset({"gzip", "x-gzip", "deflate"})
#: For zlib: that of gzip or of zlib itself, whichever comes.
_ANY_HEADER = zlib.MAX_WBITS | 32


class Watch:
    """Cuts the connection of one request at a deadline.

    A read time-out bounds the pause between two packets; a server that sends a byte a second never meets it.
    A refresh token must not stay in flight for longer than its lease, so the socket is shut down at the end.

    :param seconds: The total that the request may take.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self._socket: socket.socket | None = None
        #: Whether a connection was open, so that the request may have reached the server.
        self.sent = False

    def left(self) -> float:
        """Return the seconds that remain, never below a tenth."""
        return max(self._end - time.monotonic(), 0.1)

    def connected(self, sock: socket.socket) -> None:
        """Note that the connection is open, and refuse it when the time is up already."""
        # First the socket, then the look at the time: the end may come between the two. What TLS inside TLS
        # (an https proxy) gives for a socket only wraps the real one.
        self._socket = getattr(sock, "socket", sock)
        if time.monotonic() >= self._end:
            raise TimeoutError("the connection took the whole time allowed")
        self.sent = True

    def _cut(self) -> None:
        if self._socket is not None:
            with suppress(OSError):  # closed already
                # The base class's method: the TLS object belongs to the thread that reads.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def __enter__(self) -> Watch:
        self._timer.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._timer.cancel()


#: The watch of the request that this thread makes; a connection asks for it once it is open.
_current = threading.local()


class _Reporting(connection.HTTPConnection):
    """A connection that reports to the current watch once it is open."""

    def connect(self) -> None:
        super().connect()
        _current.watch.connected(self.sock)


class _ReportingTls(_Reporting, connection.HTTPSConnection):
    """The same over TLS."""


class _Pool(connectionpool.HTTPConnectionPool):
    ConnectionCls = _Reporting


class _TlsPool(connectionpool.HTTPSConnectionPool):
    ConnectionCls = _ReportingTls


class _WatchedAdapter(HTTPAdapter):
    """Opens connections that report to the current watch, through proxies too."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._watch_pools(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        return self._watch_pools(super().proxy_manager_for(*args, **kwargs))

    @staticmethod
    def _watch_pools(manager: Any) -> Any:
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
        return manager


@contextmanager
def watched_session(watch: Watch) -> Iterator[requests.Session]:
    """Yield a session for one request on a fresh connection, without retries and stored credentials.

    :param watch: The request's deadline, which begins now.
    """
    _current.watch = watch
    try:
        with requests.Session() as session, watch:
            adapter = _WatchedAdapter(max_retries=0)
            session.mount("https://", adapter)
            session.mount("http://", adapter)
            # Keeps requests from adding an Authorization header out of a .netrc file.
            session.auth = lambda request: request
            yield session
    finally:
        del _current.watch


def post_once(
    url: str, watch: Watch, *, headers: Mapping[str, str], data: bytes
) -> tuple[requests.Response, bytes]:
    """Send one POST on a fresh connection: no retry, no redirect, no cookie, no stored credentials.

    :param url: Where to.
    :param watch: Its deadline; tells afterwards whether the request may have been sent.
    :return: The answer and its body, decompressed.
    :raises AnswerLostError: if the body is longer than 1 MiB.
    :raises requests.RequestException: if there was no answer; ``watch.sent`` says whether it was sent.
    :raises urllib3.exceptions.HTTPError: if the answer broke off.
    """
    with watched_session(watch) as session:
        # A token's answer is short. Compressed on the way it could be anything.
        asked = {"Accept-Encoding": "identity", **headers}
        request = session.prepare_request(requests.Request("POST", url, headers=asked, data=data))
        settings: dict[str, Any] = {
            **session.merge_environment_settings(request.url, {}, True, None, None),
            "timeout": watch.left(),
        }
        # Not by the session: it reads the body of a redirect to its end, however long that is.
        with session.get_adapter(url).send(request, **settings) as answer:
            return answer, _body(answer)


def _body(answer: requests.Response) -> bytes:
    """Read a body, and never hold much more than it may have."""
    body = bytearray()
    while len(body) <= LONGEST_BODY and (
        more := answer.raw.read(LONGEST_BODY + 1 - len(body), decode_content=False)
    ):
        body += more
    if answer.headers.get("Content-Encoding", "").strip().lower() in _ZLIB_CODINGS:
        try:
            body[:] = zlib.decompressobj(_ANY_HEADER).decompress(body, LONGEST_BODY + 1)
        except zlib.error as error:
            raise requests.exceptions.ContentDecodingError("the body is not what its header says") from error
    if len(body) > LONGEST_BODY:
        raise AnswerLostError(
            f"{answer.url} answered {answer.status_code} with more than {LONGEST_BODY >> 20} MiB, which no "
            "token's answer has. Is there a proxy or another server in between?",
            status=answer.status_code,
        )
    return bytes(body)
