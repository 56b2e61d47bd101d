"""Where orders come from: a file, a URL or a list, read one by one in memory that does not grow with them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cached_property, partial
from itertools import chain, islice
from typing import IO, Any, NoReturn, Protocol
from uuid import UUID

from airflow_provider_feedamp.bulk.paths import local_path, loggable, open_storage, storage_path
from airflow_provider_feedamp.exceptions import InputError

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

    @property
    def number(self) -> str | None:
        """The order's number, if there is a text in its place."""
        number = self.order.get("mp_order_number") if isinstance(self.order, dict) else None
        return number if isinstance(number, str) else None


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
        if isinstance(value, list):
            problem = "is a JSON array (an array of orders belongs in a .json file), not a JSON object"
        elif not isinstance(value, dict):
            problem = f"is {_KINDS[type(value)]}, not a JSON object"
        elif {"line", "reason", "codes"} <= value.keys() and ("order" in value or "raw" in value):
            return parse_order(line, _order_of_reject(decoded), unit)
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


def json_of(value: Any) -> str:
    """Return a value of Python as JSON: decimals keep their digits, times are written in UTC.

    :raises UnfitError: An order cannot hold it.
    """
    match value:
        case JsonText():
            return _whole_json(value)
        case None | str() | int():
            return json.dumps(value)
        case Decimal() | float():
            return _finite(value)
        case datetime():
            if value.utcoffset() is None:
                raise UnfitError("is a time without a zone; give it one where it comes from")
            return f'"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"'
        case date() | UUID():
            return json.dumps(str(value))
        case dict():
            if not all(isinstance(name, str) for name in value):
                raise UnfitError("has a key that is no text; keys must be texts")
            return f"{{{','.join(f'{json.dumps(name)}:{json_of(each)}' for name, each in value.items())}}}"
        case list() | tuple():
            return f"[{','.join(map(json_of, value))}]"
    raise UnfitError(
        f"is of the type {type(value).__name__}, which an order does not have; convert it where it comes from"
    )


def _finite(value: Decimal | float) -> str:
    if not Decimal(value).is_finite():
        raise UnfitError(f"is {value}, which is not a JSON number")
    return format(value, "f") if isinstance(value, Decimal) else repr(value)


def _whole_json(text: JsonText) -> str:
    # It goes in as it is written, so it must be one JSON value and nothing else.
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise UnfitError("is not JSON") from None
    return str(text)


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
    return str(error) if isinstance(error, _TwiceError) else f"is not JSON: {error}"


def _order_of_reject(text: str) -> bytes:
    """Return the order of a line of a rejects file as it is written there, or its raw text."""
    found = ""
    at = text.index("{") + 1
    while True:
        name, at = _DECODER.raw_decode(text, _after_space(text, at))
        at = _after_space(text, text.index(":", at) + 1)
        value, end = _DECODER.raw_decode(text, at)
        if name == "order":
            return text[at:end].encode()
        if name == "raw":
            found = str(value)
        at = _after_space(text, end)
        if text[at] == "}":
            return found.encode("utf-8", "backslashreplace")
        at += 1


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


#: The longest order that is read, in bytes: it bounds the memory that a source can take.
MAX_ORDER_BYTES = 16 * 1024 * 1024

_PIECE = 256 * 1024  # Bytes per read: large enough to make few calls, small beside an Airflow task.
_KEPT_OF_A_LONG_ORDER = 1000
_UTF8_MARK = b"\xef\xbb\xbf"
_LINES = (".ndjson", ".jsonl")
_ARRAY = (".json",)
_TABLES = (".csv", ".tsv", ".xlsx", ".parquet")
_ALL_NAMES = ", ".join(f"{name}, {name}.gz" for name in _LINES + _ARRAY)
#: What storages call the things that change with a file's content. A size alone may stay.
_STAMPS = ("ETag", "etag", "generation", "version_id", "LastModified", "last_modified", "updated", "modified",
           "mtime", "created")  # fmt: skip


class OrderInput(Protocol):
    """Where an import's orders come from."""

    @property
    def name(self) -> str:
        """What it is, for a log; it holds no secret and nothing of an order."""

    def fingerprint(self, read: int = 0) -> str | None:
        """Return what stays the same while the first orders do; None if that is not known.

        :param read: How many orders. Default 0: what is known before any is read.
        """

    def open(self, skip: int = 0) -> Iterator[SourceOrder]:
        """Return the orders behind the first ones; refuse at once what is of no use."""

    def share(self) -> float | None:
        """Return how much of it has been read, from 0 to 1; None if that is not known."""


class FileInput:
    """A file of orders, from anything that Airflow's object storage can open.

    One order per line (``.ndjson``, ``.jsonl``) or one JSON array (``.json``), each also compressed
    (``.gz``), in UTF-8. Blank lines are skipped and counted, so line numbers are those of an editor.

    :param source: A local path, a ``file://`` URL or a URL such as ``s3://connection_id@bucket/orders.ndjson``.
    :param allow_empty: Whether a file without any order is fine. Default: it is not.
    """

    def __init__(self, source: str, *, allow_empty: bool = False) -> None:
        self.source = source
        self.allow_empty = allow_empty
        self._bytes_read = 0  # Of the file as it is stored, compressed or not.

    @property
    def name(self) -> str:
        """The path, without a password."""
        return loggable(self.source)

    def fingerprint(self, read: int = 0) -> str | None:
        """Return a digest of path, size and the storage's own mark of the content, such as an ETag.

        It is that of the first call: what is changed while it is read is seen by the retry.
        """
        marks = {name: str(self._info[name]) for name in _STAMPS if self._info.get(name)}
        return digest(self.source, self._size, marks) if marks and self._size is not None else None

    def open(self, skip: int = 0) -> Iterator[SourceOrder]:
        """Return the orders of the file, one at a time; a bad line or element is one with a problem.

        :param skip: How many orders to pass over, unparsed; a bad line counts as an order, too.
        :raises InputError: At once if the file does not exist, cannot be opened, is a directory, is of an
            unknown kind, not in UTF-8 or empty; while reading if it is cut off, naming the last order before.
        """
        name = self.name.lower()
        plain_name = name.removesuffix(".gz")
        if not plain_name.endswith(_LINES + _ARRAY):
            table = (
                " A table has no place for an order's own lines: write each order as a JSON object on one "
                "line, or load the table into a database and give a query with sql_conn_id."
                if plain_name.endswith(_TABLES)
                else ""
            )
            raise InputError(
                f"Source {self.name} has a name that does not say what it holds. "
                f"Known are: {_ALL_NAMES}.{table}"
            )
        read = _lines if plain_name.endswith(_LINES) else _elements
        orders = self._orders(partial(read, skip=skip), compressed=name.endswith(".gz"))
        return _not_empty(orders, f"Source {self.name}", allow_empty=self.allow_empty or skip > 0)

    def share(self) -> float | None:
        """Return the share of the file's bytes, which of a compressed file are the compressed ones."""
        return min(self._bytes_read / self._size, 1.0) if self._size else None

    @cached_property
    def _info(self) -> Mapping[str, Any]:
        """What the storage says of the file."""
        try:
            if (local := local_path(self.source)) is not None:
                found = os.stat(local)
                return {"size": found.st_size, "mtime": found.st_mtime_ns}
            place = storage_path(self.source, "Source")
            return dict(place.fs.info(place.path))
        except Exception:  # noqa: BLE001 - each storage has errors of its own; open() says what is wrong
            return {}

    @property
    def _size(self) -> int | None:
        size = self._info.get("size")
        return size if isinstance(size, int) else None

    def _orders(
        self, read: Callable[[io.BufferedReader, str], Iterator[SourceOrder]], *, compressed: bool
    ) -> Iterator[SourceOrder]:
        what, order = f"Source {self.name}", None
        try:
            with _opened(self.source, what) as file:
                stream = buffered(partial(self._read, file))
                if compressed:
                    # read1 hands out what could be unpacked before the place where a cut-off file ends.
                    stream = buffered(gzip.GzipFile(fileobj=stream).read1)
                _check_encoding(stream, what)
                for order in read(stream, what):
                    yield order
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            place = f"after {order.place}" if order else "at its beginning"
            raise InputError(
                f"{what} is not a whole gzip file: {error} ({place}). What stands before was read."
            ) from error

    def _read(self, file: IO[bytes], size: int) -> bytes:
        piece = file.read(size)
        self._bytes_read += len(piece)
        return piece


class ListInput:
    """A list of orders, as an argument, an XCom or a rendered template gives it.

    :param orders: A list (or other iterable) of orders, or the text of a JSON array.
    :param allow_empty: Whether a list without any order is fine. Default: it is not.
    """

    name = "the list in orders"

    def __init__(self, orders: object, *, allow_empty: bool = False) -> None:
        self.orders = orders
        self.allow_empty = allow_empty

    def fingerprint(self, read: int = 0) -> str | None:
        """Return None: the task that made the list may have made another one."""
        return None

    def open(self, skip: int = 0) -> Iterator[SourceOrder]:
        """Return the orders of the list; none can be passed over.

        :raises InputError: At once if this is not a list of orders, or is empty.
        """
        if isinstance(self.orders, str):
            found = _of_text(self.orders)
        elif isinstance(self.orders, (Mapping, bytes)) or not isinstance(self.orders, Iterable):
            raise InputError(f"orders must be a list of orders, not {type(self.orders).__name__}.")
        else:
            found = (order_of(position, order) for position, order in enumerate(self.orders, 1))
        return _not_empty(found, "orders", allow_empty=self.allow_empty)

    def share(self) -> float | None:
        """Return None: it is in memory, so it is short."""
        return None


def digest(*values: object) -> str:
    """Return a short text that is the same for the same values and tells nothing about them."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def bounded(problem: str | None, body: bytes) -> tuple[str | None, bytes]:
    """Return a problem and a body; of a body that is too long only the beginning, and that as its problem."""
    if len(body) <= MAX_ORDER_BYTES:
        return problem, body
    problem = f"is longer than {MAX_ORDER_BYTES:,} bytes; only its beginning is kept here"
    return problem, body[:_KEPT_OF_A_LONG_ORDER]


def buffered(read: Callable[[int], bytes]) -> io.BufferedReader:
    """Return a stream over a read function."""
    return io.BufferedReader(_ReadOnly(read), _PIECE)


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


@contextmanager
def _opened(source: str, what: str) -> Iterator[IO[bytes]]:
    try:
        file = open_storage(source, "rb", "Source")
    except FileNotFoundError as error:
        raise InputError(f"{what} does not exist.") from error
    except IsADirectoryError as error:
        raise InputError(f"{what} is a directory; name one file.") from error
    except PermissionError as error:
        raise InputError(f"{what} may not be read by this worker: {error.strerror or error}.") from error
    with file:
        yield file


def _not_empty(orders: Iterator[SourceOrder], what: str, *, allow_empty: bool) -> Iterator[SourceOrder]:
    """Read the first order now, so that a source that is of no use is refused before anything is done."""
    first = next(orders, None)
    if first is not None:
        return chain((first,), orders)
    if allow_empty:
        return orders
    raise InputError(f"{what}: there is no order in it. If that is fine, set allow_empty=True.")


def _check_encoding(stream: io.BufferedReader, what: str) -> None:
    head = stream.peek(4)[:4]
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head:
        raise InputError(f"{what} is not in UTF-8 (it looks like UTF-16 or UTF-32); save it as UTF-8.")
    if head.startswith(_UTF8_MARK):
        stream.read(len(_UTF8_MARK))


def _lines(stream: io.BufferedReader, what: str, skip: int) -> Iterator[SourceOrder]:
    number = 0
    while text := stream.readline(MAX_ORDER_BYTES + 1):
        number += 1
        cut = len(text) > MAX_ORDER_BYTES and not text.endswith(b"\n")
        if cut:
            while (rest := stream.readline(_PIECE)) and not rest.endswith(b"\n"):
                """Pass over the rest of the line."""
        elif text.isspace():
            continue
        if skip:
            skip -= 1
        elif cut:
            problem, body = bounded(None, text)
            yield SourceOrder(number, None, body, problem)
        else:
            yield parse_order(number, text)


def _elements(stream: io.BufferedReader, what: str, skip: int = 0) -> Iterator[SourceOrder]:
    elements = array_elements(partial(stream.read1, _PIECE), what=what, limit=MAX_ORDER_BYTES)
    for position, element in islice(enumerate(elements, 1), skip, None):
        yield parse_order(position, element, "item")


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
    return _elements(io.BufferedReader(stream), "orders")


_STRING = rb'"(?:[^"\\]++|\\.)*+"'
#: Everything up to the next bracket; at the array's own level a comma stops it too. A string that is not
#: complete yet stops both at its opening quote.
_NESTED = re.compile(rb'(?:[^"\[\]{}]++|' + _STRING + rb")*+", re.DOTALL)
_TOP = re.compile(rb'(?:[^"\[\]{},]++|' + _STRING + rb")*+", re.DOTALL)


def array_elements(read: Callable[[], bytes], *, what: str, limit: int) -> Iterator[bytes]:
    """Yield the bytes of each element of a JSON array, in order, holding no more than one of them.

    This only follows quotes, brackets and commas. What an element holds is judged later, so that a broken one
    is a reject with its position while the others go on, and each keeps its bytes as they were written.

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
