"""The task that reads what a seller has shipped and cancelled of given orders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.operators.base import ForEachOrderOperator

if TYPE_CHECKING:
    from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
    from airflow_provider_feedamp.operators.base import Outcome


class FeedAmpReadFulfillmentsOperator(ForEachOrderOperator):
    """Read what a seller has shipped and cancelled of given orders, for the marketplace to take over.

    Made to follow ``FeedAmpFulfillmentSensor``. One call for each order; what the seller has done so far is
    returned, whether that is all of it or not. Parameters: ``mp_order_numbers``, ``max_failures``,
    ``feedamp_conn_id`` and ``seller``, see :class:`.ForEachOrderOperator` and its bases.

    :return: For each order that could be read ``mp_order_number`` and what FeedAMP says of it: ``status``,
        which is ``COMPLETE`` when all is shipped or cancelled, and ``fulfillments`` by line.
    """

    outcomes = ("read",)

    def _process_one(self, hook: FeedAmpHook, item: Any) -> Outcome:
        return {**hook.client.orders.fulfillments(item), "mp_order_number": item}
