"""What waits in Airflow's triggerer, in place of a task that would hold a worker."""

from __future__ import annotations
