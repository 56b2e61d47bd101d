"""Create returns, wait until the seller has entered the amounts, pay them, and mark the returns as complete.

Needs the connection ``feedamp_default``. Trigger it with the returns; without any, it has nothing to do.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_feedamp.operators.returns import (
    FeedAmpCompleteReturnsOperator,
    FeedAmpCreateReturnsOperator,
    FeedAmpReadReturnRefundsOperator,
)
from airflow_provider_feedamp.sensors.returns import FeedAmpReturnsSensor

log = logging.getLogger(__name__)

with DAG(
    dag_id="feedamp_returns",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["example", "feedamp"],
    params={
        "seller": Param("hooli", type="string", description="The seller named in the connection"),
        "returns": Param(
            [],
            type="array",
            description="Each with mp_order_number, mp_return_number and return_lines",
        ),
    },
) as dag:
    # [START howto_returns]
    create = FeedAmpCreateReturnsOperator(
        task_id="create_returns",
        seller="{{ params.seller }}",
        returns="{{ params.returns | tojson }}",
    )

    refunded = FeedAmpReturnsSensor(
        task_id="wait_for_amounts",
        seller="{{ params.seller }}",
        returns="{{ params.returns | tojson }}",
        status="REFUNDED",
        poke_interval=timedelta(minutes=15),
        timeout=timedelta(days=14),
    )

    amounts = FeedAmpReadReturnRefundsOperator(
        task_id="read_amounts",
        seller="{{ params.seller }}",
        returns="{{ params.returns | tojson }}",
    )

    AMOUNTS = ("principal_refund_amount", "shipping_refund_amount")

    @task(retries=2)
    def pay(returns: Any) -> list[dict[str, str]]:
        """Pay what the seller has entered for each return that is not paid yet."""
        open_ones = [each for each in returns if each["status"] == "REFUNDED" and not each["errors"]]
        for each in open_ones:
            lines = each["merchant_refund_lines"]
            amount = sum(Decimal(str(line.get(name) or 0)) for line in lines for name in AMOUNTS)
            key = f"feedamp-return-{each['mp_order_number']}-{each['mp_return_number']}"
            log.info("Here your payment provider pays %s, once for the key %s", amount, key)
        return [{name: each[name] for name in ("mp_order_number", "mp_return_number")} for each in open_ones]

    complete = FeedAmpCompleteReturnsOperator(
        task_id="complete_returns", seller="{{ params.seller }}", returns=pay(amounts.output)
    )

    create >> refunded >> amounts >> complete
    # [END howto_returns]
