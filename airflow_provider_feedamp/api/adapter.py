"""The adapter below our sessions: requests' own, without working out for each request what stays the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from requests import Response
from requests.adapters import HTTPAdapter
from requests.exceptions import ChunkedEncodingError
from urllib3.exceptions import HTTPError

from airflow_provider_feedamp.api.call import Call
from airflow_provider_feedamp.api.connections import in_one_piece

if TYPE_CHECKING:
    from requests import PreparedRequest
    from urllib3.connectionpool import ConnectionPool


class LeanAdapter(HTTPAdapter):
    """Remembers the pool of connections that the last request used, and the certificates set up for it.

    A session of ours talks to one origin with one set of proxies and certificates, so that is nearly always
    the next request's, too. Anything else goes the way that requests goes. The answer to a :class:`Call` is
    read at once and in one piece, and its cookies are left where they are.
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
        try:
            response._content = resp.read(decode_content=True)
        except HTTPError as error:
            raise ChunkedEncodingError(error, request=req) from error
        return response

    def close(self) -> None:
        """Close all connections; the next request opens new ones."""
        self._last, self._verified = None, ()
        super().close()
