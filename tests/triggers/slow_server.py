"""A FeedAMP that takes its time, in a process of its own so that it does not disturb what is measured.

``python -m tests.triggers.slow_server SECONDS ASKED`` prints its port. An order is fulfilled when asked for
the ASKED-th time; each answer takes so many seconds. ``GET /posts`` returns how many token calls there were.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from typing import Any

LINES = [
    {"mp_line_number": f"L{n}", "sku": f"SKU-{n}", "product_name": "A thing " * 20, "quantity": 1}
    for n in range(100)
]


class SlowServer:
    """Answers token calls at once and all others late."""

    def __init__(self, seconds: float, asked: int) -> None:
        self.seconds = seconds
        self.asked = asked
        self.seen: Counter[str] = Counter()

    async def serve(self) -> None:
        server = await asyncio.start_server(self.talk, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                length = [line for line in head.lower().split("\r\n") if line.startswith("content-length:")]
                await reader.readexactly(int(length[0].partition(":")[2]) if length else 0)
                body = json.dumps(await self.answer(head.split(" ")[1])).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ")
                writer.write(f"{len(body)}\r\n\r\n".encode() + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def answer(self, path: str) -> dict[str, Any]:
        if path == "/posts":
            return {"posts": self.seen["/api/v1/access_token"]}
        self.seen[path] += 1
        if path.endswith("/access_token"):
            return {"access_token": "a", "token_type": "Bearer", "refresh_token": "r", "expires_in": 3600}
        await asyncio.sleep(self.seconds)
        status = "FULFILLED" if self.seen[path] >= self.asked else "IN_PROGRESS"
        return {"mp_order_number": path.rpartition("/")[2], "status": status, "order_lines": LINES}


if __name__ == "__main__":
    asyncio.run(SlowServer(float(sys.argv[1]), int(sys.argv[2])).serve())
