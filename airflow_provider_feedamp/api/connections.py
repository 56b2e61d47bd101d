"""Connections that send a request in one piece."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

if TYPE_CHECKING:
    from urllib3.poolmanager import PoolManager


class _InOnePiece(HTTPConnection):
    """Sends head and body of a request together.

    urllib3 sends the head and then the body: a system call, a packet and two turns at the interpreter's lock
    more, for each order.
    """

    _pieces: list[bytes] | None = None

    def request(self, method: str, url: str, body: Any = None, *args: Any, **options: Any) -> None:
        """Send a request; a body that is not bytes goes as it comes."""
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


class _SecureInOnePiece(_InOnePiece, HTTPSConnection):
    pass


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _InOnePiece


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureInOnePiece


def in_one_piece(manager: PoolManager) -> None:
    """Have a manager's connections send requests in one piece."""
    manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
