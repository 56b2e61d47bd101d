from __future__ import annotations

import json
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_feedamp.bulk.source import SourceOrder, order_of, parse_order


def test_an_order_keeps_the_bytes_it_was_read_from() -> None:
    text = b' {"price": 1.10, "big": 12345678901234567890.123} \r\n'

    assert parse_order(3, text) == SourceOrder(
        3, {"price": 1.1, "big": 12345678901234567890.123}, text.strip(), None
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b'{"a": 1', "is not JSON: Expecting ',' delimiter at character 8"),
        (b"{'a': 1}", "is not JSON: Expecting property name enclosed in double quotes at character 2"),
        (b'{"a": "1', "is not JSON: Unterminated string starting at character 7"),
        (b'{"a": 1} {"b": 2}', "is not JSON: Extra data at character 10"),
        (b'{"a": NaN}', "is not JSON: NaN is not a JSON number"),
        (b'{"a": -Infinity}', "is not JSON: -Infinity is not a JSON number"),
        (b'{"a": "\xff"}', "is not UTF-8 at byte 8"),
        (b'{"a": "\xed\xa0\x80"}', "is not UTF-8 at byte 8"),
        (b'{"a":' + b"[" * 100_000, "is nested too deeply"),
        (b"", "nothing stands here: there is a comma too many"),
        (b'{"a": 1, "b": 2, "a": 1}', "has the key 'a' twice in one object"),
        (b'{"l": [{"sku": "A", "sku": "B"}]}', "has the key 'sku' twice in one object"),
        (b'{"a": {"b": {"c": 1, "\\u0063": null}}}', "has the key 'c' twice in one object"),
        (b'{"line": 1, "reason": "", "order": {"a": 1}, "order": {}}', "has the key 'order' twice"),
        (b'{"\\n%s": 1, "\\n%s": 2}' % (b"k" * 99, b"k" * 99), "has the key '\\n" + "k" * 63 + "' twice"),
    ],
)
def test_what_is_not_json_is_a_problem_that_keeps_the_text(text: bytes, problem: str) -> None:
    found = parse_order(1, text)

    assert (found.order, found.body) == (None, text)
    assert found.problem is not None
    assert found.problem.startswith(problem)


def test_a_number_of_too_many_digits_is_a_problem() -> None:
    problem = parse_order(1, b'{"a": ' + b"9" * 5000 + b"}").problem

    assert problem is not None
    assert problem.startswith("is not JSON: Exceeds the limit")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"[1]", "is a JSON array (an array of orders belongs in a .json file), not a JSON object"),
        (b'"order"', "is a text, not a JSON object"),
        (b"5", "is a number, not a JSON object"),
        (b"1.5", "is a number, not a JSON object"),
        (b"true", "is true or false, not a JSON object"),
        (b"null", "is null, not a JSON object"),
    ],
)
def test_json_that_is_not_an_object_is_a_problem(text: bytes, problem: str) -> None:
    assert parse_order(1, text) == SourceOrder(1, json.loads(text), text, problem)


def reject(**fields: Any) -> bytes:
    return json.dumps(
        {"line": 9, "mp_order_number": "A-1", "reason": "quantity", "codes": []} | fields
    ).encode()


@pytest.mark.parametrize(
    "line",
    [
        b'{"line": 9, "mp_order_number":1,"reason": "", "codes": [], "order": {"p": 1.10, "s": "\xc3\xbc"}}',
        b'{"order" : {"p": 1.10, "s": "\xc3\xbc"} , "line":9,"codes":[],"reason":"\\"order\\": in it"}',
        b'{ "raw":"x" ,"reason":null,"codes": [],"line" : 9, "order":{"p": 1.10, "s": "\xc3\xbc"}\t}',
    ],
)
def test_the_order_of_a_rejects_line_keeps_its_bytes(line: bytes) -> None:
    found = parse_order(4, line)

    assert found == SourceOrder(4, {"p": 1.1, "s": "ü"}, '{"p": 1.10, "s": "ü"}'.encode(), None)


def test_mended_raw_text_of_a_rejects_line_is_an_order() -> None:
    assert parse_order(4, reject(raw='{"mp_order_number": "A-1"}')) == SourceOrder(
        4, {"mp_order_number": "A-1"}, b'{"mp_order_number": "A-1"}', None
    )


def test_raw_text_that_was_not_mended_is_the_same_problem_again() -> None:
    found = parse_order(4, reject(raw='{"mp_order_number": '))

    assert (found.line, found.order, found.body) == (4, None, b'{"mp_order_number":')
    assert found.problem is not None
    assert found.problem.startswith("is not JSON")


def test_an_order_with_fields_like_those_of_a_reject_is_still_an_order() -> None:
    for more in ("codes", "order", "raw"):
        order = {"mp_order_number": "A-1", "line": 1, "reason": "gift", more: []}
        assert parse_order(1, json.dumps(order).encode()).order == order


def test_an_order_of_a_list_gets_the_json_that_will_be_sent() -> None:
    order = {"mp_order_number": "Ä-1", "order_lines": ({"quantity": 1},)}

    assert order_of(2, order) == SourceOrder(
        2,
        {"mp_order_number": "Ä-1", "order_lines": [{"quantity": 1}]},
        b'{"mp_order_number":"\\u00c4-1","order_lines":[{"quantity":1}]}',
        None,
        "item",
    )


def test_values_of_an_order_of_a_list_are_written_as_those_of_a_query_are() -> None:
    order = {
        "purchase_date": datetime(2026, 3, 8, 1, 59, 59, tzinfo=timezone(timedelta(hours=-5))),
        "latest_ship_date": date(2026, 3, 8),
        "order_lines": ({"unit_price": Decimal("19.990"), "big": Decimal("1E+3"), "gift": True, "x": None},),
    }

    assert order_of(1, order).body == (
        b'{"purchase_date":"2026-03-08T06:59:59Z","latest_ship_date":"2026-03-08",'
        b'"order_lines":[{"unit_price":19.990,"big":1000,"gift":true,"x":null}]}'
    )


@pytest.mark.parametrize(
    ("order", "why"),
    [
        ({"purchase_date": datetime(2026, 1, 2)}, "a value is a time without a zone"),
        ({"unit_price": Decimal("NaN")}, "a value is NaN, which is not a JSON number"),
        ({"order_lines": {1, 2}}, "a value is of the type set"),
        ({7: Decimal(1)}, "a value has a key that is no text"),
        ({"unit_price": float("nan")}, "not JSON compliant"),
        ({("a", "b"): 1}, "keys must be"),
    ],
)
def test_an_order_of_a_list_that_json_cannot_hold_is_a_problem(order: dict[Any, Any], why: str) -> None:
    found = order_of(1, order)

    assert (found.order, found.body) == (None, repr(order).encode())
    assert found.problem is not None
    assert found.problem.startswith("cannot be written as JSON: ")
    assert why in found.problem
