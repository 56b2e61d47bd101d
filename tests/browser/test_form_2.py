"""The connection form of Airflow 2.11, as a person fills it in, saves it and opens it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.sync_api import expect

from airflow_provider_feedamp.get_provider_info import get_provider_info
from tests.browser.deployment import Seen

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

    from tests.browser.deployment import Deployment

SECRETS = {"password": "the-client-secret", "refresh_token": "the-first-refresh-token"}
[MANIFEST] = get_provider_info()["connection-types"]


def extra(page: Page, name: str) -> Locator:
    return page.locator(f"[name=extra__feedamp__{name}]")


def save(page: Page, told: str) -> None:
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text(told)).to_be_visible()


def test_a_connection_is_filled_in_saved_opened_and_saved_again_and_its_secrets_stay(
    old_airflow: Deployment, browser: Browser
) -> None:
    page = browser.new_page(base_url=old_airflow.url)
    page.goto("/connection/add")
    page.locator("#conn_id").fill("feedamp_eu")
    page.locator("#select2-conn_type-container").click()
    page.get_by_role("option", name="FeedAMP", exact=True).click()
    for label in MANIFEST["ui-field-behaviour"]["relabeling"].values():
        expect(page.get_by_text(label, exact=True)).to_be_visible()
    for hidden in ("schema", "port", "extra"):
        expect(page.locator(f"#{hidden}")).to_be_hidden()
    box = page.locator("#host").bounding_box()
    for name, field in MANIFEST["conn-fields"].items():
        expect(page.get_by_text(field["description"], exact=True)).to_be_visible()
        found = extra(page, name).bounding_box()
        assert box is not None
        assert found is not None
        assert (found["x"], found["width"], found["height"]) == (box["x"], box["width"], box["height"]), name
    page.locator("#login").fill("your-client-id")
    page.locator("#password").fill(SECRETS["password"])
    extra(page, "refresh_token").fill(SECRETS["refresh_token"])
    extra(page, "seller").fill("hooli")
    extra(page, "timeout").fill("12")
    save(page, "Added Row")

    stored = old_airflow.connection("feedamp_eu")
    assert (stored["conn_type"], stored["login"], stored["password"]) == (
        "feedamp",
        "your-client-id",
        SECRETS["password"],
    )
    assert stored["extra"] == {
        "refresh_token": SECRETS["refresh_token"],
        "seller": "hooli",
        "timeout": "12",
    }

    seen = Seen(page)
    page.goto("/connection/list/")
    page.locator("a[href*='/connection/edit/']").click()
    expect(page.locator("#login")).to_have_value("your-client-id")
    page.locator("#login").fill("another-client-id")
    extra(page, "seller").fill("globex")
    save(page, "Changed Row")

    assert seen.found(*SECRETS.values()) == []
    again = old_airflow.connection("feedamp_eu")
    assert (again["login"], again["password"]) == ("another-client-id", SECRETS["password"])
    assert again["extra"] == stored["extra"] | {"seller": "globex"}
    page.close()
