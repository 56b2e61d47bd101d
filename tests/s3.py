"""A real S3 API on 127.0.0.1 with a wire in front of it that can be watched, cut and taken away."""

from __future__ import annotations

import importlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import ObjectStoragePath

from scripts.processes import started

if TYPE_CHECKING:
    from collections.abc import Iterator

BUCKET = "lake"
_UP_WITHIN = 60.0  # Seconds; it imports much, and machines of CI are slow.
_PIECE = 64 * 1024
_HEAD = re.compile(rb"(?:GET|PUT|POST|HEAD|DELETE) .*?\r\n\r\n", re.DOTALL)


@dataclass
class Wire:
    """Carries bytes between a client and the server behind it.

    :param heads: The heads of the requests that came by.
    :param cut_answers_after: How many bytes of each connection's answers it carries. None for all.
    :param away_from: What stands in the head of a request that is cut off, such as ``HEAD /``. None for none.
    """

    behind: int
    heads: list[str] = field(default_factory=list)
    cut_answers_after: int | None = None
    away_from: str | None = None

    def __post_init__(self) -> None:
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._door.close()

    def mend(self) -> None:
        """Carry everything again, and forget what was carried."""
        self.heads.clear()
        self.cut_answers_after = self.away_from = None

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._door.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self.behind)) as server:
            answers = threading.Thread(target=self._answers, args=(server, client), daemon=True)
            answers.start()
            with suppress(OSError):
                while piece := client.recv(_PIECE):
                    # A client sends a request's head in a piece of its own or at the start of one.
                    if found := _HEAD.match(piece):
                        self.heads.append(found.group().decode())
                        if self.away_from and self.away_from in self.heads[-1]:
                            break
                    server.sendall(piece)
            for end in (client, server):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        carried = 0
        with suppress(OSError):
            while piece := server.recv(_PIECE):
                client.sendall(piece)
                carried += len(piece)
                if self.cut_answers_after is not None and carried > self.cut_answers_after:
                    break
            client.shutdown(socket.SHUT_RDWR)


@dataclass
class S3:
    """The server, the wire to it, and a client that goes around the wire."""

    wire: Wire
    port: int

    def __post_init__(self) -> None:
        self._direct = client(self.port)

    def place(self, name: str) -> str:
        """Return the URL of an object in the bucket."""
        return f"s3://{BUCKET}/{name}"

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Call the API directly."""
        answer: dict[str, Any] = self._direct.call_s3(method, Bucket=BUCKET, **arguments)
        return answer

    def put(self, name: str, content: bytes) -> str:
        """Write an object and return its URL."""
        self.call("put_object", Key=name, Body=content)
        return self.place(name)

    def empty(self) -> None:
        """Remove all objects, and what was uploaded of others."""
        for name in self.names():
            self.call("delete_object", Key=name)
        for upload in self.call("list_multipart_uploads").get("Uploads", ()):
            self.call("abort_multipart_upload", Key=upload["Key"], UploadId=upload["UploadId"])

    def names(self) -> list[str]:
        """Return what is in the bucket."""
        return [each["Key"] for each in self.call("list_objects_v2").get("Contents", ())]

    def uploads(self) -> list[str]:
        """Return the objects whose upload was begun and neither ended nor aborted."""
        return sorted(each["Key"] for each in self.call("list_multipart_uploads").get("Uploads", ()))


def client(port: int) -> Any:
    """Return s3fs for the server, as Airflow's amazon provider makes it; it does not wait long."""
    from s3fs import S3FileSystem  # type: ignore[import-untyped]

    made = S3FileSystem(
        key="a-key",
        secret="a-secret",
        endpoint_url=f"http://127.0.0.1:{port}",
        client_kwargs={"region_name": "us-east-1"},
        config_kwargs={"retries": {"max_attempts": 0}, "connect_timeout": 5, "read_timeout": 5},
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    made.retries = 2  # It waits before each.
    return made


def attach(port: int) -> None:
    """Make the server what Airflow's object storage takes for s3://."""
    made = client(port)
    importlib.import_module(ObjectStoragePath.__module__).attach(
        "s3", fs=made
    ).fs = made  # It may be attached.


@contextmanager
def serve() -> Iterator[S3]:
    """Run the server in a process group of its own, which ends with the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = (sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port))
    with started(command, os.environ, subprocess.DEVNULL) as process:
        deadline = time.monotonic() + _UP_WITHIN
        while not _answers(port):
            assert process.poll() is None, "the S3 server ended"
            assert time.monotonic() < deadline, "the S3 server does not come up"
            time.sleep(0.05)
        wire = Wire(port)
        s3 = S3(wire, port)
        s3.call("create_bucket")
        try:
            yield s3
        finally:
            wire.close()


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
