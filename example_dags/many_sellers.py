"""Do the same for every seller of a marketplace: a mapped task for each, and one that fails stops no other.

Needs the connection ``feedamp_default``, and sellers who were authorised (``feedamp sellers authorize``).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_feedamp.transfers.object_storage import FeedAmpToObjectStorageOperator

with DAG(
    dag_id="feedamp_many_sellers",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["example", "feedamp"],
    params={
        "sellers": Param([], type="array", description="Sellers; if none is named, all in the token store"),
        "folder": Param("feedamp_sellers", type="string", description="Where the files go"),
    },
) as dag:
    # [START howto_many_sellers]
    @task
    def sellers(**context: Any) -> list[dict[str, str]]:
        """Return what differs from seller to seller."""
        from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

        params = context["params"]
        return [
            {"seller": name, "destination": f"{params['folder']}/{quote(name, safe='')}.ndjson.gz"}
            for name in params["sellers"] or FeedAmpHook().sellers()
        ]

    shipped = FeedAmpToObjectStorageOperator.partial(
        task_id="shipped",
        resource="fulfillments",
        fulfillment_status=["PARTIALLY_FULFILLED"],
        max_active_tis_per_dagrun=8,  # sellers at the same time
        map_index_template="{{ task.seller }}",
    ).expand_kwargs(sellers())

    @task(trigger_rule="all_done")
    def summary(written: Any) -> dict[str, int]:
        """Say how many sellers were reached; a seller who has to authorise again is missing."""
        found = list(written or [])
        return {"sellers": len(found), "orders": sum(file["count"] for file in found)}

    summary(shipped.output)
    # [END howto_many_sellers]
