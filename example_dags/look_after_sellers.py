"""Look at all sellers once a day: renew those that no task has renewed for long, and tell who needs a person.

Needs the connection ``feedamp_default``, and sellers who were authorised. Give it a daily schedule.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, BaseNotifier, Param, task

from airflow_provider_feedamp.operators.access_token import FeedAmpAccessTokenOperator


class LogNotifier(BaseNotifier):
    """Writes to the task's log; put any notifier of Airflow's providers in its place (Slack, SMTP, ...)."""

    template_fields = ("text",)

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def notify(self, context: Any) -> None:
        """Write the text."""
        self.log.warning("%s", self.text)


with DAG(
    dag_id="feedamp_look_after_sellers",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    tags=["example", "feedamp"],
    params={
        "sellers": Param([], type="array", description="Sellers; if none is named, all in the token store"),
        "idle_days": Param(30, type="integer", description="A refresh token of so many days is renewed"),
        "within_days": Param(30, type="integer", description="A year that ends so soon is told"),
    },
) as dag:
    # [START howto_look_after_sellers]
    @task
    def idle(**context: Any) -> list[str]:
        """Return the sellers that no task has renewed for long."""
        from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

        params = context["params"]
        rows = FeedAmpHook().seller_states(params["sellers"] or None)
        old = [row for row in rows if (row.refresh_token_age_days or 0) >= params["idle_days"]]
        return [row.seller for row in old if row.state == "active"]

    # An hour is all that an access token lives, so this renews it, and with it the refresh token.
    renew = FeedAmpAccessTokenOperator.partial(
        task_id="renew", map_index_template="{{ task.seller }}"
    ).expand(seller=idle())

    @task(trigger_rule="all_done")
    def tell(**context: Any) -> str:
        """Hand a notifier the text that says who needs a person, why, and what to do."""
        from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

        params = context["params"]
        text = FeedAmpHook().seller_warning(params["within_days"], params["sellers"] or None)
        if text:
            LogNotifier(text)(context)
        return text

    renew >> tell()
    # [END howto_look_after_sellers]
