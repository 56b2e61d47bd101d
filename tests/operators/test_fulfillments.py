from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.exceptions import TooManyFailuresError
from airflow_provider_feedamp.operators.fulfillments import FeedAmpReadFulfillmentsOperator
from tests.operators.support import calls, place

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox

pytestmark = pytest.mark.once


def read(*numbers: str, **arguments: Any) -> Any:
    task = FeedAmpReadFulfillmentsOperator(task_id="read", mp_order_numbers=list(numbers), **arguments)
    return task.execute({})


def test_it_returns_what_is_shipped_and_cancelled_of_each(feedamp: RunningSandbox) -> None:
    place("A/1", "B", "C")
    feedamp.control.ship("hooli", "A/1", tracking_number="1Z9")
    feedamp.control.cancel("hooli", "B")

    found = read("A/1", "B", "C", "B")

    assert [(each["mp_order_number"], each["status"]) for each in found] == [
        ("A/1", "COMPLETE"),
        ("B", "COMPLETE"),
        ("C", "PENDING"),
    ]
    [shipment, *_] = found[0]["fulfillments"][0]["shipments"]
    assert shipment["tracking_number"] == "1Z9"
    assert json.loads(json.dumps(found)) == found
    assert calls(feedamp)["get_fulfillments"] == 3


def test_an_order_that_cannot_be_read_fails_the_task_when_the_others_are(
    feedamp: RunningSandbox,
) -> None:
    place("A")

    with pytest.raises(TooManyFailuresError, match=r"X: FeedAMP does not know it"):
        read("X", "A")
    assert [each["mp_order_number"] for each in read("X", "A", max_failures=1)] == ["A"]
