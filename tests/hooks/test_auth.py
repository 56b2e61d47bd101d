"""FeedAmpAuth authorises any code that speaks requests, and only towards FeedAMP."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import requests

from airflow_provider_feedamp.exceptions import ConfigurationError, InputError, ReauthorizationRequiredError
from airflow_provider_feedamp.hooks.auth import FeedAmpAuth
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
from airflow_provider_feedamp.sandbox.server import serve
from tests.operators.support import token_posts

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox


def test_making_one_reads_nothing() -> None:
    FeedAmpAuth("no_such_connection", seller="hooli")


def test_it_authorises_a_single_request(feedamp: RunningSandbox) -> None:
    answer = requests.get(f"{feedamp.base_url}/orders", auth=FeedAmpAuth(seller="hooli"), timeout=10)

    assert answer.status_code == 200
    [token] = feedamp.control.access_tokens("hooli")
    assert answer.request.headers["Authorization"] == f"Bearer {token}"


def test_it_authorises_a_session_of_ones_own(feedamp: RunningSandbox) -> None:
    with requests.Session() as session:
        session.auth = FeedAmpAuth()
        statuses = [session.get(f"{feedamp.base_url}/orders", timeout=10).status_code for _ in range(3)]

    assert statuses == [200, 200, 200]
    assert token_posts(feedamp) == 1


def test_it_takes_a_hook_that_exists_already(feedamp: RunningSandbox) -> None:
    globex = FeedAmpHook(seller="globex")
    globex.exchange_code(feedamp.control.authorize("globex"))

    answer = requests.get(f"{feedamp.base_url}/orders", auth=FeedAmpAuth(hook=globex), timeout=10)

    assert answer.ok
    assert feedamp.control.counters()["sellers"]["globex"]["calls"] == {"list_orders": 1}


def test_airflows_http_hook_makes_it_without_arguments() -> None:
    # HttpOperator calls auth_type() when its connection has no login.
    made = partial(FeedAmpAuth, seller="hooli")()

    assert isinstance(made, requests.auth.AuthBase)


def test_a_refused_token_is_renewed_once_and_the_request_arrives(feedamp: RunningSandbox) -> None:
    auth = FeedAmpAuth()
    requests.get(f"{feedamp.base_url}/orders", auth=auth, timeout=10)
    feedamp.control.expire("hooli")

    answer = requests.get(f"{feedamp.base_url}/orders", auth=auth, timeout=10)

    assert answer.status_code == 200
    assert [each.status_code for each in answer.history] == [401]
    assert token_posts(feedamp) == 2


def test_a_second_refusal_is_handed_back(feedamp: RunningSandbox) -> None:
    feedamp.control.fault("http_error", on="data", status=401, times=None)

    answers = [
        requests.get(f"{feedamp.base_url}/orders", auth=FeedAmpAuth(), timeout=10).status_code
        for _ in range(3)
    ]

    assert answers == [401, 401, 401]
    assert token_posts(feedamp) == 2  # the first token, and one renewal for the first refusal


@pytest.mark.parametrize("path", ["/orders", "/api/v1/orders"])
def test_a_request_to_another_host_is_never_sent(feedamp: RunningSandbox, path: str) -> None:
    with serve() as other:
        with pytest.raises(InputError, match="goes elsewhere"):
            requests.get(other.base_url.replace("/api/v1", path), auth=FeedAmpAuth(), timeout=10)

        assert other.control.counters()["calls"] == {}
    assert token_posts(feedamp) == 0


def test_a_bad_connection_is_an_error_when_it_is_used() -> None:
    with pytest.raises(ConfigurationError, match="'no_such_connection'"):
        requests.get("https://feedamp.example/orders", auth=FeedAmpAuth("no_such_connection"), timeout=10)


def test_a_seller_who_must_authorise_is_an_error_and_not_a_request(feedamp: RunningSandbox) -> None:
    with pytest.raises(ReauthorizationRequiredError, match="'globex'"):
        requests.get(f"{feedamp.base_url}/orders", auth=FeedAmpAuth(seller="globex"), timeout=10)

    assert feedamp.control.counters()["calls"] == {}
