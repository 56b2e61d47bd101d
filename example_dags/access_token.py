"""Make sure that each of several sellers has an access token, before other tasks use the order API.

Needs the connection ``feedamp_default``. The connection holds the refresh token of one seller (its extra
``seller`` names it); the others have been authorised with ``FeedAmpHook(seller=...).exchange_code(code)``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_provider_feedamp.operators.access_token import FeedAmpAccessTokenOperator

with DAG(
    dag_id="feedamp_access_token",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["example", "feedamp"],
    params={"seller": Param("hooli", type="string", description="The seller named in the connection")},
) as dag:
    # [START howto_access_token]
    one_seller = FeedAmpAccessTokenOperator(
        task_id="one_seller",
        seller="{{ params.seller }}",
        min_ttl=timedelta(minutes=30),
    )
    # [END howto_access_token]

    # [START howto_access_token_mapped]
    several_sellers = FeedAmpAccessTokenOperator.partial(task_id="several_sellers").expand(
        seller=["hooli", "globex"]
    )
    # [END howto_access_token_mapped]

    one_seller >> several_sellers
