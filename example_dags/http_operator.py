"""Call FeedAMP with Airflow's own HttpOperator; FeedAmpAuth brings and renews the token.

Needs the connection ``feedamp_default``, and a connection ``feedamp_http`` of type HTTP whose host is the
base URL and that has no login (an HTTP connection's login would be handed to the authorisation class).
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.http.operators.http import HttpOperator

from airflow_provider_feedamp.hooks.auth import FeedAmpAuth

with DAG(
    dag_id="feedamp_http_operator",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["example", "feedamp"],
) as dag:
    # [START howto_http_operator]
    class HooliAuth(FeedAmpAuth):
        """Authorises as the seller hooli; Airflow makes it without arguments."""

        def __init__(self) -> None:
            super().__init__("feedamp_default", seller="hooli")

    get_orders = HttpOperator(
        task_id="get_orders",
        http_conn_id="feedamp_http",
        auth_type=HooliAuth,
        method="GET",
        endpoint="orders",
        data={"page_size": 10},
        response_filter=lambda response: [order["mp_order_number"] for order in response.json()["orders"]],
    )
    # [END howto_http_operator]
