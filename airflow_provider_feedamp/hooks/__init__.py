"""From an Airflow connection to a client that is authorised for one seller."""

from __future__ import annotations
