"""The task that tells a seller what the marketplace cannot process of a fulfilment."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from airflow_provider_feedamp.operators.base import Check, ReportErrorsOperator, text

if TYPE_CHECKING:
    from collections.abc import Mapping


class FeedAmpReportOrderErrorsOperator(ReportErrorsOperator):
    """Report fulfilments and cancellations that the marketplace cannot process, one call per order.

    Errors that the order has already, unresolved, are not reported again, so the task can run again. Further
    parameters: ``max_failures``, ``feedamp_conn_id`` and ``seller``, see :class:`.ForEachOperator`.

    :param errors: The errors as a list, the output of another task, or the text of a JSON array (templated).
        Each has ``mp_order_number``, ``code`` and ``message``, and may have ``mp_line_number`` and ``debug``
        (a list of objects). None at all is fine.
    :return: How many orders were ``reported`` and ``unchanged``, and the reasons by order number:
        ``skipped`` (none) and ``failed``.
    """

    noun = "orders"
    key_fields: ClassVar[Mapping[str, Check]] = {"mp_order_number": text}
    optional_fields = ("mp_line_number", "debug")
