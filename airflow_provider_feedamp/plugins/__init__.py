"""What this provider adds to Airflow's own pages."""

from __future__ import annotations

#: The page's name in Airflow's menu, and its path behind the API server's address.
NAME, URL_PREFIX = "FeedAMP sellers", "/feedamp"
