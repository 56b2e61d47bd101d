"""Tasks that write what a seller's FeedAMP account holds to files on object storage."""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import tempfile
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, ClassVar, Final, Protocol, cast

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_feedamp.api.types import FulfillmentFilter
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
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_feedamp.api.client import FeedAmpClient
    from airflow_provider_feedamp.bulk.interrupt import Stop


log = logging.getLogger(__name__)

_LISTS = ("mp_order_numbers", "fulfillment_status", "refund_status", "return_status")
_INSTANTS = (
    "imported_after",
    "seller_updated_after",
    "created_after",
    "created_before",
    "requested_after",
    "requested_before",
)


class FeedAmpToObjectStorageOperator(BaseOperator):
    """Write orders, fulfilments, refunds or returns of a seller to a file, one JSON object per line.

    The lists are streamed, so their length does not matter. The file is there when it is whole: a run that
    fails or is stopped leaves nothing of it, and one that is repeated replaces it. It holds personal data; a
    local one can be read by its owner only. Without anything to write it is empty.

    A filter that is not given, or renders to nothing or ``None``, is not applied.

    :param resource: ``orders``, ``fulfillments`` (one line per order: its number and what the seller did),
        ``refunds`` or ``returns`` (templated).
    :param destination: Path or URL that Airflow's object storage can write, such as
        ``s3://connection_id@bucket/{{ run_id }}/orders.ndjson.gz`` (templated): ``.ndjson`` or ``.jsonl``,
        compressed if ``.gz`` follows.
    :param mp_order_numbers: Only what belongs to these orders: a list, the output of another task, or the
        text of a JSON array (templated).
    :param fulfillment_status: Orders and fulfilments: only of orders in one of these states (templated).
    :param imported_after: Orders and fulfilments: only of orders that came to FeedAMP at or after this
        instant (templated). All instants are datetimes with a time zone, or ISO 8601 with one.
    :param seller_updated_after: Orders and fulfilments: only of orders that the seller changed at or after
        this instant (templated).
    :param has_errors: Orders and fulfilments: only of orders with errors (True) or without (False)
        (templated).
    :param refund_status: Refunds: only those in one of these states (templated).
    :param created_after: Refunds: only those created at or after this instant (templated).
    :param created_before: Refunds: only those created at or before this instant (templated).
    :param return_status: Returns: only those in one of these states (templated).
    :param requested_after: Returns: only those asked for at or after this instant (templated). FeedAMP may
        ignore this and the next filter: their names are not documented.
    :param requested_before: Returns: only those asked for at or before this instant (templated).
    :param feedamp_conn_id: The FeedAMP connection (templated). Default ``feedamp_default``.
    :param seller: The seller whose account is read (templated). Default: the connection's.
    :return: What was written: ``destination``, ``resource``, ``count`` of lines and ``bytes``.
    """

    template_fields: Sequence[str] = (
        "resource",
        "destination",
        *_LISTS,
        *_INSTANTS,
        "has_errors",
        "feedamp_conn_id",
        "seller",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = dict.fromkeys(_LISTS, "json")
    ui_color = "#d7e8f7"

    #: The export under way in this process, to be told to stop.
    _stop: Stop | None = None

    def __init__(
        self,
        *,
        resource: str,
        destination: str,
        mp_order_numbers: Sequence[str] | XComArg | str | None = None,
        fulfillment_status: Sequence[str] | XComArg | str | None = None,
        imported_after: datetime | str | None = None,
        seller_updated_after: datetime | str | None = None,
        has_errors: bool | str | None = None,
        refund_status: Sequence[str] | XComArg | str | None = None,
        created_after: datetime | str | None = None,
        created_before: datetime | str | None = None,
        return_status: Sequence[str] | XComArg | str | None = None,
        requested_after: datetime | str | None = None,
        requested_before: datetime | str | None = None,
        feedamp_conn_id: str = "feedamp_default",
        seller: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.resource = resource
        self.destination = destination
        self.mp_order_numbers = mp_order_numbers
        self.fulfillment_status = fulfillment_status
        self.imported_after = imported_after
        self.seller_updated_after = seller_updated_after
        self.has_errors = has_errors
        self.refund_status = refund_status
        self.created_after = created_after
        self.created_before = created_before
        self.return_status = return_status
        self.requested_after = requested_after
        self.requested_before = requested_before
        self.feedamp_conn_id = feedamp_conn_id
        self.seller = seller

    def execute(self, context: Context) -> dict[str, Any]:
        """Write the file and return what it is."""
        from airflow_provider_feedamp.hooks.errors import task_errors

        with task_errors():
            return self._write(context)

    def on_kill(self) -> None:
        """Tell the export to stop: it ends after the line that it writes, and nothing of it is left."""
        if self._stop is not None:
            self._stop.request()

    def _write(self, context: Context) -> dict[str, Any]:
        from airflow_provider_feedamp.bulk.interrupt import Stop
        from airflow_provider_feedamp.bulk.paths import shown
        from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

        filters = self._filters()
        hook = FeedAmpHook(self.feedamp_conn_id, seller=self.seller)
        entries = exported(hook.client, self.resource, filters)
        origin = f"{self.resource} of seller {hook.seller!r} (connection {self.feedamp_conn_id})"
        log.info("Writing the %s to %s", origin, shown(self.destination))
        owner, again = _owner(context)
        self._stop = stop = Stop()
        try:
            with ndjson_file(self.destination, owner=owner, again=again) as file:
                self._fill(file, entries, stop)
        finally:
            self._stop = None
        log.info("Wrote %d %s, %d bytes", file.count, self.resource, file.bytes)
        return {
            "destination": self.destination,
            "resource": self.resource,
            "count": file.count,
            "bytes": file.bytes,
        }

    def _fill(self, file: NdjsonFile, entries: Iterator[Mapping[str, Any]], stop: Stop) -> None:
        """Write the entries, in a thread: one call of FeedAMP may last longer than Airflow waits."""
        from airflow_provider_feedamp.bulk.interrupt import run_apart
        from airflow_provider_feedamp.bulk.paths import shown
        from airflow_provider_feedamp.exceptions import DestinationError, ImportStoppedError

        def write() -> bool:
            for entry in entries:
                if stop.requested:
                    return False
                file.add(entry)
            return True

        whole = False
        try:
            with suppress(ImportStoppedError):  # A call that did not end in time; the file goes without it.
                whole = run_apart(write, stop)
        finally:
            if not whole:
                log.warning("Stopped before the end, after %d %s; nothing is kept", file.count, self.resource)
        if not whole:
            raise DestinationError(
                f"Destination {shown(self.destination)}: the export was told to stop before its end. "
                "Nothing is left of it; run the task again."
            )

    def _filters(self) -> dict[str, Any]:
        """Return the filters that are set, as the client takes them."""
        from airflow_provider_feedamp.operators.given import given_instant, given_texts, nothing
        from airflow_provider_feedamp.operators.values import flag

        given = {name: getattr(self, name) for name in (*_LISTS, *_INSTANTS, "has_errors")}
        given = {name: value for name, value in given.items() if not nothing(value) and value != ""}
        check_filters(self.resource, given)
        for name, value in given.items():
            read = given_texts if name in _LISTS else given_instant if name in _INSTANTS else flag
            given[name] = read(name, value)
        return given


def _owner(context: Mapping[str, Any]) -> tuple[str, bool]:
    """Return what stands for this task of this run in a file's name, and whether this is a new try of it."""
    from airflow_provider_feedamp.bulk.source import digest

    ti = context.get("ti")
    if ti is None:
        return "", False
    return digest(ti.dag_id, ti.run_id, ti.task_id, ti.map_index)[:16], ti.try_number > 1


_OF_ORDERS = (
    "mp_order_numbers",
    "fulfillment_status",
    "imported_after",
    "seller_updated_after",
    "has_errors",
)

#: The filters of each resource.
FILTERS: Final[dict[str, tuple[str, ...]]] = {
    "orders": _OF_ORDERS,
    "fulfillments": _OF_ORDERS,
    "refunds": ("mp_order_numbers", "refund_status", "created_after", "created_before"),
    "returns": ("mp_order_numbers", "return_status", "requested_after", "requested_before"),
}
#: The orders on which a seller has shipped or cancelled something, whether they are closed or not.
_WITH_ACTIVITY = (FulfillmentFilter.PARTIALLY_FULFILLED, FulfillmentFilter.COMPLETE)


def check_filters(resource: str, filters: Mapping[str, Any]) -> None:
    """Refuse a resource that there is not, and a filter that it does not have.

    :raises InputError: It names the filter and those that there are.
    """
    if resource not in FILTERS:
        raise InputError(f"resource must be one of {', '.join(FILTERS)}, not {resource!r}.")
    foreign = [name for name in filters if name not in FILTERS[resource]]
    if foreign:
        raise InputError(
            f"{resource} have no filter {', '.join(foreign)}; they have: {', '.join(FILTERS[resource])}."
        )


def exported(client: FeedAmpClient, resource: str, filters: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Return the entries of a resource, each once, as they are read from FeedAMP.

    Fulfilments are one entry per order: its number, and what endpoint 6 says of it (one call per order).
    Without order numbers or a ``fulfillment_status``, they are those of the orders with any activity.

    :param resource: One of :data:`FILTERS`.
    :param filters: As the client's list takes them, only those that are set.
    :raises InputError: A filter cannot be sent; raised at once.
    """
    check_filters(resource, filters)
    if resource == "orders":
        return client.orders.list(**filters)
    if resource == "refunds":
        return client.refunds.list(**filters)
    if resource == "returns":
        return _returns(client, filters)
    if not {"mp_order_numbers", "fulfillment_status"} & filters.keys():
        filters = {**filters, "fulfillment_status": _WITH_ACTIVITY}
    numbers = (str(order["mp_order_number"]) for order in client.orders.list(**filters))
    return ({"mp_order_number": number} | client.orders.fulfillments(number) for number in numbers)


def _returns(client: FeedAmpClient, filters: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Return the returns that match; the names of their filters are guesses, which a server may ignore."""
    numbers, statuses = filters.get("mp_order_numbers"), filters.get("return_status")
    return (
        found
        for found in client.returns.list(**filters)
        if (numbers is None or found.get("mp_order_number") in numbers)
        and (statuses is None or found.get("status") in statuses)
    )


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
