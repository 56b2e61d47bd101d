"""The sandbox against what is known of returns (A7), fact by fact; see test_facts_oauth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.sandbox.after_sale import ERROR, create
from tests.sandbox.caller import return_, return_line
from tests.sandbox.test_facts_lists import RETURN

if TYPE_CHECKING:
    from tests.sandbox.after_sale import Thing
    from tests.sandbox.caller import Caller


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param("AWAITING_AUTHORIZATION", id="A7 [D] rtr: placed into FeedAMP"),
        pytest.param("AUTHORIZED", id="A7 [D] rtr: the seller authorised"),
        pytest.param("REFUNDED", id="A7 [D] rtr: the seller entered the amounts"),
        pytest.param("COMPLETED", id="A7 [D] rtr: the marketplace completed; not COMPLETE"),
    ],
)
def test_a_return_goes_through_four_states(asked: Thing, wanted: str) -> None:
    asked.bring_to(wanted)
    assert asked.status == wanted


@pytest.mark.parametrize(
    ("preauthorized", "expected"),
    [
        pytest.param([True, True], "AUTHORIZED", id="A7 [I]: all lines"),
        pytest.param([True, False], "AWAITING_AUTHORIZATION", id="A7 [U]: mixed lines, chosen"),
        pytest.param([False, False], "AWAITING_AUTHORIZATION", id="A7 [D] rtr: none"),
    ],
)
def test_a_return_is_authorized_at_once_when_all_its_lines_are(
    hooli: Caller, preauthorized: list[bool], expected: str
) -> None:
    hooli.place()
    lines = [return_line(f"R{index}", preauthorized=each) for index, each in enumerate(preauthorized)]
    create(hooli, *lines)
    assert hooli.call("GET", RETURN).json()["status"] == expected


def test_a_return_shows_what_was_asked_and_what_the_seller_did(asked: Thing) -> None:
    """A7.3 [D] rt1: the fields; A7.4 [D] rtp: the number stands in the path alone."""
    today = asked.control.now()[:10]
    assert asked.shown() == {
        "status": "AWAITING_AUTHORIZATION",
        "rma": None,
        "mp_return_number": "RET-1",
        "mp_order_number": "600A",
        "request_date": today,
        "respond_date": None,
        "shipping_address": None,
        "customer_email": None,
        "return_type": "SHIP",
        "return_lines": [return_line()],
        "merchant_refund_lines": [],
        "errors": [],
    }


def test_what_the_marketplace_gave_is_shown_as_given(hooli: Caller) -> None:
    """A7.3, A7.4 [D] rt1, rtp: optional fields of the return and its lines."""
    hooli.place()
    given: dict[str, Any] = {
        "mp_order_number": "600A",
        "request_date": "2024-05-10",
        "respond_date": "2024-05-17",
        "shipping_address": {"full_name": "J", "address2": ""},
        "customer_email": "j@shop.example",
        "return_type": "NO_RETURN",
    }
    line = return_line(product_name="Headphones", unit_price=59.99, tax=1.1, requested_refund_tax=0.5)
    line |= {"carrier": "UPS", "tracking_number": "1Z9"}
    assert create(hooli, line, **given) == 201
    assert {name: hooli.call("GET", RETURN).json()[name] for name in (*given, "return_lines")} == {
        **given,
        "return_lines": [line],
    }


def test_returns_are_found_by_status_and_order(asked: Thing) -> None:
    """A7.1 [I]: the filters of refunds under likely names."""
    asked.caller.place("600B")
    asked.call("PUT", "/orders/600B/returns/RET-2", json=return_(return_line(preauthorized=True)))

    def found(**parameters: str) -> list[str]:
        returns = asked.call("GET", "/returns", params=parameters).json()["returns"]
        return [each["mp_return_number"] for each in returns]

    assert found(return_status="AUTHORIZED") == ["RET-2"]
    assert found(return_status="AUTHORIZED,AWAITING_AUTHORIZATION") == ["RET-1", "RET-2"]
    assert found(return_status="REFUNDED,COMPLETED") == []
    assert found(mp_order_numbers="600A") == ["RET-1"]
    assert found(mp_order_numbers="600A", return_status="AUTHORIZED") == []


def test_the_lean_endpoint_has_status_rma_amounts_and_errors(asked: Thing) -> None:
    """A7.5 [D] rtr; A10: its lines are not those of a refund."""
    asked.play("authorize_return", "RMA-12345")
    asked.play("enter_return_amounts")
    asked.post("errors", [ERROR])
    assert asked.call("GET", RETURN + "/refunds").json() == {
        "status": "REFUNDED",
        "rma": "RMA-12345",
        "merchant_refund_lines": [
            {"mp_return_line_number": "R1", "principal_refund_amount": 59.99, "shipping_refund_amount": 0}
        ],
        "errors": [ERROR],
    }


def test_the_seller_gives_an_rma_of_1_to_128_characters(asked: Thing) -> None:
    """A7.3 [D] rtr."""
    for rma in ("", "x" * 129):
        with pytest.raises(ValueError, match="422"):
            asked.play("authorize_return", rma)
    assert asked.play("authorize_return", "x" * 128)["rma"] == "x" * 128
    assert asked.play("authorize_return")["rma"] == "x" * 128


def test_entering_the_amounts_again_replaces_them_and_clears_the_errors(asked: Thing) -> None:
    """A7.7 [I]."""
    asked.bring_to("REFUNDED")
    asked.post("errors", [ERROR])
    lines = [{"mp_return_line_number": "R1", "principal_refund_amount": 8.5, "shipping_refund_amount": 1}]
    seen = asked.play("enter_return_amounts", lines)
    assert (seen["merchant_refund_lines"], seen["errors"], seen["status"]) == (lines, [], "REFUNDED")


@pytest.mark.parametrize(
    ("wanted", "action"),
    [
        ("AWAITING_AUTHORIZATION", "enter_return_amounts"),
        ("REFUNDED", "authorize_return"),
        ("COMPLETED", "authorize_return"),
        ("COMPLETED", "enter_return_amounts"),
    ],
)
def test_the_seller_acts_in_order(asked: Thing, wanted: str, action: str) -> None:
    """A7 [I]: authorise, then enter; not after the marketplace is done."""
    asked.bring_to(wanted)
    with pytest.raises(ValueError, match=wanted):
        asked.play(action)


@pytest.mark.parametrize("lines", [[], [{"mp_return_line_number": "R9"}], [{}]], ids=str)
def test_the_seller_enters_amounts_for_lines_that_exist(asked: Thing, lines: list[dict[str, Any]]) -> None:
    asked.bring_to("AUTHORIZED")
    with pytest.raises(ValueError, match="enter-return-amounts with 4"):
        asked.play("enter_return_amounts", lines)
    assert asked.status == "AUTHORIZED"


def test_the_seller_sees_the_hidden_instant_and_the_very_json(asked: Thing) -> None:
    (seen,) = asked.control.returns("hooli")
    assert seen["placed_at"].startswith(asked.shown()["request_date"] + "T")
    assert seen["raw"].startswith('{"return_lines"')
