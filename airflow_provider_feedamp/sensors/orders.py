"""Wait for what a seller does with orders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import conf

from airflow_provider_feedamp.exceptions import InputError
from airflow_provider_feedamp.operators.base import given_instant, given_texts, nothing
from airflow_provider_feedamp.sensors.base import FeedAmpPollingSensor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from airflow.providers.common.compat.sdk import XComArg

    from airflow_provider_feedamp.api.client import FeedAmpClient
    from airflow_provider_feedamp.api.conditions import Condition


class FeedAmpFulfillmentSensor(FeedAmpPollingSensor):
    """Wait until a seller has fulfilled given orders, or fulfils anything at all.

    Fulfilled means that each quantity is shipped or cancelled. Orders that the marketplace has closed, and
    those that it fulfils itself, count as fulfilled. Exactly one of ``mp_order_numbers`` and ``since`` is
    needed. Further parameters: ``feedamp_conn_id``, ``seller`` and ``deferrable``, see
    :class:`.FeedAmpPollingSensor`.

    :param mp_order_numbers: The orders to wait for, all of them: a list, the output of another task, or the
        text of a JSON array (templated). An empty list is done at once.
    :param since: Wait for any order that the seller has shipped or cancelled something of since this instant,
        with a time zone: a datetime or ISO 8601 (templated).
    :param until: ``complete``, or ``started``: one shipment or cancellation of each is enough (templated).
    :return: The numbers of the orders.
    """

    template_fields: Sequence[str] = (
        *("mp_order_numbers", "since", "until"),
        *FeedAmpPollingSensor.template_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"mp_order_numbers": "json"}

    def __init__(
        self,
        *,
        mp_order_numbers: list[str] | XComArg | str | None = None,
        since: datetime | str | None = None,
        until: str = "complete",
        feedamp_conn_id: str = "feedamp_default",
        seller: str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(feedamp_conn_id=feedamp_conn_id, seller=seller, deferrable=deferrable, **kwargs)
        self.mp_order_numbers = mp_order_numbers
        self.since = since
        self.until = until

    def _make_condition(self, client: FeedAmpClient) -> Condition:
        from airflow_provider_feedamp.api.conditions import FulfilledOrders, SellerActivity

        since = given_instant("since", self.since)
        if nothing(self.mp_order_numbers) == (since is None):
            raise InputError(f"Task {self.task_id}: give exactly one of mp_order_numbers and since.")
        if since is not None:
            return SellerActivity(since.isoformat(), self.until)
        return FulfilledOrders(given_texts("mp_order_numbers", self.mp_order_numbers), self.until)
