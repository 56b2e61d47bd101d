"""Read orders one by one from a file, a URL or a list, in memory that does not grow with their number."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial, singledispatch
from itertools import chain, islice
from typing import Any, NoReturn, Protocol
from uuid import UUID

from airflow_provider_feedamp.bulk.paths import is_web, local_path, open_storage, shown, storage_path
from airflow_provider_feedamp.exceptions import InputError

#: The longest order that is read, in bytes: whatever is in the file, this bounds the memory it can take.
MAX_ORDER_BYTES = 16 * 1024 * 1024

_PIECE = 256 * 1024  # Bytes per read: large enough to make few calls, small beside an Airflow task.
_KEPT_OF_A_LONG_LINE = 1000
_UTF8_MARK = b"\xef\xbb\xbf"
_LINES = (".ndjson", ".jsonl")
_ARRAY = (".json",)
_TABLES = (".csv", ".tsv", ".xlsx", ".parquet")
_ALL_NAMES = ", ".join(f"{name}, {name}.gz" for name in _LINES + _ARRAY)


class ReadSoFar:
    """How many bytes of a file have been read: of the file as it lies there, compressed or not."""

    def __init__(self) -> None:
        self.bytes = 0

    def counting(self, read: Callable[[int], bytes]) -> Callable[[int], bytes]:
        """Return a read function that counts what it returns."""

        def counted(size: int) -> bytes:
            piece = read(size)
            self.bytes += len(piece)
            return piece

        return counted


def read_orders(
    source: str, *, allow_empty: bool = False, skip: int = 0, so_far: ReadSoFar | None = None
) -> Iterator[SourceOrder]:
    """Read the orders of a file, from anything that Airflow's object storage can open.

    One order per line (``.ndjson``, ``.jsonl``) or one JSON array (``.json``), each also compressed
    (``.gz``), in UTF-8. Blank lines are skipped and counted, so line numbers are those of an editor. What is
    wrong with a single line or element is told in its :class:`SourceOrder`; the others go on.

    :param source: A local path, a ``file://`` URL or a URL such as ``s3://connection_id@bucket/orders.ndjson``.
    :param allow_empty: Whether a source without any order is fine. Default: it is not.
    :param skip: How many orders to pass over, unparsed; what is wrong with a line counts as an order, too.
    :param so_far: Is told how far the file has been read.
    :return: An iterator that holds one order at a time.
    :raises InputError: At once if the source does not exist, cannot be opened, is a directory, is of an
        unknown kind, not in UTF-8 or empty; while reading if it is cut off, naming the last order before.
    """
    what = f"Source {shown(source)}"
    name = (source.partition("?")[0] if is_web(source) else source).lower()
    plain_name = name.removesuffix(".gz")
    if not plain_name.endswith(_LINES + _ARRAY):
        table = (
            " A table has no place for an order's own lines: write each order as a JSON object on one line, "
            "or load the table into a database and give a query with sql_conn_id."
            if plain_name.endswith(_TABLES)
            else ""
        )
        raise InputError(
            f"{what} has a name that does not say what it holds. Known are: {_ALL_NAMES}.{table}"
        )
    read = partial(_lines if plain_name.endswith(_LINES) else _elements, skip=skip)
    opened = partial(_opened, source, what, so_far or ReadSoFar(), compressed=name.endswith(".gz"))
    return _not_empty(_stream(opened, what, read), what, allow_empty=allow_empty or skip > 0)


def orders_of(orders: object, *, allow_empty: bool = False) -> Iterator[SourceOrder]:
    """Read the orders of a list, as an argument, an XCom or a rendered template gives it.

    :param orders: A list (or other iterable) of orders, or the text of a JSON array.
    :param allow_empty: Whether a list without any order is fine. Default: it is not.
    :raises InputError: At once if this is not a list of orders, or is empty.
    """
    if isinstance(orders, str):
        return _not_empty(_of_text(orders), "orders", allow_empty=allow_empty)
    if isinstance(orders, (Mapping, bytes)) or not isinstance(orders, Iterable):
        raise InputError(f"orders must be a list of orders, not {type(orders).__name__}.")
    found = (order_of(position, order) for position, order in enumerate(orders, 1))
    return _not_empty(found, "orders", allow_empty=allow_empty)


def _not_empty(orders: Iterator[SourceOrder], what: str, *, allow_empty: bool) -> Iterator[SourceOrder]:
    """Read the first order now, so that a source that is of no use is refused before anything is done."""
    first = next(orders, None)
    if first is not None:
        return chain((first,), orders)
    if allow_empty:
        return orders
    raise InputError(f"{what}: there is no order in it. If that is fine, set allow_empty=True.")


def _of_text(text: str) -> Iterator[SourceOrder]:
    try:
        is_list = isinstance(json.loads(text), list)
    except (ValueError, RecursionError):
        is_list = False
    if not is_list:
        raise InputError(
            "orders is a text that is not a JSON array. A template that renders to Python's notation or to "
            'nothing does that: pass the task\'s output itself (orders=task.output), or add "| tojson".'
        )
    stream = io.BytesIO(text.encode("utf-8", "surrogatepass"))
    elements = array_elements(partial(stream.read, _PIECE), what="orders", limit=MAX_ORDER_BYTES)
    return (parse_order(position, element, "item") for position, element in enumerate(elements, 1))


def _stream(
    opened: Callable[[], AbstractContextManager[io.BufferedReader]], what: str, read: _Reader
) -> Iterator[SourceOrder]:
    order = None
    try:
        with opened() as stream:
            _check_encoding(stream, what)
            for order in read(stream, what):
                yield order
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        place = f"after {order.place}" if order else "at its beginning"
        raise InputError(
            f"{what} is not a whole gzip file: {error} ({place}). What stands before was read."
        ) from error


@contextmanager
def _opened(source: str, what: str, so_far: ReadSoFar, *, compressed: bool) -> Iterator[io.BufferedReader]:
    try:
        file = open_storage(source, "rb", "Source")
    except FileNotFoundError as error:
        raise InputError(f"{what} does not exist.") from error
    except IsADirectoryError as error:
        raise InputError(f"{what} is a directory; name one file.") from error
    except PermissionError as error:
        raise InputError(f"{what} may not be read by this worker: {error.strerror or error}.") from error
    with file:
        stream = buffered(so_far.counting(file.read))
        # read1 hands out what could be unpacked before the place where a cut-off file ends.
        yield buffered(gzip.GzipFile(fileobj=stream).read1) if compressed else stream


def _check_encoding(stream: io.BufferedReader, what: str) -> None:
    head = stream.peek(4)[:4]
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head:
        raise InputError(f"{what} is not in UTF-8 (it looks like UTF-16 or UTF-32); save it as UTF-8.")
    if head.startswith(_UTF8_MARK):
        stream.read(len(_UTF8_MARK))


def _lines(stream: io.BufferedReader, what: str, skip: int) -> Iterator[SourceOrder]:
    number = 0
    while text := stream.readline(MAX_ORDER_BYTES):
        number += 1
        cut = len(text) == MAX_ORDER_BYTES and not text.endswith(b"\n")
        if cut:
            _pass_over_line(stream)
        elif text.isspace():
            continue
        if skip:
            skip -= 1
        else:
            yield _too_long(number, text) if cut else parse_order(number, text)


def _pass_over_line(stream: io.BufferedReader) -> None:
    while (rest := stream.readline(_PIECE)) and not rest.endswith(b"\n"):
        pass


def _too_long(number: int, text: bytes) -> SourceOrder:
    problem = f"is longer than {MAX_ORDER_BYTES:,} bytes; only its beginning is kept here"
    return SourceOrder(number, None, text[:_KEPT_OF_A_LONG_LINE], problem)


def _elements(stream: io.BufferedReader, what: str, skip: int) -> Iterator[SourceOrder]:
    elements = array_elements(partial(stream.read1, _PIECE), what=what, limit=MAX_ORDER_BYTES)
    for position, element in islice(enumerate(elements, 1), skip, None):
        yield parse_order(position, element, "item")


_Reader = Callable[[io.BufferedReader, str], "Iterator[SourceOrder]"]


class _ReadOnly(io.RawIOBase):
    """A raw stream over a read function, because Airflow's tracked files have no fast lines of their own."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        super().__init__()
        self._read = read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        piece = self._read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


def buffered(read: Callable[[int], bytes]) -> io.BufferedReader:
    """Return a stream over a read function."""
    return io.BufferedReader(_ReadOnly(read), _PIECE)


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


_KINDS = {str: "a text", bool: "true or false", int: "a number", float: "a number", type(None): "null"}
_LONGEST_KEY = 64  # Characters that a reason shows.
_SPACE = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True, slots=True)
class SourceOrder:
    """One order as a source gave it.

    :param line: Its line (from 1) in a file of lines; in an array, a list or a query its position (from 1).
    :param order: The order as parsed; None where the text is not JSON.
    :param body: The order's JSON as it was read; where the text is not JSON, that text.
    :param problem: Why this cannot be an order, in words that hold nothing of its content; None if it can.
    :param unit: What ``line`` counts: ``line``, ``item`` or ``row``.
    """

    line: int
    order: Any | None
    body: bytes | None
    problem: str | None = None
    unit: str = "line"

    @property
    def place(self) -> str:
        """Where it is in its source, such as ``line 7``."""
        return f"{self.unit} {self.line}"


def parse_order(line: int, text: bytes, unit: str = "line") -> SourceOrder:
    """Parse one order; a line of a rejects file is unwrapped, so that a mended one can be fed in again."""
    body = text.strip()
    value, problem = None, None
    try:
        decoded = body.decode()
        value = _DECODER.decode(decoded)
    except (ValueError, RecursionError) as error:
        problem = _why_not_json(error) if body else "nothing stands here: there is a comma too many"
    else:
        if not isinstance(value, dict):
            problem = f"is {_kind(value)}, not a JSON object"
        elif _is_reject(value):
            return parse_order(line, _inside(decoded), unit)
    return SourceOrder(line, value, body, problem, unit)


def order_of(position: int, value: object) -> SourceOrder:
    """Take one order that is already parsed, from a list or an XCom."""
    try:
        try:
            body = json.dumps(value, allow_nan=False, separators=(",", ":"))
        except TypeError:
            body = json_of(value)
    except (UnfitError, ValueError, RecursionError, OverflowError) as error:
        text = repr(value).encode("utf-8", "backslashreplace")
        why = f"a value {error}" if isinstance(error, UnfitError) else str(error)
        return SourceOrder(position, None, text, f"cannot be written as JSON: {why}", "item")
    return parse_order(position, body.encode(), "item")


class JsonText(str):
    """A text that is JSON already, such as a database's column of a JSON type gives it."""

    __slots__ = ()


class UnfitError(Exception):
    """A value that has no place in an order; the text says why, and holds nothing of it."""


@singledispatch
def json_of(value: Any) -> str:
    """Return a value of Python as JSON: decimals keep their digits, times are written in UTC.

    :raises UnfitError: An order cannot hold it.
    """
    raise UnfitError(
        f"is of the type {type(value).__name__}, which an order does not have; convert it where it comes from"
    )


@json_of.register(str)
@json_of.register(int)
@json_of.register(type(None))
def _plain(value: Any) -> str:
    return json.dumps(value)


@json_of.register
def _json_text(value: JsonText) -> str:
    # It goes in as it is written, so it must be one JSON value and nothing else.
    try:
        json.loads(value, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise UnfitError("is not JSON") from None
    return str(value)


@json_of.register(Decimal)
@json_of.register(float)
def _number(value: Decimal | float) -> str:
    if not Decimal(value).is_finite():
        raise UnfitError(f"is {value}, which is not a JSON number")
    return format(value, "f") if isinstance(value, Decimal) else repr(value)


@json_of.register
def _instant(value: datetime) -> str:
    if value.utcoffset() is None:
        raise UnfitError("is a time without a zone; give it one where it comes from")
    return f'"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"'


@json_of.register(date)
@json_of.register(UUID)
def _text(value: date | UUID) -> str:
    return json.dumps(str(value))


@json_of.register
def _mapping(value: dict) -> str:  # type: ignore[type-arg]  # singledispatch takes no parameters
    if not all(isinstance(name, str) for name in value):
        raise UnfitError("has a key that is no text; keys must be texts")
    return f"{{{','.join(f'{json.dumps(name)}:{json_of(each)}' for name, each in value.items())}}}"


@json_of.register(list)
@json_of.register(tuple)
def _array(value: list[Any] | tuple[Any, ...]) -> str:
    return f"[{','.join(map(json_of, value))}]"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


class _TwiceError(ValueError):
    """One of two values would be lost, and the next reader may choose the other one."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _TwiceError(f"has the key {twice[:_LONGEST_KEY]!r} twice in one object")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant)


def _why_not_json(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8 at byte {error.start + 1}"
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON: {error.msg.removesuffix(' at')} at character {error.pos + 1}"
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    if isinstance(error, _TwiceError):
        return str(error)
    return f"is not JSON: {error}"


def _kind(value: object) -> str:
    if isinstance(value, list):
        return "a JSON array (an array of orders belongs in a .json file)"
    return _KINDS[type(value)]


def _is_reject(value: dict[str, Any]) -> bool:
    return {"line", "reason", "codes"} <= value.keys() and ("order" in value or "raw" in value)


def _inside(reject: str) -> bytes:
    """Return the order of a line of a rejects file as it is written there, or its raw text."""
    found = ""
    at = reject.index("{") + 1
    while True:
        at = _after_space(reject, at)
        name, at = _DECODER.raw_decode(reject, at)
        at = _after_space(reject, reject.index(":", at) + 1)
        value, end = _DECODER.raw_decode(reject, at)
        if name == "order":
            return reject[at:end].encode()
        if name == "raw":
            found = str(value)
        at = _after_space(reject, end)
        if reject[at] == "}":
            return found.encode("utf-8", "backslashreplace")
        at += 1


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


_STRING = rb'"(?:[^"\\]++|\\.)*+"'
#: Everything up to the next bracket; at the array's own level a comma stops it too. A string that is not
#: complete yet stops both at its opening quote.
_NESTED = re.compile(rb'(?:[^"\[\]{}]++|' + _STRING + rb")*+", re.DOTALL)
_TOP = re.compile(rb'(?:[^"\[\]{},]++|' + _STRING + rb")*+", re.DOTALL)


def array_elements(read: Callable[[], bytes], *, what: str, limit: int) -> Iterator[bytes]:
    """Yield the bytes of each element of a JSON array, in order.

    :param read: Returns the next piece of the text in UTF-8, and nothing at its end.
    :param what: What is read, to begin an error message with.
    :param limit: The most bytes that one element may have; it bounds the memory.
    :raises InputError: If the text is not one array, ends before the array does, or exceeds the limit. It
        says after which element, and all elements before were yielded.
    """
    return _Splitter(read, what, limit).elements()


class _Splitter:
    def __init__(self, read: Callable[[], bytes], what: str, limit: int) -> None:
        self._read = read
        self._what = what
        self._limit = limit
        self._text = b""
        self._at = 0  # How far the text has been looked at.
        self._count = 0

    def elements(self) -> Iterator[bytes]:
        """Yield the elements between the opening and the closing bracket."""
        first = self._next_visible()
        if not first:
            return
        if first != b"[":
            raise InputError(
                f"{self._what} does not begin with [, so it is not a JSON array. "
                "One order per line belongs in an .ndjson file."
            )
        self._at += 1
        if self._next_visible() == b"]":
            self._at += 1
        else:
            more = True
            while more:
                element, more = self._element()
                self._count += 1
                yield element
        if self._next_visible():
            self._fail("something follows the array")

    def _element(self) -> tuple[bytes, bool]:
        """Return the next element and whether a comma, so another one, follows."""
        start, depth = self._at, 0
        while True:
            found = (_NESTED if depth else _TOP).match(self._text, self._at)
            self._at = found.end() if found else self._at
            mark = self._text[self._at : self._at + 1]
            if mark in (b"", b'"'):
                self._more(start)
                start = 0
                continue
            self._at += 1
            if not depth and mark in (b",", b"]"):
                return self._text[start : self._at - 1], mark == b","
            depth += 1 if mark in (b"[", b"{") else -1
            if depth < 0:
                self._fail("a bracket closes that was not opened")

    def _next_visible(self) -> bytes:
        while True:
            rest = self._text[self._at :].lstrip()
            if rest:
                self._text, self._at = rest, 0
                return rest[:1]
            self._text, self._at = self._read(), 0
            if not self._text:
                return b""

    def _more(self, start: int) -> None:
        """Read on, and keep only what has been read of the element that begins at the start."""
        if len(self._text) - start > self._limit:
            self._fail(f"the next element is longer than {self._limit:,} bytes")
        piece = self._read()
        if not piece:
            self._fail("it ends before its closing bracket,")
        self._text = self._text[start:] + piece
        self._at -= start

    def _fail(self, problem: str) -> NoReturn:
        raise InputError(
            f"{self._what} is not a whole JSON array: {problem} after element {self._count}. "
            "What stands before was read; correct the rest and run it again."
        )
