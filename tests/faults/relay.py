"""A relay before a FeedAMP that can stop: connections are cut, new ones refused, and nothing is forgotten."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Any


class Relay:
    """Hands on bytes between a port of its own and a server, until it stops.

    :param target: Port of the server on 127.0.0.1.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]
        self.cut = 0

    def stop(self) -> None:
        """Refuse new connections and cut those that there are, with whatever is under way on them."""
        _shut(self._listener)
        with self._lock:
            self.cut += len(self._open) // 2
            for each in self._open:
                _shut(each)
            self._open.clear()

    def start(self) -> None:
        """Take connections again, on the same port."""
        self._listener = self._listen(self.port)

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port), backlog=256)
        _in_background(self._accept, listener)
        return listener

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                with self._lock:
                    self._open += [near, far]
                _in_background(self._pass_on, near, far)
                _in_background(self._pass_on, far, near)

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError):
            while piece := source.recv(65536):
                sink.sendall(piece)
        _shut(sink)


def _shut(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()


def _in_background(work: Any, *arguments: Any) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()
