"""The papers agree with the code: manifest, registry entry, wheel, changelog, README, CONTRIBUTING, pins."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import subprocess
import sys
import warnings
import zipfile
from importlib.metadata import distribution, version
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers_manager import ProvidersManager

import airflow_provider_feedamp
from airflow_provider_feedamp.get_provider_info import get_provider_info
from scripts.constraints import group, pins
from scripts.versions import LINES, TRIED
from tests.house import PACKAGE, PROJECT, ROOT, repository_files

if TYPE_CHECKING:
    from pathlib import Path

NAME = PROJECT["project"]["name"]
VERSION = airflow_provider_feedamp.__version__
# A module is listed under a role when it defines a public class whose name ends like this.
ROLES: dict[str, tuple[str, ...]] = {
    "hooks": ("Hook", "Auth"),
    "operators": ("Operator",),
    "sensors": ("Sensor",),
    "triggers": ("Trigger",),
    "transfers": ("Operator",),
}
# In pieces, so that this file does not hold what it looks for.
NEEDLES = (
    "py" + "pi.org",
    "python" + "hosted.org",
    "npm" + "js.",
    "conda" + ".anaconda",
    "crates" + ".io",
    "/wo" + "rk/",
    "/ro" + "ot/",
    "/op" + "t/",
    "/tm" + "p/w/",
)


@pytest.fixture
def manifest() -> dict[str, Any]:
    return get_provider_info()


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    files = repository_files()
    assert files
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8", errors="replace") for path in files}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def classes_of(role: str) -> list[type]:
    """Return the public classes of a role that its room defines, with those that others build on."""
    modules = [f"airflow_provider_feedamp.{role}.{path.stem}" for path in (PACKAGE / role).glob("[!_]*.py")]
    return [
        each
        for module in modules
        for name, each in vars(importlib.import_module(module)).items()
        if isinstance(each, type) and each.__module__ == module
        if name.endswith(ROLES[role]) and not name.startswith("_")
    ]


def test_the_manifest_is_plain_data(manifest: dict[str, Any]) -> None:
    assert type(manifest) is dict
    assert json.loads(json.dumps(manifest)) == manifest


def test_name_and_version_of_the_manifest_agree_with_the_project(manifest: dict[str, Any]) -> None:
    found = ProvidersManager().providers[NAME]  # type: ignore[no-untyped-call]

    assert (manifest["package-name"], found.data["package-name"], found.version) == (NAME, NAME, VERSION)
    # Airflow takes the version from the installed distribution; a second truth would have to agree with it.
    assert manifest.get("versions", [version(NAME)])[0] == VERSION


@pytest.mark.parametrize("role", ROLES)
def test_the_manifests_modules_are_the_files_on_disk(manifest: dict[str, Any], role: str) -> None:
    # A transfer has an entry for each module, with two ends.
    listed = [
        module
        for entry in manifest.get(role, [])
        for module in entry.get("python-modules") or [entry["python-module"]]
    ]

    assert sorted(listed) == sorted({each.__module__ for each in classes_of(role)})


def test_the_registry_entry_names_every_class_that_a_dag_uses(texts: dict[str, str]) -> None:
    head, *sections = re.split(r"^(\w+):\n", texts[".airflow-registry.yaml"], flags=re.MULTILINE)
    listed = {
        role: re.findall(r"^  - module: (\S+)\n    description: \S", section, re.MULTILINE)
        for role, section in zip(sections[::2], sections[1::2], strict=True)
    }

    assert f"\npackage-name: {NAME}\n" in head
    assert {role: sorted(paths) for role, paths in listed.items()} == {
        role: sorted(
            f"{each.__module__}.{each.__name__}"
            for each in classes_of(role)
            if re.fullmatch(r"FeedAmp\w+(Hook|Operator|Sensor)|FeedAmpHook", each.__name__)
            and not inspect.isabstract(each)
        )
        for role in ("hooks", "operators", "sensors", "transfers")
    }


def test_every_role_refers_to_an_integration_that_is_described(manifest: dict[str, Any]) -> None:
    described = {integration["integration-name"] for integration in manifest["integrations"]}

    for role in ROLES.keys() - {"transfers"}:
        assert {entry["integration-name"] for entry in manifest.get(role, [])} <= described, role


def test_the_guides_and_the_logo_of_the_integration_are_where_the_registry_looks(
    manifest: dict[str, Any], texts: dict[str, str]
) -> None:
    (integration,) = manifest["integrations"]

    # It takes the logo out of this folder alone, by its file name.
    assert integration["logo"] == f"/docs/integration-logos/{integration['integration-name']}.svg"
    assert {path.lstrip("/") for path in [*integration["how-to-guide"], integration["logo"]]} <= texts.keys()
    assert f"\nlogo: {integration['logo'].lstrip('/')}\n" in texts[".airflow-registry.yaml"]


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

        assert getattr(importlib.import_module(module), name).conn_type == connection["connection-type"]


def test_every_entry_point_of_the_project_can_be_loaded() -> None:
    declared = {
        (group, name) for group, names in PROJECT["project"].get("entry-points", {}).items() for name in names
    } | {("console_scripts", name) for name in PROJECT["project"].get("scripts", {})}
    installed = {(each.group, each.name): each for each in distribution(NAME).entry_points}

    assert installed.keys() == declared
    assert all(callable(each.load()) for each in installed.values())


def test_the_wheel_holds_our_package_whole_with_its_licence_and_nothing_else(wheel: Path) -> None:
    described = f"airflow_provider_feedamp-{VERSION}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    # The templates of the page are files of the package too.
    files = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.html")]
    modules = {str(path.relative_to(ROOT)) for path in files}
    modules |= {
        f"airflow_provider_feedamp/example_dags/{path.name}" for path in (ROOT / "example_dags").glob("*.py")
    }

    assert wheel.name == f"airflow_provider_feedamp-{VERSION}-py3-none-any.whl"
    # Nothing of it is in Airflow's own namespace.
    assert {name.partition("/")[0] for name in names} == {"airflow_provider_feedamp", described}
    assert modules | {"airflow_provider_feedamp/py.typed", f"{described}/licenses/LICENSE"} <= names


@pytest.mark.parametrize("module", ["airflow_provider_feedamp.hooks.feedamp", "unusual_prefix_0a1b_example"])
def test_a_deprecation_that_our_code_causes_is_an_error_in_the_tests(module: str) -> None:
    with pytest.raises(DeprecationWarning):
        warnings.warn_explicit("on its way out", DeprecationWarning, f"{module}.py", 1, module)


def test_no_file_names_a_registry_host_or_a_path_of_one_machine(texts: dict[str, str]) -> None:
    found = {needle: [name for name, text in texts.items() if needle in text] for needle in NEEDLES}

    assert found == {needle: [] for needle in NEEDLES}


def test_the_newest_entry_of_the_changelog_is_this_version(texts: dict[str, str]) -> None:
    assert re.findall(r"^## \[([^\]]+)\]", texts["CHANGELOG.md"], re.MULTILINE)[0] == VERSION


def test_the_readmes_table_of_versions_is_what_is_tested(texts: dict[str, str]) -> None:
    rows = re.findall(
        r"^\| (\d+\.\d+) \| ([\d., ]+) \| (\d+\.\d+) and newer \|", texts["README.md"], re.MULTILINE
    )
    ours, *_ = [row for row in rows if VERSION.startswith(f"{row[0]}.")]

    assert ours[1].split(", ") == [line.minor for line in LINES]
    assert f">={ours[2]}" == PROJECT["project"]["requires-python"]


def test_the_layout_in_contributing_names_every_folder_and_room(texts: dict[str, str]) -> None:
    layout = texts["CONTRIBUTING.md"].split("## Layout\n")[1].split("\n\n")[0].splitlines()
    named = {
        depth: {line.split()[0] for line in layout if re.match(rf" {{{depth}}}\S", line)} for depth in (4, 6)
    }
    tracked = [name.split("/") for name in texts]
    ours = [parts[1:] for parts in tracked if parts[0] == "airflow_provider_feedamp"]

    assert named[4] == {
        f"{parts[0]}/" for parts in tracked if len(parts) > 1 and not parts[0].startswith(".")
    }
    assert named[6] == {f"{parts[0]}/" for parts in ours if len(parts) > 1} | {
        parts[0]
        for parts in ours
        if len(parts) == 1 and parts[0].endswith(".py") and parts[0] != "__init__.py"
    }


def test_contributing_has_every_command_of_the_makefile(texts: dict[str, str]) -> None:
    targets = re.findall(r"^([a-z-]+):.*##", texts["Makefile"], re.MULTILINE)
    rows = re.findall(r"^\| `make ([a-z-]+)` \|", texts["CONTRIBUTING.md"], re.MULTILINE)

    assert sorted(rows) == sorted(set(targets) - {"help"})


def test_the_constraints_pin_each_airflow_and_one_version_of_each_test_tool() -> None:
    pinned = {line: pins(line.constraints.read_text(encoding="utf-8")) for line in TRIED}

    assert [line.minor for line in TRIED if f"apache-airflow=={line.patch}" not in pinned[line]] == []
    for tool in group("test"):
        found = {pin for each in pinned.values() for pin in each if pin.startswith(f"{tool.lower()}==")}
        assert len(found) == 1, found
    with pytest.raises(SystemExit, match="not a pinned version"):
        pins("requests==2.32.0\n--index-url https://example.com/simple\n")
