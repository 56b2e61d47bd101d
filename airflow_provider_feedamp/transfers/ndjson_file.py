"""Write a file of one JSON object per line, whole or not at all."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import zlib
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

from airflow_provider_feedamp.bulk.paths import (
    BLOCK,
    failure_text,
    is_final,
    is_web,
    local_path,
    loggable,
    storage_path,
)
from airflow_provider_feedamp.exceptions import DestinationError, FeedAmpError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow.providers.common.compat.sdk import ObjectStoragePath

log = logging.getLogger(__name__)

_NAMES = (".ndjson", ".jsonl", ".ndjson.gz", ".jsonl.gz")
_PIECE = 256 * 1024  # Bytes per write: few calls to the storage, small beside an Airflow task.
_GZIP = 16 + zlib.MAX_WBITS


@contextmanager
def ndjson_file(destination: str, *, owner: str = "", again: bool = False) -> Iterator[NdjsonFile]:
    """Open a file to write; it is there when the block ends well, and nothing is left of it otherwise.

    A file of an earlier run is replaced at the end. A local file can be read by its owner only. The block may
    be left while another thread still writes: what that one writes is dropped.

    :param destination: A local path or any URL that Airflow's object storage can write, ending in ``.ndjson``
        or ``.jsonl``, or one of them and ``.gz`` to compress it.
    :param owner: A few letters and digits that no other task and no other run has. What its killed tries left
        in a local folder is removed. Default: nothing is looked for.
    :param again: Whether a try of the owner came before: its upload to the same object on S3, which S3 would
        keep unseen and for ever, is aborted. Default False.
    :raises InputError: If it cannot be begun there.
    :raises DestinationError: If its storage is away, or it cannot be written to its end.
    """
    what = f"Destination {loggable(destination)}"
    if not destination.lower().endswith(_NAMES) or is_web(destination):
        raise InputError(
            f"{what} must be a path or URL of a storage that ends in one of: {', '.join(_NAMES)}."
        )
    local = local_path(destination)
    with ExitStack() as stack:
        try:
            file = stack.enter_context(
                _remote_file(destination, what, again=again)
                if local is None
                else _local_file(local, what, owner)
            )
        except FeedAmpError:
            raise
        except Exception as error:
            failed = f"{what} cannot be written: {failure_text(error)}."
            if is_final(destination, error):
                raise InputError(f"{failed} Name a place that this worker may write.") from error
            raise DestinationError(f"{failed} Run the task again when its storage is there.") from error
        written = NdjsonFile(file, what, compressed=destination.lower().endswith(".gz"))
        try:
            yield written
            written.finish()
        except BaseException:
            written.drop()
            raise


@contextmanager
def _writing(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise DestinationError(
            f"{what} could not be written: {failure_text(error)}. Nothing is left of it; try again."
        ) from error


class NdjsonFile:
    """A file that is being written.

    :param file: What takes the bytes.
    :param what: What is written, to begin an error message with.
    :param compressed: Whether it is a gzip file.
    """

    def __init__(self, file: IO[bytes], what: str, *, compressed: bool) -> None:
        #: How many lines were added.
        self.count = 0
        #: How many bytes the storage has got.
        self.bytes = 0
        self._file: IO[bytes] | None = file
        self._what = what
        self._pending = bytearray()
        # Its head has neither name nor time, so that the same lines make the same file.
        self._gzip = zlib.compressobj(9, wbits=_GZIP) if compressed else None

    def add(self, entry: Mapping[str, Any]) -> None:
        """Write one object as one line.

        :raises DestinationError: The storage did not take it.
        """
        text = json.dumps(entry, ensure_ascii=False, separators=(",", ":"))
        # Half a surrogate pair, which JSON can hold and UTF-8 cannot, goes in as JSON's own escape.
        line = text.encode("utf-8", "backslashreplace") + b"\n"
        self._pending += line if self._gzip is None else self._gzip.compress(line)
        if len(self._pending) >= _PIECE:
            self._write()
        self.count += 1

    def finish(self) -> None:
        """Write what is still held back."""
        if self._gzip is not None:
            self._pending += self._gzip.flush()
        self._write()

    def drop(self) -> None:
        """Let what is still added go nowhere."""
        self._file = None

    def _write(self) -> None:
        file = self._file
        if file is not None and self._pending:
            with _writing(self._what):
                file.write(bytes(self._pending))
            self.bytes += len(self._pending)
        self._pending.clear()


@contextmanager
def _local_file(path: str, what: str, owner: str) -> Iterator[IO[bytes]]:
    """Open a file beside its place, under a name of its own, until it is whole."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{what} is a directory or a device; name a file.")
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    if owner:
        _remove_parts(folder, owner)
    # Each try has a name of its own: one that Airflow took for dead must not put another's half in place.
    # Nobody but the file's owner may read it, from the beginning on.
    prefix = f".{name[:40]}.{owner}." if owner else f".{name[:40]}."
    handle, beside = tempfile.mkstemp(prefix=prefix, suffix=".part", dir=folder)
    file: IO[bytes] = os.fdopen(handle, "wb")
    try:
        yield file
        with _writing(what):
            file.flush()
            os.fsync(file.fileno())
            file.close()
            os.replace(beside, path)
    except BaseException:
        # Unlinked first: a thread that still writes may hold up the close.
        with suppress(FileNotFoundError):
            os.unlink(beside)
        with suppress(OSError):
            file.close()
        raise


def _remove_parts(folder: str, owner: str) -> None:
    """Remove what killed tries of the owner left: it holds data of customers, and nothing else removes it."""
    for name in os.listdir(folder):
        if f".{owner}." not in name or not name.endswith(".part"):
            continue
        part = os.path.join(folder, name)
        try:
            os.unlink(part)
            log.info("Removed what a killed try left: %s", part)
        except OSError as error:
            log.warning("A killed try left %s (%s): remove it.", part, failure_text(error))


@contextmanager
def _remote_file(path: str, what: str, *, again: bool) -> Iterator[IO[bytes]]:
    """Open a file in its place. Storages differ in when it shows there: what shows too early is removed."""
    storage = storage_path(path, "Destination")
    before = _seen(storage)
    if again:
        _abort_uploads(storage, what)
    # Without a type: what it can do beside writing differs from storage to storage.
    file: Any = storage.open("wb", autocommit=False, block_size=BLOCK)  # type: ignore[no-untyped-call]
    try:
        yield file
        with _writing(what):
            file.close()
            if (commit := getattr(file, "commit", None)) is not None:
                commit()
    except BaseException:
        # Closed first, as fsspec's own transactions do: a file that is not closed would be, some time later.
        for step in ("close", "discard"):
            with suppress(Exception):
                getattr(file, step)()
        try:
            if _seen(storage) not in (None, before):
                storage.fs.rm(storage.path)
        except Exception as error:  # noqa: BLE001 - each storage has errors of its own; another one is on its way
            log.warning("%s may be there half (%s): remove it.", what, type(error).__name__)
        raise


def _seen(storage: ObjectStoragePath) -> Any | None:
    storage.fs.invalidate_cache()
    try:
        return storage.fs.info(storage.path)
    except FileNotFoundError:
        return None


def _abort_uploads(storage: ObjectStoragePath, what: str) -> None:
    """Abort the uploads to the same object on S3; other storages forget in days what is not ended."""
    call = getattr(storage.fs, "call_s3", None)
    if call is None:
        return
    bucket, key, _ = storage.fs.split_path(storage.path)
    try:
        found = call("list_multipart_uploads", Bucket=bucket, Prefix=key).get("Uploads", ())
        for upload in (each for each in found if each["Key"] == key):
            call("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload["UploadId"])
            log.info("%s: aborted the upload that a killed try left", what)
    except Exception as error:  # noqa: BLE001 - each storage has errors of its own, and the export can go on
        log.warning(
            "%s: could not look for an upload that a killed try may have left (%s). "
            "Give the bucket a rule that aborts incomplete multipart uploads.",
            what,
            failure_text(error),
        )
