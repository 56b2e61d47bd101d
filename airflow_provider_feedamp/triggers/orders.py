"""Triggers that wait for what a seller does with orders."""

from __future__ import annotations

from airflow_provider_feedamp.api.conditions import FulfilledOrders, SellerActivity
from airflow_provider_feedamp.triggers.polling import FeedAmpPollingTrigger


class FeedAmpFulfillmentTrigger(FeedAmpPollingTrigger):
    """Wait until given orders are fulfilled; see :class:`FulfilledOrders` for the arguments."""

    condition_class = FulfilledOrders


class FeedAmpSellerActivityTrigger(FeedAmpPollingTrigger):
    """Wait until a seller ships or cancels something; see :class:`SellerActivity` for the arguments."""

    condition_class = SellerActivity
