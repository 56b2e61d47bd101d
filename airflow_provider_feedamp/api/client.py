"""The FeedAMP client: one attribute per resource, one method per endpoint."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from airflow_provider_feedamp.api.orders import OrdersApi

if TYPE_CHECKING:
    from airflow_provider_feedamp.api.transport import Transport


class FeedAmpClient:
    """The FeedAMP Order Source API of one seller's account; the transport's access token says which.

    :param transport: Sends the calls.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @cached_property
    def orders(self) -> OrdersApi:
        """The orders that the marketplace places, and what the seller does with them."""
        return OrdersApi(self._transport)
