"""The HTTP edge of the api tests: a real server on the loopback address that answers as a test tells it."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable

LINE: dict[str, Any] = {"mp_line_number": "1", "sku": "S", "quantity": 4, "unit_price": 59.99}
ORDER: dict[str, Any] = {
    "mp_order_number": "600A",
    "sales_channel": "US",
    "customer": {"full_name": "Jane Smith", "email": "jane@example.com"},
    "purchase_date": "2024-05-01T23:52:01Z",
    "currency": "USD",
    "shipping_address": {"city": "Springfield"},
    "order_lines": [LINE],
    "marketplace_state": "AWAITING_SHIPMENT",
}


def in_threads(count: int, work: Callable[..., object], *args: Any, **more: Any) -> None:
    """Do the same in so many threads at once, and wait for all of them."""
    threads = [threading.Thread(target=work, args=args, kwargs=more) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Clock:
    """A clock that goes on when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@dataclass
class Reply:
    """One answer: a body that is not bytes is sent as JSON; ``cut`` ends the connection before its time.

    ``wire`` is sent instead of all else, piece by piece, as long as somebody reads it.
    """

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: Literal["", "before the answer", "by a reset", "in the body", "by a bad record"] = ""
    wire: Iterable[bytes] = ()


class Received(NamedTuple):
    """One request as it came over the wire."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}

    @property
    def bearer(self) -> str | None:
        return self.headers.get("Authorization")


class Edge:
    """Replies in the order in which they were queued, then with ``otherwise``; keeps what it received."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.received: list[Received] = []
        #: The client's port of each request: one port is one connection.
        self.ports: list[int] = []
        self.replies: deque[Reply] = deque()
        self.otherwise = Reply(200, {})
        #: Whether each connection ends after its answer, though the answer does not say so.
        self.ends_idle = False
        self.ended = threading.Semaphore(0)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"edge": self}))
        self._server.daemon_threads = True
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.origin = f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_port}"
        self.base_url = f"{self.origin}/api/v1"

    def will_reply(self, *replies: Reply) -> None:
        self.replies.extend(replies)

    @property
    def bearers(self) -> list[str | None]:
        return [request.bearer for request in self.received]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Tokens:
    """A token source that hands out one token after the other."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)
        self.refused: list[str] = []
        self.noted: list[str] = []

    def token(self) -> str:
        return self.tokens[0]

    def replace(self, refused: str) -> str:
        self.refused.append(refused)
        if len(self.tokens) > 1 and self.tokens[0] == refused:
            self.tokens.pop(0)
        return self.tokens[0]

    def accepted(self, token: str) -> None:
        self.noted.append(token)


class _Handler(BaseHTTPRequestHandler):
    edge: Edge
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet for an answer: two would meet the delayed acknowledgement, 40 ms each

    def answer(self) -> None:
        self.edge.ports.append(self.client_address[1])
        length = int(self.headers.get("Content-Length", 0))
        headers = dict(self.headers.items())
        self.edge.received.append(Received(self.command, self.path, headers, self.rfile.read(length)))
        reply = self.edge.replies.popleft() if self.edge.replies else self.edge.otherwise
        if reply.cut in {"before the answer", "by a reset"}:
            self.hang_up(reply.cut)
            return
        if reply.wire:
            self.close_connection = True
            with suppress(OSError):
                for piece in reply.wire:
                    self.connection.sendall(piece)
            return
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response_only(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.status != 204:
            self.send_header("Content-Length", str(len(body) + (10 if reply.cut else 0)))
        self.end_headers()
        self.wfile.write(body)
        if reply.cut == "by a bad record":
            self.wfile.flush()
            socket.socket.sendall(self.connection, b"these bytes are no TLS record")
        self.close_connection = self.close_connection or bool(reply.cut) or self.edge.ends_idle

    def hang_up(self, cut: str) -> None:
        self.close_connection = True
        if cut == "by a reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def finish(self) -> None:
        super().finish()
        if self.edge.ends_idle:
            self.connection.close()
            self.edge.ended.release()

    do_GET = do_PUT = do_POST = do_DELETE = do_CONNECT = answer

    def log_message(self, *args: Any) -> None:
        """Stay silent."""
