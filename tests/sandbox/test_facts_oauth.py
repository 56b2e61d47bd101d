"""The sandbox against what is known of FeedAMP's authentication (A2), fact by fact.

Each test quotes its fact: section, [D] documented, [I] inferred or [U] unknown and chosen, page's key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

if TYPE_CHECKING:
    from tests.sandbox.caller import Caller

ASKED = {
    "response_type": "code",
    "client_id": "demo-client",
    "state": "s 1",
    "redirect_url": "https://shop.example/back?x=1",
}
YEAR = 365 * 24 * 3600


def browse(caller: Caller, **changes: Any) -> Any:
    query = {name: value for name, value in {**ASKED, **changes}.items() if value is not None}
    return caller.call("GET", "/authorize", params=query, allow_redirects=False)


def landed(caller: Caller, **changes: Any) -> dict[str, list[str]]:
    return parse_qs(urlsplit(browse(caller, **changes).headers["Location"]).query)


@pytest.mark.parametrize("name", list(ASKED))
def test_a_parameter_of_the_browser_step_is_required(hooli: Caller, name: str) -> None:
    """A2.1 [D] oa: all four are required."""
    assert browse(hooli, **{name: None}).status_code == 400


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"response_type": "token"}, id="A2.1 [D] oa: only the code flow"),
        pytest.param(
            {"redirect_url": None, "redirect_uri": "https://shop.example/"}, id="A2.1 [D] oa: redirect_url"
        ),
        pytest.param({"redirect_url": "/back"}, id="A2.1 [D] oa: fully qualified"),
        pytest.param({"client_id": "other"}, id="A2.1 [D] oa: issued at onboarding"),
        pytest.param({"state": ""}, id="A2.1 [D] oa: a state to echo"),
    ],
)
def test_the_browser_step_is_refused(hooli: Caller, changes: dict[str, Any]) -> None:
    assert browse(hooli, **changes).status_code == 400


def test_the_seller_lands_on_the_redirect_url_with_code_and_state(hooli: Caller) -> None:
    """A2.1 [D] ba: ``{redirect_url}?code=…&state=…``; oa: the state is echoed."""
    hooli.control.change(approval="auto")
    found = landed(hooli)
    assert (found["state"], found["x"], len(found["code"])) == (["s 1"], ["1"], 1)


def test_a_seller_who_denies_lands_with_an_error(hooli: Caller) -> None:
    """A2.1 [U]: error redirects; chosen: OAuth's own."""
    hooli.control.change(approval="deny")
    assert landed(hooli) == {"x": ["1"], "error": ["access_denied"], "state": ["s 1"]}


def test_a_code_is_single_use(hooli: Caller) -> None:
    """A2.1, A2.2 [D] at, ba."""
    fields = {"grant_type": "authorization_code", "code": hooli.control.authorize("hooli")}
    assert [hooli.refresh(refresh_token=None, **fields).status_code for _ in range(2)] == [200, 401]


def test_a_code_lives_ten_minutes(hooli: Caller) -> None:
    """A2.1 [U]: its life; chosen: 600 seconds, setting code_ttl."""
    fields = {"grant_type": "authorization_code", "code": hooli.control.authorize("hooli")}
    hooli.control.advance(600)
    assert hooli.refresh(refresh_token=None, **fields).status_code == 401


@pytest.mark.parametrize("name", ["grant_type", "client_id", "client_secret", "refresh_token"])
def test_a_field_of_the_token_request_is_required(hooli: Caller, name: str) -> None:
    """A2.2 [D] at: four of them with ``refresh_token``; that 400 answers is [I]."""
    assert hooli.refresh(**{name: None}).status_code == 400


def test_the_code_is_required_with_its_grant(hooli: Caller) -> None:
    """A2.2 [D] at."""
    assert hooli.refresh(grant_type="authorization_code", refresh_token=None).status_code == 400


@pytest.mark.parametrize("grant", ["authorization_code", "refresh_token"])
def test_either_grant_answers_with_both_tokens(hooli: Caller, grant: str) -> None:
    """A2.2 [D] at, ba: access_token, token_type Bearer, refresh_token, expires_in 3600."""
    code = hooli.control.authorize("hooli") if grant == "authorization_code" else None
    answer = hooli.refresh(grant_type=grant, code=code).json()
    assert sorted(answer) == ["access_token", "expires_in", "refresh_token", "token_type"]
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 3600)
    assert answer["refresh_token"] in hooli.control.refresh_tokens("hooli")


@pytest.mark.parametrize(
    "changes", [{"client_id": "x"}, {"client_secret": "x"}, {"refresh_token": "x"}], ids=str
)
def test_a_wrong_credential_is_401(hooli: Caller, changes: dict[str, Any]) -> None:
    """A2.2 [D] at: 401 is the only error listed."""
    assert hooli.refresh(**changes).status_code == 401


@pytest.mark.parametrize(("seconds", "status"), [(3599, 200), (3600, 401)])
def test_an_access_token_lives_an_hour(hooli: Caller, seconds: int, status: int) -> None:
    """A2.2 [D] ba."""
    hooli.control.advance(seconds - 5 if status == 200 else seconds)
    assert hooli.find().status_code == status


@pytest.mark.parametrize(("seconds", "status"), [(YEAR - 60, 200), (YEAR, 401)])
def test_a_refresh_token_lives_a_year(hooli: Caller, seconds: int, status: int) -> None:
    """A2.2 [D] ba."""
    hooli.control.advance(seconds)
    assert hooli.refresh().status_code == status


@pytest.mark.parametrize(
    ("rotation", "again"),
    [("static", 200), ("rotate", 401), ("revoke_family", 401), ("grace", 200)],
)
def test_whether_a_refresh_token_ends_with_its_use_is_a_switch(
    hooli: Caller, rotation: str, again: int
) -> None:
    """A2.2 [U]: rotation."""
    hooli.control.change(rotation=rotation)
    assert [hooli.refresh().status_code, hooli.refresh().status_code] == [200, again]


@pytest.mark.parametrize(("revoke", "status"), [(False, 200), (True, 401)])
def test_whether_a_new_access_token_ends_the_old_one_is_a_switch(
    hooli: Caller, revoke: bool, status: int
) -> None:
    """A2.2 [U]; chosen: it does not."""
    hooli.control.change(revoke_old_access_token=revoke)
    hooli.refresh()
    assert hooli.find().status_code == status


@pytest.mark.parametrize("kind", ["data", "json"])
def test_the_token_request_may_be_a_form_or_json(hooli: Caller, kind: str) -> None:
    """A2.3 [D] ba form, at JSON; both are read."""
    answer = hooli.call("POST", "/access_token", **{kind: hooli.token_fields()})
    assert answer.status_code == 200


def test_a_bearer_on_the_token_call_is_ignored(hooli: Caller) -> None:
    """A2.3 [I]: the examples show one that a first exchange cannot have."""
    headers = {"Authorization": "Bearer nonsense"}
    assert hooli.call("POST", "/access_token", json=hooli.token_fields(), headers=headers).status_code == 200
