from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from urllib3.exceptions import ProtocolError

from airflow_provider_feedamp.bulk.progress import PlaceCounts
from airflow_provider_feedamp.bulk.source import SourceOrder, order_of, parse_order
from airflow_provider_feedamp.exceptions import (
    AuthenticationError,
    BadRequestError,
    FeedAmpError,
    InputError,
    RateLimitError,
    ReauthorizationRequiredError,
    ServerError,
    UnreachableError,
)
from tests.bulk.feedamps import good_order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bulk.conftest import FeedAmpEdge


def test_orders_are_placed_in_their_order_and_a_second_time_is_an_update(edge: FeedAmpEdge) -> None:
    orders = [good_order("A"), good_order("B"), good_order("A", marketplace_state="CANCELLED")]

    counts = edge.place(orders)

    assert edge.numbers == ["A", "B", "A"]
    assert json.loads(edge.bodies[2])["marketplace_state"] == "CANCELLED"
    assert counts == PlaceCounts(read=3, placed=3, inserted=2, updated=1, rejected=0)
    assert edge.kept() == []


def test_what_is_sent_is_what_was_read_byte_for_byte(edge: FeedAmpEdge) -> None:
    text = json.dumps(good_order("A"), indent=1).replace("1.5", "1.500000000000000000001").encode()

    edge.place([parse_order(1, text)])

    assert edge.bodies == [text]


def test_an_answer_that_does_not_say_insert_or_update_counts_as_placed(edge: FeedAmpEdge) -> None:
    edge.answers["A"] = (204, None)

    counts = edge.place([good_order("A")])

    assert counts == PlaceCounts(read=1, placed=1, inserted=0, updated=0, rejected=0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"currency": None}, "currency"),
        (
            {"order_lines": [{"mp_line_number": "1", "sku": "S", "quantity": 0}]},
            "order_lines[0].quantity is 0",
        ),
        ({"mp_order_number": "x" * 129}, "mp_order_number"),
        ({"mp_order_number": "\ud800"}, "mp_order_number"),
        ({"marketplace_state": "LOST"}, "marketplace_state"),
    ],
)
def test_a_bad_order_is_not_sent_but_kept_whole_and_the_others_go_on(
    edge: FeedAmpEdge, changes: dict[str, Any], reason: str
) -> None:
    bad = good_order("A", **changes)

    counts = edge.place([order_of(4, bad), order_of(5, good_order("B"))])

    assert edge.numbers == ["B"]
    assert counts == PlaceCounts(read=2, placed=1, inserted=1, updated=0, rejected=1)
    [reject] = edge.kept()
    assert (reject["line"], reject["mp_order_number"], reject["order"]) == (4, bad["mp_order_number"], bad)
    assert reason in reject["reason"]


def test_an_order_that_the_check_cannot_bear_is_a_reject_and_the_others_go_on(edge: FeedAmpEdge) -> None:
    line = {"mp_line_number": "1", "sku": "S", "quantity": 1, "unit_price": 10**309}

    counts = edge.place([good_order("A", order_lines=[line]), good_order("B")])

    assert (counts.placed, counts.rejected, edge.numbers) == (1, 1, ["B"])
    [reject] = edge.kept()
    assert reject["reason"] == "Order 'A' was not sent: it could not be checked: OverflowError"
    assert reject["order"]["order_lines"] == [line]


def test_a_line_that_is_no_order_is_kept_with_its_problem(edge: FeedAmpEdge) -> None:
    counts = edge.place([parse_order(3, b"no json"), parse_order(4, b"{}")])

    assert (counts, edge.bodies) == (PlaceCounts(read=2, rejected=2), [])
    assert edge.kept()[1]["order"] == {}
    assert edge.kept()[:1] == [
        {
            "line": 3,
            "mp_order_number": None,
            "reason": "is not JSON: Expecting value at character 1",
            "codes": [],
            "raw": "no json",
        }
    ]


@pytest.mark.parametrize("status", [400, 404, 409, 410, 413, 414, 422])
def test_an_order_that_feedamp_refuses_is_kept_with_its_codes_and_the_others_go_on(
    edge: FeedAmpEdge, status: int
) -> None:
    edge.answers["A"] = (status, [{"code": "FIELD_INVALID_VALUE", "message": "'currency' is odd"}])

    counts = edge.place(map(good_order, "AB"))

    assert counts == PlaceCounts(read=2, placed=1, inserted=1, updated=0, rejected=1)
    [reject] = edge.kept()
    assert (reject["line"], reject["order"], reject["codes"]) == (1, good_order("A"), ["FIELD_INVALID_VALUE"])
    assert reject["reason"].endswith("FeedAMP said: FIELD_INVALID_VALUE: 'currency' is odd")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, AuthenticationError),
        (403, AuthenticationError),
        (407, BadRequestError),
        (429, RateLimitError),
        (500, ServerError),
        (503, ServerError),
    ],
)
def test_an_answer_that_is_not_about_the_order_ends_the_run_and_rejects_nothing(
    edge: FeedAmpEdge, status: int, error: type[FeedAmpError]
) -> None:
    edge.answers["B"] = (status, None)

    with pytest.raises(error):
        edge.place(map(good_order, "ABC"))

    assert edge.numbers[0] == "A"
    assert "C" not in edge.numbers
    assert edge.kept() == []


@pytest.mark.parametrize("status", [402, 405, 415, 421, 423, 451, 499])
def test_one_odd_refusal_among_orders_that_are_taken_is_a_reject(edge: FeedAmpEdge, status: int) -> None:
    edge.answers["B"] = (status, {"code": "LOCKED"})
    orders = map(good_order, "ABCB")

    counts = edge.place(orders)

    assert counts == PlaceCounts(read=4, placed=2, inserted=2, updated=0, rejected=2)
    assert [(each["line"], each["codes"]) for each in edge.kept()] == [(2, ["LOCKED"]), (4, ["LOCKED"])]


@pytest.mark.parametrize("workers", [1, 16])
def test_fifty_odd_refusals_in_a_row_end_the_try_before_the_first_of_them(
    edge: FeedAmpEdge, workers: int
) -> None:
    numbers = [f"N-{number}" for number in range(300)]
    edge.answers |= {number: (421, {"code": "WRONG_HOST"}) for number in [numbers[3], *numbers[10:200]]}
    edge.answers["N-30"] = (400, None)  # It is about one order, and no order that is taken.
    counts = PlaceCounts()

    with pytest.raises(ServerError) as error:
        edge.place(map(good_order, numbers), max_workers=workers, counts=counts)

    assert error.value.retryable
    assert (error.value.status, error.value.codes) == (421, ("WRONG_HOST",))
    assert "refused 50 orders" in str(error.value)
    assert "'N-10' (HTTP 421): WRONG_HOST" in str(error.value)
    assert counts == PlaceCounts(read=10, placed=9, inserted=9, updated=0, rejected=1)
    assert [each["mp_order_number"] for each in edge.kept()] == ["N-3"]


def test_forty_nine_odd_refusals_before_an_order_that_is_taken_are_rejects(edge: FeedAmpEdge) -> None:
    edge.answers |= {f"N-{number}": (421, None) for number in range(49)}

    counts = edge.place(good_order(f"N-{number}") for number in range(51))

    assert (counts.placed, counts.rejected) == (2, 49)


def test_odd_refusals_of_all_orders_reject_none(edge: FeedAmpEdge) -> None:
    edge.answers |= {"A": (423, None), "B": (423, None)}

    with pytest.raises(ServerError, match=r"refused 2 orders .* 'A' \(HTTP 423\)"):
        edge.place(map(good_order, "AB"))

    assert edge.kept() == []


def test_bad_orders_behind_an_odd_refusal_do_not_stop_the_run(edge: FeedAmpEdge) -> None:
    edge.answers["B"] = (423, None)
    bad = [good_order("C", currency="?")] * 200

    counts = edge.place([good_order("A"), good_order("B"), *bad])

    assert (counts.read, counts.placed, counts.rejected) == (202, 1, 201)


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (ProtocolError("cut"), UnreachableError),
        (ReauthorizationRequiredError("authorise again"), ReauthorizationRequiredError),
    ],
)
def test_no_answer_and_no_token_end_the_run(
    edge: FeedAmpEdge, failure: Exception, error: type[FeedAmpError]
) -> None:
    edge.failures["B"] = failure

    with pytest.raises(error):
        edge.place(map(good_order, "AB"))

    assert edge.kept() == []


def test_fields_that_feedamp_does_not_know_are_counted_and_named_once(
    edge: FeedAmpEdge, caplog: pytest.LogCaptureFixture
) -> None:
    line = {"mp_line_number": "1", "sku": "S-1", "quantity": 2, "colour": "red"}
    lines = [line, line | {"mp_line_number": "2"}]
    orders = [
        good_order("A", gift=1, order_lines=lines),
        good_order("B", gift=2, **{"jane@secretname.example": 1}),
        good_order("C"),
    ]

    counts = edge.place(orders)

    assert (counts.placed, json.loads(edge.bodies[0])["gift"]) == (3, 1)
    [told] = [each.getMessage() for each in caplog.records if "do not have these fields" in each.getMessage()]
    assert "gift (in 2 orders)" in told
    assert "order_lines.colour (in 1 order)" in told
    assert "a name of 23 characters (in 1 order)" in told
    assert "cretname" not in caplog.text


def test_names_of_fields_without_end_do_not_fill_the_log(
    edge: FeedAmpEdge, caplog: pytest.LogCaptureFixture
) -> None:
    edge.place(good_order(f"A-{n}", **{f"field_{n}": 1}) for n in range(50))

    [told] = [each.getMessage() for each in caplog.records if "do not have these fields" in each.getMessage()]
    assert told.count("(in 1 order)") == 20
    assert told.endswith("others (in 30 orders)")


@pytest.mark.parametrize(
    "body",
    [{"errors": [{"code": "ODD", "message": "Jane Secretname"}]}, {"mp_order_number": "B", "errors": "x"}],
)
def test_orders_taken_with_an_answer_that_names_errors_are_a_warning_with_a_count(
    edge: FeedAmpEdge, caplog: pytest.LogCaptureFixture, body: dict[str, Any]
) -> None:
    edge.answers |= {"A": (200, {"errors": []}), "B": (200, body), "C": (201, body)}

    counts = edge.place(map(good_order, "ABC"))

    assert (counts.placed, counts.rejected) == (3, 0)
    [told] = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert told.startswith(
        "2 orders were taken by FeedAMP with an answer that names errors, the first in item 2"
    )
    assert "cretname" not in caplog.text


def broken_after(orders: list[SourceOrder]) -> Iterator[SourceOrder]:
    yield from orders
    raise InputError("the source is cut off")


def test_a_source_that_breaks_off_ends_the_run_with_the_account_until_then(
    edge: FeedAmpEdge, caplog: pytest.LogCaptureFixture
) -> None:
    orders = broken_after([order_of(1, good_order("A")), parse_order(2, b"no json")])

    with pytest.raises(InputError, match="the source is cut off"):
        edge.place(orders)

    assert edge.numbers == ["A"]
    assert [reject["line"] for reject in edge.kept()] == [2]
    assert "until then: read 2, placed 1 (inserted 1, updated 0), rejected 1" in caplog.text


def test_rejects_are_logged_one_by_one_up_to_twenty_and_then_counted(
    edge: FeedAmpEdge, caplog: pytest.LogCaptureFixture
) -> None:
    orders = [order_of(line, good_order("A", currency="?")) for line in range(1, 26)]

    edge.place(orders)

    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 21
    assert warnings[0].startswith("Rejected item 1: Order 'A' was not sent: currency")
    assert warnings[-1] == "5 more orders were rejected"
    assert edge.rejects.count == 25


def test_the_log_has_nothing_of_the_customer_nor_of_feedamps_words(
    edge: FeedAmpEdge, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    edge.answers["A"] = (400, [{"code": "FIELD_INVALID_VALUE", "message": "'Jane Secretname' is unknown"}])
    bad_text = b'{"customer": "Jane Secretname", }'
    bad_order = good_order("B", purchase_date="Jane Secretname", order_lines="1 Hidden Street")

    edge.place([order_of(1, good_order("A")), parse_order(2, bad_text), order_of(3, bad_order)])

    assert "cretname" not in caplog.text
    assert "Hidden" not in caplog.text
    refused = "Rejected item 1: FeedAMP refused placing order 'A' (HTTP 400): FIELD_INVALID_VALUE"
    assert refused in caplog.text
    assert edge.rejects.count == 3
