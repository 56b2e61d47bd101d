"""Authorises any code that speaks ``requests``: your own, and Airflow's HttpOperator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_feedamp.api.session import BearerAuth
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook, HookTokens

if TYPE_CHECKING:
    from requests import PreparedRequest


class FeedAmpAuth(BearerAuth):
    """Puts a seller's bearer token on requests to FeedAMP, and renews it when FeedAMP refuses it.

    ``requests.get(url, auth=FeedAmpAuth(seller="hooli"))``. For ``HttpOperator`` give a subclass that
    names the seller as ``auth_type``, and an HTTP connection that has the base URL and no login.
    Nothing is read before the first request, so it may be made while a DAG file is parsed.

    :param feedamp_conn_id: The Airflow connection, type ``feedamp``.
    :param seller: Your name for the seller's account. Default: the connection's extra ``seller``.
    :param hook: A hook that exists already, in place of both.
    """

    def __init__(
        self,
        feedamp_conn_id: str = FeedAmpHook.default_conn_name,
        seller: str | None = None,
        *,
        hook: FeedAmpHook | None = None,
    ) -> None:
        self._hook = hook or FeedAmpHook(feedamp_conn_id, seller)
        self._bound = False

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        """Add the bearer to a request.

        :raises InputError: if it goes to another host than the connection's; nothing is sent.
        :raises TokenError: if there is no token to be had.
        """
        if not self._bound:
            super().__init__(HookTokens(self._hook), self._hook.config.base_url)
            self._bound = True
        return super().__call__(r)
