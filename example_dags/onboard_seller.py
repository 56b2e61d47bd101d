"""Onboard a seller inside Airflow: a person opens FeedAMP's consent page and pastes where the browser ended.

Needs the connection ``feedamp_default`` and Airflow 3.1 or later, where tasks can ask people. A seller who is
authorised already is left alone.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_feedamp.operators.access_token import FeedAmpAccessTokenOperator
from airflow_provider_feedamp.operators.authorize_seller import FeedAmpAuthorizeSellerOperator

with DAG(
    dag_id="feedamp_onboard_seller",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["example", "feedamp"],
    params={
        "seller": Param("hooli", type="string", description="Your name for the seller's account"),
        "again": Param(False, type="boolean", description="Also if the seller is authorised already"),
    },
) as dag:

    @task.short_circuit
    def is_needed(**context: Any) -> bool:
        """Say whether the seller has to be authorised."""
        from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

        params = context["params"]
        (row,) = FeedAmpHook().seller_states([params["seller"]])
        return bool(params["again"] or row.problem())

    # [START howto_authorize_seller]
    authorize = FeedAmpAuthorizeSellerOperator(
        task_id="authorize",
        seller="{{ params.seller }}",
        response_timeout=timedelta(days=3),
    )
    # [END howto_authorize_seller]

    ready = FeedAmpAccessTokenOperator(task_id="ready", seller="{{ params.seller }}")

    is_needed() >> authorize >> ready
