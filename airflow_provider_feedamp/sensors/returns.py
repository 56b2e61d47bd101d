"""Wait for what a seller does with customers' returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import conf

from airflow_provider_feedamp.operators.base import flag, given_objects, text
from airflow_provider_feedamp.sensors.base import FeedAmpPollingSensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import XComArg

    from airflow_provider_feedamp.api.client import FeedAmpClient
    from airflow_provider_feedamp.api.conditions import Condition


class FeedAmpReturnsSensor(FeedAmpPollingSensor):
    """Wait until given returns reach a status, ``REFUNDED`` for example: the seller has entered the amounts.

    A return that is further than the status has reached it. The seller has to act by the return's
    ``respond_date``: when that day is over everywhere on earth, the task fails for good. Further parameters:
    ``feedamp_conn_id``, ``seller`` and ``deferrable``, see :class:`.FeedAmpPollingSensor`.

    :param returns: The returns to wait for, all of them, each with ``mp_order_number`` and
        ``mp_return_number``: a list, the output of another task, or the text of a JSON array (templated). An
        empty list is done at once.
    :param status: ``AUTHORIZED``, ``REFUNDED`` or ``COMPLETED`` (templated).
    :param respond_date_is_deadline: Whether to fail when a return's ``respond_date`` is over (templated).
        Default True.
    :return: ``mp_order_number``, ``mp_return_number``, ``status`` and ``errors`` of each: the codes of errors
        that the marketplace has reported and the seller has not resolved.
    """

    template_fields: Sequence[str] = (
        *("returns", "status", "respond_date_is_deadline"),
        *FeedAmpPollingSensor.template_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"returns": "json"}

    def __init__(
        self,
        *,
        returns: list[dict[str, str]] | XComArg | str,
        status: str = "REFUNDED",
        respond_date_is_deadline: bool | str = True,
        feedamp_conn_id: str = "feedamp_default",
        seller: str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(feedamp_conn_id=feedamp_conn_id, seller=seller, deferrable=deferrable, **kwargs)
        self.returns = returns
        self.status = status
        self.respond_date_is_deadline = respond_date_is_deadline

    def _make_condition(self, client: FeedAmpClient) -> Condition:
        from airflow_provider_feedamp.api.conditions import ReturnsInStatus

        deadline = flag("respond_date_is_deadline", self.respond_date_is_deadline)
        names = ("mp_order_number", "mp_return_number")
        given = given_objects("returns", self.returns, dict.fromkeys(names, text))
        condition = ReturnsInStatus([{name: each[name] for name in names} for each in given], self.status)
        return condition.dated(client) if deadline else condition
