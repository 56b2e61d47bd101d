"""Read orders one by one from a file, a URL or a list, in memory that does not grow with their number."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import chain, islice

from airflow_provider_feedamp.bulk.json_array import array_elements
from airflow_provider_feedamp.bulk.parse import SourceOrder, order_of, parse_order
from airflow_provider_feedamp.bulk.paths import is_web, open_storage, shown
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


_Reader = Callable[[io.BufferedReader, str], Iterator[SourceOrder]]


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
