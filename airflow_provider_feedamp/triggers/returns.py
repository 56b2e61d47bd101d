"""Triggers that wait for returns."""

from __future__ import annotations

from airflow_provider_feedamp.api.conditions import ReturnsInStatus
from airflow_provider_feedamp.triggers.polling import FeedAmpPollingTrigger


class FeedAmpReturnsTrigger(FeedAmpPollingTrigger):
    """Wait until returns reach a status; see :class:`ReturnsInStatus` for the arguments."""

    condition_class = ReturnsInStatus
