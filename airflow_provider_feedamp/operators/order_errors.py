"""The task that tells a seller what the marketplace cannot process of a fulfilment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_feedamp.operators.base import ReportErrorsBase
from airflow_provider_feedamp.operators.parameters import Check, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook


class FeedAmpReportOrderErrorsOperator(ReportErrorsBase):
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

    things = "orders"
    about: ClassVar[Mapping[str, Check]] = {"mp_order_number": text}
    more = ("mp_line_number", "debug")

    def _held(self, hook: FeedAmpHook, key: tuple[str, ...]) -> Mapping[str, Any]:
        return hook.client.orders.get(*key)

    def _report(self, hook: FeedAmpHook, key: tuple[str, ...], errors: Sequence[Mapping[str, Any]]) -> None:
        hook.client.orders.report_errors(key[0], errors)
