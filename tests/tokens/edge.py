"""The HTTP edge of the token tests: a server on the loopback address whose every byte a test decides."""

from __future__ import annotations

import json
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs

if TYPE_CHECKING:
    import ssl

#: What happens on a connection once its request has been read.
Act = Callable[[socket.socket, threading.Event], None]


class Received(NamedTuple):
    """One request as it came over the wire; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.body.decode(), strict_parsing=True).items()}


def plain(status: int, body: Any = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """Return a whole answer; a body that is not bytes is sent as JSON."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"Content-Type": "application/json", "Content-Length": str(len(payload)), **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"HTTP/1.1 {status} Said\r\n{lines}\r\n".encode() + payload


def answers(status: int, body: Any = b"", headers: Mapping[str, str] | None = None) -> Act:
    return lambda peer, closing: peer.sendall(plain(status, body, headers))


def sends(data: bytes) -> Act:
    """Send these bytes, whatever they are, and hang up."""
    return lambda peer, closing: peer.sendall(data)


def trickles(data: bytes, pause: float = 0.1) -> Act:
    """Send a byte at a time, so that no single read ever takes long."""

    def act(peer: socket.socket, closing: threading.Event) -> None:
        for byte in data:
            peer.sendall(bytes([byte]))
            if closing.wait(pause):
                return

    return act


def pours(head: bytes, part: bytes, cut: threading.Event) -> Act:
    """Send a head and then the same part for ever; ``cut`` is set once the client has closed."""

    def act(peer: socket.socket, closing: threading.Event) -> None:
        try:
            peer.sendall(head)
            while not closing.is_set():
                peer.sendall(part)
        except OSError:
            cut.set()

    return act


def stays_silent(peer: socket.socket, closing: threading.Event) -> None:
    closing.wait(60)


def hangs_up(peer: socket.socket, closing: threading.Event) -> None:
    """Close in good order, without an answer."""


def resets(peer: socket.socket, closing: threading.Event) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def read_request(peer: socket.socket) -> Received | None:
    with peer.makefile("rb") as stream:
        if not (line := stream.readline()):
            return None
        method, target, _ = line.decode().split(" ", 2)
        headers: dict[str, str] = {}
        while (header := stream.readline().strip()) != b"":
            name, _, value = header.decode().partition(":")
            headers[name.lower()] = value.strip()
        return Received(method, target, headers, stream.read(int(headers.get("content-length", 0))))


def relays_to(port: int) -> Act:
    """Play a proxy that answers CONNECT and then passes bytes on, to and fro."""

    def connect(peer: socket.socket, closing: threading.Event) -> None:
        peer.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with socket.create_connection(("127.0.0.1", port)) as inner:
            other = {peer: inner, inner: peer}
            while not closing.is_set():
                for end in select.select([peer, inner], [], [], 0.05)[0]:
                    if not (data := end.recv(65536)):
                        return
                    other[end].sendall(data)

    return connect


class TokenServer:
    """Plays the acts in the order in which they were queued, then ``otherwise``; keeps what it received.

    :param tls: Serves https with this context.
    :param handshake: Whether it answers the TLS handshake at all.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, *, handshake: bool = True) -> None:
        self.received: list[Received] = []
        self.acts: deque[Act] = deque()
        self.otherwise: Act = answers(500)
        self._tls, self._handshake = tls, handshake
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}/api/v1/access_token"
        threading.Thread(target=self._accept, daemon=True).start()

    def will(self, *acts: Act) -> None:
        self.acts.extend(acts)

    def close(self) -> None:
        self._closing.set()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                peer = self._listener.accept()[0]
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        # What the client does to the connection is the client's business.
        with suppress(OSError, ValueError):
            if self._tls and not self._handshake:
                stays_silent(peer, self._closing)
            elif self._tls:
                peer = self._tls.wrap_socket(peer, server_side=True)
            if request := read_request(peer):
                act = self.acts.popleft() if self.acts else self.otherwise
                self.received.append(request)
                act(peer, self._closing)
        peer.close()
