"""The sandbox against what is known of refunds (A6), fact by fact; see test_facts_oauth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.sandbox.after_sale import ERROR
from tests.sandbox.test_facts_lists import REFUND

if TYPE_CHECKING:
    from tests.sandbox.after_sale import Thing
    from tests.sandbox.caller import Caller


def test_a_new_refund_is_ready_to_be_processed(refunded: Thing) -> None:
    """A6 [D] rfs: CREATED."""
    assert refunded.status == "CREATED"


@pytest.mark.parametrize("code", ["EXCESS_ITEM_REFUND", "ANYTHING"])
def test_any_reported_error_pauses_a_refund_until_the_seller_resolves_it(refunded: Thing, code: str) -> None:
    """A6 [D] rfs: PAUSED on any error, CREATED again when resolved; rf1: only active errors are shown."""
    assert refunded.post("errors", [{"code": code, "message": "m"}])[0] == 200
    assert (refunded.status, len(refunded.shown()["errors"])) == ("PAUSED", 1)
    assert refunded.control.resolve_refund_errors("hooli", 1001)["status"] == "CREATED"
    assert (refunded.status, refunded.shown()["errors"]) == ("CREATED", [])


def test_a_refund_has_the_documented_fields(hooli: Caller) -> None:
    """A6.3 [D] rf1: the id an integer, the date without time, lines with eight amounts and a reason."""
    hooli.place()
    today = hooli.control.now()[:10]
    hooli.control.create_refund("hooli", "600A", notes="sorry", reason="OTHER")
    assert hooli.call("GET", REFUND).json() == {
        "feedamp_refund_id": 1001,
        "mp_order_number": "600A",
        "notes": "sorry",
        "status": "CREATED",
        "date_created": today,
        "merchant_refund_lines": [
            {
                "mp_line_number": "L1",
                "currency": "USD",
                "refund_quantity": 4,
                "item_refund": 239.96,
                "item_tax_refund": 0,
                "shipping_refund": 0,
                "shipping_tax_refund": 0,
                "discount_refund": 0,
                "reason": "OTHER",
            }
        ],
        "errors": [],
    }


def test_a_reason_is_upper_case_and_notes_may_be_null(refunded: Thing) -> None:
    """A6.3 [D] rf1: CUSTOMER_CANCELLED."""
    line = refunded.shown()["merchant_refund_lines"][0]
    assert (line["reason"], refunded.shown()["notes"]) == ("CUSTOMER_CANCELLED", None)


@pytest.mark.parametrize("text", ["01001", "1001.0", "+1001", "%201001", "1002"])
def test_the_id_in_a_path_is_a_string(refunded: Thing, text: str) -> None:
    """A6.3 [D] rf1: string in paths, integer in bodies."""
    assert refunded.call("GET", f"/orders/600A/refunds/{text}").status_code == 404


def test_no_two_sellers_share_an_id(refunded: Thing, globex: Caller) -> None:
    """A5 [D] rf1: the id is FeedAMP's; [I] so it is FeedAMP's throughout."""
    globex.place()
    assert refunded.control.create_refund("globex", "600A")["feedamp_refund_id"] == 1002


def test_more_than_a_page_of_an_orders_refunds_comes_at_once(hooli: Caller) -> None:
    """A6.2 [I]: no paging."""
    hooli.place()
    for _ in range(51):
        hooli.control.create_refund("hooli", "600A")
    assert len(hooli.call("GET", "/orders/600A/refunds").json()["refunds"]) == 51


def test_refunds_are_found_by_status_and_order(hooli: Caller) -> None:
    """A6.1 [D] rfs: two comma-delimited lists; [I] a paused and resolved one is found as CREATED again."""
    for number in ("600A", "600B", "600C"):
        hooli.place(number)
        hooli.control.create_refund("hooli", number)
    hooli.call("POST", REFUND + "/errors", json=[ERROR])
    hooli.call("POST", "/orders/600B/refunds/1002/complete")

    def found(**parameters: str) -> list[int]:
        refunds = hooli.call("GET", "/refunds", params=parameters).json()["refunds"]
        return [each["feedamp_refund_id"] for each in refunds]

    assert found(refund_status="CREATED") == [1003]
    assert found(refund_status="PAUSED,COMPLETE") == [1001, 1002]
    assert found(mp_order_numbers="600C,600A,nobody") == [1001, 1003]
    assert found(mp_order_numbers="600C", refund_status="PAUSED") == []
    hooli.control.resolve_refund_errors("hooli", 1001)
    assert found(refund_status="CREATED") == [1001, 1003]


def test_a_seller_on_v2_refunds_several_lines_and_one_on_v1_one_at_a_time(hooli: Caller) -> None:
    """A6.3 [D] v1: one line each; [I] v2: several; setting seller_on_v2."""
    hooli.place()
    lines: list[dict[str, Any]] = [
        {"mp_line_number": "L1", "refund_quantity": 1, "item_tax_refund": 0.11},
        {"mp_line_number": "L2"},
    ]
    made = hooli.control.create_refund("hooli", "600A", lines)["merchant_refund_lines"]
    assert [(each["refund_quantity"], each["item_refund"]) for each in made] == [(1, 59.99), (1, 1.1)]
    assert [each["item_tax_refund"] for each in made] == [0.11, 0]
    hooli.control.change(seller_on_v2=False)
    with pytest.raises(ValueError, match="one line at a time"):
        hooli.control.create_refund("hooli", "600A", lines)


@pytest.mark.parametrize(
    ("number", "lines"),
    [
        ("600B", None),
        ("600A", []),
        ("600A", [{"mp_line_number": "L9"}]),
        ("600A", [{"mp_line_number": "L1"}, {"mp_line_number": "L1"}]),
        ("600A", [{}]),
        ("600A", [{"mp_line_number": "L1", "refund_quantity": -1}]),
        ("600A", [{"mp_line_number": "L1", "refund_quantity": 10**309}]),
    ],
)
def test_the_seller_refunds_lines_that_exist(
    hooli: Caller, number: str, lines: list[dict[str, Any]] | None
) -> None:
    hooli.place()
    with pytest.raises(ValueError, match="create-refund with 4"):
        hooli.control.create_refund("hooli", number, lines)
    assert hooli.control.refunds("hooli") == []


def test_the_seller_can_refund_too_much(hooli: Caller) -> None:
    """A6.5 [D] rfe: that is what EXCESS_ITEM_REFUND is for."""
    hooli.place()
    lines = [{"mp_line_number": "L2", "item_refund": 1000.5, "refund_quantity": 7}]
    assert (
        hooli.control.create_refund("hooli", "600A", lines)["merchant_refund_lines"][0]["item_refund"]
        == 1000.5
    )


def test_money_does_not_pass_through_binary_fractions(hooli: Caller) -> None:
    lines = [{"mp_line_number": "L", "sku": "S", "quantity": 3, "unit_price": 1.1}]
    hooli.place(order_lines=lines)
    made = hooli.control.create_refund("hooli", "600A")["merchant_refund_lines"][0]
    assert made["item_refund"] == 3.3 != 3 * 1.1


def test_the_seller_sees_the_hidden_instant(refunded: Thing) -> None:
    seen = refunded.control.refunds("hooli")
    assert [each["feedamp_refund_id"] for each in seen] == [1001]
    assert seen[0]["created_at"].startswith(refunded.shown()["date_created"] + "T")


def test_a_complete_refund_that_was_paused_is_to_be_processed_again(refunded: Thing) -> None:
    """A6 [D] rfs: PAUSED on any error, CREATED again when resolved."""
    refunded.bring_to("COMPLETE")
    refunded.post("errors", [ERROR])
    assert refunded.control.resolve_refund_errors("hooli", 1001)["status"] == "CREATED"
