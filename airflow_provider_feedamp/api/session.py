"""The requests session of a user's own calls to one FeedAMP base URL."""

from __future__ import annotations

import logging
import math
import random
import re
import time
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from requests.exceptions import ChunkedEncodingError, ReadTimeout
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, Retry
from urllib3.exceptions import HTTPError, MaxRetryError, ReadTimeoutError, SSLError

from airflow_provider_feedamp.api import wire
from airflow_provider_feedamp.api.http import (
    DEFAULT_POOL_SIZE,
    DEFAULT_RETRIES,
    DEFAULT_TIMEOUT,
    HEADERS,
    LONGEST_WAIT,
    RETRIED_METHODS,
    backoff,
    repeats,
    sendable,
)
from airflow_provider_feedamp.api.wire import (
    BoundedHTTPConnection,
    BoundedHTTPSConnection,
    Response,
    refuse_socks,
    unusable,
)
from airflow_provider_feedamp.exceptions import InputError
from airflow_provider_feedamp.retry_after import TOO_MANY, seconds_asked

if TYPE_CHECKING:
    from requests import PreparedRequest, Request

    from airflow_provider_feedamp.api.types import TokenSource


log = logging.getLogger(__name__)

#: Bytes that are read at a time. An older urllib3 unpacks them all at once, a thousandfold at worst.
_PIECE = 32 * 1024
_SCHEME = "Bearer "
_DEFAULT_PORTS = {"http": 80, "https": 443}
_ABSOLUTE = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class FeedAmpSession(requests.Session):
    """A session whose relative URLs start at the base URL, with authorisation, time-outs and retries.

    ``orders``, ``/orders`` and ``orders?page_size=50`` all go below the base URL. Credentials come from
    ``auth`` alone: a ``.netrc`` is not read, cookies are not kept, and a redirect to another origin loses the
    bearer.

    :param base_url: Base URL of the API, such as ``https://host/api/v1``; a trailing slash does not matter.
    :param auth: Authorises each request, see :class:`BearerAuth`.
    :param timeout: Seconds for requests that name none: one number, or one to connect and one to read.
        Default: 10 and 60.
    :param retries: How often a request is sent again at most. Default: 8.
    :param pool_size: Connections that are kept open; give at least as many as threads. Default: 32.
    """

    auth: AuthBase

    def __init__(
        self,
        base_url: str,
        auth: AuthBase,
        timeout: float | tuple[float, float] = DEFAULT_TIMEOUT,
        *,
        retries: int = DEFAULT_RETRIES,
        pool_size: int = DEFAULT_POOL_SIZE,
    ) -> None:
        super().__init__()
        self.base_url = base_url.rstrip("/")
        self.auth = auth
        self.timeout = timeout
        self.headers.update(HEADERS)
        # The token alone says which seller is meant; no cookie of the server's may say otherwise.
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        rules = _Retries(retries, allowed_methods=RETRIED_METHODS, raise_on_status=False)
        adapter = _Adapter(max_retries=rules, pool_maxsize=pool_size)
        self.mount("https://", adapter)
        self.mount("http://", adapter)

    def prepare_request(self, request: Request) -> PreparedRequest:
        """Prepare a request, with its URL resolved against the base URL."""
        url = str(request.url)
        if not _ABSOLUTE.match(url):
            request.url = f"{self.base_url}/{url.lstrip('/')}"
        return super().prepare_request(request)

    def send(self, request: PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a prepared request, with the session's time-out where it has none of its own."""
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = self.timeout
        return super().send(request, **kwargs)

    def rebuild_auth(self, prepared_request: PreparedRequest, response: requests.Response) -> None:
        """Take the bearer off a redirect that leaves the origin, and look for no other credentials."""
        if origin_of(prepared_request.url) != origin_of(response.request.url):
            prepared_request.headers.pop("Authorization", None)


class _Retries(Retry):
    """urllib3's retries by the rules of the client's own calls, but each request waits for itself."""

    def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:
        return status_code == TOO_MANY or repeats(method, status_code)

    def increment(
        self, method: Any = None, url: Any = None, response: Any = None, *args: Any, **more: Any
    ) -> Any:
        error = more.get("error")
        # No retry mends TLS, and of the last try a time-out is to be seen as one.
        if isinstance(error, SSLError) or (isinstance(error, ReadTimeoutError) and not self.total):
            raise error
        if _asked(response) > LONGEST_WAIT:
            raise MaxRetryError(more["_pool"], url)
        retries = super().increment(method, url, response, *args, **more)
        if response is not None:
            response.close()  # else urllib3 reads it to its end, however long it is
        return retries

    def sleep(self, response: Any = None) -> None:
        last, tries = self.history[-1], len(self.history)
        seconds = max(_asked(response), backoff(tries - 1, random.random()))  # noqa: S311
        path = urlsplit(last.url or "").path
        log.info("FeedAMP did not serve %s %s; trying again in %.1f s", last.method, path, seconds)
        time.sleep(seconds)


def _asked(response: Any) -> float:
    return (response and seconds_asked(Response(response.status, response.headers, b""))) or 0.0


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = BoundedHTTPConnection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = BoundedHTTPSConnection


class _Adapter(HTTPAdapter):
    """Reads answers within their bounds, and sends a body that cannot be read twice only once."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        refuse_socks(proxy)
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = self.poolmanager.pool_classes_by_scheme
        return manager

    def send(
        self, request: PreparedRequest, stream: bool = False, *args: Any, **options: Any
    ) -> requests.Response:
        """Send a request and read its answer; one that is asked for as a stream is left to its reader."""
        if not _rewound(request) and self.max_retries.total:
            return _Adapter(max_retries=0).send(request, stream, *args, **options)
        response = super().send(request, stream, *args, **options)
        if stream:
            answer: Any = response.raw._original_response
            if answer.fp is not None:  # an answer without a body is at its end
                answer.fp.raw.ends = math.inf
            return response
        try:
            path = urlsplit(str(request.url)).path
            response._content = _content_of(response.raw, f"{request.method} {path}")
        except ReadTimeoutError as error:
            raise ReadTimeout(error, request=request) from error
        except HTTPError as error:
            raise ChunkedEncodingError(error, request=request) from error
        response._content_consumed = True  # type: ignore[attr-defined]
        return response


def _content_of(raw: Any, asked: str) -> bytes:
    """Return the unpacked body of an answer that urllib3 has not read; of a long error, its beginning."""
    # Packed twice, a few bytes can be as many as they like at once.
    what = "packed more than once" if "," in raw.headers.get("Content-Encoding", "") else ""
    body = bytearray()
    while not what and (piece := raw.read(_PIECE, decode_content=True)):
        body += piece
        if len(body) > wire.LONGEST_ANSWER:
            if raw.status >= 400:
                raw.close()
                break
            what = f"of more than {wire.LONGEST_ANSWER // 1024**2} MiB"
    if what:
        raw.close()
        raise unusable(raw.status, asked, what)
    return bytes(body)


class BearerAuth(AuthBase):
    """Authorises requests to one FeedAMP base URL with access tokens from a token source.

    After a 401 the source is asked for another token once and the request is sent once more; a second 401 is
    handed back as it is. One object serves any number of threads: what belongs to a request is kept on it.

    :param tokens: Where access tokens come from.
    :param base_url: The only origin (scheme, host, port) that the tokens are sent to.
    """

    def __init__(self, tokens: TokenSource, base_url: str) -> None:
        self._tokens = tokens
        self._origin = origin_of(base_url)
        self._accepted = ""

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the token that FeedAMP has accepted last."""
        return {**self.__dict__, "_accepted": ""}

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        """Add the bearer to a request.

        :raises InputError: The request goes to another origin than the base URL's; nothing is sent.
        """
        if origin_of(r.url) != self._origin:
            scheme, host, port = self._origin
            raise InputError(
                f"A FeedAMP access token is only sent to {scheme}://{host}:{port}, and this request goes "
                "elsewhere. Use a URL relative to the connection's host, or a session of your own."
            )
        r.headers["Authorization"] = _SCHEME + sendable(self._tokens.token())
        r.hooks["response"].append(self._renew_once)
        return r

    def _renew_once(self, response: requests.Response, **send_options: Any) -> requests.Response:
        """Send a request that got a 401 once more with another token; requests calls this once per answer."""
        request = response.request
        sent = request.headers.get("Authorization", "")
        if response.status_code != 401:
            self._take_note(sent)
            return response
        # A redirect keeps its request's hooks, so this may be the answer of another party.
        if not sent.startswith(_SCHEME) or origin_of(request.url) != self._origin:
            return response
        response.content  # noqa: B018  read, so that the connection is free while the token is renewed
        response.close()
        request.headers["Authorization"] = _SCHEME + sendable(
            self._tokens.replace(sent.removeprefix(_SCHEME))
        )
        if not _rewound(request):
            return response
        answer: requests.Response = response.connection.send(request, **send_options)
        answer.history.append(response)
        if answer.status_code != 401:
            self._take_note(request.headers["Authorization"])
        return answer

    def _take_note(self, sent: str) -> None:
        """Tell the token source once of each token that works: a later 401 is then about the token's end."""
        if sent != self._accepted and sent.startswith(_SCHEME):
            self._accepted = sent
            self._tokens.accepted(sent.removeprefix(_SCHEME))


def _rewound(request: PreparedRequest) -> bool:
    """Make a request's body ready to be sent once more; False when that is not possible."""
    body: Any = request.body
    if body is None or isinstance(body, bytes | str | bytearray):
        return True
    # Where requests found a file when it prepared the request.
    start = getattr(request, "_body_position", None)
    if not isinstance(start, int) or not hasattr(body, "seek"):
        return False
    body.seek(start)
    return True


def origin_of(url: str | None) -> tuple[str, str, int | None]:
    """Return scheme, host and port of a URL: two with the same three are served by the same party."""
    parts = urlsplit(url or "")
    return parts.scheme, parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme)
