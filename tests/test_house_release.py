"""What is published: addresses, README's links, what keeps a checkout from being released."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from airflow_provider_feedamp import __version__
from scripts import docs, package
from scripts.build_metadata import readme, urls
from tests.house import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once
REPOSITORY = "https://github.com/Some-Owner/airflow-provider-feedamp"
READY = f"## [{__version__}] - 2026-12-01\n"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout that can be released."""
    for name, text in {
        "airflow_provider_feedamp/__init__.py": f'__version__ = "{__version__}"\n',
        "scripts/project_urls": f"# a comment\n{REPOSITORY}/\n",
        "CHANGELOG.md": f"# Changelog\n\n{READY}",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    git(tmp_path, "tag", f"v{__version__}")
    monkeypatch.setattr(package, "ROOT", tmp_path)
    return tmp_path


def git(folder: Path, *command: str) -> None:
    who = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.com")
    subprocess.run(["git", *who, *command], cwd=folder, check=True, capture_output=True)


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "as it is")


def test_a_checkout_with_everything_in_place_can_be_released(checkout: Path) -> None:
    assert package.release_faults(None) == package.release_faults(f"v{__version__}") == []


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("scripts/project_urls", "# nothing yet\n", "holds no address"),
        ("scripts/project_urls", "http://example.com/x\n", "one https address"),
        ("scripts/project_urls", f"{REPOSITORY}\n{REPOSITORY}\n", "one https address"),
        ("CHANGELOG.md", f"## [{__version__}] - Unreleased\n", "the changelog does not agree"),
        ("CHANGELOG.md", "## [0.0.9] - 2026-12-01\n", "the changelog does not agree"),
    ],
)
def test_each_thing_that_is_missing_is_one_sentence(
    checkout: Path, name: str, text: str, sentence: str
) -> None:
    (checkout / name).write_text(text)
    commit(checkout)
    git(checkout, "tag", "--force", f"v{__version__}")

    (fault,) = package.release_faults(None)
    assert sentence in fault


def test_a_dirty_tree_and_a_tag_of_another_version_are_named(checkout: Path) -> None:
    (checkout / "left.txt").write_text("over")

    assert [fault.partition(":")[0] for fault in package.release_faults("v9.9.9")] == [
        "the tree is dirty",
        "the tag does not agree",
    ]


def test_without_an_address_the_package_names_none_and_with_one_every_link_is_whole() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    whole = readme(text, REPOSITORY, "1.2.3")

    assert readme(text, None, "1.2.3") == text
    assert re.findall(r"\]\((?!https://)[^)]*\)", whole) == []
    assert f"]({REPOSITORY}/blob/v1.2.3/docs/connection.md)" in whole
    assert (
        readme("![a](docs/a.png) [b](#b)", REPOSITORY, "1") == f"![a]({REPOSITORY}/raw/v1/docs/a.png) [b](#b)"
    )
    assert urls(REPOSITORY)["Documentation"] == "https://some-owner.github.io/airflow-provider-feedamp/"
    assert "Documentation" not in urls("https://example.com/x")


def test_every_link_of_readme_leads_to_a_file() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https://|#)([^)#]+)", text)

    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_bill_of_materials_names_no_host_of_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"type": "website", "url": "https://example.com/a"}
    found = {"type": "distribution", "url": f"https://files.{package.INDEX_HOSTS[1]}/a.whl"}
    bill = {"components": [{"name": "a", "externalReferences": [kept, found]}], "metadata": {}}

    def write(*command: str | Path) -> str:
        (tmp_path / "bill.json").write_text(json.dumps(bill))
        return ""

    monkeypatch.setattr(package, "run", write)

    assert package.bill_of_materials(tmp_path, tmp_path / "bill.json") == 1
    (part,) = json.loads((tmp_path / "bill.json").read_text())["components"]
    assert part["externalReferences"] == [kept]


def test_python_on_a_page_that_nothing_has_run_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = "```python\n1\n```\n\n"
    page = f"<!-- executed -->\n{block}<!-- example_dags/a.py b -->\n{block}{block}"
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text(page)
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    monkeypatch.setattr(docs, "DOCS", tmp_path / "docs")

    assert docs.unproven() == ["docs/page.md:11: this code block is not from an executed example"]
