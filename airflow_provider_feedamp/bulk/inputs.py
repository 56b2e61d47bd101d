"""What an import reads its orders from, and whether it is still the same; a query is in ``sql_source``."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_feedamp.bulk.paths import local_path, shown, storage_path
from airflow_provider_feedamp.bulk.source import ReadSoFar, orders_of, read_orders

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_feedamp.bulk.parse import SourceOrder

#: What storages call the things that change with a file's content. A size alone may stay.
_STAMPS = (
    "ETag",
    "etag",
    "generation",
    "version_id",
    "LastModified",
    "last_modified",
    "updated",
    "modified",
    "mtime",
    "created",
)


class OrderInput(Protocol):
    """Where an import's orders come from."""

    @property
    def name(self) -> str:
        """What it is, for a log; it holds no secret and nothing of an order."""

    def fingerprint(self, read: int = 0) -> str | None:
        """Return what stays while the first orders stay; None if that cannot be told.

        :param read: How many orders. Default 0: what can be told before any is read.
        """

    def open(self, skip: int = 0) -> Iterator[SourceOrder]:
        """Return the orders behind the first ones; refuse what is of no use at once."""

    def share(self) -> float | None:
        """Return how much of it has been read, from 0 to 1; None if that cannot be told."""


class FileInput:
    """A file on any storage that Airflow knows.

    :param source: Its path or URL.
    :param allow_empty: Whether a file without any order is fine.
    """

    def __init__(self, source: str, *, allow_empty: bool = False) -> None:
        self.source = source
        self.allow_empty = allow_empty
        self._so_far = ReadSoFar()
        self._size: int | None = None
        self._mark: str | None = None
        self._looked = False

    @property
    def name(self) -> str:
        """The path, without a password."""
        return shown(self.source)

    def fingerprint(self, read: int = 0) -> str | None:
        """Return a digest of path, size and the storage's own mark of the content, such as an ETag.

        It is that of the first call: what is changed while it is read is seen by the retry.
        """
        if not self._looked:
            self._looked = True
            found = _look_at(self.source)
            size = found.get("size")
            self._size = size if isinstance(size, int) else None
            marks = {name: str(found[name]) for name in _STAMPS if found.get(name)}
            self._mark = digest(self.source, self._size, marks) if marks and self._size is not None else None
        return self._mark

    def open(self, skip: int = 0) -> Iterator[SourceOrder]:
        """Open the file and return its orders, without the first ones."""
        return read_orders(self.source, allow_empty=self.allow_empty, skip=skip, so_far=self._so_far)

    def share(self) -> float | None:
        """Return the share of the file's bytes, which of a compressed file are the compressed ones."""
        return min(self._so_far.bytes / self._size, 1.0) if self._size else None


class ListInput:
    """A list of orders, or the text of a JSON array.

    :param orders: As :func:`orders_of` takes them.
    :param allow_empty: Whether a list without any order is fine.
    """

    name = "the list in orders"

    def __init__(self, orders: object, *, allow_empty: bool = False) -> None:
        self.orders = orders
        self.allow_empty = allow_empty

    def fingerprint(self, read: int = 0) -> str | None:
        """Return None: the task that made the list may have made another one."""
        return None

    def open(self, skip: int = 0) -> Iterator[SourceOrder]:
        """Return the orders of the list; none can be passed over."""
        return orders_of(self.orders, allow_empty=self.allow_empty)

    def share(self) -> float | None:
        """Return None: it is in memory anyhow, so it is short."""
        return None


def digest(*values: object) -> str:
    """Return a short text that is the same for the same values and tells nothing about them."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _look_at(source: str) -> Mapping[str, Any]:
    local = local_path(source)
    try:
        if local is not None:
            found = os.stat(local)
            return {"size": found.st_size, "mtime": found.st_mtime_ns}
        place = storage_path(source, "Source")
        return dict(place.fs.info(place.path))
    except Exception:  # noqa: BLE001 - each storage has errors of its own; what is wrong shows when it is opened
        return {}
