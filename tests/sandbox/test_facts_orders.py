"""The sandbox against what is known of orders (A3, A4), fact by fact; see test_facts_oauth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.sandbox.caller import order

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from tests.sandbox.caller import Caller

REQUIRED = sorted(order())
FULFILLMENTS = "/orders/600A/fulfillments"
ERRORS = "/orders/600A/errors"

# What happens to an order after it is placed, as (who, what) pairs.
NOTHING: tuple[str, ...] = ()
STEPS = {
    "released": NOTHING,
    "acknowledged": ("acknowledge",),
    "shipped in part": ("ship L1 1",),
    "cancelled in part": ("cancel L1 1",),
    "shipped": ("ship",),
    "cancelled": ("cancel",),
    "shipped and cancelled": ("ship L1 1", "cancel"),
}


def play(sandbox: RunningSandbox, caller: Caller, steps: tuple[str, ...], state: str | None = None) -> None:
    caller.place()
    for step in steps:
        action, *part = step.split()
        details = {"mp_line_number": part[0], "quantity": int(part[1])} if part else {}
        getattr(sandbox.control, action)("hooli", "600A", **details)
    if state is not None:
        caller.place(marketplace_state=state)


def shown(caller: Caller) -> dict[str, Any]:
    answer: dict[str, Any] = caller.call("GET", "/orders/600A").json()
    return answer


@pytest.mark.parametrize(
    ("state", "status"),
    [("PENDING", 201), ("AWAITING_SHIPMENT", 201), ("SHIPPED", 201), ("CANCELLED", 201), ("COMPLETE", 400)],
)
def test_the_marketplace_sets_one_of_four_states(hooli: Caller, state: str, status: int) -> None:
    """A3.1 [D] ov, po."""
    assert hooli.place(marketplace_state=state).status_code == status


@pytest.mark.parametrize(
    ("steps", "state", "status"),
    [
        pytest.param("released", "PENDING", "PENDING", id="A3.2 [D] go: placed, not released"),
        pytest.param("released", None, "ORDERED", id="A3.2 [D] go: ready, not acknowledged"),
        pytest.param("acknowledged", None, "IN_PROGRESS", id="A3.2 [D] go: acknowledged"),
        pytest.param("shipped in part", None, "IN_PROGRESS", id="A3.4 [I]: some quantity shipped"),
        pytest.param("cancelled", None, "CANCELLED", id="A3.2 [D] go: the seller cancelled everything"),
        pytest.param("shipped", None, "FULFILLED", id="A3.2 [D] go: fulfilled everything"),
        pytest.param(
            "shipped and cancelled", None, "FULFILLED", id="A3.2 [D] go: fulfilled some, cancelled the rest"
        ),
        pytest.param("shipped", "SHIPPED", "COMPLETE", id="A3.2 [D] go: accepted as SHIPPED"),
        pytest.param("cancelled", "CANCELLED", "COMPLETE", id="A3.2 [D] go: accepted as CANCELLED"),
        pytest.param("released", "CANCELLED", "COMPLETE", id="A3.4 [D] go: cancelled by the marketplace"),
    ],
)
def test_an_orders_status_follows_from_both_sides(
    hooli: Caller, steps: str, state: str | None, status: str
) -> None:
    play(hooli.sandbox, hooli, STEPS[steps], state)
    assert shown(hooli)["status"] == status


@pytest.mark.parametrize(
    ("steps", "state", "found_under"),
    [
        pytest.param("released", None, "UNFULFILLED", id="A3.3 [D] gos: no fulfilments"),
        pytest.param("acknowledged", None, "UNFULFILLED", id="A3.3 [D] gos: acknowledged only"),
        pytest.param("shipped in part", None, "PARTIALLY_FULFILLED", id="A3.3 [D] gos: at least one"),
        pytest.param("cancelled in part", None, "PARTIALLY_FULFILLED", id="A3.3 [I] gf: cancellations count"),
        pytest.param("shipped", None, "PARTIALLY_FULFILLED", id="A3.3 [I]: trap, shipped but not closed"),
        pytest.param("shipped", "SHIPPED", "COMPLETE", id="A3.3 [D] gos: all there and SHIPPED"),
        pytest.param("cancelled", "CANCELLED", "COMPLETE", id="A3.3 [D] gos: all there and CANCELLED"),
        pytest.param("released", "PENDING", None, id="A3.3 [I]: PENDING matches none"),
        pytest.param("released", "CANCELLED", None, id="A3.3 [U]: closed without activity, chosen: none"),
    ],
)
def test_the_filter_finds_an_order_under_one_status_at_most(
    hooli: Caller, steps: str, state: str | None, found_under: str | None
) -> None:
    play(hooli.sandbox, hooli, STEPS[steps], state)
    values = ("UNFULFILLED", "PARTIALLY_FULFILLED", "COMPLETE")
    found = [value for value in values if hooli.numbers(fulfillment_status=value)]
    assert found == ([found_under] if found_under else [])


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        pytest.param("released", "PENDING", id="A3.3 [D] gf: no information"),
        pytest.param("shipped in part", "PARTIALLY_FULFILLED", id="A3.3 [D] gf: some unaccounted for"),
        pytest.param("shipped and cancelled", "COMPLETE", id="A3.3 [D] gf: all accounted for"),
    ],
)
def test_fulfilments_have_a_status_of_their_own(hooli: Caller, steps: str, status: str) -> None:
    play(hooli.sandbox, hooli, STEPS[steps])
    assert hooli.call("GET", FULFILLMENTS).json()["status"] == status


def test_the_same_state_again_changes_nothing(hooli: Caller) -> None:
    """A3.4 [U]; chosen: 200."""
    hooli.place(marketplace_state="SHIPPED")
    before = shown(hooli)
    assert hooli.place(marketplace_state="SHIPPED").status_code == 200
    assert shown(hooli) == before


@pytest.mark.parametrize(("strict", "status"), [(False, 200), (True, 400)])
@pytest.mark.parametrize("state", ["SHIPPED", "CANCELLED"])
def test_leaving_a_closed_state_is_a_switch(hooli: Caller, state: str, strict: bool, status: int) -> None:
    """A3.4 [U]: backward moves; setting strict_transitions."""
    hooli.place(marketplace_state=state)
    hooli.control.change(strict_transitions=strict)
    assert hooli.place().status_code == status


def test_an_order_is_not_paused_by_errors_which_the_seller_clears(hooli: Caller) -> None:
    """A3.4 [U]: what clears errors and whether they pause; chosen: the seller, and no."""
    hooli.place()
    hooli.call("POST", ERRORS, json=[{"code": "X", "message": "m"}])
    assert (shown(hooli)["status"], hooli.numbers(has_errors="true")) == ("ORDERED", ["600A"])
    hooli.control.resolve_errors("hooli", "600A")
    assert hooli.numbers(has_errors="true") == []


def test_a_list_wraps_orders_and_a_single_one_is_not_wrapped(hooli: Caller) -> None:
    """A4.1 [D] gos, A4.2 [D] go."""
    hooli.place()
    assert hooli.find().json() == {"orders": [shown(hooli)], "next_cursor": None}
    assert shown(hooli)["mp_order_number"] == "600A"


def test_there_is_no_filter_for_the_marketplace_state(hooli: Caller) -> None:
    """A4.1 [D] gos, by absence: an unknown parameter is ignored [U]."""
    hooli.place(marketplace_state="PENDING")
    assert hooli.numbers(marketplace_state="SHIPPED") == ["600A"]


@pytest.mark.parametrize("name", REQUIRED)
def test_a_field_of_an_order_is_required(hooli: Caller, name: str) -> None:
    """A4.4 [D] po: eight fields."""
    assert len(REQUIRED) == 8
    without: dict[str, Any] = {name: None}
    assert hooli.place(**without).status_code == 400


@pytest.mark.parametrize(("length", "status"), [(1, 201), (128, 201), (129, 400)])
def test_an_order_number_has_1_to_128_characters(hooli: Caller, length: int, status: int) -> None:
    """A4.3 [D] go, po."""
    assert hooli.place("n" * length).status_code == status


@pytest.mark.parametrize(
    ("text", "status"),
    [("2024-05-01T23:52:01Z", 201), ("2024-05-01T23:52:01", 400), ("2024-05-01T23:52:01+02:00", 400)],
)
def test_instants_in_bodies_are_utc_with_z(hooli: Caller, text: str, status: int) -> None:
    """A4.3 [D] po."""
    assert hooli.place(purchase_date=text).status_code == status


@pytest.mark.parametrize("name", ["fulfillments", "acknowledged", "status"])
def test_what_feedamp_sets_is_not_writable(hooli: Caller, name: str) -> None:
    """A4.3 [D] go."""
    hooli.place()
    before = shown(hooli)
    hooli.place(**{name: "x"})
    assert shown(hooli) == before


def test_the_body_names_the_order_of_the_path(hooli: Caller) -> None:
    """A4.4 [I]: 400 when they differ."""
    assert hooli.place("600A", mp_order_number="600B").status_code == 400


def test_an_insert_is_201_an_update_200_and_both_answer_with_the_order(hooli: Caller) -> None:
    """A4.4 [U]; chosen; settings write_status and write_body."""
    answers = [hooli.place(), hooli.place()]
    assert [each.status_code for each in answers] == [201, 200]
    assert [each.json() for each in answers] == [shown(hooli)] * 2


def test_customer_and_address_and_lines_are_free_form(hooli: Caller) -> None:
    """A4.5 [I]: no form of taxes or names is forced, and what nobody documented is kept."""
    lines = [{"mp_line_number": "L", "sku": "S", "quantity": 1, "taxes": [{"type": "ITEM"}], "sales_tax": 1}]
    odd: dict[str, Any] = {
        "customer": {"nick": "J"},
        "shipping_address": {"planet": "Mars"},
        "order_lines": lines,
    }
    assert hooli.place(**odd, gift_message="hi").status_code == 201
    assert {name: shown(hooli)[name] for name in (*odd, "gift_message")} == {**odd, "gift_message": "hi"}


def test_a_line_shows_shipments_cancellations_and_what_is_pending(hooli: Caller) -> None:
    """A4.6 [D] gf: the example, 2 + 1 + 1 of 4; date only; [I] lines without activity are there too."""
    hooli.place()
    url = "https://www.fedex.com/apps/fedextrack/?tracknumbers=1Z9"
    shipment = {
        "carrier": "FedEx",
        "tracking_number": "1Z9",
        "shipped_date": "2024-04-20",
        "tracking_url": url,
    }
    hooli.control.ship("hooli", "600A", mp_line_number="L1", quantity=2, **shipment)
    hooli.control.cancel("hooli", "600A", mp_line_number="L1", quantity=1, reason="out_of_stock")
    answer = hooli.call("GET", FULFILLMENTS).json()
    assert answer["is_marketplace_fulfilled"] is False
    assert answer["fulfillments"][0] == {
        "mp_line_number": "L1",
        "shipments": [{"quantity": 2, **shipment}],
        "cancellations": [{"quantity": 1, "reason": "out_of_stock"}],
        "status": "PARTIALLY_FULFILLED",
        "pending": {"quantity": 1},
    }
    assert answer["fulfillments"][1]["status"] == "PENDING"


def test_errors_are_a_list_whose_entries_have_code_and_message(hooli: Caller) -> None:
    """A4.7 [D] oe: an array even for one; line and debug optional; ``{}`` in the example."""
    hooli.place()
    entry = {"code": "INVALID_TRACKING_NUMBER", "message": "no such parcel"}
    whole = {**entry, "mp_line_number": "L1", "debug": [{"any": 1}]}
    answers = [hooli.call("POST", ERRORS, json=body) for body in ([entry], [whole], entry)]
    assert [each.status_code for each in answers] == [200, 200, 400]
    assert answers[0].json() == {}
    assert shown(hooli)["errors"] == [entry, whole]  # [U] appended


@pytest.mark.parametrize("name", ["code", "message"])
def test_a_reported_error_needs(hooli: Caller, name: str) -> None:
    """A4.7 [D] oe."""
    hooli.place()
    entry = {"code": "X", "message": "m"}
    del entry[name]
    assert hooli.call("POST", ERRORS, json=[entry]).status_code == 400
