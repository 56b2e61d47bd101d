"""The plugin: a page "FeedAMP sellers" in Airflow's menu, from Airflow 3.1 on.

Every process of Airflow loads plugins, the scheduler and the workers too. So this module imports next to
nothing: the page itself is imported when somebody first opens it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowPlugin

from airflow_provider_feedamp.plugins import NAME, URL_PREFIX

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


async def _page(scope: Scope, receive: Receive, send: Send) -> None:
    from airflow_provider_feedamp.plugins.sellers_page import app

    await app(scope, receive, send)


class FeedAmpPlugin(AirflowPlugin):
    """Adds the page "FeedAMP sellers" to Airflow 3.1 and later, and nothing to earlier ones."""

    name = "feedamp"
    # Airflow 3.0 would serve the page, but has no menu to reach it from; 2.11 has neither.
    fastapi_apps: list[Any] = []  # noqa: RUF012 - that is how Airflow has it
    external_views: list[Any] = []  # noqa: RUF012
    if hasattr(AirflowPlugin, "external_views"):
        fastapi_apps = [{"app": _page, "url_prefix": URL_PREFIX, "name": NAME}]
        external_views = [
            {
                "name": NAME,
                # Relative to the base of Airflow's pages, which is right behind every proxy.
                "href": f"{URL_PREFIX[1:]}/",
                "destination": "nav",
                "category": "admin",
                # No "url_route": Airflow would show the page in a frame that no link can leave, and FeedAMP's
                # consent page must not be shown in a frame. Without it the page opens in a tab of its own.
            }
        ]
