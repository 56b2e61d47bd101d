"""The task that tells a seller what the marketplace cannot process of a fulfilment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_feedamp.operators.each import EachBase

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.providers.common.compat.sdk import XComArg

    from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
    from airflow_provider_feedamp.operators.each import Outcome


class FeedAmpReportOrderErrorsOperator(EachBase):
    """Report fulfilments and cancellations that the marketplace cannot process, one call per order.

    Errors that stand in the order already, unresolved, are not reported again, so the task can run again.

    :param errors: The errors as a list, the output of another task, or the text of a JSON array (templated).
        Each has ``mp_order_number``, ``code`` and ``message``, and may have ``mp_line_number`` and ``debug``
        (a list of objects). None at all is fine.
    :param max_failures: The most orders that may fail with the task still succeeding (templated); None for
        any number. Default 0. The other orders are done in any case.
    :param feedamp_conn_id: The FeedAMP connection (templated). Default ``feedamp_default``.
    :param seller: The seller whose account it is (templated). Default: the connection's.
    :return: How many orders were ``reported`` and ``unchanged``, and the reasons by order number:
        ``skipped`` (none) and ``failed``.
    """

    template_fields: Sequence[str] = ("errors", "max_failures", "feedamp_conn_id", "seller")
    template_fields_renderers: ClassVar[dict[str, str]] = {"errors": "json"}
    things = "orders"
    words = ("reported", "unchanged")

    def __init__(self, *, errors: Sequence[Mapping[str, Any]] | XComArg | str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.errors = errors

    def _items(self, hook: FeedAmpHook) -> Mapping[Any, Any]:
        from airflow_provider_feedamp.operators.given import text
        from airflow_provider_feedamp.operators.reports import grouped

        groups = grouped(self.errors, {"mp_order_number": text}, more=("mp_line_number", "debug"))
        return {key: (*key, errors) for key, errors in groups.items()}

    def _one(self, hook: FeedAmpHook, item: Any) -> Outcome:
        from airflow_provider_feedamp.api.reporting import not_held

        number, errors = item
        orders = hook.client.orders
        missing = not_held(errors, orders.get(number).get("errors"))
        if not missing:
            return "unchanged"
        orders.report_errors(number, missing)
        return "reported"
