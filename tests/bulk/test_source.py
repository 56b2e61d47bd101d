from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import json
import os
import re
import tracemalloc
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_feedamp.bulk import source as source_module
from airflow_provider_feedamp.bulk.paths import open_storage
from airflow_provider_feedamp.bulk.source import FileInput, ListInput, array_elements
from airflow_provider_feedamp.exceptions import InputError
from tests.bulk.feedamps import orders_of, read_orders

if TYPE_CHECKING:
    from collections.abc import Callable

    Write = Callable[[str, bytes], str]

SUFFIXES = [".ndjson", ".jsonl", ".json", ".ndjson.gz", ".jsonl.gz", ".json.gz"]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a source and return its path; a name that ends in .gz is compressed."""

    def write_file(name: str, content: bytes) -> str:
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return str(path)

    return write_file


def numbers(path: str) -> list[tuple[int, Any]]:
    return [(found.line, found.order) for found in read_orders(path)]


def judged(path: str) -> list[tuple[int, bool]]:
    return [(found.line, found.problem is None) for found in read_orders(path)]


def as_text(suffix: str, orders: list[Any]) -> bytes:
    if suffix.startswith(".json") and not suffix.startswith(".jsonl"):
        return json.dumps(orders, indent=1).encode()
    return b"".join(json.dumps(order).encode() + b"\n" for order in orders)


@pytest.mark.parametrize("form", ["{path}", "file://{path}"])
@pytest.mark.parametrize("suffix", [*SUFFIXES, ".NDJSON", ".Json.GZ"])
def test_each_kind_of_file_gives_its_orders_in_order(write: Write, suffix: str, form: str) -> None:
    orders = [{"n": 1}, {"n": 2}, {"n": 1}]
    path = write(f"orders{suffix}", as_text(suffix.lower(), orders))
    if suffix == ".Json.GZ":
        Path(path).write_bytes(gzip.compress(as_text(".json", orders)))

    assert numbers(form.format(path=path)) == [(1, {"n": 1}), (2, {"n": 2}), (3, {"n": 1})]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_source_that_does_not_exist_or_is_a_directory_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"orders{suffix}"

    with pytest.raises(InputError, match=rf"^Source {re.escape(str(path))} does not exist\.$"):
        read_orders(str(path))
    path.mkdir()
    with pytest.raises(InputError, match=rf"orders{suffix} is a directory"):
        read_orders(str(path))


def test_a_source_that_may_not_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(source_module, "open_storage", refuse)

    with pytest.raises(
        InputError, match=r"/data/o\.ndjson may not be read by this worker: Permission denied"
    ):
        read_orders("/data/o.ndjson")


@pytest.mark.parametrize("name", ["orders", "orders.csv", "orders.gz", "orders.ndjson.zip", "ndjson"])
def test_an_unknown_suffix_is_refused_with_the_known_ones(write: Write, name: str) -> None:
    path = write(name, b'{"n": 1}\n')

    with pytest.raises(InputError) as error:
        read_orders(path)
    assert path in str(error.value)
    for known in SUFFIXES:
        assert known in str(error.value)


@pytest.mark.parametrize("name", ["orders.csv", "orders.CSV.gz", "orders.xlsx"])
def test_a_table_is_refused_with_what_to_do(name: str) -> None:
    with pytest.raises(InputError, match=r"order as a JSON object on one line, .* a query with sql_conn_id"):
        read_orders(name)


def test_a_storage_that_airflow_does_not_know_is_named_once() -> None:
    with pytest.raises(
        InputError, match=r"^Source nowhere://bucket/orders\.ndjson: Airflow's object storage has no"
    ):
        read_orders("nowhere://bucket/orders.ndjson")


def test_the_suffix_of_a_web_url_stands_before_its_query() -> None:
    with pytest.raises(InputError, match="does not say what it holds") as error:
        read_orders("https://127.0.0.1:9/orders.csv?as=.ndjson&sig=hunter2")
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".json", b" [ ] "),
        (".json.gz", b"[]"),
        *itertools.product(SUFFIXES, [b"", b" \n\r\n\t\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"]),
    ],
)
def test_an_empty_source_is_refused_unless_that_is_allowed(write: Write, suffix: str, content: bytes) -> None:
    path = write(f"orders{suffix}", content)

    with pytest.raises(InputError, match=r"there is no order in it.*allow_empty"):
        read_orders(path)
    assert list(read_orders(path, allow_empty=True)) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_order_with_a_key_twice_is_a_problem_in_every_kind_of_file(write: Write, suffix: str) -> None:
    bad, good = b'{"a": [{"sku": 1, "sku": 2}]}', b'{"b": 2}'
    text = b"[%s, %s]" % (bad, good) if suffix in (".json", ".json.gz") else bad + b"\n" + good
    first, second = read_orders(write(f"orders{suffix}", text))
    assert (first.body, first.problem) == (bad, "has the key 'sku' twice in one object")
    assert (second.body, second.problem) == (good, None)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_byte_order_mark_is_skipped(write: Write, suffix: str) -> None:
    path = write(f"orders{suffix}", b"\xef\xbb\xbf" + as_text(suffix, [{"n": 1}]))

    [found] = read_orders(path)

    assert found.order == {"n": 1}
    assert found.body == b'{\n  "n": 1\n }' if suffix.startswith(".json.") else b'{"n": 1}'


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
@pytest.mark.parametrize("suffix", [".ndjson", ".json", ".ndjson.gz"])
def test_another_unicode_encoding_is_a_clear_error(write: Write, suffix: str, encoding: str) -> None:
    path = write(f"orders{suffix}", as_text(suffix, [{"n": 1}]).decode().encode(encoding))

    with pytest.raises(InputError, match=r"is not in UTF-8.*save it as UTF-8"):
        read_orders(path)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_blank_lines_are_skipped_and_line_numbers_stay_true(write: Write, end: bytes) -> None:
    lines = [b"", b'{"n": 2}', b"", b"   \t", b'{"n": 5}', b"", b'{"n": 7}']
    path = write("orders.ndjson", end.join(lines))

    assert numbers(path) == [(2, {"n": 2}), (5, {"n": 5}), (7, {"n": 7})]


def test_a_bad_line_is_a_problem_with_its_number_and_the_others_go_on(write: Write) -> None:
    path = write("orders.ndjson", b'{"n": 1}\nnot json\n[1]\n{"n": "\xff"}\n{"n": 5}')

    assert judged(path) == [(1, True), (2, False), (3, False), (4, False), (5, True)]
    found = list(read_orders(path))
    assert (found[1].body, found[3].body) == (b"not json", b'{"n": "\xff"}')
    assert found[3].problem == "is not UTF-8 at byte 8"


def test_a_bad_element_is_a_problem_with_its_position_and_the_others_go_on(write: Write) -> None:
    path = write("orders.json", b'[{"n": 1},\n{bad},\n7, {"n": "\xff"}, {"n": 5}]')

    assert judged(path) == [(1, True), (2, False), (3, False), (4, False), (5, True)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_order_larger_than_a_read_comes_whole(write: Write, suffix: str) -> None:
    order = {"delivery_notes": 'ü"\\' * 500_000, "n": 1}
    path = write(f"orders{suffix}", as_text(suffix, [order, {"n": 2}]))

    assert numbers(path) == [(1, order), (2, {"n": 2})]


@pytest.fixture
def short_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "MAX_ORDER_BYTES", 5000)
    monkeypatch.setattr(source_module, "_PIECE", 1000)


@pytest.mark.usefixtures("short_orders")
def test_a_line_over_the_limit_is_a_problem_of_bounded_size_and_the_others_go_on(write: Write) -> None:
    path = write("orders.ndjson", b'{"n": 1}\n{"long": "' + b"x" * 20_000 + b'"}\n{"n": 3}\n')

    one, long, three = read_orders(path)

    assert (one.line, three.line, three.order) == (1, 3, {"n": 3})
    assert long.problem == "is longer than 5,000 bytes; only its beginning is kept here"
    assert (long.line, long.body) == (2, b'{"long": "' + b"x" * 990)


@pytest.mark.usefixtures("short_orders")
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_of_just_the_limit_is_an_order(write: Write, end: bytes) -> None:
    [order] = read_orders(write("orders.ndjson", b'{"n": "' + b"x" * 4991 + b'"}' + end))

    assert (order.problem, len(order.body or b"")) == (None, 5000)


@pytest.mark.usefixtures("short_orders")
def test_an_element_over_the_limit_is_a_clear_error(write: Write) -> None:
    orders = read_orders(write("orders.json", b'[{"n": 1}, "' + b"x" * 20_000 + b'"]'))

    assert next(orders).order == {"n": 1}
    with pytest.raises(InputError, match="longer than 5,000 bytes after element 1"):
        next(orders)


def test_a_cut_off_array_gives_what_stands_before_and_then_an_error(write: Write) -> None:
    path = write("orders.json", b'[{"n": 1}, {"n": 2}, {"n": ')
    orders = read_orders(path)

    assert [next(orders).order, next(orders).order] == [{"n": 1}, {"n": 2}]
    with pytest.raises(InputError, match="ends before its closing bracket, after element 2") as error:
        next(orders)
    assert path in str(error.value)


@pytest.mark.parametrize("suffix", [".ndjson.gz", ".json.gz"])
def test_a_cut_off_gzip_gives_what_could_be_unpacked_and_then_an_error(tmp_path: Path, suffix: str) -> None:
    orders = [{"n": number} for number in range(20_000)]
    whole = gzip.compress(as_text(suffix, orders))
    path = tmp_path / f"orders{suffix}"
    path.write_bytes(whole[: len(whole) // 2])
    read: list[tuple[int, Any]] = []

    with pytest.raises(InputError, match="is not a whole gzip file") as error:
        read.extend((found.line, found.order) for found in read_orders(str(path)))
    assert 5_000 < len(read) < 20_000
    assert read == list(enumerate(orders[: len(read)], 1))
    unit = "line" if "ndjson" in suffix else "item"
    assert f"after {unit} {len(read)})" in str(error.value)
    assert str(path) in str(error.value)


def test_a_cut_off_gzip_loses_no_line_that_could_be_unpacked(tmp_path: Path) -> None:
    text = as_text(".ndjson", [{"n": number} for number in range(3)])
    compressor = zlib.compressobj(wbits=31)
    path = tmp_path / "orders.ndjson.gz"
    path.write_bytes(compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH))
    orders = read_orders(str(path))

    assert [next(orders).order for _ in range(3)] == [{"n": 0}, {"n": 1}, {"n": 2}]
    with pytest.raises(InputError, match="after line 3"):
        next(orders)


@pytest.mark.parametrize(
    "content", [b"{}\n", b"\x1f\x8b", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03rubbish"]
)
def test_what_is_no_gzip_at_all_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "orders.ndjson.gz"
    path.write_bytes(content)

    with pytest.raises(InputError, match=r"is not a whole gzip file: .*\(at its beginning\)"):
        read_orders(str(path))


def test_a_gzip_of_several_parts_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "orders.ndjson.gz"
    path.write_bytes(gzip.compress(b'{"n": 1}\n{"n"') + gzip.compress(b": 2}\n"))

    assert numbers(str(path)) == [(1, {"n": 1}), (2, {"n": 2})]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_memory_does_not_grow_with_the_file(write: Write, suffix: str) -> None:
    filler = "x" * 1000
    path = write(f"orders{suffix}", as_text(suffix, [{"n": n, "filler": filler} for n in range(20_000)]))

    tracemalloc.start()
    count = sum(1 for _ in read_orders(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert count == 20_000
    assert peak < 6_000_000  # The file has more than 20 MB.


def test_a_list_gives_its_orders_with_their_positions() -> None:
    orders = [{"n": 1}, "no order", {"n": 1}]

    found = list(orders_of(orders))

    assert [(each.line, each.order) for each in found] == [(1, {"n": 1}), (2, "no order"), (3, {"n": 1})]
    assert [each.problem for each in found] == [None, "is a text, not a JSON object", None]
    assert [each.order for each in orders_of({"n": n} for n in (1, 2))] == [{"n": 1}, {"n": 2}]


def test_the_text_of_a_json_array_is_a_list_that_keeps_its_bytes() -> None:
    [one, two] = orders_of(' [{"p": 1.10}, {"s": "ü"}]\n')

    assert (one.line, one.body, two.line, two.body) == (1, b'{"p": 1.10}', 2, '{"s": "ü"}'.encode())


@pytest.mark.parametrize("text", ["", "None", "{'n': 1}", '{"n": 1}', "[{'n': 1}]", '[{"n": 1}'])
def test_a_text_that_is_no_array_says_what_templates_need(text: str) -> None:
    with pytest.raises(InputError, match=r"not a JSON array.*tojson"):
        orders_of(text)


@pytest.mark.parametrize(
    ("orders", "kind"), [({"n": 1}, "dict"), (b"[]", "bytes"), (7, "int"), (None, "NoneType")]
)
def test_what_is_no_list_is_refused_with_its_kind(orders: object, kind: str) -> None:
    with pytest.raises(InputError, match=f"must be a list of orders, not {kind}"):
        orders_of(orders)


@pytest.mark.parametrize("orders", [[], "[]", ()])
def test_an_empty_list_is_refused_unless_that_is_allowed(orders: object) -> None:
    with pytest.raises(InputError, match=r"orders: there is no order in it.*allow_empty"):
        orders_of(orders)
    assert list(orders_of(orders, allow_empty=True)) == []


def test_a_source_is_read_from_any_storage(bucket: str) -> None:
    path = f"{bucket}/orders.ndjson.gz"
    with pytest.raises(InputError, match=r"^Source memory://bucket/.*/orders\.ndjson\.gz does not exist\.$"):
        read_orders(path)

    with open_storage(path, "wb", "Test") as stream:
        stream.write(gzip.compress(b'{"n": 1}\n\n{"n": 3}'))
    assert numbers(path) == [(1, {"n": 1}), (3, {"n": 3})]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "orders.ndjson"
    path.write_text('{"n": 1}\n{"n": 2}\n')
    return path


def test_a_file_is_known_again_until_it_is_changed(file: Path, tmp_path: Path) -> None:
    before = FileInput(str(file)).fingerprint()
    assert before == FileInput(str(file)).fingerprint() is not None
    stat = file.stat()

    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    touched = FileInput(str(file)).fingerprint()
    file.write_text('{"n": 1}\n{"n": 22}\n')
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    longer = FileInput(str(file)).fingerprint()
    other = FileInput(str(file.rename(tmp_path / "other.ndjson"))).fingerprint()

    assert len({before, touched, longer, other}) == 4


def test_a_file_on_other_storage_is_known_by_the_marks_of_that_storage(bucket: str) -> None:
    path = f"{bucket}/orders.ndjson"

    def write() -> str | None:
        with open_storage(path, "wb", "Test") as stream:
            stream.write(b'{"n": 1}\n')
        return FileInput(path).fingerprint()

    first = write()
    assert first == FileInput(path).fingerprint() is not None
    assert write() != first


@pytest.mark.parametrize("path", ["/nowhere/orders.ndjson", "nowhere://bucket/orders.ndjson"])
def test_what_cannot_be_looked_at_has_no_fingerprint_and_is_told_when_it_is_opened(path: str) -> None:
    source = FileInput(path)

    assert source.fingerprint() is None
    with pytest.raises(InputError):
        source.open()


def test_a_file_says_how_much_of_it_has_been_read(tmp_path: Path) -> None:
    path = tmp_path / "orders.ndjson"
    path.write_bytes(b'{"n": 1}\n' * 200_000)
    source = FileInput(str(path))
    source.fingerprint()

    assert source.share() == 0.0
    orders = source.open()
    next(orders)
    share = source.share()
    assert share is not None
    assert 0.0 < share < 0.5
    assert len(list(orders)) == 199_999
    assert source.share() == 1.0


def test_the_first_orders_are_passed_over_and_lines_keep_their_numbers(file: Path) -> None:
    assert [found.line for found in FileInput(str(file)).open(skip=1)] == [2]
    assert list(FileInput(str(file)).open(skip=2)) == []


def test_a_list_cannot_be_known_again() -> None:
    source = ListInput([{"n": 1}])

    assert (source.fingerprint(), source.share(), source.name) == (None, None, "the list in orders")
    assert [found.order for found in source.open()] == [{"n": 1}]


def split(text: bytes, *, piece: int = 7, limit: int = 1000) -> list[bytes]:
    stream = io.BytesIO(text)
    return [
        part.strip() for part in array_elements(lambda: stream.read(piece), what="Source a.json", limit=limit)
    ]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(
    st.lists(values, max_size=6),
    st.integers(min_value=1, max_value=64),
    st.sampled_from([None, 2]),
    st.booleans(),
)
def test_every_element_comes_out_as_it_went_in_whatever_the_pieces(
    elements: list[object], piece: int, indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps(elements, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")

    found = split(text, piece=piece, limit=10**6)

    assert [json.loads(part) for part in found] == elements


@given(st.binary(max_size=60), st.integers(min_value=1, max_value=9))
def test_of_any_bytes_the_elements_before_an_error_are_neither_lost_nor_changed(
    rubbish: bytes, piece: int
) -> None:
    stream = io.BytesIO(b"[" + rubbish)
    found: list[bytes] = []

    with contextlib.suppress(InputError):
        found.extend(array_elements(lambda: stream.read(piece), what="Source a.json", limit=1000))

    assert without_space(b"[" + rubbish).startswith(without_space(b"[" + b",".join(found)))


def without_space(text: bytes) -> bytes:
    return b"".join(text.split())


def test_an_element_keeps_its_bytes() -> None:
    text = '[ {"p": 1.10, "q": 1E400,\n "s": "\\u00fc ü"} ,{"n":12345678901234567890.0}]'.encode()

    assert split(text) == [
        '{"p": 1.10, "q": 1E400,\n "s": "\\u00fc ü"}'.encode(),
        b'{"n":12345678901234567890.0}',
    ]


@pytest.mark.parametrize(
    ("text", "elements"),
    [
        (b"", []),
        (b" \n ", []),
        (b"[]", []),
        (b" [ \n ] \n", []),
        (b'["a,]b", "\\"],[", 5]', [b'"a,]b"', b'"\\"],["', b"5"]),
        (b'[{"a": "}]"}, [1, 2]]', [b'{"a": "}]"}', b"[1, 2]"]),
        (b"[{bad}, {}]", [b"{bad}", b"{}"]),
        (b"[{} {}]", [b"{} {}"]),
        (b"[{},]", [b"{}", b""]),
        (b"[,{}]", [b"", b"{}"]),
    ],
)
def test_elements_are_split_without_being_judged(text: bytes, elements: list[bytes]) -> None:
    assert split(text) == elements


@pytest.mark.parametrize(
    ("text", "whole", "problem"),
    [
        (b"[", 0, "ends before its closing bracket, after element 0"),
        (b'[{"a": 1}', 0, "ends before its closing bracket, after element 0"),
        (b'[{"a": 1},', 1, "ends before its closing bracket, after element 1"),
        (b'[{"a": 1}, {"b": "x', 1, "ends before its closing bracket, after element 1"),
        (b'[{"a": 1}, {"b": "x\\"}]', 1, "ends before its closing bracket, after element 1"),
        (b"[{}, }]", 1, "a bracket closes that was not opened after element 1"),
        (b"[{}] [{}]", 1, "something follows the array after element 1"),
        (b'[{}, "' + b"x" * 2000 + b'"]', 1, "longer than 1,000 bytes after element 1"),
    ],
)
def test_a_broken_array_is_an_error_after_its_last_whole_element(
    text: bytes, whole: int, problem: str
) -> None:
    stream = io.BytesIO(text)
    elements = array_elements(lambda: stream.read(7), what="Source a.json", limit=1000)

    for _ in range(whole):
        assert next(elements).startswith(b"{")
    with pytest.raises(InputError, match=r"^Source a\.json is not a whole JSON array") as error:
        next(elements)
    assert problem in str(error.value)


def test_an_object_in_place_of_an_array_is_told_where_it_belongs() -> None:
    with pytest.raises(InputError, match=r"does not begin with \[.* \.ndjson"):
        split(b'{"mp_order_number": "1"}')


def test_no_more_is_read_than_the_next_element_needs() -> None:
    read = []

    def endless() -> bytes:
        read.append(1)
        return b"[" if len(read) == 1 else b'{"a":1},'

    elements = array_elements(endless, what="Source a.json", limit=1000)

    assert [next(elements) for _ in range(3)] == [b'{"a":1}'] * 3
    assert len(read) == 4
