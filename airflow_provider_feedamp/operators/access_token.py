"""The task that an order-import DAG runs before it uses the order API."""

from __future__ import annotations

import logging
import math
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.exceptions import FeedAmpError
from airflow_provider_feedamp.operators.base import FeedAmpOperator, duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

log = logging.getLogger(__name__)


class FeedAmpAccessTokenOperator(FeedAmpOperator):
    """Ensure that a seller's access token is in the shared store, with enough life left.

    Tasks after it find the token there and do not renew it themselves. The token is never returned. Running
    it again is harmless: a token that lives long enough is left as it is. In the last 30 days of the refresh
    token's year each run warns in the log. Further parameters: ``feedamp_conn_id`` and ``seller``, see
    :class:`.FeedAmpOperator`.

    :param min_ttl: The least time that the token must have left, as timedelta or in seconds (templated).
        Default: ten minutes.
    :return: ``seller``, ``expires_at`` (ISO 8601, UTC), ``renewed`` (whether FeedAMP was asked),
        ``generation``.
    """

    template_fields: Sequence[str] = ("min_ttl", *FeedAmpOperator.template_fields)
    ui_color = "#e8f4ec"

    def __init__(
        self,
        *,
        min_ttl: timedelta | float | str = timedelta(minutes=10),
        feedamp_conn_id: str = "feedamp_default",
        seller: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(feedamp_conn_id=feedamp_conn_id, seller=seller, **kwargs)
        self.min_ttl = min_ttl

    def _perform(self, context: Context) -> dict[str, Any]:
        hook = self._hook()
        token = hook.access_token(duration("min_ttl", self.min_ttl))
        until = token.expires_at.to_iso8601_string()
        how = "renewed now" if token.renewed else "it was there already"
        log.info("Seller %r has an access token until %s (%s).", token.seller, until, how)
        self._warn_in_time(hook)
        more = {"renewed": token.renewed, "generation": token.generation}
        return {"seller": token.seller, "expires_at": until, **more}

    def _warn_in_time(self, hook: FeedAmpHook) -> None:
        from airflow.providers.common.compat.sdk import Stats

        from airflow_provider_feedamp.hooks.sellers import WARN_DAYS

        seller = hook.seller
        try:
            left = hook.days_left()
        except FeedAmpError as error:  # The token is there; the next run may see how old it is.
            log.warning("How old the refresh token of seller %r is could not be read: %s", seller, error)
            return
        if left is None:
            return
        days, conn_id = math.floor(left), self.feedamp_conn_id
        with suppress(Exception):  # no metric is worth a token
            Stats.gauge("feedamp.seller.days_left", days, tags={"connection": conn_id, "seller": seller})
        if left <= WARN_DAYS:
            log.warning(
                "The refresh token of seller %r (connection %s) has %d days left of its year. Let the seller "
                "agree again in a browser: run `feedamp sellers authorize` for %r.",
                *(seller, conn_id, days, seller),
            )
