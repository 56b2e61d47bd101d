"""The task that reads what a seller has shipped and cancelled of given orders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_feedamp.operators.base import EachBase, Found

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.providers.common.compat.sdk import XComArg

    from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
    from airflow_provider_feedamp.operators.base import Account, Outcome


class FeedAmpReadFulfillmentsOperator(EachBase):
    """Read what a seller has shipped and cancelled of given orders, for the marketplace to take over.

    Made to stand behind ``FeedAmpFulfillmentSensor``. One call for each order; what the seller has done so
    far is returned, whether that is all of it or not.

    :param mp_order_numbers: The order numbers as a list, the output of another task, or the text of a JSON
        array (templated). None at all is fine.
    :param max_failures: The most failures with which the task succeeds (templated); None for any number.
        Default 0. The other orders are read in any case.
    :param feedamp_conn_id: The FeedAMP connection (templated). Default ``feedamp_default``.
    :param seller: The seller whose account it is (templated). Default: the connection's.
    :return: For each order that could be read ``mp_order_number`` and what FeedAMP says of it: ``status``,
        which is ``COMPLETE`` when all is shipped or cancelled, and ``fulfillments`` by line.
    """

    template_fields: Sequence[str] = ("mp_order_numbers", "max_failures", "feedamp_conn_id", "seller")
    template_fields_renderers: ClassVar[dict[str, str]] = {"mp_order_numbers": "json"}
    things = "orders"
    words = ("read",)

    def __init__(
        self,
        *,
        mp_order_numbers: Sequence[str] | XComArg | str,
        max_failures: int | str | None = 0,
        feedamp_conn_id: str = "feedamp_default",
        seller: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(max_failures=max_failures, feedamp_conn_id=feedamp_conn_id, seller=seller, **kwargs)
        self.mp_order_numbers = mp_order_numbers

    def _items(self, hook: FeedAmpHook) -> Mapping[Any, Any]:
        from airflow_provider_feedamp.operators.parameters import given_texts

        return {number: number for number in given_texts("mp_order_numbers", self.mp_order_numbers)}

    def _one(self, hook: FeedAmpHook, item: Any) -> Outcome:
        return Found({**hook.client.orders.fulfillments(item), "mp_order_number": item})

    def _told(self, account: Account) -> Any:
        return account.found
