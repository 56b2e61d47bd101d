"""Build what is published, and check it as the index and a bare Airflow would: `make package`.

`make release-check` says in one sentence each what keeps the checkout from being released. A workflow
publishes, see docs/releasing.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from scripts import quick_start
from scripts.build_metadata import address, version
from scripts.environment import UV, run
from scripts.versions import LINES, NEWEST, ROOT, Line

if TYPE_CHECKING:
    from pathlib import Path

HOME = ROOT / ".package"
DIST = ROOT / "dist"
BIN = HOME / "tools" / "bin"
BARE = (LINES[0], NEWEST)
LEAST_MARK = "9"  # of pyroma's 10
NO_ADDRESS = "scripts/project_urls holds no address: write the repository's https address into it"
# In pieces, so that this file does not name them.
INDEX_HOSTS = ("py" + "pi.org", "python" + "hosted.org")


def tools() -> None:
    """Make the environment of the build tools, if pyproject.toml has changed since."""
    recipe = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    stamp = HOME / "tools" / ".stamp"
    if stamp.exists() and stamp.read_text() == recipe:
        return
    run(UV, "venv", "--quiet", "--clear", "--python", sys.executable, HOME / "tools")
    run(UV, "pip", "install", "--quiet", "--python", BIN / "python", "--group", "release")
    stamp.write_text(recipe)


def build() -> list[Path]:
    """Build sdist and wheel twice, each in a fresh environment, and return them if both are the same."""
    environment = {**os.environ, "PATH": f"{UV.parent}:{os.environ['PATH']}"}
    digests = []
    for turn in ("first", "second"):
        folder = HOME / turn
        shutil.rmtree(folder, ignore_errors=True)
        run(BIN / "python", "-m", "build", "--installer", "uv", "--outdir", folder, ROOT, env=environment)
        digests.append(
            {each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in folder.iterdir()}
        )
    if digests[0] != digests[1]:
        raise SystemExit(f"two builds of the same files differ: {digests}")
    shutil.rmtree(DIST, ignore_errors=True)
    shutil.copytree(HOME / "first", DIST)
    return sorted(DIST.iterdir(), key=lambda each: each.suffix)


def check(sdist: Path, wheel: Path) -> None:
    """Check both as the index would, and what is in the wheel."""
    say("twine", run(BIN / "twine", "--no-color", "check", "--strict", sdist, wheel))
    say("check-wheel-contents", run(BIN / "check-wheel-contents", wheel))
    # The authors give no mail address: questions go to the repository's issues. It may have no address yet.
    left_out = ["AuthorEmail", *(["Url"] if address(ROOT) is None else [])]
    skip = ("--skip-tests", ",".join(left_out))
    mark = run(BIN / "pyroma", "--quiet", "--min", LEAST_MARK, *skip, sdist)
    say(f"pyroma's mark of 10, without {' and '.join(left_out)}", mark)


def first_order(line: Line) -> Path:
    """Do what README's first screen says in an empty environment, with that Airflow and the new wheel."""
    venv = HOME / f"airflow-{line.minor}"
    run(UV, "venv", "--quiet", "--clear", "--seed", "--python", sys.executable, venv)
    pip = {
        "PIP_CONSTRAINT": str(line.constraints),
        "PIP_FIND_LINKS": f"{DIST} {os.environ.get('PIP_FIND_LINKS', '')}",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    said = quick_start.run(venv, env=pip)
    print(f"README's first screen in an empty environment, with Airflow {line.patch}: {said}")
    return venv


def bill_of_materials(venv: Path, target: Path) -> int:
    """Write the bill of materials (CycloneDX) of an environment, and return how many parts it names."""
    run(
        BIN / "cyclonedx-py",
        "environment",
        "--output-reproducible",
        "--output-file",
        target,
        venv / "bin" / "python",
    )
    bill = json.loads(target.read_text())
    parts = [*bill["components"], bill["metadata"].get("component", {})]
    for part in parts:
        references = part.get("externalReferences", [])
        part["externalReferences"] = [
            each for each in references if not (urlsplit(each["url"]).hostname or "").endswith(INDEX_HOSTS)
        ]
    target.write_text(json.dumps(bill, indent=2) + "\n")
    return len(bill["components"])


def release_faults(tag: str | None) -> list[str]:
    """Return what keeps this checkout from being released, one sentence each.

    :param tag: The tag to release; None for the one that the current commit has.
    """
    here = version(ROOT)
    faults = []
    if run("git", "status", "--porcelain", cwd=ROOT).strip():
        faults.append("the tree is dirty: commit or remove what `git status` names")
    tags = [tag] if tag else run("git", "tag", "--points-at", "HEAD", cwd=ROOT).split()
    if tags != [f"v{here}"]:
        found = ", ".join(tags) or "no tag"
        faults.append(f"the tag does not agree: version {here} needs tag v{here}, and the commit has {found}")
    headings = re.findall(r"^## \[([^\]]+)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    if not headings or headings[0][0] != here or not re.fullmatch(r"\d{4}-\d\d-\d\d", headings[0][1]):
        faults.append(f"the changelog does not agree: its first entry must be '## [{here}] - YYYY-MM-DD'")
    try:
        if address(ROOT) is None:
            faults.append(NO_ADDRESS)
    except ValueError as error:
        faults.append(str(error))
    return faults


def say(what: str, text: str) -> None:
    """Print the last word of what a tool said."""
    print(f"{what}: {text.split()[-1]}")


def main() -> None:
    """Build and check, or say what keeps this from being released."""
    if sys.argv[1:2] == ["release-check"]:
        faults = release_faults(os.environ.get("TAG") or None)
        if faults:
            raise SystemExit("\n".join(f"not ready: {fault}" for fault in faults))
        print(f"version {version(ROOT)} can be released")
        return
    HOME.mkdir(exist_ok=True)
    tools()
    sdist, wheel = build()
    print(f"built twice, byte for byte the same: {sdist.name}, {wheel.name}")
    if address(ROOT) is None:
        print(f"note: {NO_ADDRESS}; until then the package names no addresses")
    check(sdist, wheel)
    *_, venv = map(first_order, BARE)
    bill = DIST / f"{wheel.name.split('-py3')[0]}.cdx.json"
    print(f"{bill.name}: {bill_of_materials(venv, bill)} parts")


if __name__ == "__main__":
    main()
