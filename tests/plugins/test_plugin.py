"""The plugin, as every process of every Airflow loads it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import pytest

from airflow_provider_feedamp.get_provider_info import get_provider_info
from airflow_provider_feedamp.plugins.sellers import FeedAmpPlugin
from tests.house import PROJECT

OURS = "airflow_provider_feedamp"
CLASS = f"{OURS}.plugins.sellers.FeedAmpPlugin"
HAS_PAGE = tuple(map(int, version("apache-airflow").split(".")[:2])) >= (3, 1)
# What any process of Airflow does at its start, and what that has brought with it.
LOADING = """
import json, logging, sys
records = []
handler = logging.Handler(logging.WARNING)
handler.emit = lambda record: records.append(record.getMessage())
logging.getLogger("airflow").addHandler(handler)
from airflow import plugins_manager, settings
settings.LAZY_LOAD_PROVIDERS = "manifest" not in sys.argv
before = set(sys.modules)
plugins_manager.ensure_plugins_loaded()
new = sorted(set(sys.modules) - before)
found = getattr(plugins_manager, "plugins", None)
if found is None:
    found, errors = plugins_manager._get_plugins()
else:
    errors = plugins_manager.import_errors
(ours,) = [each for each in found if each.name == "feedamp"]
views = [list(getattr(ours, name, [])) for name in ("external_views", "fastapi_apps")]
kind = ours if isinstance(ours, type) else type(ours)
added = [name for name in vars(kind) if not name.startswith("_")]
print("\\n" + json.dumps({
    "records": records, "errors": errors, "ours": [name for name in new if "feedamp" in name],
    "views": [len(each) for each in views], "added": added, "new": new,
}))
"""


def loaded(*how: str) -> dict[str, Any]:
    """Load the plugins in a process of its own, and return what came of it."""
    command = [sys.executable, "-P", "-c", LOADING, *how]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


def test_the_manifest_and_the_entry_point_name_the_same_plugin() -> None:
    # Airflow loads what the manifest names only when providers are not discovered lazily, which is not its
    # default: then the entry point does it.
    (entry,) = get_provider_info()["plugins"]
    points = PROJECT["project"]["entry-points"]["airflow.plugins"]

    assert entry == {"name": FeedAmpPlugin.name, "plugin-class": CLASS}
    assert points == {"feedamp": ":".join(CLASS.rsplit(".", 1))}


@pytest.mark.processes
@pytest.mark.parametrize("how", ["entry point", "manifest"])
def test_the_plugin_loads_without_an_error_and_brings_next_to_nothing(how: str) -> None:
    found = loaded(how)

    # With both ways at once the newer Airflows say that the second one adds nothing.
    twice = {"Plugin 'feedamp' already registered, skipping"} if how == "manifest" else set()
    assert {each for each in (*found["records"], *found["errors"].values()) if "feedamp" in each} <= twice
    assert {each for name, each in found["errors"].items() if "feedamp" in f"{name} {each}".lower()} <= twice
    # Newer Airflows read the manifests when they are imported.
    assert set(found["ours"]) - {f"{OURS}.get_provider_info", OURS} == {
        f"{OURS}.plugins",
        f"{OURS}.plugins.sellers",
    }
    assert found["views"] == ([1, 1] if HAS_PAGE else [0, 0])
    assert set(found["added"]) <= {"name", "source", "fastapi_apps", "external_views"}


def test_the_menu_leads_to_the_page_in_a_tab_of_its_own() -> None:
    views = FeedAmpPlugin.external_views

    assert len(views) == HAS_PAGE
    for view in views:
        assert view["href"] == "feedamp/"
        assert "url_route" not in view
