"""What bodies and queries have to be (A4, A5): the status, the code and the field of each refusal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.sandbox.caller import Caller, order

if TYPE_CHECKING:
    import requests


ERRORS = "/orders/600A/errors"
REQUIRED = sorted(order())


def line(**changes: Any) -> list[dict[str, Any]]:
    return [{"mp_line_number": "L1", "sku": "S", "quantity": 1, **changes}]


def found(answer: requests.Response) -> list[tuple[str, str]]:
    """Return code and field of each problem."""
    assert answer.status_code == 400
    return [(each["code"], each["message"].split("'")[1]) for each in answer.json()]


@pytest.mark.parametrize("absent", [False, True], ids=["null", "absent"])
@pytest.mark.parametrize("name", REQUIRED)
def test_a_required_field_is_named(hooli: Caller, name: str, absent: bool) -> None:
    body = {**order(), name: None}
    if absent:
        del body[name]
    answer = hooli.call("PUT", "/orders/600A", json=body)
    assert found(answer) == [("MISSING_REQUIRED_FIELD", name)]


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("mp_order_number", 600, "FIELD_INCORRECT_DATA_TYPE"),
        ("mp_order_number", "", "FIELD_INVALID_VALUE"),
        ("mp_order_number", "x" * 129, "FIELD_INVALID_VALUE"),
        ("sales_channel", "", "FIELD_INVALID_VALUE"),
        ("customer", "Jane", "FIELD_INCORRECT_DATA_TYPE"),
        ("purchase_date", "2024-05-01", "FIELD_INVALID_VALUE"),
        ("purchase_date", "2024-05-01T23:52:01", "FIELD_INVALID_VALUE"),
        ("purchase_date", "2024-05-01T23:52:01+00:00", "FIELD_INVALID_VALUE"),
        ("purchase_date", "2024-02-30T00:00:00Z", "FIELD_INVALID_VALUE"),
        ("purchase_date", "2024-05-01T23:52:01Z\n", "FIELD_INVALID_VALUE"),
        ("currency", "usd", "FIELD_INVALID_VALUE"),
        ("shipping_address", [], "FIELD_INCORRECT_DATA_TYPE"),
        ("order_lines", {}, "FIELD_INCORRECT_DATA_TYPE"),
        ("order_lines", [], "FIELD_INVALID_VALUE"),
        ("marketplace_state", "SENT", "FIELD_INVALID_VALUE"),
        ("marketplace_state", ["SHIPPED"], "FIELD_INVALID_VALUE"),
        ("latest_ship_date", "tomorrow", "FIELD_INVALID_VALUE"),
        ("is_marketplace_fulfilled", "no", "FIELD_INCORRECT_DATA_TYPE"),
    ],
)
def test_a_field_that_does_not_fit_is_named_with_its_code(
    hooli: Caller, name: str, value: Any, code: str
) -> None:
    assert found(hooli.call("PUT", "/orders/600A", json=order(**{name: value}))) == [(code, name)]


@pytest.mark.parametrize(
    ("changes", "code", "name"),
    [
        ({"quantity": 0}, "FIELD_INVALID_VALUE", "quantity"),
        ({"quantity": -3}, "FIELD_INVALID_VALUE", "quantity"),
        ({"quantity": True}, "FIELD_INCORRECT_DATA_TYPE", "quantity"),
        ({"quantity": 1.0}, "FIELD_INCORRECT_DATA_TYPE", "quantity"),
        ({"sku": ""}, "FIELD_INVALID_VALUE", "sku"),
        ({"mp_line_number": "x" * 129}, "FIELD_INVALID_VALUE", "mp_line_number"),
        ({"mp_line_number": None}, "MISSING_REQUIRED_FIELD", "mp_line_number"),
        ({"unit_price": "1.10"}, "FIELD_INCORRECT_DATA_TYPE", "unit_price"),
        ({"unit_price": True}, "FIELD_INCORRECT_DATA_TYPE", "unit_price"),
    ],
)
def test_a_line_that_does_not_fit_is_named_with_its_place(
    hooli: Caller, changes: dict[str, Any], code: str, name: str
) -> None:
    assert found(hooli.place(order_lines=line(**changes))) == [(code, f"order_lines[0].{name}")]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"order_lines": ["L1"]}, ("FIELD_INCORRECT_DATA_TYPE", "order_lines[0]")),
        ({"order_lines": [None]}, ("FIELD_INCORRECT_DATA_TYPE", "order_lines[0]")),
        ({"order_lines": line() + line()}, ("FIELD_INVALID_VALUE", "order_lines[1].mp_line_number")),
        ({"mp_order_number": "600B"}, ("FIELD_INVALID_VALUE", "mp_order_number")),
    ],
)
def test_lines_and_numbers_have_to_agree(
    hooli: Caller, changes: dict[str, Any], problem: tuple[str, str]
) -> None:
    assert found(hooli.place(**changes)) == [problem]


def test_a_price_of_any_length_is_a_number(hooli: Caller) -> None:
    assert hooli.place(order_lines=line(unit_price=10**400)).status_code == 201


@pytest.mark.parametrize("name", ["gift_message", "status", "fulfillments", "acknowledged", "errors"])
def test_unknown_and_read_only_fields_are_refused_only_when_strict(hooli: Caller, name: str) -> None:
    assert hooli.place(**{name: "x"}).status_code == 201
    hooli.control.change(strict_fields=True)
    assert found(hooli.place(**{name: "x"})) == [("UNKNOWN_FIELD_PRESENT", name)]


def test_problems_come_all_at_once_and_never_quote_the_order(hooli: Caller) -> None:
    answer = hooli.place(customer="Jane", sales_channel=7, currency="Jane", marketplace_state="Jane")
    assert len(found(answer)) == 4
    assert "Jane" not in answer.text
    assert hooli.call("GET", "/orders/600A").status_code == 404


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b"\xef\xbb\xbf{}", b'{"a": NaN}', b'{"a": 1e400}', b"[" * 100_000, b"[1] [2]"],
    ids=["empty", "cut", "not UTF-8", "byte-order mark", "NaN", "infinite", "deep", "two values"],
)
def test_a_body_that_is_not_json_is_refused(hooli: Caller, body: bytes) -> None:
    answer = hooli.call("PUT", "/orders/600A", data=body)
    assert (answer.status_code, [each["code"] for each in answer.json()]) == (400, ["INVALID_PAYLOAD"])
    assert hooli.control.sellers()["hooli"] == 0


@pytest.mark.parametrize("body", [[], "x", 1, None], ids=str)
def test_an_order_is_an_object(hooli: Caller, body: Any) -> None:
    answer = hooli.call("PUT", "/orders/600A", json=body)
    assert (answer.status_code, [each["code"] for each in answer.json()]) == (400, ["INVALID_PAYLOAD"])


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/json; charset=utf-8"])
def test_a_body_is_json_whatever_its_type_is_called(hooli: Caller, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = hooli.call("PUT", "/orders/600A", data=json.dumps(order()).encode(), headers=headers)
    assert answer.status_code == 201


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"code": "X", "message": "m"}, "INVALID_PAYLOAD"),
        ([], "INVALID_PAYLOAD"),
        (["X"], "FIELD_INCORRECT_DATA_TYPE"),
        ([{"message": "m"}], "MISSING_REQUIRED_FIELD"),
        ([{"code": "X"}], "MISSING_REQUIRED_FIELD"),
        ([{"code": "X", "message": "m", "mp_line_number": "L9"}], "FIELD_INVALID_VALUE"),
        ([{"code": "X", "message": "m", "debug": {}}], "FIELD_INCORRECT_DATA_TYPE"),
        ([{"code": "X", "message": "m", "debug": [1]}], "FIELD_INCORRECT_DATA_TYPE"),
    ],
)
def test_reported_errors_that_do_not_fit_are_refused(hooli: Caller, body: object, code: str) -> None:
    hooli.place()
    answer = hooli.call("POST", ERRORS, json=body)
    assert (answer.status_code, [each["code"] for each in answer.json()]) == (400, [code])


def test_a_reported_error_may_have_any_code_a_line_and_diagnostics(hooli: Caller) -> None:
    hooli.place()
    hooli.control.change(strict_fields=True)
    entry = {"code": "ANYTHING", "message": "", "mp_line_number": "L1", "debug": [{"a": 1}]}
    assert hooli.call("POST", ERRORS, json=[entry]).status_code == 200
    assert found(hooli.call("POST", ERRORS, json=[{**entry, "more": 1}])) == [
        ("UNKNOWN_FIELD_PRESENT", "[0].more")
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("imported_after", "yesterday"),
        ("imported_after", ""),
        ("imported_after", "2024-05-01T12:00:00 02:00"),
        ("imported_after", "1714564800"),
        ("seller_updated_after", "0001-01-01T00:00:00+23:00"),
        ("has_errors", "maybe"),
        ("fulfillment_status", "PENDING"),
        ("fulfillment_status", "unfulfilled"),
        ("mp_order_numbers", ""),
        ("mp_order_numbers", "a,,b"),
        ("cursor", ""),
    ],
)
def test_a_filter_that_cannot_be_read_is_named(hooli: Caller, name: str, value: str) -> None:
    ((code, field),) = found(hooli.find(**{name: value}))
    assert (code, field.partition("[")[0]) == ("INVALID_QUERY_PARAM", name)


@pytest.mark.parametrize("name", ["mp_order_numbers", "page_size", "has_errors", "unheard_of"])
def test_a_parameter_is_given_once(hooli: Caller, name: str) -> None:
    assert found(hooli.find(**{name: ["10", "11"]}))[0] == ("INVALID_QUERY_PARAM", name)


def test_a_parameter_nobody_documented_is_ignored_unless_strict(hooli: Caller) -> None:
    assert hooli.find(marketplace_state="PENDING").status_code == 200
    hooli.control.change(strict_fields=True)
    assert found(hooli.find(marketplace_state="PENDING")) == [("INVALID_QUERY_PARAM", "marketplace_state")]
    assert hooli.find(page_size=10).status_code == 200


@pytest.mark.parametrize(
    ("text", "matches"), [("true", True), ("1", True), ("TRUE", True), ("false", False), ("0", False)]
)
def test_has_errors_selects_orders_with_reported_errors(hooli: Caller, text: str, matches: bool) -> None:
    hooli.place()
    hooli.call("POST", ERRORS, json=[{"code": "X", "message": "m"}])
    assert bool(hooli.numbers(has_errors=text)) is matches


def test_filters_work_together(hooli: Caller) -> None:
    hooli.place()
    both = {"mp_order_numbers": "600A,600B", "fulfillment_status": "COMPLETE,UNFULFILLED"}
    assert hooli.numbers(**both) == ["600A"]
    assert hooli.numbers(**{**both, "fulfillment_status": "COMPLETE"}) == []
    assert hooli.numbers(**{**both, "mp_order_numbers": "600B"}) == []
