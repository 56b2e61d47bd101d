"""What the benchmarks run in: a server of their own, a folder, an environment, processes that print JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

from cryptography.fernet import Fernet

from benchmarks.orders import write_orders
from scripts.processes import started

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds that one process may take: the longest one places a million orders.
_PATIENCE = 3600


@dataclass(frozen=True)
class World:
    """A running server and a folder for one benchmark.

    :param url: The base URL of the server.
    :param folder: For the order files and the token store; gone afterwards.
    """

    url: str
    folder: Path

    def orders(self, count: int) -> Path:
        """Return a file of so many orders."""
        path = self.folder / f"{count}.ndjson"
        return path if path.exists() else write_orders(path, count)

    def counts(self) -> dict[str, int]:
        """Return what the server has received."""
        with urlopen(self.url.removesuffix("/api/v1") + "/counts") as answer:  # noqa: S310
            return dict(json.load(answer))

    def ours(self, what: str, *arguments: str) -> dict[str, Any]:
        """Run one of our own measures in a new process."""
        return self._run("benchmarks.ours", what, *arguments)

    def contestant(self, name: str, orders: Path, workers: int) -> dict[str, Any]:
        """Run another way of placing the orders in a new process."""
        options = ("--url", self.url, "--orders", str(orders), "--workers", str(workers))
        return self._run("benchmarks.contestants", name, *options)

    def first_request(self) -> dict[str, Any]:
        """Run the operator with one order in a new process."""
        return self._run("benchmarks.first_request")

    def _run(self, *arguments: str) -> dict[str, Any]:
        answer = subprocess.run(
            [sys.executable, "-m", *arguments],
            env=self._environment(),
            stdout=subprocess.PIPE,
            text=True,
            timeout=_PATIENCE,
            check=True,
        )
        return dict(json.loads(answer.stdout.splitlines()[-1]))

    def _environment(self) -> dict[str, str]:
        feedamp = {
            "conn_type": "feedamp",
            "host": self.url,
            "login": "benchmark",
            "password": "benchmark-client-secret",
            "extra": {"refresh_token": "benchmark-refresh-token"},
        }
        tokens = {"conn_type": "sqlite", "host": str(self.folder / "tokens.db")}
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")},
            "AIRFLOW_HOME": str(self.folder),
            "AIRFLOW__CORE__FERNET_KEY": _fernet_key(self.folder),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__FEEDAMP__TOKEN_STORE": "sql",
            "AIRFLOW__FEEDAMP__TOKEN_STORE_CONN_ID": "bench_tokens",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
            "AIRFLOW_CONN_FEEDAMP_DEFAULT": json.dumps(feedamp),
            "AIRFLOW_CONN_BENCH_TOKENS": json.dumps(tokens),
            "AIRFLOW_CONN_BENCH_HTTP": json.dumps({"conn_type": "http", "host": self.url}),
        }


@contextmanager
def world(*, round_trip: float = 0.0, expires_in: float = 3600.0) -> Iterator[World]:
    """Serve for as long as the block runs.

    :param round_trip: Seconds from the end of a request to the answer.
    :param expires_in: Seconds that an access token is good for.
    """
    command = [sys.executable, "-m", "benchmarks.server"]
    options = ["--round-trip", str(round_trip), "--expires-in", str(expires_in)]
    with (
        tempfile.TemporaryDirectory() as folder,
        started([*command, *options], os.environ, subprocess.PIPE) as server,
    ):
        url = server.stdout.readline().decode().strip() if server.stdout else ""
        yield World(url, Path(folder))


def _fernet_key(folder: Path) -> str:
    path = folder / "fernet.key"
    if not path.exists():
        path.write_bytes(Fernet.generate_key())
    return path.read_text()
