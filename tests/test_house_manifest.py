"""The manifest tells Airflow what is here: it is plain, complete, and agrees with pyproject and the files."""

from __future__ import annotations

import ast
import importlib
import json
from importlib.metadata import distribution, version
from typing import Any

import pytest
from airflow.providers_manager import ProvidersManager

import airflow_provider_feedamp
from airflow_provider_feedamp.get_provider_info import get_provider_info
from tests.house import PACKAGE, PROJECT, ROOT

NAME = PROJECT["project"]["name"]
# A module is listed under a role when it defines a public class whose name ends like this.
ROLES: dict[str, tuple[str, ...]] = {
    "hooks": ("Hook", "Auth"),
    "operators": ("Operator",),
    "sensors": ("Sensor",),
    "triggers": ("Trigger",),
    "transfers": ("Operator",),
}


@pytest.fixture
def manifest() -> dict[str, Any]:
    return get_provider_info()


def modules_with(role: str) -> set[str]:
    """Return the modules of a room that define a public class of its role."""
    return {
        f"airflow_provider_feedamp.{role}.{path.stem}"
        for path in (PACKAGE / role).glob("[!_]*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
        and node.name.endswith(ROLES[role])
        and not node.name.startswith("_")
    }


def test_the_manifest_is_plain_data(manifest: dict[str, Any]) -> None:
    assert type(manifest) is dict
    assert json.loads(json.dumps(manifest)) == manifest


def test_name_and_version_agree_with_the_project(manifest: dict[str, Any]) -> None:
    assert manifest["package-name"] == NAME
    # Airflow takes the version from the installed distribution; a second truth would have to agree with it.
    assert manifest.get("versions", [version(NAME)])[0] == airflow_provider_feedamp.__version__


@pytest.mark.parametrize("role", ROLES)
def test_the_module_lists_are_the_files_on_disk(manifest: dict[str, Any], role: str) -> None:
    # A transfer has an entry for each module, with two ends.
    listed = [
        module
        for entry in manifest.get(role, [])
        for module in entry.get("python-modules") or [entry["python-module"]]
    ]

    assert sorted(listed) == sorted(modules_with(role))


@pytest.mark.parametrize("role", [role for role in ROLES if role != "transfers"])
def test_every_role_refers_to_an_integration_that_is_described(manifest: dict[str, Any], role: str) -> None:
    described = {integration["integration-name"] for integration in manifest["integrations"]}

    assert {entry["integration-name"] for entry in manifest.get(role, [])} <= described


def test_the_two_ends_of_a_transfer_are_described_and_its_page_exists(manifest: dict[str, Any]) -> None:
    everyone = ProvidersManager().providers.values()  # type: ignore[no-untyped-call]
    described = {
        each["integration-name"] for found in everyone for each in found.data.get("integrations", [])
    }

    for transfer in manifest["transfers"]:
        assert {transfer["source-integration-name"], transfer["target-integration-name"]} <= described
        assert (ROOT / transfer["how-to-guide"].lstrip("/")).is_file()


def test_the_hook_classes_of_the_connection_types_exist(manifest: dict[str, Any]) -> None:
    for connection in manifest["connection-types"]:
        module, _, name = connection["hook-class-name"].rpartition(".")
        hook = getattr(importlib.import_module(module), name)

        assert hook.conn_type == connection["connection-type"]


def test_every_entry_point_of_the_project_can_be_loaded() -> None:
    declared = {
        (group, name) for group, names in PROJECT["project"].get("entry-points", {}).items() for name in names
    } | {("console_scripts", name) for name in PROJECT["project"].get("scripts", {})}
    installed = {(each.group, each.name): each for each in distribution(NAME).entry_points}

    assert installed.keys() == declared
    assert all(callable(each.load()) for each in installed.values())


def test_airflow_finds_and_accepts_the_provider(manifest: dict[str, Any]) -> None:
    found = ProvidersManager().providers[NAME]  # type: ignore[no-untyped-call]

    assert found.version == airflow_provider_feedamp.__version__
    assert found.data["package-name"] == manifest["package-name"]
