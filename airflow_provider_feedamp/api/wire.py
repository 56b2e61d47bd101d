"""Connections whose answers take a bounded time and a bounded memory, for the client and for get_conn()."""

from __future__ import annotations

import math
import ssl
import time
from dataclasses import dataclass, field
from http.client import HTTPResponse, RemoteDisconnected
from socket import SocketIO
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from airflow_provider_feedamp.exceptions import ApiError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from urllib3.exceptions import HTTPError


#: Seconds that one sending and its answer may take in all, however short the read time-out is.
LEAST_TOTAL = 120.0
#: The most bytes of an answer, unpacked. A full page of orders has a few hundred thousand.
LONGEST_ANSWER = 32 * 1024 * 1024
#: Bytes that are read at a time. An older urllib3 unpacks them all at once, a thousandfold at worst.
_PIECE = 32 * 1024


@dataclass(frozen=True, slots=True)
class Response:
    """One answer of FeedAMP's, read to its end.

    :param status_code: HTTP status.
    :param headers: Headers; their names are not case-sensitive.
    :param content: The body, unpacked.
    :param token: The access token that was sent.
    :param proven: Whether the client has had a success before.
    """

    status_code: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)
    token: str = field(default="", repr=False)
    proven: bool = False


class Timed(SocketIO):
    """What one answer is read from, until its time is up.

    A read time-out bounds the pause between two pieces: a server that sends a byte now and then never meets
    it. So each wait for a piece is as long as the read time-out, or as what is left.
    """

    #: When the time is up, by the monotonic clock.
    ends: float
    #: Whether a byte of the answer has come.
    begun: bool
    _sock: Any

    def readinto(self, buffer: Any) -> int | None:
        """Read a piece.

        :raises TimeoutError: The time is up.
        """
        left = self.ends - time.monotonic()
        pause = self._sock.gettimeout()
        if pause is None or left >= pause:
            count = SocketIO.readinto(self, buffer)
            self.begun = self.begun or bool(count)
            return count
        if left <= 0:
            raise TimeoutError("the whole answer took too long")
        sock = self._sock
        sock.settimeout(left)
        try:
            count = SocketIO.readinto(self, buffer)
        finally:
            sock.settimeout(pause)
        self.begun = self.begun or bool(count)
        return count


class _InOnePiece(HTTPConnection):
    """Sends head and body of a request together, and bounds the time until the end of the answer.

    urllib3 sends the head and then the body: a system call, a packet and two turns at the interpreter's lock
    more, for each order. The time is twice the read time-out, at least :data:`LEAST_TOTAL`, from the sending
    on.
    """

    _pieces: list[bytes] | None = None
    _began = 0.0
    _used = False
    _source: Timed | None = None

    def connect(self) -> None:
        """Connect; a proxy's answer to that has its time, too."""
        self._began = time.monotonic()
        self._used, self._source = False, None
        super().connect()

    def request(self, method: str, url: str, body: Any = None, *args: Any, **options: Any) -> None:
        """Send a request; a body that is not bytes goes as it comes."""
        self._began = time.monotonic()
        if not isinstance(body, bytes):
            super().request(method, url, body, *args, **options)
            return
        pieces: list[bytes] = []
        self._pieces = pieces
        try:
            super().request(method, url, body, *args, **options)
        finally:
            self._pieces = None
        self.send(b"".join(pieces))

    def getresponse(self) -> Any:
        """Wait for an answer.

        :raises ClosedWhileIdle: The connection had been used before, and the server has closed it.
        """
        try:
            answer = super().getresponse()
        except ConnectionError as error:
            if self._used and not (self._source and self._source.begun):
                raise ClosedWhileIdle("the server closed the connection between two requests") from error
            raise
        self._used = True
        return answer

    def send(self, data: Any) -> None:
        """Send data, or keep it until the request is complete.

        :raises ClosedWhileIdle: The connection had been used before, and the server has closed it.
        """
        if self._pieces is not None:
            self._pieces.append(data)
            return
        try:
            super().send(data)
        except ssl.SSLEOFError as error:  # what is a reset connection without TLS
            if self._used:
                raise ClosedWhileIdle("the server closed the connection between two requests") from error
            raise

    def response_class(self, sock: Any, *args: Any, **options: Any) -> HTTPResponse:  # type: ignore[override]
        """Begin to read an answer."""
        pause = self.timeout  # that of the read by now
        total = math.inf if pause is None else max(2 * pause, LEAST_TOTAL)
        answer = HTTPResponse(sock, *args, **options)
        raw: Any = answer.fp.raw
        # What sockets are read through cannot be chosen, and a second layer costs 1 % of an order's time.
        raw.__class__ = Timed
        raw.ends = self._began + total
        raw.begun = False
        self._source = raw
        return answer


class _SecureInOnePiece(_InOnePiece, HTTPSConnection):
    pass


class ClosedWhileIdle(RemoteDisconnected):
    """The server closed a connection between two requests, so it has most likely not seen the second."""


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _InOnePiece


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureInOnePiece


_POOLS = {"http": _PlainPool, "https": _SecurePool}


class BoundedAdapter(HTTPAdapter):
    """Opens connections as requests does, with a bound on the time of each answer."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Set up the connections that go straight to the server."""
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Set up the connections that go through a proxy.

        :raises ConfigurationError: It is a SOCKS proxy.
        """
        if proxy.lower().startswith("socks"):
            raise ConfigurationError(
                "The environment names a SOCKS proxy for FeedAMP, which is not supported. Name an HTTP proxy "
                "in HTTPS_PROXY, or the connection's host in NO_PROXY."
            )
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = _POOLS
        return manager


def closed_while_idle(error: HTTPError) -> bool:
    """Whether an error says that a server closed a connection that it had kept, and answered nothing."""
    return any(isinstance(each, ClosedWhileIdle) for each in error.args)


def content_of(raw: Any, asked: str) -> bytes:
    """Return the unpacked body of an answer; of an error that is too long, its beginning.

    :param raw: The answer as urllib3 hands it out unread.
    :param asked: Method and path, for the error.
    :raises ApiError: The answer is a success, and longer than :data:`LONGEST_ANSWER`.
    """
    packed = raw.headers.get("Content-Encoding", "")
    if not packed and raw.length_remaining is not None and raw.length_remaining <= _PIECE:
        return bytes(raw.read())
    # Packed twice, a few bytes can be as many as they like at once.
    if "," in packed:
        raise _unusable(raw, asked, "packed more than once")
    body = bytearray()
    while piece := raw.read(_PIECE, decode_content=True):
        body += piece
        if len(body) > LONGEST_ANSWER:
            if raw.status < 400:
                raise _unusable(raw, asked, f"of more than {LONGEST_ANSWER // 1024**2} MiB")
            raw.close()
            break
    return bytes(body)


def _unusable(raw: Any, asked: str, what: str) -> ApiError:
    raw.close()
    return ApiError(
        f"FeedAMP answered {asked} with HTTP {raw.status} and a body {what}, which is not read. "
        "Ask for less at once (page_size); is there a proxy in between?",
        status=raw.status,
    )
