"""Serve a sandbox on a loopback port from a thread of this process."""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import uvicorn

from airflow_provider_feedamp.sandbox.control import SandboxControl
from airflow_provider_feedamp.sandbox.endpoints import API_PREFIX, SandboxApp
from airflow_provider_feedamp.sandbox.state import SandboxState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from airflow_provider_feedamp.sandbox.settings import SandboxSettings

LOOPBACK = "127.0.0.1"
#: Seconds that calls in flight are given when the sandbox ends; a slow fault would hold it for longer.
_GRACE = 1


@dataclass(frozen=True, slots=True)
class RunningSandbox:
    """A sandbox that serves.

    :param base_url: What to put into the connection's host.
    :param control: The control surface.
    :param state: The domain model behind it, for its settings; it belongs to the server's thread.
    """

    base_url: str
    control: SandboxControl
    state: SandboxState

    def connection(self, seller: str, /, **extra: Any) -> dict[str, Any]:
        """Return an Airflow connection for the seller, as ``AIRFLOW_CONN_FEEDAMP_DEFAULT`` takes it as JSON.

        :param seller: One of the sandbox's sellers.
        :param extra: Further connection extras; None takes one out.
        :raises LookupError: when the seller has no usable refresh token.
        """
        tokens = self.control.refresh_tokens(seller)
        if not tokens:
            raise LookupError(
                f"Sandbox seller {seller!r} has no usable refresh token: make one with control.connect()"
            )
        extras = {"refresh_token": tokens[-1], "seller": seller, **extra}
        return {
            "conn_type": "feedamp",
            "host": self.base_url,
            "login": self.state.settings.client_id,
            "password": self.state.settings.client_secret,
            "extra": {name: value for name, value in extras.items() if value is not None},
        }


class _Server(uvicorn.Server):
    """A uvicorn server that says when it serves, and stops when told instead of on its next tick."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        #: What ends the server, once it serves.
        self.stop: Future[Callable[[], object]] = Future()

    def run_on(self, listener: socket.socket) -> None:
        """Serve on the listener in this thread."""
        try:
            asyncio.run(self.serve(sockets=[listener]))
        finally:
            if not self.stop.done():
                self.stop.set_exception(RuntimeError("The sandbox did not start: see its thread's traceback"))

    async def main_loop(self) -> None:
        """Serve until it is stopped."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        self.stop.set_result(lambda: loop.call_soon_threadsafe(ended.set))
        await ended.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, and give calls in flight a moment; uvicorn's own would take a nap in any case."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=_GRACE)


@contextmanager
def serve(
    settings: SandboxSettings | None = None, *, port: int = 0, now: Callable[[], datetime] | None = None
) -> Iterator[RunningSandbox]:
    """Serve a fresh sandbox on 127.0.0.1 for as long as the block runs.

    :param settings: The switches; the defaults when None.
    :param port: Port to listen on; 0 takes a free one.
    :param now: Where the sandbox's time comes from, as timezone-aware datetimes; real time by default.
    :raises OSError: when the port is taken.
    """
    state = SandboxState(settings, now)
    quiet: Any = {"log_config": None, "access_log": False, "server_header": False}
    app = SandboxApp(state)
    config = uvicorn.Config(app, lifespan="off", ws="none", proxy_headers=False, **quiet)
    with socket.create_server((LOOPBACK, port), backlog=512) as listener:
        # Head and body of an answer are two writes, and asyncio does not know this kind of socket for TCP.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        base_url = f"http://{LOOPBACK}:{listener.getsockname()[1]}{API_PREFIX}"
        server = _Server(config)
        name = "feedamp-sandbox"
        thread = threading.Thread(target=server.run_on, args=(listener,), name=name, daemon=True)
        thread.start()
        stop = server.stop.result()
        try:
            yield RunningSandbox(base_url, SandboxControl(base_url), state)
        finally:
            stop()
            thread.join()
