"""Paths and URLs as Airflow's object storage opens them, and as a log may show them."""

from __future__ import annotations

import os
import re
from typing import IO, TYPE_CHECKING, cast

from airflow_provider_feedamp.exceptions import InputError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

_WEB = ("http://", "https://")


def is_web(path: str) -> bool:
    """Whether the path is an http(s) URL: readable at most, and its query is not part of the name."""
    return path.lower().startswith(_WEB)


def shown(path: str) -> str:
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
            f"{what} {shown(path)}: Airflow's object storage has no file system for it ({error}). "
            "Install the Airflow provider of that storage, or correct the URL."
        ) from error
    return found


def open_storage(path: str, mode: str, what: str) -> IO[bytes]:
    """Open a file of any storage, as :func:`storage_path` finds it."""
    opened = storage_path(path, what).open(mode)  # type: ignore[no-untyped-call]
    return cast("IO[bytes]", opened)


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
