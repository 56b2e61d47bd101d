"""The trigger that watches a seller's account, so that DAGs run when there is something to do (Airflow 3)."""

from __future__ import annotations

import logging
import random
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf
from airflow.triggers.base import TriggerEvent

from airflow_provider_feedamp.exceptions import (
    FeedAmpError,
    InputError,
    ReauthorizationRequiredError,
    forget_variables,
)
from airflow_provider_feedamp.triggers.polling import client_for, forget_client, in_thread, pause

try:
    from airflow.triggers.base import BaseEventTrigger
except ImportError:  # Airflow 2 has no watchers, but its manifest names this module
    from airflow.triggers.base import BaseTrigger as BaseEventTrigger  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_provider_feedamp.api.changes import Watermark

    Found = tuple[list[dict[str, Any]], Watermark]

log = logging.getLogger(__name__)

#: The most entries of one event; more come in several events.
MOST_PER_EVENT = 500

# Under this name the asset's state store (Airflow 3.3) keeps the mark: plain text, and open to every task.
_KEPT_AS = "feedamp_watermark"
_LONGEST_PAUSE = 900.0
# Seconds until Airflow has stored the events that were fired: it looks for new ones once a second.
_TAKEN = 5.0


class FeedAmpActivityTrigger(BaseEventTrigger):
    """Fire whenever a seller has done something; the trigger of an asset's watcher.

    Each event names what is new: ``seller``, ``resource`` and ``entries``, a list of identifiers and
    statuses. An event may come twice, after a restart of the triggerer or a failure, and none is missed.
    FeedAMP's errors do not end the watch: they are logged, and it goes on after longer and longer pauses. A
    seller who has to authorise again is logged once, and watched again from the poll after that.

    Airflow takes two watchers of one asset for the same only if their arguments are the same. So these are
    the parts of the asset's URI alone, and the configuration says how often FeedAMP is asked
    (``[feedamp] watch_interval`` and ``watch_look_back``).

    :param resource: What is watched: ``fulfillments``, ``refunds``, ``returns`` or ``authorization``.
    :param feedamp_conn_id: The FeedAMP connection. Default ``feedamp_default``.
    :param seller: The seller who is watched. Default: the connection's.
    """

    def __init__(
        self, resource: str, feedamp_conn_id: str = "feedamp_default", seller: str | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.resource = resource
        self.feedamp_conn_id = feedamp_conn_id
        self.seller = seller
        self._must_authorize = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what makes this trigger anew elsewhere; it holds no secret."""
        names = ("resource", "feedamp_conn_id", "seller")
        path = "airflow_provider_feedamp.triggers.events.FeedAmpActivityTrigger"
        return path, {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll for ever, and fire for what is new."""
        wait = interval = _seconds("watch_interval", 60.0)
        mark = await self._kept()
        # The many watchers of a new triggerer spread so.
        await pause(random.uniform(0, interval))  # noqa: S311 - no secret
        while True:
            try:
                entries, mark = await in_thread(self._key, partial(self._poll, mark))
            except FeedAmpError as error:
                wait = self._wait(error, wait, interval)
                await pause(wait)
                continue
            for start in range(0, len(entries), MOST_PER_EVENT):
                some = entries[start : start + MOST_PER_EVENT]
                event = {"seller": self.seller, "resource": self.resource, "entries": some}
                yield TriggerEvent(event)  # type: ignore[no-untyped-call]
            # A mark that is kept before Airflow has the events would lose them if it ends here.
            taken = min(_TAKEN, interval) if entries else 0.0
            await pause(taken)
            if store := self._store():
                with suppress(ValueError):  # as in _kept
                    await store.aset(_KEPT_AS, mark.to_json())
            wait = interval
            await pause(interval - taken)

    def _poll(self, mark: Watermark) -> Found:
        from airflow_provider_feedamp.api.changes import activity
        from airflow_provider_feedamp.bulk.progress import watch_failing

        tags = {"connection": self.feedamp_conn_id, "seller": self.seller or "", "resource": self.resource}
        failing, now = True, datetime.now(UTC)
        try:
            if self.resource == "authorization":
                found = self._authorization(mark, now)
            else:
                found = activity(client_for(self._key), self.resource, mark, now=now)
            failing = False
        except FeedAmpError as error:
            forget_variables(error)
            raise
        finally:
            watch_failing(failing, **tags)
        if self._must_authorize:
            self._must_authorize = False
            log.info("Seller %r is authorised, and the %s are watched again", self.seller, self.resource)
        return found

    def _authorization(self, mark: Watermark, now: datetime) -> Found:
        """Return one entry when a person has to authorise the seller, and none again until that is done."""
        from airflow_provider_feedamp.api.changes import Watermark, digests
        from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

        try:
            FeedAmpHook(self.feedamp_conn_id, self.seller).get_access_token()
        except ReauthorizationRequiredError as error:
            key, state = digests(self.resource, "required")
            entries = [] if key in mark.seen else [{"message": str(error)}]
            return entries, Watermark(now, {key: state})
        return [], Watermark(now)

    def _wait(self, error: FeedAmpError, wait: float, interval: float) -> float:
        """Log an error of a poll, and return how many seconds to wait for the next one."""
        forget_client(self._key)
        if isinstance(error, ReauthorizationRequiredError):
            if not self._must_authorize:
                log.error("The %s are not watched until a person has acted: %s", self.resource, error)
            self._must_authorize = True
            return interval  # such a poll reads the token store alone, and asks FeedAMP nothing
        wait = max(min(2 * wait, max(_LONGEST_PAUSE, interval)), error.retry_after or 0.0)
        log.warning("Watching %s failed, again in %.0f s: %s", self.resource, wait, error)
        return wait

    async def _kept(self) -> Watermark:
        """Return the mark to begin from: the one that was kept, or one of some time ago."""
        from airflow_provider_feedamp.api.changes import Watermark

        look_back = _seconds("watch_look_back", 3600.0)
        store = self._store()
        try:
            kept = await store.aget(_KEPT_AS) if store else None
            if kept is not None:
                return Watermark.from_json(kept)
        except (InputError, ValueError) as error:  # ValueError: two assets share this trigger
            log.warning("Beginning %.0f s ago: %s", look_back, error)
        return Watermark(datetime.now(UTC) - timedelta(seconds=look_back))

    @property
    def _key(self) -> tuple[str, str | None]:
        return self.feedamp_conn_id, self.seller

    def _store(self) -> Any:
        """Return the state store of the watched asset, or None where there is none: before Airflow 3.3."""
        return getattr(self, "asset_state_store", None)


def _seconds(option: str, default: float) -> float:
    """Return a time of the ``[feedamp]`` configuration; a wrong one ends no watch."""
    value = conf.get("feedamp", option, fallback=None) or default
    with suppress(ValueError):
        if 0 < (seconds := float(value)) < float("inf"):
            return seconds
    log.error("[feedamp] %s must be a number of seconds above 0; until then it is %.0f", option, default)
    return default
