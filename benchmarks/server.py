"""The server that the benchmarks talk to: it answers after a set round trip, and does little else.

``python -m benchmarks.server --round-trip 0.025`` prints its base URL and serves until it is ended. Orders
are answered with themselves, tokens are good for ``--expires-in`` seconds, ``GET /counts`` says what came.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import selectors
import time
from typing import Any, cast

_END_OF_HEAD = b"\r\n\r\n"
_REASONS = {200: b"OK", 201: b"Created", 401: b"Unauthorized"}


class Account:
    """The tokens that were given out, and how many requests of each kind came in."""

    def __init__(self, expires_in: float) -> None:
        self.expires_in = expires_in
        self.counts = {"PUT": 0, "GET": 0, "POST": 0, "refused": 0}
        self._ends: dict[bytes, float] = {}

    def new_token(self) -> dict[str, Any]:
        """Return a token pair."""
        number = len(self._ends) + 1
        token = f"bench-access-token-{number}"
        self._ends[b"Bearer " + token.encode()] = time.monotonic() + self.expires_in
        return {
            "access_token": token,
            "token_type": "Bearer",
            "refresh_token": f"bench-refresh-token-{number}",
            "expires_in": int(self.expires_in),
        }

    def knows(self, bearer: bytes) -> bool:
        """Whether a bearer is good now."""
        return self._ends.get(bearer, 0.0) > time.monotonic()

    def answer(self, method: str, target: bytes, bearer: bytes, body: bytes) -> tuple[int, bytes]:
        """Return status and body of the answer to one request."""
        if target == b"/counts":
            return 200, json.dumps(self.counts).encode()
        self.counts[method] += 1
        if target.endswith(b"/access_token"):
            return 200, json.dumps(self.new_token()).encode()
        if bearer and not self.knows(bearer):
            self.counts["refused"] += 1
            return 401, b'{"message":"expired"}'
        return (201, body) if method == "PUT" else (200, b'{"orders":[],"next_cursor":null}')


class Connection(asyncio.Protocol):
    """One kept-alive connection of a client that sends its next request after the answer to the last."""

    def __init__(self, account: Account, round_trip: float) -> None:
        self._account = account
        self._round_trip = round_trip
        self._pending = b""
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer the request once it is whole."""
        self._pending += data
        head, separator, body = self._pending.partition(_END_OF_HEAD)
        if not separator:
            return
        request_line, *lines = head.split(b"\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines)}
        if len(body) < int(headers.get(b"content-length", 0)):
            return
        self._pending = b""
        method, target, _ = request_line.split(b" ")
        bearer = headers.get(b"authorization", b"")
        status, answer = self._account.answer(method.decode(), target, bearer, body)
        head = b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        whole = head % (status, _REASONS[status], len(answer)) + answer
        if self._round_trip:
            self._loop.call_later(self._round_trip, self._transport.write, whole)
        else:
            self._transport.write(whole)


async def serve(round_trip: float, expires_in: float) -> None:
    """Serve on a free port of the loopback address, and print the base URL first."""
    account = Account(expires_in)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(account, round_trip), "127.0.0.1", 0, backlog=512)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api/v1", flush=True)
    await server.serve_forever()


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--round-trip", type=float, default=0.0, help="seconds until an answer is sent")
    parser.add_argument("--expires-in", type=float, default=3600.0, help="seconds that a token is good for")
    arguments = parser.parse_args()
    # epoll counts whole milliseconds, which makes a round trip longer than it was set; select does not.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(serve(arguments.round_trip, arguments.expires_in))


if __name__ == "__main__":
    main()
