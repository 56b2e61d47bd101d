"""Triggers that wait for refunds."""

from __future__ import annotations

from airflow_provider_feedamp.api.conditions import RefundsToProcess
from airflow_provider_feedamp.triggers.polling import FeedAmpPollingTrigger


class FeedAmpRefundsTrigger(FeedAmpPollingTrigger):
    """Wait until there are refunds to process; see :class:`RefundsToProcess` for the arguments."""

    condition_class = RefundsToProcess
