"""The repository's papers agree with one another, and no file names a place that only one machine knows."""

from __future__ import annotations

import importlib
import re

import pytest

import airflow_provider_feedamp
from scripts.constraints import group, pins
from scripts.versions import LINES, Line
from tests.house import PROJECT, ROOT, repository_files

VERSION = airflow_provider_feedamp.__version__

# In pieces, so that this file does not hold what it looks for.
REGISTRY_HOSTS = (
    "py" + "pi.org",
    "python" + "hosted.org",
    "npm" + "js.",
    "conda" + ".anaconda",
    "crates" + ".io",
)
MACHINE_PATHS = ("/wo" + "rk/", "/ro" + "ot/", "/op" + "t/", "/tm" + "p/w/")


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    files = repository_files()
    assert files
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8", errors="replace") for path in files}


@pytest.mark.parametrize("needle", REGISTRY_HOSTS + MACHINE_PATHS)
def test_no_file_names_a_registry_host_or_a_path_of_one_machine(texts: dict[str, str], needle: str) -> None:
    assert [name for name, text in texts.items() if needle in text] == []


def test_the_newest_entry_of_the_changelog_is_this_version(texts: dict[str, str]) -> None:
    headings = re.findall(r"^## \[([^\]]+)\]", texts["CHANGELOG.md"], re.MULTILINE)

    assert headings[0] == VERSION


def test_the_readmes_table_of_versions_is_what_is_tested(texts: dict[str, str]) -> None:
    rows = re.findall(
        r"^\| (\d+\.\d+) \| ([\d., ]+) \| (\d+\.\d+) and newer \|", texts["README.md"], re.MULTILINE
    )
    ours, *_ = [row for row in rows if VERSION.startswith(f"{row[0]}.")]

    assert ours[1].split(", ") == [line.minor for line in LINES]
    assert f">={ours[2]}" == PROJECT["project"]["requires-python"]


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.minor)
def test_a_constraints_file_pins_its_airflow_and_holds_versions_only(line: Line) -> None:
    pinned = pins(line.constraints.read_text(encoding="utf-8"))

    assert f"apache-airflow=={line.patch}" in pinned


@pytest.mark.parametrize("tool", group("test"))
def test_a_test_tool_has_the_same_version_in_every_cell(tool: str) -> None:
    found = {
        pin
        for line in LINES
        for pin in pins(line.constraints.read_text(encoding="utf-8"))
        if pin.startswith(f"{tool.lower()}==")
    }

    assert len(found) == 1


def test_what_the_resolver_adds_about_its_index_is_refused() -> None:
    with pytest.raises(SystemExit, match="not a pinned version"):
        pins("requests==2.32.0\n--index-url https://example.com/simple\n")


def test_the_registry_entry_names_classes_that_exist(texts: dict[str, str]) -> None:
    entry = texts[".airflow-registry.yaml"]
    classes = re.findall(r"^  - module: (\S+)$", entry, re.MULTILINE)

    assert f"\npackage-name: {PROJECT['project']['name']}\n" in entry
    assert classes
    for path in classes:
        module, _, name = path.rpartition(".")
        assert isinstance(getattr(importlib.import_module(module), name), type), path
