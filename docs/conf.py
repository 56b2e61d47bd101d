"""How Sphinx builds the documentation, see `make docs`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from airflow_provider_feedamp import __version__  # noqa: E402

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "airflow-provider-feedamp"
version = release = __version__
author = "The airflow-provider-feedamp authors"
html_title = f"FeedAMP for Airflow {__version__}"
html_theme = "furo"
html_copy_source = False
html_show_sphinx = False
exclude_patterns = ["pictures"]

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # a page may begin below its included part

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}


def write_llms(app: Sphinx, error: Exception | None) -> None:
    """Write ``llms.txt``: every page with its title, in the order of the table of contents."""
    if error is not None or app.builder.name != "html":
        return
    titles = app.env.titles
    order = ["index"]
    for name in order:
        order += app.env.toctree_includes.get(name, [])
    lines = [f"- [{titles[name].astext()}]({name}.html)" for name in order[1:]]
    head = f"# {project}\n\n> Airflow provider for the Feedonomics FeedAMP Order Source API.\n\n"
    Path(app.outdir, "llms.txt").write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


def setup(app: Sphinx) -> None:
    """Have ``llms.txt`` written when the pages are."""
    app.connect("build-finished", write_llms)
