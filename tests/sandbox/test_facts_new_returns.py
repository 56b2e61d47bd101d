"""The sandbox against what is known of creating a return (A7.4), fact by fact; see test_facts_oauth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.sandbox.after_sale import create
from tests.sandbox.caller import return_, return_line
from tests.sandbox.test_facts_lists import RETURN

if TYPE_CHECKING:
    from tests.sandbox.after_sale import Thing
    from tests.sandbox.caller import Caller

LINE_REQUIRED = sorted(return_line())


def test_a_return_number_is_unique_in_its_order(asked: Thing) -> None:
    """A7.4 [I]: the path names both."""
    asked.caller.place("600B")
    assert asked.call("PUT", "/orders/600B/returns/RET-1", json=return_()).status_code == 201
    assert len(asked.call("GET", "/returns").json()["returns"]) == 2


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, 201, id="A7.4 [D] rtp: the example leaves it out"),
        pytest.param({"mp_order_number": "600A"}, 201, id="A7.4 [D] rtp: the table requires it"),
        pytest.param({"mp_order_number": "600B"}, 400, id="A7.4 [I]: it differs from the path"),
        pytest.param({"return_lines": None}, 400, id="A7.4 [D] rtp: return_lines is required"),
        pytest.param({"return_lines": []}, 400, id="A7.4 [I]: and has a line"),
        pytest.param({"return_lines": ["R1"]}, 400, id="A7.4 [I]: which is an object"),
        pytest.param(
            {"request_date": "2024-05-10T00:00:00Z"}, 400, id="A7.4 [D] rtp: request_date is a date"
        ),
        pytest.param({"respond_date": "2024-02-30"}, 400, id="A7.4 [D] rtp: respond_date is a date"),
        pytest.param({"shipping_address": "x"}, 400, id="A7.4 [D] rtp: shipping_address is an object"),
        pytest.param({"customer_email": 1}, 400, id="A7.4 [D] rtp: customer_email is a string"),
        pytest.param({"return_type": "SHIP"}, 201, id="A7.3 [D] rt1: SHIP"),
        pytest.param({"return_type": "NO_RETURN"}, 201, id="A7.3 [D] rt1: NO_RETURN"),
        pytest.param({"return_type": "IN_STORE"}, 201, id="A7.3 [D] rt1: IN_STORE"),
        pytest.param({"return_type": "DRONE"}, 400, id="A7.3 [D] rt1: a closed vocabulary"),
        pytest.param({"gift": 1}, 201, id="A8 [U]: an unknown field is kept"),
    ],
)
def test_the_body_of_a_return(hooli: Caller, changes: dict[str, Any], expected: int) -> None:
    hooli.place()
    assert create(hooli, **changes) == expected


@pytest.mark.parametrize("name", LINE_REQUIRED)
def test_a_field_of_a_return_line_is_required(hooli: Caller, name: str) -> None:
    """A7.3 [I]: the first eight of the examples."""
    assert len(LINE_REQUIRED) == 8
    hooli.place()
    without: dict[str, Any] = {name: None}
    assert create(hooli, return_line(**without)) == 400


@pytest.mark.parametrize(
    "changes",
    [
        {"mp_order_line_number": "L9"},
        {"mp_return_line_number": "x" * 129},
        {"quantity": 0},
        {"quantity": "1"},
        {"currency": "usd"},
        {"requested_refund_principal": "59.99"},
        {"preauthorized": "yes"},
        {"reason": 7},
        {"unit_price": "1"},
    ],
    ids=str,
)
def test_a_return_line_that_does_not_fit_is_refused(hooli: Caller, changes: dict[str, Any]) -> None:
    """A7.4 [I]: above all, it refers to a line of the order."""
    hooli.place()
    assert create(hooli, return_line(**changes)) == 400
    assert hooli.call("GET", RETURN).status_code == 404


def test_return_lines_have_different_numbers(hooli: Caller) -> None:
    hooli.place()
    assert create(hooli, return_line("R1"), return_line("R1", "L2")) == 400


def test_a_return_number_has_128_characters_at_most(hooli: Caller) -> None:
    """A7.3 [I]: as the other identifiers."""
    hooli.place()
    assert [create(hooli, number="n" * length) for length in (128, 129)] == [201, 400]


def test_a_return_to_a_store_needs_a_seller_on_v2(hooli: Caller) -> None:
    """A7.3, A10 [D] rt1: IN_STORE is valid for V2 only; setting seller_on_v2."""
    hooli.place()
    hooli.control.change(seller_on_v2=False)
    assert [create(hooli, return_type=kind) for kind in ("IN_STORE", "SHIP")] == [400, 201]


@pytest.mark.parametrize("name", ["status", "rma", "merchant_refund_lines", "errors"])
def test_what_the_seller_and_feedamp_set_is_not_writable(asked: Thing, name: str) -> None:
    """A7.3 [D] rt1: rma is read-only for the marketplace; [U] 400 with strict_fields."""
    before = asked.shown()
    assert create(asked.caller, **{name: "x"}) == 200
    assert asked.shown() == before
    asked.control.change(strict_fields=True)
    assert create(asked.caller, **{name: "x"}) == 400


def test_a_return_of_an_unknown_order_is_404(hooli: Caller) -> None:
    """A7.4 [I]."""
    assert create(hooli) == 404


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("wanted", ["AWAITING_AUTHORIZATION", "AUTHORIZED", "REFUNDED", "COMPLETED"])
def test_the_same_put_again_is_never_refused(asked: Thing, wanted: str, strict: bool) -> None:
    """A7.4 [U]: a second PUT; chosen so that a repeated one is harmless."""
    asked.bring_to(wanted)
    before = asked.shown()
    asked.control.change(strict_transitions=strict)
    assert [create(asked.caller), create(asked.caller, mp_order_number="600A")] == [200, 200]
    assert asked.shown() == before


@pytest.mark.parametrize("strict", [False, True])
def test_another_put_replaces_a_return_until_the_seller_acts(asked: Thing, strict: bool) -> None:
    """A7.4 [U]; chosen."""
    asked.control.change(strict_transitions=strict)
    assert create(asked.caller, return_line("R2", preauthorized=True)) == 200
    assert (asked.status, asked.shown()["return_lines"][0]["mp_return_line_number"]) == ("AUTHORIZED", "R2")
    assert create(asked.caller) == 200
    assert asked.status == "AWAITING_AUTHORIZATION"


@pytest.mark.parametrize(("strict", "expected"), [(False, 200), (True, 400)])
@pytest.mark.parametrize("wanted", ["AUTHORIZED", "REFUNDED", "COMPLETED"])
def test_another_put_after_the_seller_acted_is_a_switch(
    asked: Thing, wanted: str, strict: bool, expected: int
) -> None:
    """A7.4 [U]; chosen: what the seller did is kept; setting strict_transitions."""
    asked.bring_to(wanted)
    asked.control.change(strict_transitions=strict)
    assert create(asked.caller, return_line(reason="too small")) == expected
    assert asked.status == wanted


def test_a_line_with_an_amount_cannot_be_taken_away(asked: Thing) -> None:
    """A7.4 [I]."""
    asked.bring_to("REFUNDED")
    assert create(asked.caller, return_line("R2")) == 400
