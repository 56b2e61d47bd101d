"""Connections that send a request in one piece, and wait for its answer for a bounded time in all."""

from __future__ import annotations

import math
import time
from http.client import HTTPResponse
from socket import SocketIO
from typing import TYPE_CHECKING, Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

if TYPE_CHECKING:
    from urllib3.poolmanager import PoolManager


#: Seconds that one sending and its answer may take in all, however short the read time-out is.
LEAST_TOTAL = 120.0


class Timed(SocketIO):
    """What one answer is read from, until its time is up.

    A read time-out bounds the pause between two pieces: a server that sends a byte now and then never meets
    it. So each wait for a piece is as long as the read time-out, or as what is left.
    """

    #: When the time is up, by the monotonic clock.
    ends: float
    _sock: Any

    def readinto(self, buffer: Any) -> int | None:
        """Read a piece.

        :raises TimeoutError: The time is up.
        """
        left = self.ends - time.monotonic()
        pause = self._sock.gettimeout()
        if pause is None or left >= pause:
            return SocketIO.readinto(self, buffer)
        if left <= 0:
            raise TimeoutError("the whole answer took too long")
        sock = self._sock
        sock.settimeout(left)
        try:
            return SocketIO.readinto(self, buffer)
        finally:
            sock.settimeout(pause)


class _InOnePiece(HTTPConnection):
    """Sends head and body of a request together, and bounds the time until the end of the answer.

    urllib3 sends the head and then the body: a system call, a packet and two turns at the interpreter's lock
    more, for each order. The time is twice the read time-out, at least :data:`LEAST_TOTAL`, from the sending
    on.
    """

    _pieces: list[bytes] | None = None
    _began = 0.0

    def connect(self) -> None:
        """Connect; a proxy's answer to that has its time, too."""
        self._began = time.monotonic()
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

    def send(self, data: Any) -> None:
        """Send data, or keep it until the request is complete."""
        if self._pieces is None:
            super().send(data)
        else:
            self._pieces.append(data)

    def response_class(self, sock: Any, *args: Any, **options: Any) -> HTTPResponse:  # type: ignore[override]
        """Begin to read an answer."""
        pause = self.timeout  # that of the read by now
        total = math.inf if pause is None else max(2 * pause, LEAST_TOTAL)
        answer = HTTPResponse(sock, *args, **options)
        raw: Any = answer.fp.raw
        # What sockets are read through cannot be chosen, and a second layer costs 1 % of an order's time.
        raw.__class__ = Timed
        raw.ends = self._began + total
        return answer


class _SecureInOnePiece(_InOnePiece, HTTPSConnection):
    pass


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _InOnePiece


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureInOnePiece


def in_one_piece(manager: PoolManager) -> None:
    """Have a manager's connections send requests in one piece, and bound the time of an answer."""
    manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
