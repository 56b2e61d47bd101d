"""The adapter below our sessions: requests' own, without working out for each request what stays the same."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from requests import Response
from requests.adapters import HTTPAdapter
from requests.exceptions import ChunkedEncodingError, ReadTimeout
from urllib3.exceptions import HTTPError, ReadTimeoutError

from airflow_provider_feedamp.api.call import Call
from airflow_provider_feedamp.api.connections import in_one_piece
from airflow_provider_feedamp.exceptions import ApiError

if TYPE_CHECKING:
    from requests import PreparedRequest
    from urllib3.connectionpool import ConnectionPool


#: The most bytes of an answer, unpacked. A full page of orders has a few hundred thousand.
LONGEST_ANSWER = 32 * 1024 * 1024
#: Bytes that are read at a time. An older urllib3 unpacks them all at once, a thousandfold at worst.
_PIECE = 32 * 1024


class LeanAdapter(HTTPAdapter):
    """Remembers the pool of connections that the last request used, and the certificates set up for it.

    A session of ours talks to one origin with one set of proxies and certificates, so that is nearly always
    the next request's, too. Anything else goes the way that requests goes. The cookies of an answer to a
    :class:`Call` are left where they are.
    """

    _last: tuple[object, ConnectionPool] | None = None
    _verified: tuple[object, ...] = ()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Set up the connections that go straight to the server."""
        super().init_poolmanager(*args, **options)
        in_one_piece(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Set up the connections that go through a proxy."""
        manager = super().proxy_manager_for(proxy, **options)
        in_one_piece(manager)
        return manager

    def get_connection_with_tls_context(
        self, request: PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> ConnectionPool:
        """Return the pool of connections for a request."""
        key = (str(request.url).split("/", 3)[:3], verify, dict(proxies or {}), cert)
        last = self._last  # once: another thread may put its own there meanwhile
        if last is None or last[0] != key:
            pool = super().get_connection_with_tls_context(request, verify, proxies, cert)
            last = self._last = (key, pool)
        return last[1]

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Set up a pool's certificates."""
        settings = (conn, verify, cert)
        if self._verified != settings:
            super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call]
            self._verified = settings

    def request_url(self, request: PreparedRequest, proxies: Any) -> str:
        """Return what goes into the request line."""
        if isinstance(request, Call) and not proxies:
            return "/" + str(request.url).split("/", 3)[3]
        return super().request_url(request, proxies)

    def build_response(self, req: PreparedRequest, resp: Any) -> Response:
        """Return the answer to a request."""
        if not isinstance(req, Call):
            return super().build_response(req, resp)
        response = Response()
        response.status_code, response.reason, response.headers = resp.status, resp.reason, resp.headers
        response.url, response.request, response.raw = str(req.url), req, resp
        response.connection = self  # what sends the request once more goes through it
        return response

    def close(self) -> None:
        """Close all connections; the next request opens new ones."""
        self._last, self._verified = None, ()
        super().close()


def take_in(response: Response, stream: bool) -> None:
    """Read an answer, or leave one that is asked for as a stream to its reader: its size, and its time.

    :raises ApiError: The answer is a success, and longer than :data:`LONGEST_ANSWER`.
    """
    if stream:
        answer: Any = response.raw._original_response
        if answer.fp is not None:  # an answer without a body is at its end
            answer.fp.raw.ends = math.inf
        return
    try:
        response._content = _body(response)
    except ReadTimeoutError as error:
        raise ReadTimeout(error, request=response.request) from error
    except HTTPError as error:
        raise ChunkedEncodingError(error, request=response.request) from error
    response._content_consumed = True  # type: ignore[attr-defined]


def _body(response: Response) -> bytes:
    """Return an answer's body; of an error that is too long, its beginning."""
    raw: Any = response.raw
    packed = "Content-Encoding" in raw.headers  # to get what is not there takes three times as long
    if not packed and raw.length_remaining is not None and raw.length_remaining <= _PIECE:
        return bytes(raw.read())
    # Packed twice, a few bytes can be as many as they like at once.
    if packed and "," in raw.headers["Content-Encoding"]:
        raise _unusable(response, "packed more than once")
    body = bytearray()
    while piece := raw.read(_PIECE, decode_content=True):
        body += piece
        if len(body) > LONGEST_ANSWER:
            if response.status_code < 400:
                raise _unusable(response, f"of more than {LONGEST_ANSWER // 1024**2} MiB")
            raw.close()
            break
    return bytes(body)


def _unusable(response: Response, what: str) -> ApiError:
    response.raw.close()
    asked = f"{response.request.method} {urlsplit(str(response.request.url)).path}"
    return ApiError(
        f"FeedAMP answered {asked} with HTTP {response.status_code} and a body {what}, which is not read. "
        "Ask for less at once (page_size); is there a proxy in between?",
        status=response.status_code,
    )
