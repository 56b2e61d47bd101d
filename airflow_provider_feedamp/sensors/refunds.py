"""Wait for refunds that sellers ask the marketplace to pay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import conf

from airflow_provider_feedamp.operators.base import given_filters
from airflow_provider_feedamp.sensors.base import FeedAmpPollingSensor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from airflow.providers.common.compat.sdk import XComArg

    from airflow_provider_feedamp.api.client import FeedAmpClient
    from airflow_provider_feedamp.api.conditions import Condition


class FeedAmpRefundsSensor(FeedAmpPollingSensor):
    """Wait until there are refunds to process (status ``CREATED``).

    A refund whose errors the seller has resolved is to be processed again, and keeps its date of creation. So
    leave ``created_after`` out, or set it far enough back. Further parameters: ``feedamp_conn_id``,
    ``seller`` and ``deferrable``, see :class:`.FeedAmpPollingSensor`.

    :param mp_order_numbers: Only refunds of these orders: a list, the output of another task, or the text
        of a JSON array (templated). An empty list is done at once. Default: of any order.
    :param created_after: Only refunds created at or after this instant, with a time zone: a datetime or
        ISO 8601 (templated).
    :return: ``mp_order_number`` and ``feedamp_refund_id`` of each.
    """

    template_fields: Sequence[str] = (
        *("mp_order_numbers", "created_after"),
        *FeedAmpPollingSensor.template_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"mp_order_numbers": "json"}

    def __init__(
        self,
        *,
        mp_order_numbers: list[str] | XComArg | str | None = None,
        created_after: datetime | str | None = None,
        feedamp_conn_id: str = "feedamp_default",
        seller: str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(feedamp_conn_id=feedamp_conn_id, seller=seller, deferrable=deferrable, **kwargs)
        self.mp_order_numbers = mp_order_numbers
        self.created_after = created_after

    def _make_condition(self, client: FeedAmpClient) -> Condition:
        from airflow_provider_feedamp.api.conditions import RefundsToProcess

        given = given_filters(self, ("mp_order_numbers",), ("created_after",))
        after = given["created_after"]
        return RefundsToProcess(given["mp_order_numbers"], None if after is None else after.isoformat())
