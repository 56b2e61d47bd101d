"""The page "FeedAMP sellers", from Airflow's menu to FeedAMP's consent page and back."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from playwright.sync_api import expect

from tests.browser.deployment import PASSWORD
from tests.sandbox.caller import Caller

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from tests.browser.conftest import OpenPage, TakePicture
    from tests.browser.deployment import Deployment

PAGE = "/feedamp/"
PHONE = {"width": 390, "height": 844}


def heading(page: Page, text: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text(text)


def test_a_seller_is_authorised_from_airflows_menu_and_forgotten(
    page: Page, airflow: Deployment, feedamp: RunningSandbox, picture: TakePicture
) -> None:
    feedamp.control.connect("northwind")
    Caller(feedamp, "northwind").place("N-100")
    asked: set[str | None] = set()
    errors: list[str] = []
    page.get_by_role("button", name="Admin").click()
    with page.expect_popup() as opened:
        page.get_by_text("FeedAMP sellers").click()
    own = opened.value
    own.on("request", lambda request: asked.add(urlsplit(request.url).netloc))
    own.on(
        "console", lambda message: errors.append(message.location["url"]) if message.type == "error" else None
    )
    heading(own, "FeedAMP sellers")
    assert own.url == f"{airflow.url}{PAGE}"

    own.get_by_label("Another seller").first.fill("Nørthwind & Co")
    own.get_by_label("Another seller").first.press("Enter")
    heading(own, "Authorise seller Nørthwind & Co")
    own.get_by_role("link", name="Continue at FeedAMP").click()
    own.locator("[name=sandbox_seller]").fill("northwind")
    own.get_by_role("button", name="Approve").click()
    heading(own, "Check the account of seller Nørthwind & Co")
    expect(own.locator("main")).to_contain_text("It has order 'N-100'.")
    picture("sellers-question", own.locator("main"))
    own.get_by_role("button", name="Yes, store the tokens").click()
    heading(own, "Seller Nørthwind & Co is authorised")
    own.get_by_role("link", name="All sellers").click()
    row = own.get_by_role("row", name="Nørthwind & Co")
    expect(row).to_contain_text("active")
    expect(row).to_contain_text("0 days old")
    picture("sellers", own.locator("main"))

    row.get_by_role("button", name="Forget").click()
    heading(own, "Forget seller Nørthwind & Co?")
    own.get_by_role("button", name="Remove the tokens").click()
    heading(own, "Seller Nørthwind & Co is forgotten")
    own.get_by_role("link", name="All sellers").click()
    expect(own.get_by_role("row", name="Nørthwind & Co")).to_have_count(0)

    assert asked <= {urlsplit(url).netloc for url in (airflow.url, feedamp.base_url)}
    assert [url for url in errors if not url.startswith(feedamp.base_url.removesuffix("/api/v1"))] == []


def test_it_is_dark_where_the_person_has_it_dark_and_fits_a_phone(
    open_page: OpenPage, picture: TakePicture
) -> None:
    light, dark = (
        open_page("admin", PAGE, color_scheme=scheme, viewport=PHONE) for scheme in ("light", "dark")
    )

    def brightness(page: Page) -> list[int]:
        style = "getComputedStyle(document.body)"
        colours = page.evaluate(
            f"[{style}.backgroundColor, {style}.color].map(each => each.match(/\\d+/g)[0])"
        )
        return [int(each) for each in colours]

    for page in (light, dark):
        heading(page, "FeedAMP sellers")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert brightness(light)[0] > 200 > 100 > brightness(light)[1]
    assert brightness(dark)[0] < 50 < 200 < brightness(dark)[1]
    picture("sellers-phone-dark", dark.locator("main"))


def test_a_viewer_is_told_why_there_is_nothing_to_see(open_page: OpenPage) -> None:
    page = open_page("viewer", PAGE)

    expect(page.locator("main")).to_contain_text("Your role in Airflow may not read connections")


def test_who_is_not_logged_in_comes_to_the_page_by_way_of_the_login(
    open_page: OpenPage, airflow: Deployment
) -> None:
    page = open_page("", PAGE)

    page.locator("[name=username]").fill("admin")
    page.locator("[name=password]").fill(PASSWORD)
    page.locator("[type=submit]").click()

    page.wait_for_url(f"{airflow.url}{PAGE}")
    heading(page, "FeedAMP sellers")


def test_in_airflows_own_frame_it_shows_and_does_nothing(open_page: OpenPage) -> None:
    page = open_page("admin", "/plugin/feedamp-sellers")

    frame = page.frame_locator("iframe[title='FeedAMP sellers']")

    expect(frame.get_by_role("heading", level=1)).to_have_text("FeedAMP sellers")
    expect(frame.locator("main")).to_contain_text("open this page in a tab of its own")
    expect(frame.get_by_role("button", name="Authorise")).to_have_count(0)
