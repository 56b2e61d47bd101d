"""Assets of sellers: their names are stable, Airflow 3 watches them, tasks and lineage know them."""

from __future__ import annotations

import importlib.util
import inspect
import logging
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Asset, AssetAlias

from airflow_provider_feedamp.assets import (
    convert_asset_to_openlineage,
    create_asset,
    dataset_name,
    feedamp_asset,
    operator_lineage,
)
from airflow_provider_feedamp.exceptions import InputError
from airflow_provider_feedamp.operators.base import outlet_events
from airflow_provider_feedamp.operators.orders import FeedAmpPlaceOrdersOperator
from airflow_provider_feedamp.transfers.object_storage import FeedAmpToObjectStorageOperator
from airflow_provider_feedamp.triggers.events import FeedAmpActivityTrigger
from tests.lineage import airflow_outlet_events

WATCHES = importlib.util.find_spec("airflow.sdk") is not None

SELLERS = [
    "hooli",
    "a/b",
    "a%2Fb",
    "ü",
    "😀" * 500,
    "😀" * 499 + "!",
    "x" * 500,
    "x" * 400,
    ".",
    "..",
    " hooli",
    "hooli ",
    "Hooli",
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
    watched: Any = feedamp_asset("hooli", "returns")

    assert bool(getattr(watched, "watchers", [])) is WATCHES


@pytest.mark.parametrize(
    ("seller", "resource"),
    [("hooli", "orders"), ("hooli", ""), ("", "refunds"), (" ", "refunds"), (None, "refunds")],
)
def test_what_cannot_be_an_asset_is_refused(seller: Any, resource: Any) -> None:
    with pytest.raises(InputError, match=r"^(resource is .*: choose one|seller is empty)"):
        feedamp_asset(seller, resource)


# Events of tasks


def test_a_task_adds_to_the_events_of_our_scheme_alone() -> None:
    ours = feedamp_asset("A/1 ü", "refunds"), Asset("feedamp://feedamp_default/exports")
    others = Asset("s3://lake/orders"), AssetAlias("alias"), "no asset"
    context = {"outlet_events": airflow_outlet_events()}

    for event in outlet_events(SimpleNamespace(outlets=[*ours, *others]), context):
        event.extra["count"] = 1

    assert [context["outlet_events"][each].extra for each in ours] == [{"count": 1}] * 2
    assert [context["outlet_events"][each].extra for each in others[:2]] == [{}] * 2


def test_an_outlet_that_airflow_does_not_find_fails_no_task(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = outlet_events(
            SimpleNamespace(outlets=[feedamp_asset("hooli", "refunds")]), {"outlet_events": {}}
        )

    assert found == []
    assert (
        "Nothing is added to the event of the outlet feedamp://feedamp_default/hooli/refunds" in caplog.text
    )


@pytest.mark.parametrize("context", [{}, {"outlet_events": None}])
def test_without_a_context_there_are_no_events(context: dict[str, Any]) -> None:
    assert outlet_events(SimpleNamespace(outlets=[feedamp_asset("hooli", "refunds")]), context) == []


# Lineage


def registered(what: str) -> Any:
    """Return what Airflow has registered for our scheme, as its own lineage asks for it."""
    made: Any
    try:
        from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime as made
    except ImportError:
        from airflow.providers_manager import ProvidersManager as made
    manager: Any = made()
    return getattr(manager, f"asset_{what}", None) or getattr(manager, f"dataset_{what}", {})


def test_airflow_takes_factory_and_converter_of_the_manifest_and_any_uri() -> None:
    assert registered("factories")["feedamp"] is create_asset
    assert registered("to_openlineage_converters")["feedamp"] is convert_asset_to_openlineage
    # Only an asset whose scheme has a handler has a normalised URI, and lineage drops the others.
    for uri in ("feedamp://feedamp_default/hooli/refunds", "feedamp://x", "feedamp://a/b/c?d=e"):
        assert Asset(uri).normalized_uri == Asset(uri).uri


def test_airflows_factory_makes_the_asset_of_a_seller() -> None:
    made = create_asset(seller="hooli", resource="refunds", extra={"one": 1})

    assert (made.uri, made.extra) == (feedamp_asset("hooli", "refunds").uri, {"one": 1})


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/data/a b.ndjson", ("file", "/data/a b.ndjson")),
        ("file:///data/a.ndjson", ("file", "/data/a.ndjson")),
        ("s3://lake@bucket/run 1/a.ndjson", ("s3://bucket", "run 1/a.ndjson")),
        ("s3://lake@bucket/a#1 50%?.ndjson", ("s3://bucket", "a#1 50%?.ndjson")),
        ("s3://key:secret@bucket/a.ndjson", ("s3://bucket", "a.ndjson")),
        ("https://host/a.ndjson?sig=secret", ("https://host", "a.ndjson")),
        (feedamp_asset("A/1 ü", "returns", feedamp_conn_id="my:c@1").uri,
         ("feedamp://my%3Ac%401", "A%2F1%20%C3%BC/returns")),
        ("feedamp://x", ("feedamp://x", "/")),
    ],
)  # fmt: skip
def test_lineage_names_files_and_accounts_without_a_secret(path: str, name: tuple[str, str]) -> None:
    assert dataset_name(path) == name


def test_airflows_lineage_translates_an_asset_of_ours() -> None:
    pytest.importorskip("airflow.providers.openlineage")
    from airflow.providers.common.compat.openlineage.utils.utils import translate_airflow_asset

    found = translate_airflow_asset(feedamp_asset("A/1 ü", "returns"), None)

    assert found is not None
    assert (found.namespace, found.name) == ("feedamp://feedamp_default", "A%2F1%20%C3%BC/returns")


def test_what_a_task_declares_stands_beside_what_it_says_once() -> None:
    pytest.importorskip("airflow.providers.openlineage")
    own, other = Asset("feedamp://feedamp_default/hooli/orders"), feedamp_asset("hooli", "refunds")
    task = SimpleNamespace(inlets=[other], outlets=[own, other, Asset("unknown://x/y"), "no asset"])

    lineage = operator_lineage(task, ["s3://bucket/a.ndjson"], {own.uri: (2, None), "/data/r.ndjson": (1, 9)})

    assert lineage is not None
    assert [(each.namespace, each.name) for each in lineage.inputs] == [
        ("s3://bucket", "a.ndjson"),
        ("feedamp://feedamp_default", "hooli/refunds"),
    ]
    account, rejects, declared = lineage.outputs
    assert [(each.namespace, each.name) for each in (account, rejects, declared)] == [
        ("feedamp://feedamp_default", "hooli/orders"),
        ("file", "/data/r.ndjson"),
        ("feedamp://feedamp_default", "hooli/refunds"),
    ]
    found = [each.outputFacets["outputStatistics"] for each in (account, rejects)]
    assert [(each.rowCount, each.size) for each in found] == [(2, None), (1, 9)]


@pytest.mark.parametrize(
    ("operator", "needed", "written"),
    [
        (FeedAmpPlaceOrdersOperator, {}, ({"/data/a": 1}, {"hooli": 2})),
        (FeedAmpToObjectStorageOperator, {"resource": "orders", "destination": "a"}, ({"/data/a": (1, 9)},)),
    ],
)
def test_airflows_lineage_asks_the_operators_for_it(operator: Any, needed: Any, written: Any) -> None:
    pytest.importorskip("airflow.providers.openlineage")
    from airflow.providers.openlineage.extractors import ExtractorManager
    from airflow.providers.openlineage.extractors.base import DefaultExtractor

    task = operator(task_id="task", **needed)
    task._lineage = ["s3://bucket/a.ndjson"], *written

    manager: Any = ExtractorManager
    assert manager().get_extractor_class(task) is DefaultExtractor
    found = DefaultExtractor(task).extract_on_complete(None)
    assert found is not None
    assert [each.name for each in found.inputs] == ["a.ndjson"]
    assert [each.name for each in found.outputs] == ["/data/a", "hooli/orders"][: len(written)]


def test_without_airflows_provider_for_openlineage_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "airflow.providers.openlineage", None)
    monkeypatch.delitem(sys.modules, "airflow.providers.openlineage.extractors", raising=False)

    assert operator_lineage(SimpleNamespace(inlets=[], outlets=[]), [], {}) is None
