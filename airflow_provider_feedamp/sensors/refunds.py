"""Wait for refunds that sellers ask the marketplace to pay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import conf

from airflow_provider_feedamp.sensors.polling import FeedAmpPollingSensor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from airflow.providers.common.compat.sdk import XComArg

    from airflow_provider_feedamp.api.client import FeedAmpClient
    from airflow_provider_feedamp.api.conditions import Condition
    from airflow_provider_feedamp.triggers.polling import FeedAmpPollingTrigger


class FeedAmpRefundsSensor(FeedAmpPollingSensor):
    """Wait until there are refunds to process (status ``CREATED``).

    A refund whose errors the seller has resolved is to be processed again, and keeps its date of creation. So
    leave ``created_after`` out, or set it far enough back.

    :param mp_order_numbers: Only refunds of these orders: a list, the output of another task, or the text
        of a JSON array (templated). An empty list is done at once. Default: of any order.
    :param created_after: Only refunds created at or after this instant, with a time zone: a datetime or
        ISO 8601 (templated).
    :param feedamp_conn_id: The FeedAMP connection (templated). Default ``feedamp_default``.
    :param seller: The seller (templated). Default: the connection's.
    :param deferrable: Whether to wait in the triggerer. Default: ``[operators] default_deferrable``.
    :return: ``mp_order_number`` and ``feedamp_refund_id`` of each.
    """

    template_fields: Sequence[str] = ("mp_order_numbers", "created_after", "feedamp_conn_id", "seller")
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

    def make_condition(self, client: FeedAmpClient) -> Condition:
        """Return what is waited for."""
        from airflow_provider_feedamp.api.conditions import RefundsToProcess
        from airflow_provider_feedamp.operators.given import given_instant, given_texts, nothing

        numbers = self.mp_order_numbers
        listed = None if nothing(numbers) else given_texts("mp_order_numbers", numbers)
        after = given_instant("created_after", self.created_after)
        return RefundsToProcess(listed, None if after is None else after.isoformat())

    def trigger_class(self, condition: Condition) -> type[FeedAmpPollingTrigger]:
        """Return the trigger that waits for the same."""
        from airflow_provider_feedamp.triggers.refunds import FeedAmpRefundsTrigger

        return FeedAmpRefundsTrigger
