"""The trigger that all triggers of this provider share: it asks FeedAMP until a condition is met."""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_feedamp.exceptions import FeedAmpError, forget_variables
from airflow_provider_feedamp.triggers.outcome import failed, succeeded, timed_out
from airflow_provider_feedamp.triggers.threads import client_for, forget_client, in_thread, pause

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from airflow_provider_feedamp.api.conditions import Condition

log = logging.getLogger(__name__)

#: Polls in a row that may fail for a reason that passes. The client repeats each call several times itself.
MOST_FAILURES = 5
#: Seconds that a poll may go on behind the deadline.
GRACE = 30.0


class FeedAmpPollingTrigger(BaseTrigger):
    """Ask FeedAMP from time to time whether a condition is met, and resume the task with one event.

    :param condition: The condition's arguments, plain JSON.
    :param feedamp_conn_id: The FeedAMP connection.
    :param seller: The seller. Default: the connection's.
    :param poll_interval: Seconds between two polls.
    :param deadline: When to give up, ISO 8601 in UTC.
    """

    #: Makes the condition out of its arguments.
    condition_class: ClassVar[Callable[..., Condition]]

    def __init__(
        self,
        *,
        condition: Mapping[str, Any],
        deadline: str,
        feedamp_conn_id: str = "feedamp_default",
        seller: str | None = None,
        poll_interval: float = 60.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.condition = dict(condition)
        self.deadline = deadline
        self.feedamp_conn_id = feedamp_conn_id
        self.seller = seller
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and its arguments; there is no secret among them."""
        names = ("condition", "deadline", "feedamp_conn_id", "seller", "poll_interval")
        path = f"{type(self).__module__}.{type(self).__qualname__}"
        return path, {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: the condition is met, the time is up, or something is wrong."""
        yield TriggerEvent(await self._outcome())  # type: ignore[no-untyped-call]

    async def _outcome(self) -> dict[str, Any]:
        condition = type(self).condition_class(**self.condition)
        # The task has asked just before it deferred. And the many triggers of a new triggerer spread so.
        wait = random.uniform(0, self.poll_interval)  # noqa: S311 - no secret
        failures = 0
        while True:
            await pause(max(0.0, min(wait, self._left())))
            wait = self.poll_interval
            try:
                found = await self._poll(condition)
            except FeedAmpError as error:
                failures += 1
                forget_client(self._key)
                if not error.retryable or failures >= MOST_FAILURES:
                    return failed(error)
                log.warning("Poll %d in a row failed, %d may: %s", failures, MOST_FAILURES - 1, error)
                wait = max(wait, error.retry_after or 0.0)
            else:
                failures = 0
                if found is not None:
                    return succeeded(found)
            if self._left() <= 0:
                return timed_out(self.deadline)

    async def _poll(self, condition: Condition) -> list[Any] | None:
        """Ask once; a poll that takes far longer than there is time counts as one that found nothing."""
        try:
            async with asyncio.timeout(max(0.0, self._left()) + GRACE) as limit:
                return await in_thread(self._key, lambda: self._ask(condition))
        except TimeoutError:
            if not limit.expired():
                raise
            return None

    def _ask(self, condition: Condition) -> list[Any] | None:
        try:
            return condition.met(client_for(self._key))
        except FeedAmpError as error:
            forget_variables(error)
            raise

    def _left(self) -> float:
        return (datetime.fromisoformat(self.deadline) - datetime.now(UTC)).total_seconds()

    @property
    def _key(self) -> tuple[str, str | None]:
        return self.feedamp_conn_id, self.seller
