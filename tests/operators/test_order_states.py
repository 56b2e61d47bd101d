from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.api.client import OrdersApi
from airflow_provider_feedamp.exceptions import InputError, TooManyFailuresError
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
from airflow_provider_feedamp.operators.order_states import (
    FeedAmpCloseOrdersOperator,
    FeedAmpSetOrderStateOperator,
)
from tests.operators.support import calls, order, place, states

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_feedamp.sandbox.server import RunningSandbox

pytestmark = pytest.mark.once


def set_state(state: str, *numbers: str, **arguments: Any) -> Any:
    task = FeedAmpSetOrderStateOperator(
        task_id="set_state", mp_order_numbers=list(numbers), state=state, **arguments
    )
    return task.execute({})


def close(*numbers: str, **arguments: Any) -> Any:
    return FeedAmpCloseOrdersOperator(task_id="close", mp_order_numbers=list(numbers), **arguments).execute(
        {}
    )


def show(monkeypatch: pytest.MonkeyPatch, **methods: Mapping[str, Any]) -> None:
    """Let FeedAMP answer a read with what the sandbox would not."""
    for name, changes in methods.items():
        real = getattr(OrdersApi, name)

        def changed(
            self: OrdersApi, number: str, real: Any = real, changes: Mapping[str, Any] = changes
        ) -> Any:
            held = {**real(self, number), **changes}
            return {field: value for field, value in held.items() if value is not None}

        monkeypatch.setattr(OrdersApi, name, changed)


class TestSetState:
    def test_orders_that_were_held_are_released(self, feedamp: RunningSandbox) -> None:
        place("A", "B", marketplace_state="PENDING")

        told = set_state("AWAITING_SHIPMENT", "A", "B")

        assert told == {"set": 2, "unchanged": 0, "skipped": {}, "failed": {}}
        assert states(feedamp) == {"A": "AWAITING_SHIPMENT", "B": "AWAITING_SHIPMENT"}

    @pytest.mark.parametrize("check", [True, False])
    @pytest.mark.parametrize(
        ("closed", "asked"),
        [
            ("CANCELLED", "AWAITING_SHIPMENT"),
            ("SHIPPED", "AWAITING_SHIPMENT"),
            ("SHIPPED", "CANCELLED"),
        ],
    )
    def test_an_order_that_was_closed_meanwhile_is_neither_released_nor_closed_another_way(
        self, feedamp: RunningSandbox, closed: str, asked: str, check: bool
    ) -> None:
        place("A", marketplace_state="PENDING")
        place("A", marketplace_state=closed)

        told = set_state(asked, "A", check_fulfillments=check)

        assert told == {"set": 0, "unchanged": 0, "skipped": {"A": f"it is {closed} now"}, "failed": {}}
        assert states(feedamp) == {"A": closed}

    @pytest.mark.parametrize("state", ["PENDING", "AWAITING_SHIPMENT", "CANCELLED", "SHIPPED"])
    def test_the_state_that_an_order_has_is_not_put_again(self, feedamp: RunningSandbox, state: str) -> None:
        place("A", marketplace_state=state)
        before = calls(feedamp)["place_order"]

        assert set_state(state, "A") == {"set": 0, "unchanged": 1, "skipped": {}, "failed": {}}
        assert calls(feedamp)["place_order"] == before

    def test_an_order_is_done_once_however_often_it_is_named(self, feedamp: RunningSandbox) -> None:
        place("A")

        assert set_state("CANCELLED", "A", "A")["set"] == 1

    def test_only_an_order_that_is_accounted_for_becomes_shipped(self, feedamp: RunningSandbox) -> None:
        place("nothing", "some", "all", "both", "none")
        feedamp.control.ship("hooli", "some", mp_line_number="1", quantity=1)
        feedamp.control.ship("hooli", "all")
        feedamp.control.ship("hooli", "both", mp_line_number="1", quantity=1)
        feedamp.control.cancel("hooli", "both")
        feedamp.control.cancel("hooli", "none")

        told = set_state("SHIPPED", "nothing", "some", "all", "both", "none")

        assert told == {
            "set": 2,
            "unchanged": 0,
            "skipped": {
                "nothing": "the seller is not through with it (PENDING)",
                "some": "the seller is not through with it (PARTIALLY_FULFILLED)",
                "none": "the seller cancelled all of it: CANCELLED is the word to close it with",
            },
            "failed": {},
        }
        changed = [number for number, state in states(feedamp).items() if state == "SHIPPED"]
        assert changed == ["all", "both"]

    def test_an_order_that_the_marketplace_ships_itself_needs_no_fulfilments(
        self, feedamp: RunningSandbox
    ) -> None:
        place("A", is_marketplace_fulfilled=True)

        assert set_state("SHIPPED", "A")["set"] == 1

    def test_fulfilments_that_are_complete_and_show_nothing_are_not_believed(
        self, feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place("A")
        shipment = {"shipments": [{"quantity": 0}], "cancellations": []}
        show(monkeypatch, fulfillments={"status": "COMPLETE", "fulfillments": [shipment, "?", {}]})

        assert "neither a shipment nor a cancellation" in set_state("SHIPPED", "A")["skipped"]["A"]
        assert "neither a shipment nor a cancellation" in close("A")["skipped"]["A"]

    @pytest.mark.parametrize("state", ["CANCELLED", "PENDING"])
    def test_an_order_of_which_something_is_shipped_is_not_cancelled_nor_held(
        self, feedamp: RunningSandbox, state: str
    ) -> None:
        place("shipped", "cancelled", "open")
        feedamp.control.ship("hooli", "shipped", mp_line_number="1", quantity=1)
        feedamp.control.cancel("hooli", "cancelled", mp_line_number="1", quantity=1)

        told = set_state(state, "shipped", "cancelled", "open")

        assert told["skipped"] == {"shipped": "the seller has shipped some of it"}
        assert told["set"] == 2
        assert states(feedamp)["shipped"] == "AWAITING_SHIPMENT"

    def test_a_shipment_while_the_order_is_being_cancelled_is_told(
        self, feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place("A", "B")
        real = OrdersApi.set_state

        def slow(self: OrdersApi, number: str, *rest: Any) -> Any:
            if number == "A":
                feedamp.control.ship("hooli", number)
            return real(self, number, *rest)

        monkeypatch.setattr(OrdersApi, "set_state", slow)

        told = set_state("CANCELLED", "A", "B", max_failures=1)

        assert told["set"] == 1
        assert "shipped while it was being cancelled" in told["failed"]["A"]

    @pytest.mark.parametrize("state", ["CANCELLED", "SHIPPED"])
    @pytest.mark.parametrize("check", [False, "False"])
    def test_the_look_at_the_fulfilments_can_be_left_out(
        self, feedamp: RunningSandbox, state: str, check: bool | str
    ) -> None:
        place("A")
        feedamp.control.ship("hooli", "A", mp_line_number="1", quantity=1)

        assert set_state(state, "A", check_fulfillments=check)["set"] == 1
        assert states(feedamp) == {"A": state}
        assert "get_fulfillments" not in calls(feedamp)

    @pytest.mark.parametrize(
        ("state", "status", "asked", "outcome"),
        [
            ("PENDING", "PENDING", "AWAITING_SHIPMENT", "set"),
            ("AWAITING_SHIPMENT", "ORDERED", "AWAITING_SHIPMENT", "unchanged"),
            ("SHIPPED", "COMPLETE", "AWAITING_SHIPMENT", "skipped"),
            ("SHIPPED", "COMPLETE", "CANCELLED", "skipped"),
        ],
    )
    def test_an_answer_without_the_marketplaces_state_is_judged_by_its_status(
        self,
        feedamp: RunningSandbox,
        monkeypatch: pytest.MonkeyPatch,
        state: str,
        status: str,
        asked: str,
        outcome: str,
    ) -> None:
        place("A", marketplace_state=state)
        show(monkeypatch, get={"marketplace_state": None, "status": status})

        told = set_state(asked, "A")

        assert bool(told[outcome])
        assert sum(bool(value) for value in told.values()) == 1

    def test_a_state_that_is_not_known_here_is_not_promoted(
        self, feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place("A")
        show(monkeypatch, get={"marketplace_state": "FROZEN"})

        assert set_state("AWAITING_SHIPMENT", "A")["skipped"] == {"A": "it is FROZEN now"}

    def test_an_order_that_feedamp_refuses_does_not_stop_the_others(self, feedamp: RunningSandbox) -> None:
        place("A", "B")
        feedamp.control.fault("http_error", on="place_order", status=400)

        with pytest.raises(TooManyFailuresError, match=r"1 order failed.*set 1.*A: FeedAMP refused it"):
            set_state("CANCELLED", "A", "B")
        assert states(feedamp) == {"A": "AWAITING_SHIPMENT", "B": "CANCELLED"}

    @pytest.mark.parametrize(
        ("state", "check", "wrong"),
        [
            *((word, True, "state must be one of PENDING, AWAITING") for word in ("shipped", "", "COMPLETE")),
            ("SHIPPED", "perhaps", "check_fulfillments must be True or False"),
        ],
    )
    def test_what_is_no_state_and_no_truth_is_refused_before_anything_is_sent(
        self, feedamp: RunningSandbox, state: str, check: Any, wrong: str
    ) -> None:
        with pytest.raises(InputError, match=wrong):
            set_state(state, "A", check_fulfillments=check)
        assert calls(feedamp) == {}

    def test_the_rest_of_the_order_stays_as_it_was_placed(self, feedamp: RunningSandbox) -> None:
        place("A/1 ü%")

        set_state("CANCELLED", "A/1 ü%")

        held = FeedAmpHook().client.orders.get("A/1 ü%")
        expected = order("A/1 ü%", marketplace_state="CANCELLED")
        assert {name: held.get(name) for name in expected} == expected


class TestClose:
    def test_each_order_gets_the_word_that_fits(self, feedamp: RunningSandbox) -> None:
        place("shipped", "both", "cancelled")
        feedamp.control.ship("hooli", "shipped")
        feedamp.control.ship("hooli", "both", mp_line_number="2")
        feedamp.control.cancel("hooli", "both")
        feedamp.control.cancel("hooli", "cancelled")

        told = close("shipped", "both", "cancelled")

        assert told == {"shipped": 2, "cancelled": 1, "unchanged": 0, "skipped": {}, "failed": {}}
        assert states(feedamp) == {"shipped": "SHIPPED", "both": "SHIPPED", "cancelled": "CANCELLED"}
        before = calls(feedamp)["place_order"]
        assert close("shipped", "both", "cancelled")["unchanged"] == 3
        assert calls(feedamp)["place_order"] == before

    def test_orders_that_have_some_time_to_go_are_left_open(self, feedamp: RunningSandbox) -> None:
        place("held", marketplace_state="PENDING")
        place("open", "begun")
        place("own", is_marketplace_fulfilled=True)
        feedamp.control.ship("hooli", "begun", mp_line_number="1")
        before = states(feedamp)

        told = close("held", "open", "begun", "own")

        assert told["skipped"] == {
            "held": "it is PENDING: the seller may not fulfil it yet",
            "open": "the seller is not through with it (PENDING)",
            "begun": "the seller is not through with it (PARTIALLY_FULFILLED)",
            "own": "the marketplace ships it itself: set its state when that is done",
        }
        assert states(feedamp) == before
