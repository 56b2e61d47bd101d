"""Tasks that may be retried once: one works, one is refused for good, one is asked to come back later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_feedamp.operators.access_token import FeedAmpAccessTokenOperator

with DAG(
    dag_id="feedamp_retries",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args={"retries": 1, "retry_delay": timedelta(0)},
) as dag:
    FeedAmpAccessTokenOperator(task_id="works", seller="hooli")
    FeedAmpAccessTokenOperator(task_id="must_authorise_again", feedamp_conn_id="feedamp_revoked")
    FeedAmpAccessTokenOperator(task_id="token_endpoint_is_down", feedamp_conn_id="feedamp_down")
