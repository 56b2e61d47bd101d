"""Assets of sellers: their names are stable, whatever the seller is called, and Airflow 3 watches them."""

from __future__ import annotations

import importlib.util
import inspect
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Asset

from airflow_provider_feedamp.assets import feedamp_asset
from airflow_provider_feedamp.exceptions import InputError
from airflow_provider_feedamp.triggers.events import FeedAmpActivityTrigger

WATCHES = importlib.util.find_spec("airflow.sdk") is not None

SELLERS = [
    "acme",
    "a/b",
    "a%2Fb",
    "ü",
    "😀" * 500,
    "😀" * 499 + "!",
    "x" * 500,
    "x" * 400,
    ".",
    "..",
    " acme",
    "acme ",
    "Acme",
    "a?b#c",
    "a@b:c",
    "!",
]


def test_its_uri_names_connection_seller_and_resource() -> None:
    asset = feedamp_asset("A/1 ü", "returns", feedamp_conn_id="my:conn/1")

    assert asset.uri == "feedamp://my%3Aconn%2F1/A%2F1%20%C3%BC/returns"


@pytest.mark.parametrize("seller", SELLERS)
def test_airflow_takes_the_uri_of_any_seller_as_it_is(seller: str) -> None:
    uri = feedamp_asset(seller, "refunds", feedamp_conn_id="c" * 250).uri

    assert uri.startswith("feedamp://")
    assert uri.endswith("/refunds")
    assert uri.isascii()
    assert len(uri) <= 1500
    assert Asset(uri=uri).uri == uri


def test_no_two_sellers_share_an_asset() -> None:
    assert len({feedamp_asset(seller, "refunds").uri for seller in SELLERS}) == len(SELLERS)


@pytest.mark.skipif(not WATCHES, reason="Airflow 2 has no watchers")
def test_its_watcher_asks_for_the_same_seller_and_resource() -> None:
    asset: Any = feedamp_asset("A/1 ü", "returns", feedamp_conn_id="mine")

    [watcher] = asset.watchers
    assert watcher.name == asset.uri
    assert watcher.trigger.serialize()[1] == {
        "resource": "returns",
        "feedamp_conn_id": "mine",
        "seller": "A/1 ü",
    }


def test_a_watcher_says_nothing_that_its_uri_does_not_say() -> None:
    """Airflow takes two watchers with other arguments for two, and each parsed file removes the other's."""
    asset, watcher = (inspect.signature(made).parameters for made in (feedamp_asset, FeedAmpActivityTrigger))

    assert {*asset} == {*watcher} == {"seller", "resource", "feedamp_conn_id"}


def test_airflow_2_watches_nothing() -> None:
    watched: Any = feedamp_asset("acme", "returns")

    assert bool(getattr(watched, "watchers", [])) is WATCHES


@pytest.mark.parametrize(
    ("seller", "resource"),
    [("acme", "orders"), ("acme", ""), ("", "refunds"), (" ", "refunds"), (None, "refunds")],
)
def test_what_cannot_be_an_asset_is_refused(seller: Any, resource: Any) -> None:
    with pytest.raises(InputError, match=r"^(resource is .*: choose one|seller is empty)"):
        feedamp_asset(seller, resource)
