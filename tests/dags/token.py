"""One task that obtains the token of one seller."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_feedamp.operators.access_token import FeedAmpAccessTokenOperator

with DAG(
    dag_id="feedamp_token", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False
) as dag:
    FeedAmpAccessTokenOperator(task_id="token", seller="hooli")
