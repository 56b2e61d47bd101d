"""Tests that run a whole Airflow."""

from __future__ import annotations
