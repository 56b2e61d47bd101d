"""The documentation says what the code does."""

from __future__ import annotations

import inspect
import re
import textwrap
from pathlib import Path

import pytest

from airflow_provider_feedamp import exceptions
from airflow_provider_feedamp.get_provider_info import get_provider_info

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SHOWN = re.compile(r"<!-- (example_dags/\S+) (\S+) -->\n```python\n(.*?)```", re.DOTALL)
BLOCKS = [(page.name, *match.groups()) for page in PAGES for match in SHOWN.finditer(page.read_text())]
LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")


def test_pages_show_example_blocks() -> None:
    assert len(BLOCKS) >= 4


@pytest.mark.parametrize(("page", "path", "name", "shown"), BLOCKS)
def test_a_shown_block_is_the_code_that_the_tests_run(page: str, path: str, name: str, shown: str) -> None:
    source = (ROOT / path).read_text()
    block = source.split(f"# [START {name}]\n")[1].split(f"# [END {name}]")[0].rstrip(" ")
    assert textwrap.dedent(shown) == textwrap.dedent(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        path, _, anchor = target.partition("#")
        found = (page.parent / path) if path else page
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, target


def test_pictures_are_shown_and_small() -> None:
    shown = {(page.parent / target).resolve() for page in PAGES for target in LINK.findall(page.read_text())}
    pictures = set((ROOT / "docs/pictures").iterdir())

    assert pictures - shown == set()
    for picture in pictures:
        content = picture.read_bytes()
        assert content[:16].endswith(b"IHDR"), picture.name
        width = int.from_bytes(content[16:20], "big")
        assert (width <= 1200, len(content) < 150_000) == (True, True), picture.name


def test_the_connection_page_names_every_field_of_the_form() -> None:
    page = (ROOT / "docs/connection.md").read_text()
    (connection_type,) = get_provider_info()["connection-types"]
    labels = connection_type["ui-field-behaviour"]["relabeling"].values()
    missing = [name for name in connection_type["conn-fields"] if f"| `{name}` | extra |" not in page]
    assert missing == []
    assert [label for label in labels if f"| {label} |" not in page] == []


def test_the_connection_page_names_every_option_with_its_default() -> None:
    page = (ROOT / "docs/connection.md").read_text()
    for name, option in get_provider_info()["config"]["feedamp"]["options"].items():
        default = option["default"]
        assert re.search(rf"^\| `{name}` \| `?{re.escape(default or '')}`? ?\|", page, re.MULTILINE), name


def test_the_error_table_has_every_public_error() -> None:
    page = (ROOT / "docs/errors.md").read_text()
    errors = {
        name: kind
        for name, kind in inspect.getmembers(exceptions, inspect.isclass)
        if issubclass(kind, exceptions.FeedAmpError) and kind is not exceptions.FeedAmpError
    }
    for name, kind in errors.items():
        row = re.search(rf'^\| <a id="{name.lower()}"></a>`{name}` \|[^|]*\| (\w+) \|', page, re.MULTILINE)
        assert row is not None, name
        assert row[1] == ("yes" if kind.retryable else "no"), name


def test_the_security_page_names_tests_that_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "SECURITY.md").read_text())
    assert named
    for path, name in named:
        assert f"def {name}(" in (ROOT / path).read_text() if name else (ROOT / path).exists(), (path, name)
