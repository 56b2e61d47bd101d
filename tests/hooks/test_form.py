"""The connection form: its two descriptions agree, and Airflow shows what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from airflow_provider_feedamp.get_provider_info import get_provider_info
from airflow_provider_feedamp.hooks.connection import FeedAmpConnection
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

AIRFLOW = tuple(int(part) for part in version("apache-airflow").split(".")[:2])
[MANIFEST] = get_provider_info()["connection-types"]
FIELDS: dict[str, dict[str, Any]] = MANIFEST["conn-fields"]
SECRET_FIELDS = {"refresh_token"}

# What Airflow's own form is made of. It looks in a fresh interpreter, because it puts stand-ins for wtforms
# into sys.modules and keeps what it found.
SHOWN_BY_AIRFLOW_3 = """
import json
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
[form] = [each for each in HookMetaService.hook_meta_data() if each.connection_type == "feedamp"]
print("\\n" + json.dumps(form.model_dump(mode="json")))
"""
SHOWN_BY_AIRFLOW_2 = """
import json
from airflow.providers_manager import ProvidersManager
manager = ProvidersManager()
fields = {
    name.removeprefix("extra__feedamp__"): {
        "label": found.field.args[0],
        "description": found.field.kwargs["description"],
        "kind": found.field.field_class.__name__,
    }
    for name, found in manager.connection_form_widgets.items()
    if name.startswith("extra__feedamp__")
}
hook = manager.hooks["feedamp"]
shown = {
    "hook": [hook.connection_type, hook.hook_class_name, hook.hook_name, hook.connection_id_attribute_name],
    "behaviour": manager.field_behaviours["feedamp"],
    "fields": fields,
    "sensitive": [
        name for name in fields if manager.connection_form_widgets[f"extra__feedamp__{name}"].is_sensitive
    ],
}
print("\\n" + json.dumps(shown))
"""


class Field(NamedTuple):
    """What the tests' stand-in for wtforms keeps of a form field."""

    kind: str
    label: str
    description: str


def shown_by(script: str) -> dict[str, Any]:
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False
    )
    assert answer.returncode == 0, answer.stderr
    shown: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return shown


@pytest.fixture
def wtforms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for what Airflow 3 does not bring along; it puts in a stand-in of its own."""
    stub = ModuleType("wtforms")
    for kind in ("StringField", "PasswordField"):
        setattr(
            stub, kind, lambda label, *, description, widget=None, kind=kind: Field(kind, label, description)
        )
    widgets = ModuleType("flask_appbuilder.fieldwidgets")
    widgets.BS3TextFieldWidget = object  # type: ignore[attr-defined]
    for module in (stub, ModuleType("flask_appbuilder"), widgets):
        monkeypatch.setitem(sys.modules, module.__name__, module)


# The two descriptions


@pytest.mark.usefixtures("wtforms")
def test_the_hook_has_the_manifests_fields() -> None:
    assert FeedAmpHook.get_connection_form_widgets() == {
        name: Field(
            "PasswordField" if field["schema"].get("format") == "password" else "StringField",
            field["label"],
            field["description"],
        )
        for name, field in FIELDS.items()
    }


def test_the_hook_has_the_manifests_behaviour() -> None:
    described = MANIFEST["ui-field-behaviour"]

    assert FeedAmpHook.get_ui_field_behaviour() == {
        "hidden_fields": described["hidden-fields"],
        "relabeling": described["relabeling"],
        "placeholders": described["placeholders"],
    }


def test_the_hook_and_the_manifest_have_the_same_names() -> None:
    assert (FeedAmpHook.conn_type, FeedAmpHook.hook_name) == ("feedamp", "FeedAMP")
    assert (MANIFEST["connection-type"], MANIFEST["hook-name"]) == ("feedamp", "FeedAMP")
    assert (FeedAmpHook.conn_name_attr, FeedAmpHook.default_conn_name) == (
        "feedamp_conn_id",
        "feedamp_default",
    )


def test_every_field_of_the_form_is_one_that_the_hook_reads() -> None:
    fixed = {"conn_id", "base_url", "client_id", "client_secret"}

    assert set(FIELDS) == set(FeedAmpConnection.__dataclass_fields__) - fixed


def test_every_field_may_be_left_out_and_only_secrets_are_hidden() -> None:
    assert all("null" in field["schema"]["type"] for field in FIELDS.values())
    hidden = {name for name, field in FIELDS.items() if field["schema"].get("format") == "password"}
    assert hidden == SECRET_FIELDS


def test_every_field_says_first_that_it_is_optional_and_then_what_it_is_without() -> None:
    descriptions = {name: field["description"] for name, field in FIELDS.items()}

    assert [name for name, words in descriptions.items() if not words.startswith("Optional. ")] == []
    assert {name for name, words in descriptions.items() if " Default: " not in words} == SECRET_FIELDS


def test_the_form_offers_what_the_reader_takes() -> None:
    assert {name for name, field in FIELDS.items() if "number" in field["schema"]["type"]} == {
        "timeout",
        "requests_per_second",
        "list_requests_per_second",
    }
    assert {name: field["schema"]["enum"] for name, field in FIELDS.items() if "enum" in field["schema"]} == {
        "request_encoding": ["json", "form"]
    }


def test_placeholders_and_labels_belong_to_fields_that_are_shown() -> None:
    behaviour = MANIFEST["ui-field-behaviour"]
    shown = {"host", "login", "password", *FIELDS}

    assert set(behaviour["relabeling"]) | set(behaviour["placeholders"]) <= shown
    assert not shown & set(behaviour["hidden-fields"])
    assert not (SECRET_FIELDS | {"password"}) & set(behaviour["placeholders"])


# What Airflow makes of them


@pytest.mark.skipif(AIRFLOW >= (3, 0), reason="Airflow 3 has another form")
def test_airflow_2_shows_the_form() -> None:
    shown = shown_by(SHOWN_BY_AIRFLOW_2)

    path = "airflow_provider_feedamp.hooks.feedamp.FeedAmpHook"
    assert shown["hook"] == ["feedamp", path, "FeedAMP", "feedamp_conn_id"]
    assert shown["sensitive"] == sorted(SECRET_FIELDS)
    assert {name: (field["label"], field["description"]) for name, field in shown["fields"].items()} == {
        name: (field["label"], field["description"]) for name, field in FIELDS.items()
    }
    kinds = {name: field["kind"] for name, field in shown["fields"].items()}
    assert {name for name, kind in kinds.items() if kind == "PasswordField"} == SECRET_FIELDS
    behaviour = shown["behaviour"]
    assert {"schema", "port", "extra"} <= set(behaviour["hidden_fields"])
    assert behaviour["relabeling"] == MANIFEST["ui-field-behaviour"]["relabeling"]


@pytest.fixture(scope="module")
def form() -> dict[str, Any]:
    """Return the form as Airflow 3's connection page gets it."""
    return shown_by(SHOWN_BY_AIRFLOW_3)


@pytest.mark.skipif(AIRFLOW < (3, 0), reason="Airflow 2 has another form")
def test_airflow_3_lists_the_connection_type(form: dict[str, Any]) -> None:
    assert form["hook_name"] == "FeedAMP"
    assert form["hook_class_name"] == "airflow_provider_feedamp.hooks.feedamp.FeedAmpHook"


@pytest.mark.skipif(AIRFLOW < (3, 1), reason="shown from Airflow 3.1 on")
def test_airflow_3_shows_the_fields(form: dict[str, Any]) -> None:
    shown = {
        name: (field["schema"]["title"], field["description"], field["schema"].get("format") == "password")
        for name, field in form["extra_fields"].items()
    }

    assert shown == {
        name: (field["label"], field["description"], name in SECRET_FIELDS) for name, field in FIELDS.items()
    }


@pytest.mark.skipif(AIRFLOW < (3, 2), reason="the manifest is read from Airflow 3.2 on")
def test_airflow_3_offers_choices_and_numbers(form: dict[str, Any]) -> None:
    shown = {name: field["schema"] for name, field in form["extra_fields"].items()}

    assert shown == {name: field["schema"] | {"title": field["label"]} for name, field in FIELDS.items()}


@pytest.mark.skipif(AIRFLOW < (3, 1), reason="shown from Airflow 3.1 on")
def test_airflow_3_relabels_and_hides_the_standard_fields(form: dict[str, Any]) -> None:
    standard = form["standard_fields"]

    assert [standard[name]["title"] for name in ("host", "login", "password")] == [
        "Base URL",
        "Client ID",
        "Client Secret",
    ]
    assert all(standard[name]["hidden"] for name in ("url_schema", "port"))
    assert not any(standard[name]["hidden"] for name in ("host", "login", "password"))
