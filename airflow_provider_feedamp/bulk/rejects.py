"""The rejects file: what was refused, whole, with its line and the reason, to be corrected and sent again."""

from __future__ import annotations

import gzip
import json
import os
import stat
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Self

from airflow_provider_feedamp.bulk.paths import (
    failure_text,
    is_final,
    is_web,
    local_path,
    loggable,
    open_storage,
    storage_path,
)
from airflow_provider_feedamp.exceptions import FeedAmpError, InputError, RejectsFileError, counted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from airflow_provider_feedamp.bulk.source import SourceOrder

_LINE_BREAKS = bytes.maketrans(b"\r\n", b"  ")


class RejectsFile:
    """A file of lines, one JSON object per rejected order; it exists only if there is one.

    Entering it replaces a rejects file of an earlier run at the same path and finds out whether a local one
    can be written, before any order is sent. Each reject is written out at once: on a local disk it is there
    whatever happens next, other storage keeps it when the file is closed. A local file can be read by its
    owner only.

    :param path: A local path or any URL that Airflow's object storage can write; ``.gz`` compresses it. None
        counts the rejects and keeps nothing.
    :param count: How many rejects of an earlier try to go on behind, where :func:`still_there` says so.
        Default 0: the file begins anew.
    :param size: How many bytes those take in the file; what comes after them is cut off.
    """

    def __init__(self, path: str | None, count: int = 0, size: int = 0) -> None:
        self.path = path
        self.count = count
        self.size = size
        self._file: IO[bytes] | None = None
        self._compressed: gzip.GzipFile | None = None

    def __enter__(self) -> Self:
        if self.path is None:
            return self
        try:
            self._make_way(self.path)
        except FeedAmpError:
            raise
        except Exception as error:
            failed = f"Rejects file {loggable(self.path)} cannot be written: {failure_text(error)}."
            if is_final(self.path, error):
                raise InputError(
                    f"{failed} Nothing was sent. Name a file in a folder that this worker may write."
                ) from error
            raise RejectsFileError(
                f"{failed} Nothing was sent. Run the task again when its storage is there."
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._compressed is not None:
                self._compressed.close()
            if self._file is not None:
                self._file.close()
        except Exception as failure:
            with suppress(Exception):  # S3 would keep an upload that is not ended for ever.
                self._file.discard()  # type: ignore[union-attr]
            if isinstance(error, RejectsFileError) and can_be_continued(self.path):
                return  # It says which order could not be written; all before are there.
            raise RejectsFileError(
                f"{self._failed(failure)} Of its {counted(self.count, 'rejects')} some may be missing."
            ) from failure

    def add(self, order: SourceOrder, reason: str, codes: Sequence[str] = (), words: str = "") -> None:
        """Write one rejected order with its reason and FeedAMP's codes.

        :param words: FeedAMP's own words. They may quote the order, so they are written beside it only.
        :raises RejectsFileError: If it could not be written; the order is then not counted.
        """
        if self.path is not None:
            line = _reject_line(order, f"{reason} FeedAMP said: {words}" if words else reason, codes)
            try:
                self._write(line)
            except Exception as error:
                raise RejectsFileError(
                    f"{self._failed(error)} The order of {order.place} is not in it ({reason})."
                ) from error
            self.size += len(line)
        self.count += 1

    def _make_way(self, path: str) -> None:
        if is_web(path):
            raise InputError(f"Rejects file {loggable(path)}: a web server is no place that can be written.")
        local = local_path(path)
        if local is None:
            place = storage_path(path, "Rejects file")
            # Through the file system that open() uses: the path's own exists() may pass by the connection.
            if place.fs.exists(place.path):
                place.fs.rm(place.path)
            return
        if os.path.exists(local) and not os.path.isfile(local):
            raise InputError(f"Rejects file {loggable(path)} is a directory or a device; name a file.")
        os.makedirs(os.path.dirname(local), exist_ok=True)
        with _private(local, "ab") as file:
            if self.size:
                file.truncate(self.size)
                return
        os.unlink(local)

    def _write(self, line: bytes) -> None:
        if self._file is None:
            path = str(self.path)
            local, mode = local_path(path), "ab" if self.size else "wb"
            self._file = _private(local, mode) if local else open_storage(path, mode, "Rejects file")
            if path.lower().endswith(".gz"):
                self._compressed = gzip.GzipFile(fileobj=self._file, mode="wb")
        out = self._compressed or self._file
        out.write(line)
        out.flush()

    def _failed(self, error: Exception) -> str:
        return (
            f"Rejects file {loggable(str(self.path))} could not be written: {failure_text(error)}. "
            "Make room or name another file, and run the task again: orders are keyed, so sending them "
            "again is safe."
        )


def _private(local: str, mode: str) -> IO[bytes]:
    """Open a file that its owner alone may read, as orders name people; a wider one is narrowed.

    :raises OSError: It cannot be opened, or belongs to another user and cannot be narrowed.
    """
    file = open(local, mode, opener=lambda path, flags: os.open(path, flags, 0o600))
    try:
        rights = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if rights & ~0o600:
            os.fchmod(file.fileno(), rights & 0o600)
    except OSError:
        file.close()
        raise
    return file


def can_be_continued(path: str | None) -> bool:
    """Whether rejects can be added to a file in a later try: on a local disk, and not compressed."""
    return path is None or (local_path(path) is not None and not path.lower().endswith(".gz"))


def still_there(path: str | None, count: int, size: int) -> bool:
    """Whether the rejects of an earlier try are still in the file, so that it can be continued."""
    if path is None or not count:
        return True
    try:
        local = str(local_path(path))
        return can_be_continued(path) and os.path.isfile(local) and os.path.getsize(local) >= size
    except OSError:
        return False


def _reject_line(order: SourceOrder, reason: str, codes: Sequence[str]) -> bytes:
    head = {"line": order.line, "mp_order_number": order.number, "reason": reason, "codes": list(codes)}
    body = order.body or b""
    if order.order is None:
        head["raw"] = body.decode("utf-8", "backslashreplace")
    text = json.dumps(head, ensure_ascii=False).encode("utf-8", "backslashreplace")
    if order.order is not None:
        # It goes in as it was read, so that no number changes; JSON has line breaks only between tokens.
        text = text[:-1] + b', "order": ' + body.translate(_LINE_BREAKS) + b"}"
    return text + b"\n"
