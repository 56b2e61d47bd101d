"""The browser step (A2.1) and the token endpoint (A2.2, A2.3) as a marketplace meets them."""

from __future__ import annotations

from html import unescape
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from tests.sandbox.caller import Caller

CALLBACK = "https://market.example/callback?shop=1"


def authorize(sandbox: RunningSandbox, **changes: Any) -> requests.Response:
    query = {
        "response_type": "code",
        "client_id": "demo-client",
        "state": "s&1 ü",
        "redirect_url": CALLBACK,
        **changes,
    }
    return requests.get(sandbox.base_url + "/authorize", params=query, allow_redirects=False, timeout=30)


def landed(response: requests.Response) -> dict[str, list[str]]:
    assert response.status_code == 302
    target = urlsplit(response.headers["Location"])
    assert f"{target.scheme}://{target.netloc}{target.path}" == "https://market.example/callback"
    return parse_qs(target.query)


def test_the_seller_sees_a_page_and_a_click_brings_the_code_and_the_state(hooli: Caller) -> None:
    page = authorize(hooli.sandbox)
    assert page.headers["Content-Type"].startswith("text/html")
    hidden = {
        name: unescape(value)
        for name, value in (
            part.split('" value="')
            for part in (each.split('">')[0] for each in page.text.split('type="hidden" name="')[1:])
        )
    }
    form = {**hidden, "sandbox_seller": "globex", "decision": "approve"}
    answer = landed(
        requests.post(hooli.sandbox.base_url + "/authorize", data=form, allow_redirects=False, timeout=30)
    )
    assert (answer["state"], answer["shop"]) == (["s&1 ü"], ["1"])
    token = hooli.refresh(grant_type="authorization_code", code=answer["code"][0]).json()["access_token"]
    assert token in hooli.control.access_tokens("globex")


def test_the_page_chooses_nobody_and_a_click_without_a_seller_is_refused(sandbox: RunningSandbox) -> None:
    assert 'name="sandbox_seller" list="sellers" autocomplete="off" required>' in authorize(sandbox).text
    assert 'value="hooli">' in authorize(sandbox, sandbox_seller="hooli").text.partition("<datalist")[2]
    assert 'value="hooli"' not in authorize(sandbox, sandbox_seller="hooli").text.partition("<datalist")[0]
    form = {"response_type": "code", "client_id": "demo-client", "state": "s", "redirect_url": CALLBACK}
    for seller in ({}, {"sandbox_seller": ""}, {"sandbox_seller": "nobody"}):
        data = {**form, **seller, "decision": "approve"}
        answer = requests.post(sandbox.base_url + "/authorize", data, allow_redirects=False, timeout=30)
        assert (answer.status_code, answer.json()[0]["code"]) == (400, "INVALID_QUERY_PARAM")


def test_the_page_escapes_what_the_marketplace_sent(sandbox: RunningSandbox) -> None:
    assert "<script>" not in authorize(sandbox, state='"><script>', sandbox_seller="<script>").text


def test_an_automatic_approval_redirects_at_once_for_the_named_seller(hooli: Caller) -> None:
    hooli.control.change(approval="auto")
    code = landed(authorize(hooli.sandbox, sandbox_seller="globex"))["code"][0]
    hooli.refresh(grant_type="authorization_code", code=code)
    assert len(hooli.control.access_tokens("globex")) == 1


@pytest.mark.parametrize(
    ("encoding", "json_status", "form_status"),
    [("both", 200, 200), ("json", 200, 400), ("form", 400, 200)],
)
def test_the_token_endpoint_reads_the_encodings_it_is_told_to(
    hooli: Caller, encoding: str, json_status: int, form_status: int
) -> None:
    hooli.control.change(token_encoding=encoding, rotation="static")
    fields = hooli.token_fields()
    assert hooli.call("POST", "/access_token", json=fields).status_code == json_status
    assert hooli.call("POST", "/access_token", data=fields).status_code == form_status


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client"),
        ({"client_id": "someone"}, 401, "invalid_client"),
        ({"client_secret": "\ud800"}, 401, "invalid_client"),
        ({"refresh_token": "wrong"}, 401, "invalid_grant"),
        ({"grant_type": "authorization_code", "code": "wrong"}, 401, "invalid_grant"),
        ({"grant_type": None}, 400, "invalid_request"),
        ({"client_id": None}, 400, "invalid_request"),
        ({"refresh_token": None}, 400, "invalid_request"),
        ({"refresh_token": 5}, 400, "invalid_request"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
    ],
)
def test_a_token_call_that_is_wrong_says_how(
    hooli: Caller, changes: dict[str, Any], status: int, error: str
) -> None:
    answer = hooli.refresh(**changes)
    assert (answer.status_code, answer.json()["error"]) == (status, error)


@pytest.mark.parametrize("body", ["[]", "{", "null"])
def test_a_token_body_that_is_no_object_is_refused(hooli: Caller, body: str) -> None:
    answer = hooli.call("POST", "/access_token", data=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


def test_a_bad_client_does_not_spend_the_refresh_token(hooli: Caller) -> None:
    assert hooli.refresh(client_secret="wrong").status_code == 401
    assert hooli.refresh().status_code == 200


def test_the_status_and_the_body_of_a_token_refusal_can_be_chosen(hooli: Caller) -> None:
    hooli.control.change(token_error_status=400, token_error_body="list")
    answer = hooli.refresh(refresh_token="wrong")
    assert answer.status_code == 400
    assert answer.json() == [{"code": "invalid_grant", "message": "unknown refresh token"}]


def test_a_seller_added_later_has_an_account_of_its_own(hooli: Caller) -> None:
    token = hooli.control.connect("ünï/corp")
    access = hooli.refresh(refresh_token=token).json()["access_token"]
    hooli.place("600A")
    answer = hooli.call("GET", "/orders", headers={"Authorization": f"bearer {access}"})
    assert answer.json()["orders"] == []
    assert hooli.control.access_tokens("ünï/corp") == [access]
