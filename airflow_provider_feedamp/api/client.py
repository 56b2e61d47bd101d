"""The FeedAMP client: one attribute per resource, one method per endpoint."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from airflow_provider_feedamp.api.orders import OrdersApi
from airflow_provider_feedamp.api.refunds import RefundsApi
from airflow_provider_feedamp.api.returns import ReturnsApi
from airflow_provider_feedamp.api.unverified import Unverified

if TYPE_CHECKING:
    from airflow_provider_feedamp.api.http import Transport


class FeedAmpClient:
    """The FeedAMP Order Source API of one seller's account; the transport's access token says which.

    :param transport: Sends the calls.
    :param unverified: What FeedAMP does not document, guessed; hand in another to change a guess.
    """

    def __init__(self, transport: Transport, unverified: Unverified | None = None) -> None:
        self._transport = transport
        self._unverified = unverified or Unverified()

    @cached_property
    def orders(self) -> OrdersApi:
        """The orders that the marketplace places, and what the seller does with them."""
        return OrdersApi(self._transport, self._unverified)

    @cached_property
    def refunds(self) -> RefundsApi:
        """The refunds that the seller asks the marketplace to pay."""
        return RefundsApi(self._transport, self._unverified)

    @cached_property
    def returns(self) -> ReturnsApi:
        """The returns that customers ask for, and what the seller does with them."""
        return ReturnsApi(self._transport, self._unverified)
