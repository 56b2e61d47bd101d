"""Build the documentation: `make docs`. Any warning, and any code that nothing has run, is an error.

`make docs ARGS=links` looks at the addresses that lead elsewhere instead, which needs a network.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

from scripts.versions import ROOT

DOCS = ROOT / "docs"
OUT = ROOT / ".docs"
#: What stands before a block of Python: its file and name there, or that the tests run the page's own.
ORIGIN = re.compile(r"^ *<!-- (?:\S+\.py \S+|executed) -->$")


def unproven() -> list[str]:
    """Return where a page shows Python that comes from nothing that the tests run."""
    faults = []
    for page in sorted(DOCS.rglob("*.md")):
        lines = page.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            if line.lstrip() == "```python" and not ORIGIN.match(lines[number - 1]):
                place = f"{page.relative_to(ROOT)}:{number + 1}"
                faults.append(f"{place}: this code block is not from an executed example")
    return faults


def main() -> None:
    """Build the pages, or check the addresses that they name."""
    if faults := unproven():
        raise SystemExit("\n".join(faults))
    builder = "linkcheck" if "links" in sys.argv[1:] else "html"
    shutil.rmtree(OUT / builder, ignore_errors=True)  # a page that has gone would stay
    pages = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
    python = (sys.executable, "-m")
    strict = ("--quiet", "--fail-on-warning", "--keep-going")
    for command in (
        (*python, "codespell_lib", *pages),
        (*python, "sphinx", *strict, "--builder", builder, DOCS, OUT / builder),
    ):
        if subprocess.run([str(part) for part in command], cwd=ROOT, check=False).returncode:
            raise SystemExit("the documentation is not well: see above")
    print(f"the documentation is well: {(OUT / builder).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
