"""What this provider adds to Airflow's own pages."""

from __future__ import annotations
