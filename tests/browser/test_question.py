"""A seller authorised inside Airflow: a task asks, the seller agrees, a person answers in the page."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Error, expect

from airflow_provider_feedamp.operators.authorize_seller import PASTED, RIGHT
from tests.browser.conftest import PATIENCE_WITH_TASKS
from tests.browser.deployment import Seen
from tests.leaks import Secrets

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from tests.browser.conftest import TakePicture, Trigger, WaitForTasks
    from tests.browser.deployment import Deployment

DAG_ID = "feedamp_onboard_seller"
SELLER = "globex"
ASKED = {"authorize": "awaiting_input"}


def agree(browser: Browser, consent: str) -> str:
    """Be the seller: agree on FeedAMP's page, and return what the browser's address bar has then."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(consent)
        page.locator("[name=sandbox_seller]").fill(SELLER)
        addresses: list[str] = []
        page.on("request", lambda request: addresses.append(request.url))
        with suppress(Error):  # nothing answers where FeedAMP sends the browser
            page.get_by_role("button", name="Approve").click()
            page.wait_for_url("http://127.0.0.1/**", wait_until="commit")
        return addresses[-1]


def wait_until_asked(page: Page, airflow: Deployment, times: int) -> None:
    """Wait until Airflow knows that the process which has asked is at its end.

    Airflow 3.3.2 fails a task whose answer is there before: "finished with state success, but the task
    instance's state attribute is queued".
    """
    ended = (
        f"Received executor event with state success for task instance TaskInstanceKey(dag_id='{DAG_ID}', "
    )
    for _ in range(2 * PATIENCE_WITH_TASKS):
        log = (airflow.home.path / "scheduler.log").read_text(errors="replace")
        if log.count(f"{ended}task_id='authorize'") >= times:
            return
        assert airflow.home.tasks(DAG_ID)["authorize"].state != "failed"
        page.wait_for_timeout(500)
    pytest.fail(f"the task has not asked {times} times")


def exchanged(feedamp: RunningSandbox) -> int:
    """Return how many codes FeedAMP has taken."""
    return int(feedamp.control.counters()["tokens"].get("authorization_code", {}).get("issued", 0))


def test_a_person_answers_with_the_redirect_url_and_the_seller_is_authorised(
    page: Page,
    airflow: Deployment,
    feedamp: RunningSandbox,
    browser: Browser,
    trigger: Trigger,
    wait_for_tasks: WaitForTasks,
    picture: TakePicture,
) -> None:
    seen = Seen(page)
    before = exchanged(feedamp)
    run = trigger(page, DAG_ID, ASKED, seller=SELLER)
    question = f"{run}/tasks/authorize/required_actions"
    page.goto(question)
    consent = page.get_by_role("link", name="FeedAMP's consent page")
    expect(consent).to_be_visible()
    page.set_viewport_size({"width": 1200, "height": 780})
    picture("onboard-question", page)

    wait_until_asked(page, airflow, 1)
    redirect = agree(browser, consent.get_attribute("href") or "")
    assert "code=" in redirect
    page.locator("[name=element_redirect_url]").fill(redirect)
    page.get_by_role("button", name=PASTED).click()
    wait_until_asked(page, airflow, 2)  # the account is not known, so the task asks again
    assert airflow.home.returned_by_runs(DAG_ID, "question") != []
    page.goto(question)
    page.get_by_role("button", name=RIGHT).click()
    wait_for_tasks(page, DAG_ID, {"authorize": "success", "ready": "success"})
    page.goto(f"{run}/tasks/authorize")
    expect(page.get_by_text(f"Seller '{SELLER}' is authorised until a person withdraws it.")).to_be_visible()

    assert airflow.home.returned(DAG_ID)["authorize"]["seller"] == SELLER
    assert exchanged(feedamp) == before + 1
    secrets = Secrets(feedamp).values()
    assert seen.found(*secrets["access"], *secrets["refresh"], *secrets["client"]) == []
