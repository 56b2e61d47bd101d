"""The sensor that all sensors of this provider share: it waits in a worker, or in the triggerer."""

from __future__ import annotations

import logging
from abc import abstractmethod
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseSensorOperator, PokeReturnValue, conf

from airflow_provider_feedamp.exceptions import FeedAmpError, forget_variables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_feedamp.api.client import FeedAmpClient
    from airflow_provider_feedamp.api.conditions import Condition

log = logging.getLogger(__name__)

#: Airflow ends the wait itself so much later, should no triggerer run that could.
_BACKSTOP = timedelta(minutes=10)


class FeedAmpPollingSensor(BaseSensorOperator):
    """Ask FeedAMP whether a condition is met; if it is not, ask again later, here or in the triggerer.

    ``execution_timeout`` holds while the task is deferred too, if it is shorter than ``timeout``.

    :param feedamp_conn_id: The FeedAMP connection (templated). Default ``feedamp_default``.
    :param seller: The seller (templated). Default: the connection's.
    :param deferrable: Whether to wait in the triggerer. Default: ``[operators] default_deferrable``.
    """

    template_fields: Sequence[str] = ("feedamp_conn_id", "seller")
    ui_color = "#e2ecd9"

    #: Looks in a row that have failed for a reason that passes.
    _failures = 0

    def __init__(
        self,
        *,
        feedamp_conn_id: str = "feedamp_default",
        seller: str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.feedamp_conn_id = feedamp_conn_id
        self.seller = seller
        self.deferrable = deferrable

    def poke(self, context: Context) -> PokeReturnValue:
        """Ask once. Airflow's own loop around this also cares for time-outs and skips."""
        from airflow_provider_feedamp.hooks.feedamp import task_errors

        with task_errors():
            found = self._ask()
            if found is None and self.deferrable:
                self._defer(context)
        return PokeReturnValue(found is not None, found)

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> list[Any]:
        """Return what the trigger has found.

        :raises AirflowSensorTimeout: It was not found in time.
        :raises AirflowTaskTimeout: It was not found within ``execution_timeout``.
        :raises FeedAmpError: What went wrong in the trigger.
        """
        from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowTaskTimeout

        from airflow_provider_feedamp.hooks.feedamp import task_errors
        from airflow_provider_feedamp.triggers.polling import result_of

        try:
            with task_errors():
                return result_of(event)
        except AirflowSensorTimeout as error:
            if self.execution_timeout is None or self.execution_timeout >= timedelta(seconds=self.timeout):
                raise
            raise AirflowTaskTimeout(f"{error} Its execution_timeout is {self.execution_timeout}.") from None

    @abstractmethod
    def _make_condition(self, client: FeedAmpClient) -> Condition:
        """Return what is waited for, out of the rendered parameters."""

    def _ask(self) -> list[Any] | None:
        """Ask once; what passes counts as "not yet", as often in a row as in the triggerer."""
        from airflow_provider_feedamp.triggers.polling import MOST_FAILURES

        try:
            found = self._condition.met(self._client)
        except FeedAmpError as error:
            self._failures += 1
            # Rescheduled, each look is a process of its own, which cannot count: Airflow's retries do.
            counted = self.deferrable or not self.reschedule
            if not (error.retryable and counted and self._failures < MOST_FAILURES):
                raise
            forget_variables(error)
            log.warning("Look %d in a row failed, %d may: %s", self._failures, MOST_FAILURES - 1, error)
            return None
        self._failures = 0
        return found

    def _defer(self, context: Context) -> None:
        from airflow_provider_feedamp.api.conditions import plain
        from airflow_provider_feedamp.triggers.polling import FeedAmpPollingTrigger

        timeout = timedelta(seconds=self.timeout)
        if self.execution_timeout is not None:
            # Airflow 3 lets execution_timeout rest while a task is deferred.
            started = getattr(context.get("ti"), "start_date", None) or datetime.now(UTC)
            left = self.execution_timeout - (datetime.now(UTC) - started)
            timeout = max(timedelta(0), min(timeout, left))
        trigger = FeedAmpPollingTrigger(
            condition=type(self._condition).__name__,
            arguments=plain(self._condition),
            deadline=(datetime.now(UTC) + timeout).isoformat(),
            feedamp_conn_id=self.feedamp_conn_id,
            seller=self.seller,
            poll_interval=self.poke_interval,
        )
        self.defer(trigger=trigger, method_name="execute_complete", timeout=timeout + _BACKSTOP)

    @cached_property
    def _client(self) -> FeedAmpClient:
        from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

        return FeedAmpHook(self.feedamp_conn_id, self.seller).client

    @cached_property
    def _condition(self) -> Condition:
        return self._make_condition(self._client)
