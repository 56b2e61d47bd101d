from __future__ import annotations

import contextlib
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_feedamp.bulk.source import array_elements
from airflow_provider_feedamp.exceptions import InputError


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
