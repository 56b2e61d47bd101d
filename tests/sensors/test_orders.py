"""The sensor waits for fulfilments, and says the same in a worker and in the triggerer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_feedamp.exceptions import InputError, NotFoundError
from airflow_provider_feedamp.sensors.orders import FeedAmpFulfillmentSensor
from tests.sensors.waiting import MODES, both_modes, deferred, event_of

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox

EARLIER = datetime.now(UTC) - timedelta(hours=1)


def sensor(**arguments: Any) -> FeedAmpFulfillmentSensor:
    return FeedAmpFulfillmentSensor(task_id="wait", **{"poke_interval": 0, **arguments})


@both_modes
def test_it_waits_until_all_orders_are_fulfilled(feedamp: RunningSandbox, deferrable: bool) -> None:
    feedamp.control.ship("acme", "B")

    result = MODES[deferrable](
        sensor(mp_order_numbers=["B", "A"], deferrable=deferrable), lambda: feedamp.control.ship("acme", "A")
    )

    assert result == ["B", "A"]


ONE_PIECE = {"mp_line_number": "L1", "quantity": 1}


@both_modes
@pytest.mark.parametrize(
    ("arguments", "does", "details", "found"),
    [
        ({"mp_order_numbers": ["A"]}, "cancel", {}, "A"),
        (
            {"mp_order_numbers": ["A"], "until": "started"},
            "ship",
            {"mp_line_number": "L1", "quantity": 1},
            "A",
        ),
        ({"since": EARLIER, "until": "started"}, "ship", ONE_PIECE, "B"),
    ],
)
def test_it_waits_for_a_cancellation_one_shipment_or_any_order(
    feedamp: RunningSandbox,
    deferrable: bool,
    arguments: dict[str, Any],
    does: str,
    details: dict[str, Any],
    found: str,
) -> None:
    result = MODES[deferrable](
        sensor(**arguments, deferrable=deferrable),
        lambda: getattr(feedamp.control, does)("acme", found, **details),
    )

    assert result == [found]


@both_modes
def test_an_order_that_is_done_already_needs_no_triggerer(feedamp: RunningSandbox, deferrable: bool) -> None:
    feedamp.control.ship("acme", "A")

    assert sensor(mp_order_numbers=["A"], deferrable=deferrable).execute({}) == ["A"]


@both_modes
def test_an_unknown_order_fails_for_good_after_the_first_look(
    feedamp: RunningSandbox, deferrable: bool
) -> None:
    with pytest.raises(
        NotFoundError, match="does not have all of the 3 orders to wait for: X1, X2"
    ) as caught:
        sensor(mp_order_numbers=["A", "X1", "X2"], deferrable=deferrable).execute({})

    assert isinstance(caught.value, AirflowFailException)


def test_an_order_that_vanishes_fails_for_good_from_the_triggerer_too(feedamp: RunningSandbox) -> None:
    waiting = sensor(mp_order_numbers=["A"], deferrable=True)
    trigger = deferred(waiting)
    trigger.arguments["mp_order_numbers"] = ["X1"]

    with pytest.raises(NotFoundError, match="X1") as caught:
        waiting.resume_execution("execute_complete", {"event": event_of(trigger)}, {})

    assert isinstance(caught.value, AirflowFailException)
    assert caught.value.status == 404


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of mp_order_numbers and since"),
        ({"mp_order_numbers": ["A"], "since": EARLIER}, "exactly one"),
        ({"mp_order_numbers": "A, B"}, "JSON array"),
        ({"mp_order_numbers": ["A", " "]}, "blank"),
        ({"mp_order_numbers": ["A"], "until": "soon"}, "until must be"),
        ({"since": "2026-01-01T00:00:00"}, "with a time zone"),
        ({"since": "yesterday"}, "ISO 8601"),
    ],
)
def test_what_cannot_be_waited_for_is_refused_for_good(
    feedamp: RunningSandbox, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        sensor(**arguments).execute({})

    assert isinstance(caught.value, AirflowFailException)


def test_orders_may_come_as_the_text_of_a_rendered_template(feedamp: RunningSandbox) -> None:
    waiting = sensor(mp_order_numbers="{{ numbers | tojson }}", seller="{{ who }}", until="{{ until }}")
    waiting.render_template_fields({"numbers": ["A"], "who": "acme", "until": "started"})  # type: ignore[typeddict-unknown-key]
    feedamp.control.ship("acme", "A", mp_line_number="L1", quantity=1)

    assert waiting.execute({}) == ["A"]
