"""Tasks that set the marketplace's state of orders: close, cancel, release what was held."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.exceptions import InputError
from airflow_provider_feedamp.operators.base import Failed, ForEachOrderOperator, Skipped, flag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import XComArg

    from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
    from airflow_provider_feedamp.operators.base import Outcome

_CLOSED = frozenset({"SHIPPED", "CANCELLED", "COMPLETE"})
_NOTHING_TO_SEE = "its fulfilments are COMPLETE, but there is neither a shipment nor a cancellation"


class FeedAmpSetOrderStateOperator(ForEachOrderOperator):
    """Set the marketplace state of many orders that FeedAMP holds; one that must not have it is left alone.

    FeedAMP has no partial update, so each order is read and put back with the new state. An order that has
    the state already is not put again, so the task can run again. A closed order (``SHIPPED``, ``CANCELLED``)
    is never opened, nor closed another way. Further parameters: ``mp_order_numbers``, ``max_failures``,
    ``feedamp_conn_id`` and ``seller``, see :class:`.ForEachOrderOperator` and its bases.

    :param state: ``PENDING``, ``AWAITING_SHIPMENT``, ``SHIPPED`` or ``CANCELLED`` (templated).
        ``AWAITING_SHIPMENT`` is for orders that are ``PENDING`` still.
    :param check_fulfillments: Whether to look first at what the seller did (templated). Default True: an
        order gets ``SHIPPED`` only when the seller has shipped or cancelled all of it and shipped some, or
        when the marketplace ships it itself, and ``CANCELLED`` or ``PENDING`` only when nothing is shipped.
    :return: ``set``, ``unchanged``, and the reasons by order number: ``skipped`` and ``failed``.
    """

    template_fields: Sequence[str] = ("state", "check_fulfillments", *ForEachOrderOperator.template_fields)
    outcomes = ("set", "unchanged")

    def __init__(
        self,
        *,
        state: str,
        check_fulfillments: bool | str = True,
        mp_order_numbers: Sequence[str] | XComArg | str,
        max_failures: int | str | None = 0,
        feedamp_conn_id: str = "feedamp_default",
        seller: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            mp_order_numbers=mp_order_numbers,
            max_failures=max_failures,
            feedamp_conn_id=feedamp_conn_id,
            seller=seller,
            **kwargs,
        )
        self.state = state
        self.check_fulfillments = check_fulfillments

    def _load_items(self, hook: FeedAmpHook) -> Mapping[Any, Any]:
        from airflow_provider_feedamp.api.types import MarketplaceState

        flag("check_fulfillments", self.check_fulfillments)
        if self.state not in set(MarketplaceState):
            raise InputError(f"state must be one of {', '.join(MarketplaceState)}, not {self.state!r}.")
        return super()._load_items(hook)

    def _process_one(self, hook: FeedAmpHook, item: Any) -> Outcome:
        orders = hook.client.orders
        order = orders.get(item)
        held = _state(order)
        if held == self.state:
            return "unchanged"
        if held in _CLOSED or (self.state == "AWAITING_SHIPMENT" and held != "PENDING"):
            return Skipped(f"it is {held} now")
        look = flag("check_fulfillments", self.check_fulfillments) and self.state != "AWAITING_SHIPMENT"
        if look and (why := _objection(self.state, order, _Done(orders.fulfillments(item)))):
            return Skipped(why)
        orders.set_state(item, self.state)
        if look and self.state == "CANCELLED" and _Done(orders.fulfillments(item)).shipped:
            return Failed("the seller shipped while it was being cancelled: it is CANCELLED, and on its way")
        return "set"


class FeedAmpCloseOrdersOperator(ForEachOrderOperator):
    """Close the orders that the seller is through with: ``SHIPPED``, or ``CANCELLED`` if nothing was shipped.

    To be run when the marketplace has taken over all fulfilments. Orders that the seller is not through with
    are left open, and closed ones as they are, so the task can run again, and may be given orders that have
    some time to go. Parameters: ``mp_order_numbers``, ``max_failures``, ``feedamp_conn_id`` and ``seller``,
    see :class:`.ForEachOrderOperator` and its bases.

    :return: ``shipped``, ``cancelled``, ``unchanged``, and the reasons by order number: ``skipped`` and
        ``failed``.
    """

    outcomes = ("shipped", "cancelled", "unchanged")

    def _process_one(self, hook: FeedAmpHook, item: Any) -> Outcome:
        orders = hook.client.orders
        order = orders.get(item)
        held = _state(order)
        if held in _CLOSED:
            return "unchanged"
        if held == "PENDING":
            return Skipped("it is PENDING: the seller may not fulfil it yet")
        done = _Done(orders.fulfillments(item))
        if not done.complete and order.get("is_marketplace_fulfilled") is True:
            return Skipped("the marketplace ships it itself: set its state when that is done")
        if not done.complete:
            return Skipped(f"the seller is not through with it ({done.status})")
        if not done.shipped and not done.cancelled:
            return Skipped(_NOTHING_TO_SEE)
        orders.set_state(item, "SHIPPED" if done.shipped else "CANCELLED")
        return "shipped" if done.shipped else "cancelled"


class _Done:
    """What the seller has done with an order; a shipment or a cancellation of the quantity 0 is none."""

    def __init__(self, fulfillments: Mapping[str, Any]) -> None:
        lines = [line for line in fulfillments.get("fulfillments") or () if isinstance(line, Mapping)]

        def some(name: str) -> bool:
            entries = (entry for line in lines for entry in line.get(name) or ())
            return any(not isinstance(entry, Mapping) or entry.get("quantity") != 0 for entry in entries)

        self.status = str(fulfillments.get("status"))
        self.complete = self.status == "COMPLETE"
        self.shipped, self.cancelled = some("shipments"), some("cancellations")


def _objection(state: str, order: Mapping[str, Any], done: _Done) -> str:
    """Return why an order that is open must not have a state, after what the seller did; else nothing."""
    if state != "SHIPPED":
        return "the seller has shipped some of it" if done.shipped else ""
    if order.get("is_marketplace_fulfilled") is True or (done.complete and done.shipped):
        return ""
    if done.complete and done.cancelled:
        return "the seller cancelled all of it: CANCELLED is the word to close it with"
    if done.complete:
        return _NOTHING_TO_SEE
    return f"the seller is not through with it ({done.status})"


def _state(order: Mapping[str, Any]) -> str:
    """Return the marketplace state of an order; an answer without it still has FeedAMP's own status."""
    if order.get("marketplace_state"):
        return str(order["marketplace_state"])
    status = order.get("status")
    return str(status) if status in ("PENDING", "COMPLETE") else "AWAITING_SHIPMENT"
