"""What the tests of operators share: orders and returns to begin with, and what became of them."""

from __future__ import annotations

import inspect
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_feedamp.sandbox.server import RunningSandbox

E = TypeVar("E", bound=Exception)

CUSTOMER = "Jane Secretname"


def order(number: str, **changes: Any) -> dict[str, Any]:
    """Return an order of two lines, of two pieces and of one."""
    return {
        "mp_order_number": number,
        "sales_channel": "US",
        "customer": {"full_name": CUSTOMER},
        "purchase_date": "2024-05-01T23:52:01Z",
        "currency": "USD",
        "shipping_address": {"full_name": CUSTOMER, "address1": "1 Hidden Street"},
        "order_lines": [
            {"mp_line_number": "1", "sku": "S-1", "quantity": 2, "unit_price": 1.5},
            {"mp_line_number": "2", "sku": "S-2", "quantity": 1, "unit_price": 9.99},
        ],
        "marketplace_state": "AWAITING_SHIPMENT",
    } | changes


def lines(*orders: dict[str, Any]) -> bytes:
    """Return orders as the content of a file, one a line."""
    return b"".join(json.dumps(each).encode() + b"\n" for each in orders)


def return_(number: str, order_number: str = "A", **changes: Any) -> dict[str, Any]:
    """Return a return of one piece of an order's first line."""
    return {
        "mp_return_number": number,
        "mp_order_number": order_number,
        "customer_email": "jane@example.com",
        "return_lines": [
            {
                "mp_return_line_number": f"{number}-1",
                "mp_order_line_number": "1",
                "sku": "S-1",
                "quantity": 1,
                "currency": "USD",
                "requested_refund_principal": 1.5,
                "reason": "Wrong colour",
                "preauthorized": False,
            }
        ],
    } | changes


def place(*numbers: str, **changes: Any) -> None:
    """Place orders into the account of hooli."""
    orders = FeedAmpHook().client.orders
    for number in numbers:
        orders.place(order(number, **changes))


def states(sandbox: RunningSandbox) -> dict[str, str]:
    """Return the marketplace states of hooli's orders."""
    return {each["mp_order_number"]: each["marketplace_state"] for each in sandbox.control.orders("hooli")}


def calls(sandbox: RunningSandbox) -> dict[str, int]:
    """Return how often each operation was called."""
    counts: dict[str, int] = sandbox.control.counters()["calls"]
    return counts


def token_posts(sandbox: RunningSandbox) -> int:
    """Return how often the token endpoint was asked."""
    return int(sandbox.control.counters()["token_posts"])


def parameters_of(kind: type) -> dict[str, inspect.Parameter]:
    """Return what a task is given, as the signature of its class names it: that is what an editor shows."""
    found = inspect.signature(kind.__init__).parameters  # type: ignore[misc]
    return {name: each for name, each in found.items() if name not in ("self", "kwargs")}


@contextmanager
def for_good(kind: type[E], match: str | None = None) -> Iterator[pytest.ExceptionInfo[E]]:
    """Expect an error of ours that Airflow does not retry."""
    with pytest.raises(kind, match=match) as caught:
        yield caught
    assert isinstance(caught.value, AirflowFailException)


@contextmanager
def to_be_retried(kind: type[E], match: str | None = None) -> Iterator[pytest.ExceptionInfo[E]]:
    """Expect an error of ours that is left to Airflow's retries."""
    with pytest.raises(kind, match=match) as caught:
        yield caught
    assert not isinstance(caught.value, AirflowFailException)


def without_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let calls fail at once: the waits between the tries are not the subject."""
    from airflow_provider_feedamp.api.http import Http

    defaults = Http.__init__.__kwdefaults__ or {}
    monkeypatch.setitem(defaults, "retries", 0)
