"""The page under an address with a path, behind a proxy that ends https."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugins.conftest import PAGE, api_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.airflow_runs import AirflowHome
    from tests.plugins.conftest import Server

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

PUBLIC = "https://airflow.example.com/team/one"


@pytest.fixture(scope="module")
def proxied(home: AirflowHome) -> Iterator[Server]:
    with api_server(home, PUBLIC) as running:
        yield running


def test_a_seller_is_authorised_there(proxied: Server) -> None:
    admin = proxied.visitor("admin")

    admin.authorised("far", "hooli")

    page = admin.open()
    assert {form.action for form in page.forms} == {"/team/one/feedamp/authorise", f"/team/one{PAGE}"}
    assert page.form("/team/one/feedamp/forget", seller="far")
    assert admin.begun("far").links[-1] == f"/team/one{PAGE}"
    assert [event for event, _, _ in proxied.events("far")].count("feedamp_authorised") == 1


def test_the_login_is_found_there(proxied: Server) -> None:
    nobody = proxied.visitor()

    page = nobody.open()

    location = page.answer.headers["Location"]
    assert location == "/team/one/api/v2/auth/login?next=/team/one/feedamp/"
    login = nobody.open(proxied.url.removesuffix("/team/one") + location)
    assert login.answer.status_code == 307
    assert login.answer.headers["Location"].startswith("/team/one/auth/login?next=")
