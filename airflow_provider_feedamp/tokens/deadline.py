"""One HTTP request with a total deadline, and the knowledge whether it was sent at all."""

from __future__ import annotations

import socket
import threading
import time
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import connection, connectionpool

from airflow_provider_feedamp.exceptions import AnswerLostError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from requests.auth import AuthBase

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
        #: Whether a connection stood, so that the request may have reached the server.
        self.sent = False

    def left(self) -> float:
        """Return the seconds that remain, never below a tenth."""
        return max(self._end - time.monotonic(), 0.1)

    def connected(self, sock: socket.socket) -> None:
        """Take note that the connection stands, and refuse it when the time is up already."""
        # First the socket, then the look at the time: the end may come between the two. What TLS inside TLS
        # (an https proxy) gives for a socket only wraps the real one.
        self._socket = getattr(sock, "socket", sock)
        if time.monotonic() >= self._end:
            raise TimeoutError("the connection took the whole time allowed")
        self.sent = True

    def _cut(self) -> None:
        if self._socket is not None:
            try:
                # The base class's method: the TLS object belongs to the thread that reads.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
            except OSError:
                return  # closed already

    def __enter__(self) -> Watch:
        self._timer.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._timer.cancel()


#: The watch of the request that this thread makes; a connection asks for it when it stands.
_current = threading.local()


class _HTTPConnection(connection.HTTPConnection):
    def connect(self) -> None:
        super().connect()
        _current.watch.connected(self.sock)


class _HTTPSConnection(connection.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _current.watch.connected(self.sock)


class _HTTPPool(connectionpool.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(connectionpool.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class _WatchedAdapter(HTTPAdapter):
    """Opens connections that report to the current watch, through proxies too."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._watch_pools(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        return self._watch_pools(super().proxy_manager_for(*args, **kwargs))

    @staticmethod
    def _watch_pools(manager: Any) -> Any:
        manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
        return manager


class _NoAuth(requests.auth.AuthBase):
    """Keeps requests from adding an Authorization header out of a .netrc file."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


_NO_AUTH: AuthBase = _NoAuth()


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
            session.auth = _NO_AUTH
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
    """Read a body without ever holding much more than it may have."""
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
