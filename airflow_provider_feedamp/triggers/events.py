"""The trigger that watches a seller's account, so that DAGs run when there is something to do (Airflow 3)."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import TriggerEvent

from airflow_provider_feedamp.exceptions import FeedAmpError, InputError, forget_variables
from airflow_provider_feedamp.triggers.threads import client_for, forget_client, in_thread, pause

try:
    from airflow.triggers.base import BaseEventTrigger
except ImportError:  # Airflow 2 has no watchers, but its manifest names this module
    from airflow.triggers.base import BaseTrigger as BaseEventTrigger  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from airflow_provider_feedamp.api.watermark import Watermark

log = logging.getLogger(__name__)

#: The most entries of one event; more are told in several events.
MOST_PER_EVENT = 500

# Under this name the asset's state store (Airflow 3.3) keeps the mark: plain text, and open to every task.
_KEPT_AS = "feedamp_watermark"
_LONGEST_PAUSE = 900.0


class FeedAmpActivityTrigger(BaseEventTrigger):
    """Fire whenever a seller has done something; the trigger of an asset's watcher.

    Each event names what is new: ``seller``, ``resource`` and ``entries``, a list of identifiers and
    statuses. An event may come twice, after a restart of the triggerer or a failure, and none is missed.
    FeedAMP's errors do not end the watch: they are logged, and it goes on after longer and longer pauses.

    :param resource: What is watched: ``fulfillments``, ``refunds`` or ``returns``.
    :param feedamp_conn_id: The FeedAMP connection. Default ``feedamp_default``.
    :param seller: The seller who is watched. Default: the connection's.
    :param poll_interval: Seconds between two polls. Default 60.
    :param look_back: How many seconds back the first poll of fulfilments reaches when no mark is kept.
        Default: an hour.
    """

    def __init__(
        self,
        resource: str,
        feedamp_conn_id: str = "feedamp_default",
        seller: str | None = None,
        poll_interval: float = 60.0,
        look_back: float = 3600.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.resource = resource
        self.feedamp_conn_id = feedamp_conn_id
        self.seller = seller
        self.poll_interval = poll_interval
        self.look_back = look_back

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what makes this trigger anew elsewhere; it holds no secret."""
        return (
            "airflow_provider_feedamp.triggers.events.FeedAmpActivityTrigger",
            {
                "resource": self.resource,
                "feedamp_conn_id": self.feedamp_conn_id,
                "seller": self.seller,
                "poll_interval": self.poll_interval,
                "look_back": self.look_back,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll for ever, and fire for what is new."""
        mark = await self._kept()
        wait = self.poll_interval
        while True:
            entries: list[dict[str, Any]] = []
            try:
                entries, mark = await self._poll(mark)
                wait = self.poll_interval
            except FeedAmpError as error:
                forget_client(self._key)
                wait = min(2 * wait, max(_LONGEST_PAUSE, self.poll_interval))
                wait = max(wait, error.retry_after or 0.0)
                log.warning("Watching %s failed, again in %.0f s: %s", self.resource, wait, error)
            for some in _portions(entries):
                event = {"seller": self.seller, "resource": self.resource, "entries": some}
                yield TriggerEvent(event)  # type: ignore[no-untyped-call]
            await pause(wait)
            # Airflow has the events by now. A mark that is kept before would lose them if it ends here.
            await self._keep(mark)

    async def _poll(self, mark: Watermark) -> tuple[list[dict[str, Any]], Watermark]:
        return await in_thread(self._key, lambda: self._ask(mark))

    def _ask(self, mark: Watermark) -> tuple[list[dict[str, Any]], Watermark]:
        from airflow_provider_feedamp.api.activity import activity

        try:
            return activity(client_for(self._key), self.resource, mark, now=datetime.now(UTC))
        except FeedAmpError as error:
            forget_variables(error)
            raise

    async def _kept(self) -> Watermark:
        """Return the mark to begin from: the one that was kept, or one of some time ago."""
        from airflow_provider_feedamp.api.watermark import Watermark

        store = self._store()
        try:
            kept = await store.aget(_KEPT_AS) if store else None
            if kept is not None:
                return Watermark.from_json(kept)
        except (InputError, ValueError) as error:  # ValueError: two assets share this trigger
            log.warning("Beginning %.0f s ago: %s", self.look_back, error)
        return Watermark(datetime.now(UTC) - timedelta(seconds=self.look_back))

    async def _keep(self, mark: Watermark) -> None:
        store = self._store()
        if store:
            with suppress(ValueError):
                await store.aset(_KEPT_AS, mark.to_json())

    @property
    def _key(self) -> tuple[str, str | None]:
        return self.feedamp_conn_id, self.seller

    def _store(self) -> Any:
        """Return the state store of the watched asset, or None where there is none: before Airflow 3.3."""
        return getattr(self, "asset_state_store", None)


def _portions(entries: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(entries), MOST_PER_EVENT):
        yield entries[start : start + MOST_PER_EVENT]
