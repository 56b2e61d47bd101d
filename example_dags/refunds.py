"""Pay the refunds that sellers ask for: all in one task, or each in a task of its own.

Needs the connection ``feedamp_default``. It shows both ways, one for each of two sellers; use one of them.
A refund can come twice, so the payment provider has to be given a key by which it knows it again.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task, task_group

from airflow_provider_feedamp.operators.refunds import (
    FeedAmpCompleteRefundsOperator,
    FeedAmpListRefundsOperator,
    FeedAmpProcessRefundsOperator,
)

log = logging.getLogger(__name__)

MOST = Decimal(500)

with DAG(
    dag_id="feedamp_refunds",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,  # two runs at a time would pay the same refunds
    tags=["example", "feedamp"],
    params={
        "seller": Param("hooli", type="string", description="The seller named in the connection"),
        "other_seller": Param("globex", type="string", description="A seller who has been authorised"),
    },
) as dag:
    # [START howto_refunds]
    AMOUNTS = ("item_refund", "item_tax_refund", "shipping_refund", "shipping_tax_refund")

    def pay(refund: dict[str, Any]) -> list[dict[str, str]] | None:
        """Pay one refund, or say why not."""
        lines = refund["merchant_refund_lines"]
        amount = sum(Decimal(str(line.get(name) or 0)) for line in lines for name in AMOUNTS)
        if amount > MOST:
            return [{"code": "EXCESS_ITEM_REFUND", "message": f"{amount} is more than {MOST}"}]
        key = f"feedamp-refund-{refund['feedamp_refund_id']}"
        log.info("Here your payment provider pays %s, once for the key %s", amount, key)
        return None

    FeedAmpProcessRefundsOperator(
        task_id="process_refunds", seller="{{ params.seller }}", process=pay, retries=2
    )
    # [END howto_refunds]

    # [START howto_refunds_mapped]
    refunds = FeedAmpListRefundsOperator(task_id="list_refunds", seller="{{ params.other_seller }}")

    @task(retries=2)
    def pay_one(refund: Any) -> dict[str, Any]:
        """Pay one refund; the task fails if that cannot be done."""
        if errors := pay(refund):
            raise ValueError(errors[0]["code"])
        return {name: refund[name] for name in ("mp_order_number", "feedamp_refund_id")}

    @task_group
    def each_refund(refund: Any) -> None:
        """Pay and complete one refund, whatever becomes of the others."""
        FeedAmpCompleteRefundsOperator(
            task_id="complete", seller="{{ params.other_seller }}", refunds=[pay_one(refund)]
        )

    each_refund.expand(refund=refunds.output)
    # [END howto_refunds_mapped]
