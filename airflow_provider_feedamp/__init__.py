"""Airflow provider for the Feedonomics FeedAMP Order Source API."""

from __future__ import annotations

__version__ = "0.1.0"
