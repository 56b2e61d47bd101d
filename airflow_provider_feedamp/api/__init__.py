"""The FeedAMP Order Source API over HTTP: requests, answers and their meaning. Knows nothing of Airflow."""

from __future__ import annotations
