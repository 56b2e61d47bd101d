"""A DAG run in Airflow's pages: triggered with the button, its logs read, no token in what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.sync_api import expect

from airflow_provider_feedamp.sandbox.__main__ import write_orders
from tests.browser.deployment import Seen
from tests.leaks import Secrets

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from tests.browser.conftest import TakePicture, Trigger
    from tests.browser.deployment import Deployment

ORDERS = 20
#: Something that the log of each task says.
LOGS = {
    "access_token": "Seller 'hooli' has an access token until",
    "place_orders": f"placed {ORDERS} (inserted {ORDERS}, updated 0)",
    "read_back": "Done. Returned value was",
}


def test_an_order_import_is_triggered_and_its_logs_show_what_happened_and_no_token(
    page: Page, airflow: Deployment, feedamp: RunningSandbox, trigger: Trigger, picture: TakePicture
) -> None:
    write_orders(airflow.home.path / "orders.ndjson", ORDERS)
    seen = Seen(page)

    run = trigger(page, "feedamp_order_import", dict.fromkeys(LOGS, "success"))
    for task, words in LOGS.items():
        page.goto(f"{run}/tasks/{task}")
        expect(page.get_by_text(words)).to_be_visible()
        if task == "place_orders":
            page.set_viewport_size({"width": 1200, "height": 580})
            picture("order-import", page)

    assert len(feedamp.control.orders("hooli")) == ORDERS
    assert [url for url, body in seen.bodies if Secrets(feedamp).found_in(body)] == []
    assert seen.found(*LOGS.values()) != []
