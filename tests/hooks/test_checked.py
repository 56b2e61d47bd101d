"""``FeedAmpHook.check()``: each thing that can be wrong is found and named, and nothing is changed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.api.client import Unverified
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
from airflow_provider_feedamp.tokens.records import RecordState, TokenKey, TokenRecord
from tests.operators.support import order, return_

if TYPE_CHECKING:
    from airflow_provider_feedamp.hooks.check import Checked
    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from tests.hooks.conftest import FailingStore, SetConnection

#: One that outlives the process, as far as can be told.
pytestmark = pytest.mark.usefixtures("failing")


@pytest.fixture
def a_return(failing: FailingStore) -> None:
    client = FeedAmpHook().client
    client.orders.place(order("A"))
    client.returns.create("A", "R", return_("R"))


def found(checked: Checked) -> dict[str, tuple[bool | None, str]]:
    return {finding.subject: (finding.ok, finding.text) for finding in checked.findings}


@pytest.mark.usefixtures("a_return")
def test_a_deployment_that_works_is_well_and_stays_as_it_is(
    feedamp: RunningSandbox, failing: FailingStore
) -> None:
    before, calls = dict(failing._records), feedamp.control.counters()

    checked = FeedAmpHook().check()

    assert checked.ok
    assert {subject: ok for subject, (ok, _) in found(checked).items()} == {
        "connection": True,
        "store": True,
        "encryption": None,
        "seller 'hooli'": True,
        "FeedAMP": True,
        "guess returns_by_order": True,
        "guess returns_by_status": True,
        "guess returns_after": True,
        "guess returns_before": True,
    }
    after = feedamp.control.counters()
    changed = {name for name, count in after["calls"].items() if count != calls["calls"].get(name)}
    assert changed == {"list_orders", "list_returns"}
    assert after["token_posts"] == calls["token_posts"]
    assert failing._records == before
    tokens = feedamp.control.access_tokens("hooli") + feedamp.control.refresh_tokens("hooli")
    assert [token for token in tokens if token in str(checked)] == []


@pytest.mark.usefixtures("a_return")
@pytest.mark.parametrize(
    "guess", ["returns_by_order", "returns_by_status", "returns_after", "returns_before"]
)
def test_a_filter_that_feedamp_does_not_know_is_found(feedamp: RunningSandbox, guess: str) -> None:
    wrong_name: dict[str, Any] = {guess: "nonsense"}
    checked = FeedAmpHook(unverified=Unverified(**wrong_name)).check()

    wrong = {subject: text for subject, (ok, text) in found(checked).items() if ok is False}
    assert list(wrong) == [f"guess {guess}"]
    assert "'nonsense'" in wrong[f"guess {guess}"]
    assert not checked.ok


def test_guesses_are_left_open_without_a_return_or_a_token(feedamp: RunningSandbox) -> None:
    assert found(FeedAmpHook().check())["guesses"] == (
        None,
        "No seller has an access token that works now: run a task or `feedamp sellers refresh` first.",
    )
    FeedAmpHook().get_access_token()
    ok, text = found(FeedAmpHook().check())["guesses"]
    assert (ok, "has no return" in text) == (None, True)
    feedamp.control.fault("http_error", on="data", status=500, times=99)
    checked = FeedAmpHook().check()
    assert (found(checked)["FeedAMP"][0], checked.ok) == (False, False)


def test_every_seller_is_named_and_one_who_needs_a_person_is_wrong(
    feedamp: RunningSandbox, failing: FailingStore
) -> None:
    FeedAmpHook().get_access_token()
    url, client_id = f"{feedamp.base_url}/access_token", feedamp.state.settings.client_id
    gone = TokenRecord(
        key=TokenKey(url, client_id, "gone"),
        refresh_token="x",
        state=RecordState.REAUTH_REQUIRED,
        reason="it was refused",
    )
    failing.write(gone, expected=None)

    checked = FeedAmpHook().check()

    assert found(checked)["seller 'gone'"] == (False, "has to be authorised again: it was refused")
    assert found(checked)["seller 'hooli'"][0] is True
    assert not checked.ok


def test_a_seller_who_is_asked_for_and_has_nothing_is_wrong(feedamp: RunningSandbox) -> None:
    FeedAmpHook().get_access_token()

    checked = found(FeedAmpHook(seller="nobody").check())

    assert checked["seller 'nobody'"][0] is False
    assert checked["FeedAMP"] == (True, "FeedAMP accepts the access token of seller 'hooli'.")


def test_a_store_that_takes_nothing_is_wrong(feedamp: RunningSandbox, failing: FailingStore) -> None:
    failing.writes, failing.failures = 0, 1

    assert found(FeedAmpHook().check())["store"] == (
        False,
        "The token store cannot be written: The token store takes nothing now.",
    )


def test_a_store_that_ends_with_the_process_is_wrong(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__FEEDAMP__TOKEN_STORE", "memory")

    ok, text = found(FeedAmpHook().check())["store"]

    assert (ok, "ends with each process" in text) == (False, True)


def test_a_bad_connection_is_a_finding(set_connection: SetConnection) -> None:
    set_connection(json.dumps({"conn_type": "http"}))

    checked = FeedAmpHook().check()

    assert found(checked) == {
        "connection": (
            False,
            "The Airflow connection 'feedamp_default' has type 'http'. Set its type (conn_type) to feedamp.",
        )
    }
