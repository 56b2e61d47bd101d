"""Paths and URLs as Airflow's object storage opens them, and as a log may show them."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Self, cast

from airflow_provider_feedamp.exceptions import FeedAmpError, InputError, SourceUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.providers.common.compat.sdk import ObjectStoragePath

#: Bytes that one request to a storage carries. s3fs would take 50 MiB, and holds two or three of them.
BLOCK = 8 * 1024 * 1024

_WEB = ("http://", "https://")
# No other try can mend these.
_FINAL = (FileNotFoundError, IsADirectoryError, PermissionError)


def is_web(path: str) -> bool:
    """Whether the path is an http(s) URL: readable at most, and its query is not part of the name."""
    return path.lower().startswith(_WEB)


def loggable(path: str) -> str:
    """Return the path for a log or an error: without a password, and without a web URL's signed query."""
    path = re.sub(r"^(\w[\w+.-]*://[^/@:]*):[^/@]*@", r"\1:***@", path)
    return path.partition("?")[0] if is_web(path) else path


def local_path(path: str) -> str | None:
    """Return the absolute path in this machine's file system, with links followed; None for other storage."""
    if path.lower().startswith("file://"):
        path = path[len("file://") :]
    elif "://" in path:
        return None
    # Absolute, because ObjectStoragePath of Airflow 2.11 reads "a.ndjson" as "/a.ndjson".
    return os.path.realpath(path)


def storage_path(path: str, what: str) -> ObjectStoragePath:
    """Return the path as Airflow's object storage knows it; local files need no Airflow connection.

    :param path: A local path, a ``file://`` URL, or any URL that ``ObjectStoragePath`` understands.
    :param what: What the path is for, to begin an error message with.
    :raises InputError: If there is no file system for the URL's scheme.
    """
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    try:
        found: ObjectStoragePath = ObjectStoragePath(local_path(path) or path)
        _ = found.fs  # Looks the file system up; nothing is opened or sent.
    except (ImportError, ValueError) as error:
        raise InputError(
            f"{what} {loggable(path)}: Airflow's object storage has no file system for it ({error}). "
            "Install the Airflow provider of that storage, or correct the URL."
        ) from error
    return found


def open_storage(path: str, mode: str, what: str) -> IO[bytes]:
    """Open a file of any storage, as :func:`storage_path` finds it.

    :raises SourceUnavailableError: It cannot be read now, when it is opened or later: another try may help.
    :raises OSError: It is not there, is a directory, or may not be read. What is written raises whatever its
        storage raises; :func:`failure_text` and :func:`is_final` say what that means.
    """
    place = storage_path(path, what)

    def opened() -> IO[bytes]:
        return cast("IO[bytes]", place.open(mode, block_size=BLOCK))  # type: ignore[no-untyped-call]

    if mode != "rb":
        return opened()
    with _reading(path, what, final=_FINAL):
        return cast("IO[bytes]", _SourceFile(opened(), path, what))


def is_final(path: str, error: Exception) -> bool:
    """Whether another try at a place that could not be opened would meet the same error."""
    return local_path(path) is not None or isinstance(error, _FINAL)


def failure_text(error: Exception) -> str:
    """Return what a storage said; of a web URL in it without the query, which may be a signature."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said = re.sub(r"(https?://[^\s?'\"]*)\?[^\s'\"]*", r"\1", str(error)).rstrip(".")
    return said if isinstance(error, OSError) and said else f"{type(error).__name__}: {said}"


@contextmanager
def _reading(path: str, what: str, final: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if isinstance(error, (FeedAmpError, *final)):
            raise
        raise SourceUnavailableError(
            f"{what} {loggable(path)} cannot be read now: {failure_text(error)}. "
            "Run the task again when its storage is there."
        ) from (None if is_web(path) else error)  # A web server's error quotes the URL, signature and all.


class _SourceFile:
    """A file that is read. Each storage has errors of its own, so all of them become one of ours."""

    def __init__(self, file: IO[bytes], path: str, what: str) -> None:
        self._file = file
        self._path = path
        self._what = what

    def read(self, size: int = -1) -> bytes:
        with _reading(self._path, self._what):
            return self._file.read(size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def same_place(one: str, other: str) -> bool:
    """Whether two paths name the same file, whatever links and Airflow connections they go through."""
    return _place(one) == _place(other)


def _place(path: str) -> object:
    local = local_path(path)
    if local is None:
        return re.sub(r"://[^/@]*@", "://", path)
    try:
        found = os.stat(local)
    except OSError:
        return local
    return (found.st_dev, found.st_ino)
