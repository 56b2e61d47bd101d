from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.bulk import source as source_module
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
def test_a_source_that_does_not_exist_is_named(tmp_path: Path, suffix: str) -> None:
    path = f"{tmp_path}/nothing{suffix}"

    with pytest.raises(InputError) as error:
        read_orders(path)
    assert str(error.value) == f"Source {path} does not exist."


def test_a_source_that_is_a_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "orders.ndjson").mkdir()

    with pytest.raises(InputError, match=r"orders\.ndjson is a directory"):
        read_orders(f"{tmp_path}/orders.ndjson")


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
    with pytest.raises(InputError) as error:
        read_orders("nowhere://bucket/orders.ndjson")
    assert str(error.value).startswith(
        "Source nowhere://bucket/orders.ndjson: Airflow's object storage has no"
    )


def test_the_suffix_of_a_web_url_stands_before_its_query() -> None:
    with pytest.raises(InputError, match="does not say what it holds") as error:
        read_orders("https://127.0.0.1:9/orders.csv?as=.ndjson&sig=hunter2")
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"", b" \n\r\n\t\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
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


def test_an_empty_array_is_an_empty_source(write: Write) -> None:
    path = write("orders.json", b" [ ] ")

    with pytest.raises(InputError, match="no order"):
        read_orders(path)
    assert list(read_orders(path, allow_empty=True)) == []


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

    found = list(read_orders(path))

    assert [(each.line, each.problem is None) for each in found] == [
        (1, True),
        (2, False),
        (3, False),
        (4, False),
        (5, True),
    ]
    assert found[1].body == b"not json"
    assert found[3].body == b'{"n": "\xff"}'
    assert found[3].problem == "is not UTF-8 at byte 8"


def test_a_bad_element_is_a_problem_with_its_position_and_the_others_go_on(write: Write) -> None:
    path = write("orders.json", b'[{"n": 1},\n{bad},\n7, {"n": "\xff"}, {"n": 5}]')

    assert [(each.line, each.problem is None) for each in read_orders(path)] == [
        (1, True),
        (2, False),
        (3, False),
        (4, False),
        (5, True),
    ]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_order_larger_than_a_read_comes_whole(write: Write, suffix: str) -> None:
    order = {"delivery_notes": 'ü"\\' * 500_000, "n": 1}
    path = write(f"orders{suffix}", as_text(suffix, [order, {"n": 2}]))

    assert numbers(path) == [(1, order), (2, {"n": 2})]


def test_a_line_over_the_limit_is_a_problem_of_bounded_size_and_the_others_go_on(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "MAX_ORDER_BYTES", 5000)
    monkeypatch.setattr(source_module, "_PIECE", 1000)
    path = write("orders.ndjson", b'{"n": 1}\n{"long": "' + b"x" * 20_000 + b'"}\n{"n": 3}\n')

    one, long, three = read_orders(path)

    assert (one.line, three.line, three.order) == (1, 3, {"n": 3})
    assert long.problem == "is longer than 5,000 bytes; only its beginning is kept here"
    assert (long.line, long.body) == (2, b'{"long": "' + b"x" * 990)


def test_an_element_over_the_limit_is_a_clear_error(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "MAX_ORDER_BYTES", 5000)
    monkeypatch.setattr(source_module, "_PIECE", 1000)
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
    read = []

    def read_all() -> None:
        for found in read_orders(str(path)):
            read.append((found.line, found.order))

    with pytest.raises(InputError, match="is not a whole gzip file") as error:
        read_all()
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


def test_any_iterable_of_orders_is_a_list_of_orders() -> None:
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
