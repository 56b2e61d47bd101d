"""Write a file of one JSON object per line, whole or not at all."""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import tempfile
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, Protocol, cast

from airflow_provider_feedamp.bulk.paths import (
    BLOCK,
    failure_text,
    is_final,
    is_web,
    local_path,
    shown,
    storage_path,
)
from airflow_provider_feedamp.exceptions import DestinationError, FeedAmpError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

log = logging.getLogger(__name__)

_NAMES = (".ndjson", ".jsonl", ".ndjson.gz", ".jsonl.gz")
_PIECE = 256 * 1024  # Bytes per write: few calls to the storage, small beside an Airflow task.


class NdjsonFile:
    """A file that is being written.

    :param raw: What takes the bytes.
    :param what: What is written, to begin an error message with.
    :param compressed: Whether it is a gzip file.
    """

    def __init__(self, raw: _Counted, what: str, *, compressed: bool) -> None:
        self.count = 0
        self._raw = raw
        self._what = what
        self._buffer = io.BufferedWriter(raw, _PIECE)
        # Without name and time, so that the same lines make the same file.
        self._gzip = gzip.GzipFile("", "wb", fileobj=self._buffer, mtime=0) if compressed else None

    @property
    def bytes(self) -> int:
        """How many bytes the storage has got."""
        return self._raw.count

    def add(self, entry: Mapping[str, Any]) -> None:
        """Write one object as one line.

        :raises DestinationError: The storage did not take it.
        """
        text = json.dumps(entry, ensure_ascii=False, separators=(",", ":"))
        # Half a surrogate pair, which JSON can hold and UTF-8 cannot, goes in as JSON's own escape.
        line = text.encode("utf-8", "backslashreplace") + b"\n"
        with _writing(self._what):
            (self._gzip or self._buffer).write(line)
        self.count += 1

    def finish(self) -> None:
        """Write what is still held back."""
        if self._gzip is not None:
            self._gzip.close()
        self._buffer.flush()


@contextmanager
def ndjson_file(destination: str, *, owner: str = "", again: bool = False) -> Iterator[NdjsonFile]:
    """Open a file to write; it is there when the block ends well, and nothing is left of it otherwise.

    A file of an earlier run is replaced at the end. A local file can be read by its owner only. The block may
    be left while another thread still writes: what that one writes is dropped.

    :param destination: A local path or any URL that Airflow's object storage can write, ending in ``.ndjson``
        or ``.jsonl``, or one of them and ``.gz`` to compress it.
    :param owner: What tells one task of one run from all others, in a few letters and digits. What its killed
        tries left in a local folder is removed. Default: nothing is looked for.
    :param again: Whether a try of the owner came before: its upload to the same object on S3, which nobody
        sees and S3 keeps for ever, is aborted. Default False.
    :raises InputError: If it cannot be begun there.
    :raises DestinationError: If its storage is away, or it cannot be written to its end.
    """
    what = f"Destination {shown(destination)}"
    if not destination.lower().endswith(_NAMES) or is_web(destination):
        raise InputError(
            f"{what} must be a path or URL of a storage that ends in one of: {', '.join(_NAMES)}."
        )
    try:
        place = _begin(destination, what, owner, again=again)
    except FeedAmpError:
        raise
    except Exception as error:
        failed = f"{what} cannot be written: {failure_text(error)}."
        if is_final(destination, error):
            raise InputError(f"{failed} Name a place that this worker may write.") from error
        raise DestinationError(f"{failed} Run the task again when its storage is there.") from error
    raw = _Counted(place.file)
    written = NdjsonFile(raw, what, compressed=destination.lower().endswith(".gz"))
    try:
        yield written
        with _writing(what):
            written.finish()
            place.keep()
    except BaseException:
        raw.detach()
        place.drop()
        raise


@contextmanager
def _writing(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise DestinationError(
            f"{what} could not be written: {failure_text(error)}. Nothing is left of it; try again."
        ) from error


class _Counted(io.RawIOBase):
    """Counts the bytes on their way; once detached, it drops them."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self.count = 0
        self._file: IO[bytes] | None = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        size, file = len(data), self._file
        if file is not None:
            file.write(bytes(data))
            self.count += size
        return size

    def detach(self) -> None:
        self._file = None


class _Place(Protocol):
    """Where a file is being written."""

    file: IO[bytes]

    def keep(self) -> None:
        """Close the file, and let it stand."""

    def drop(self) -> None:
        """Leave nothing of it."""


def _begin(destination: str, what: str, owner: str, *, again: bool) -> _Place:
    local = local_path(destination)
    if local is None:
        return _Remote(destination, what, again=again)
    if os.path.exists(local) and not os.path.isfile(local):
        raise InputError(f"{what} is a directory or a device; name a file.")
    os.makedirs(os.path.dirname(local), exist_ok=True)
    return _Local(local, owner)


class _Local:
    """Beside its place, under a name of its own, until it is whole."""

    def __init__(self, path: str, owner: str) -> None:
        self._path = path
        folder, name = os.path.split(path)
        if owner:
            _remove_parts(folder, owner)
        # Each try has a name of its own: one that Airflow took for dead must not put another's half in place.
        # Nobody but the file's owner may read it, from the beginning on.
        prefix = f".{name[:40]}.{owner}." if owner else f".{name[:40]}."
        handle, self._beside = tempfile.mkstemp(prefix=prefix, suffix=".part", dir=folder)
        self.file: IO[bytes] = os.fdopen(handle, "wb")

    def keep(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        os.replace(self._beside, self._path)

    def drop(self) -> None:
        # Unlinked first: a thread that still writes may hold up the close.
        with suppress(FileNotFoundError):
            os.unlink(self._beside)
        with suppress(OSError):
            self.file.close()


def _remove_parts(folder: str, owner: str) -> None:
    """Remove what killed tries of the owner left: it holds customers' data, and nobody else looks for it."""
    for name in os.listdir(folder):
        if f".{owner}." not in name or not name.endswith(".part"):
            continue
        part = os.path.join(folder, name)
        try:
            os.unlink(part)
            log.info("Removed what a killed try left: %s", part)
        except OSError as error:
            log.warning("A killed try left %s (%s): remove it.", part, failure_text(error))


class _Remote:
    """In its place, where it shows at the end: storages differ in how, so what shows before is removed."""

    def __init__(self, path: str, what: str, *, again: bool) -> None:
        self._what = what
        self._storage = storage_path(path, "Destination")
        self._before = self._seen()
        if again:
            self._abort_uploads()
        opened = self._storage.open("wb", autocommit=False, block_size=BLOCK)  # type: ignore[no-untyped-call]
        self.file = cast("IO[bytes]", opened)

    def keep(self) -> None:
        self.file.close()
        commit = getattr(self.file, "commit", None)
        if commit is not None:
            commit()

    def drop(self) -> None:
        # Closed first, as fsspec's own transactions do: a file that is not closed would be, some time later.
        for step in ("close", "discard"):
            with suppress(Exception):
                getattr(self.file, step)()
        try:
            if self._seen() not in (None, self._before):
                self._storage.fs.rm(self._storage.path)
        except Exception as error:  # noqa: BLE001 - each storage has errors of its own; another one is on its way
            log.warning("%s may be there half (%s): remove it.", self._what, type(error).__name__)

    def _abort_uploads(self) -> None:
        call = getattr(
            self._storage.fs, "call_s3", None
        )  # Other storages forget within days what is not ended.
        if call is None:
            return
        bucket, key, _ = self._storage.fs.split_path(self._storage.path)
        try:
            found = call("list_multipart_uploads", Bucket=bucket, Prefix=key).get("Uploads", ())
            for upload in (each for each in found if each["Key"] == key):
                call("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload["UploadId"])
                log.info("%s: aborted the upload that a killed try left", self._what)
        except Exception as error:  # noqa: BLE001 - each storage has errors of its own, and the export can go on
            log.warning(
                "%s: could not look for an upload that a killed try may have left (%s). "
                "Give the bucket a rule that aborts incomplete multipart uploads.",
                self._what,
                failure_text(error),
            )

    def _seen(self) -> Any | None:
        self._storage.fs.invalidate_cache()
        try:
            return self._storage.fs.info(self._storage.path)
        except FileNotFoundError:
            return None
