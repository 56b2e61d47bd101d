"""The task that an order-import DAG runs before it uses the order API."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context


class FeedAmpAccessTokenOperator(BaseOperator):
    """Make sure that a seller's access token is in the shared store, with enough life left.

    Tasks after it find the token there and do not renew it themselves. The token is never returned. Running
    it again is harmless: a token that lives long enough is left as it is.

    :param feedamp_conn_id: (templated) The Airflow connection, type ``feedamp``.
    :param seller: (templated) Your name for the seller's account. Default: the connection's extra ``seller``.
        Maps: ``.partial(task_id=...).expand(seller=[...])``.
    :param min_ttl: (templated) The least time that the token must have left, as timedelta or in seconds.
        Default: ten minutes.
    :return: ``seller``, ``expires_at`` (ISO 8601, UTC), ``renewed`` (whether FeedAMP was asked),
        ``generation``.
    """

    template_fields: Sequence[str] = ("feedamp_conn_id", "seller", "min_ttl")
    ui_color = "#e8f4ec"

    def __init__(
        self,
        *,
        feedamp_conn_id: str = "feedamp_default",
        seller: str | None = None,
        min_ttl: timedelta | float | str = timedelta(minutes=10),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.feedamp_conn_id = feedamp_conn_id
        self.seller = seller
        self.min_ttl = min_ttl

    def execute(self, context: Context) -> dict[str, Any]:
        """Obtain or renew the token if need be."""
        from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

        token = FeedAmpHook(self.feedamp_conn_id, self.seller).access_token(_duration(self.min_ttl))
        self.log.info(
            "Seller %r has an access token until %s (%s).",
            token.seller,
            token.expires_at.to_iso8601_string(),
            "renewed now" if token.renewed else "it was there already",
        )
        return {
            "seller": token.seller,
            "expires_at": token.expires_at.to_iso8601_string(),
            "renewed": token.renewed,
            "generation": token.generation,
        }


def _duration(value: timedelta | float | str) -> timedelta:
    from airflow_provider_feedamp.exceptions import InputError
    from airflow_provider_feedamp.hooks.feedamp import task_errors

    if isinstance(value, timedelta):
        duration = value
    else:
        try:
            duration = timedelta(seconds=float(value))
        except (TypeError, ValueError, OverflowError):
            duration = timedelta(seconds=-1)
    with task_errors():
        if duration < timedelta(0):
            raise InputError(f"min_ttl is {value!r}: give a timedelta, or seconds of 0 or more.")
    return duration
