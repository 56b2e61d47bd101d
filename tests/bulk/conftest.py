from __future__ import annotations

import importlib
import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]

from airflow_provider_feedamp.api.client import OrdersApi
from airflow_provider_feedamp.api.http import Http
from airflow_provider_feedamp.api.wire import Response, Wire
from airflow_provider_feedamp.bulk.place import place_orders
from airflow_provider_feedamp.bulk.rejects import RejectsFile
from airflow_provider_feedamp.bulk.source import SourceOrder, order_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_provider_feedamp.api.wire import Request
    from airflow_provider_feedamp.bulk.progress import PlaceCounts

BASE_URL = "http://127.0.0.1:9/api/v1"


class OneToken:
    def token(self) -> str:
        return "an-access-token"

    def replace(self, refused: str) -> str:
        return refused

    def accepted(self, token: str) -> None:
        pass


class FeedAmpEdge:
    """Stands where FeedAMP would: it keeps what arrives and gives the answers that it was set to give."""

    def __init__(self, rejects: RejectsFile) -> None:
        self.bodies: list[bytes] = []
        self.answers: dict[str, tuple[int, Any]] = {}
        self.failures: dict[str, Exception] = {}
        self.rejects = rejects
        self._api = OrdersApi(Http(BASE_URL, OneToken(), retries=0))

    def place(self, orders: Iterable[Any], *, max_workers: int = 1, **options: Any) -> PlaceCounts:
        """Place orders, also those that are parsed already; one at a time, so that their order is known."""
        found = (
            order if isinstance(order, SourceOrder) else order_of(position, order)
            for position, order in enumerate(orders, 1)
        )
        return place_orders(found, self._api, self.rejects, max_workers=max_workers, **options)

    @property
    def numbers(self) -> list[str]:
        return [json.loads(body)["mp_order_number"] for body in self.bodies]

    def kept(self) -> list[dict[str, Any]]:
        """Return what is in the rejects file."""
        path = Path(str(self.rejects.path))
        return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    def exchange(self, request: Request) -> Response:
        body = request.body or b""
        number = json.loads(body)["mp_order_number"]
        if number in self.failures:
            raise self.failures[number]
        known = number in self.numbers
        self.bodies.append(body)
        status, answer = self.answers.get(number, (200 if known else 201, json.loads(body)))
        content = b"" if answer is None else json.dumps(answer).encode()
        return Response(status, {"Content-Type": "application/json"}, content)


@pytest.fixture
def edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FeedAmpEdge]:
    with RejectsFile(str(tmp_path / "rejects.ndjson")) as rejects:
        edge = FeedAmpEdge(rejects)
        monkeypatch.setattr(Wire, "exchange", lambda _, request: edge.exchange(request))
        yield edge


@pytest.fixture
def bucket() -> str:
    """Attach a storage that is not local, as a provider does for its scheme, and return a place in it."""
    attach = importlib.import_module(ObjectStoragePath.__module__).attach
    attach("memory", fs=MemoryFileSystem())
    return f"memory://bucket/{uuid.uuid4()}"
