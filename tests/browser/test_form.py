"""The connection form of the newest Airflow, as a person fills it in, saves it and opens it again."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from playwright.sync_api import expect

from airflow_provider_feedamp.get_provider_info import get_provider_info
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
from tests.browser.deployment import Seen

if TYPE_CHECKING:
    import pytest
    from playwright.sync_api import Locator, Page

    from airflow_provider_feedamp.hooks.connection import FeedAmpConnection
    from tests.browser.conftest import TakePicture
    from tests.browser.deployment import Deployment

CONN_ID = "feedamp_eu"
SECRETS = {"password": "the-client-secret", "refresh_token": "the-first-refresh-token"}
[MANIFEST] = get_provider_info()["connection-types"]


def opened(page: Page, section: str) -> Locator:
    """Return the form that is open, with a section of it unfolded."""
    form = page.get_by_role("dialog")
    button = form.get_by_role("button", name=section, exact=True)
    expect(button).to_be_visible()
    if button.get_attribute("aria-expanded") != "true":
        button.click()
    return form


def extra(form: Locator, name: str) -> Locator:
    return form.locator(f"[name=element_{name}]")


def choose(page: Page, form: Locator, encoding: str) -> None:
    form.locator("#element_request_encoding").click()
    page.get_by_role("option", name=encoding, exact=True).click()


def edit(page: Page, section: str, conn_id: str = CONN_ID) -> Locator:
    """Open a stored connection in the form."""
    page.goto("/connections")
    page.get_by_role("row", name=conn_id).get_by_role("button", name="Edit Connection").click()
    return opened(page, section)


def save(page: Page, form: Locator) -> None:
    form.get_by_role("button", name="Save").click()
    expect(form).to_be_hidden()


def read(stored: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> FeedAmpConnection:
    """Return what the provider reads of a connection."""
    monkeypatch.setenv("AIRFLOW_CONN_FEEDAMP_EU", json.dumps(stored))
    return FeedAmpHook(CONN_ID).config


def test_a_connection_is_filled_in_saved_opened_and_saved_again_and_its_secrets_stay(
    page: Page, airflow: Deployment, picture: TakePicture, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.goto("/connections")
    page.get_by_role("button", name="Add Connection").click()
    form = page.get_by_role("dialog")
    form.locator("[name=connection_id]").fill(CONN_ID)
    form.get_by_role("combobox").click()
    page.get_by_role("option", name="FeedAMP", exact=True).click()
    opened(page, "Standard Fields")
    for label in MANIFEST["ui-field-behaviour"]["relabeling"].values():
        expect(form.get_by_text(label, exact=True)).to_be_visible()
    for hidden in ("schema", "port"):
        expect(form.locator(f"[name={hidden}]")).to_have_count(0)
    form.locator("[name=login]").fill("your-client-id")
    form.locator("[name=password]").fill(SECRETS["password"])
    picture("connection-form", form)
    opened(page, "Extra Fields")
    for field in MANIFEST["conn-fields"].values():
        expect(form.get_by_text(field["label"], exact=True)).to_be_visible()
        expect(form.get_by_text(field["description"], exact=True)).to_be_visible()
    expect(extra(form, "refresh_token")).to_have_attribute("type", "password")
    extra(form, "refresh_token").fill(SECRETS["refresh_token"])
    extra(form, "seller").fill("hooli")
    page.set_viewport_size({"width": 1200, "height": 1300})
    picture("connection-form-extra", form)
    choose(page, form, "form")
    extra(form, "timeout").fill("1500")
    extra(form, "requests_per_second").fill("0.5")
    extra(form, "list_requests_per_second").fill("-3")
    extra(form, "seller").click()  # a number below the least one becomes the least when the field is left
    save(page, form)

    stored = airflow.connection(CONN_ID)
    assert (stored["conn_type"], stored["login"], stored["password"]) == (
        "feedamp",
        "your-client-id",
        SECRETS["password"],
    )
    assert stored["extra"] == {
        "refresh_token": SECRETS["refresh_token"],
        "seller": "hooli",
        "request_encoding": "form",
        "timeout": 1500,
        "requests_per_second": 0.5,
        "list_requests_per_second": 0,
    }
    config = read(stored, monkeypatch)
    assert (config.refresh_token, config.request_encoding) == (SECRETS["refresh_token"], "form")
    assert (config.timeout, config.requests_per_second, config.list_requests_per_second) == (1500, 0.5, 0)

    seen = Seen(page)
    form = edit(page, "Standard Fields")
    assert form.locator("[name=password]").input_value() == "***"
    form.locator("[name=login]").fill("another-client-id")
    opened(page, "Extra Fields")
    assert extra(form, "refresh_token").input_value() == "***"
    assert [extra(form, name).input_value() for name in ("seller", "request_encoding", "timeout")] == [
        "hooli",
        "form",
        "1500",
    ]
    extra(form, "seller").fill("globex")
    save(page, form)
    edit(page, "Extra Fields JSON")

    assert seen.found(*SECRETS.values()) == []
    again = airflow.connection(CONN_ID)
    assert (again["login"], again["password"]) == ("another-client-id", SECRETS["password"])
    assert again["extra"] == stored["extra"] | {"seller": "globex"}


def test_texts_of_an_older_form_are_shown_and_what_is_emptied_has_its_default_again(
    page: Page, airflow: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As Airflow 2.11 stores what its form has.
    older = {"refresh_token": "a-token", "seller": "hooli", "timeout": "12", "request_encoding": "form"}
    names = {"connection_id": "feedamp_old", "conn_type": "feedamp", "login": "client", "password": "secret"}
    page.request.post("/api/v2/connections", data={**names, "extra": json.dumps(older)})

    form = edit(page, "Extra Fields", "feedamp_old")
    expect(extra(form, "timeout")).to_have_value("12")
    expect(extra(form, "request_encoding")).to_have_value("form")
    extra(form, "seller").fill("globex")
    save(page, form)
    assert airflow.connection("feedamp_old")["extra"] == older | {"seller": "globex"}

    form = edit(page, "Extra Fields", "feedamp_old")
    for name in ("refresh_token", "timeout"):
        extra(form, name).fill("")
    form.locator("#element_request_encoding").get_by_role("combobox").press("Backspace")
    save(page, form)

    config = read(airflow.connection("feedamp_old"), monkeypatch)
    assert (config.refresh_token, config.timeout, config.request_encoding) == (None, None, "json")
    assert config.seller == "globex"


def test_the_page_of_providers_links_to_feedamp(page: Page) -> None:
    page.goto("/providers")

    row = page.get_by_role("row", name="airflow-provider-feedamp")
    expect(row.get_by_role("link", name="https://feedonomics.com/")).to_be_visible()
    assert row.get_by_role("cell").last.inner_text().endswith("FeedAMP https://feedonomics.com/")


def test_where_the_test_button_is_broken_the_api_tests_the_stored_connection(page: Page) -> None:
    asked = {"connection_id": "feedamp_default", "conn_type": "feedamp"}
    answer = page.request.post("/api/v2/connections/test", data=asked).json()
    assert answer["status"], answer

    page.goto("/connections")
    page.get_by_role("row", name="feedamp_default").get_by_role("button", name="Test Connection").click()
    broken = version("apache-airflow") in ("3.3.1", "3.3.2")
    expect(page.get_by_text("Bad Request" if broken else answer["message"])).to_be_visible()
