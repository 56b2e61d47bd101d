"""Who may see what of Airflow's pages, as the other tests of this folder take for granted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.sync_api import expect

if TYPE_CHECKING:
    from tests.browser.conftest import OpenPage


def test_an_administrator_sees_the_connection_and_a_viewer_does_not(open_page: OpenPage) -> None:
    for user, sees in (("admin", True), ("viewer", False)):
        page = open_page(user, "/connections")

        expect(page.get_by_test_id("nav-home-link")).to_be_visible()
        if sees:
            expect(page.get_by_text("feedamp_default")).to_be_visible()
        else:
            expect(page.get_by_test_id("error-alert")).to_contain_text("403 Forbidden")
            assert "feedamp_default" not in page.content()
