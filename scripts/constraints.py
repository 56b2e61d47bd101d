"""Renew constraints/airflow-X.Y.txt: what was current when that Airflow was released, as bare versions.

Airflow publishes constraints of its own with every release. These files approximate them from the package
index alone: the resolver may use only what was uploaded up to the day of the release. Three kinds of package
may be as new as today: the few that `scripts.versions` names, the test tools (the same in every file), and,
in the newest file, what lint and set-up need.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

from scripts.versions import NEWEST, ROOT, TRIED, Line

# Tools move with the day we renew; Airflow's own providers in the test group stay at the release's day.
NAME = re.compile(r"[A-Za-z0-9._-]+")
PIN = re.compile(r"[a-z0-9.-]+==[^\s;@/]+( ; [^@]+)?")


def group(name: str) -> list[str]:
    """Return the package names of a dependency group, without Airflow's own packages."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    names = [NAME.match(entry) for entry in project["dependency-groups"][name]]
    return [found.group() for found in names if found and not found.group().startswith("apache-airflow")]


def groups(line: Line) -> list[str]:
    """Return the dependency groups that a line's file pins; some are for the newest only."""
    newest = ["celery", "fuzz", "lineage", "storage", "browser", "bench", "docs", "lint", "tools"]
    return ["test", "databases", *(newest if line is NEWEST else [])]


def command(line: Line, today: str) -> list[str]:
    """Return the resolver's command for one line; the Airflow version comes on standard input."""
    until = f"{line.released + timedelta(days=1)}T00:00:00Z"
    tools = [each for each in groups(line) if each not in ("databases", "storage", "bench")]
    newer = [*line.newer, *(name for each in tools for name in group(each))]
    return [
        *(str(Path(sys.prefix, "bin", "uv")), "pip", "compile", "--quiet", "pyproject.toml", "-"),
        *("--universal", "--python-version", "3.11", "--no-header", "--no-annotate"),
        *("--extra", "sandbox"),
        *(part for each in groups(line) for part in ("--group", each)),
        *("--exclude-newer", until),
        *(part for name in newer for part in ("--exclude-newer-package", f"{name}={today}")),
    ]


def pins(text: str) -> list[str]:
    """Return the pins in the resolver's answer; what is not a name, version and marker is an error."""
    lines = [line for line in text.splitlines() if line.strip()]
    odd = [line for line in lines if not PIN.fullmatch(line)]
    if odd or not lines:
        raise SystemExit(f"the resolver's answer holds what is not a pinned version: {odd or 'nothing'}")
    return lines


def renew(line: Line, today: str) -> int:
    """Write one line's file and return how many packages it pins."""
    asked = f"apache-airflow=={line.patch}\n"
    answer = subprocess.run(
        command(line, today), input=asked, capture_output=True, text=True, cwd=ROOT, check=False
    )
    if answer.returncode:
        raise SystemExit(f"no constraints for Airflow {line.patch}:\n{answer.stderr}")
    pinned = pins(answer.stdout)
    line.constraints.parent.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=line.constraints.parent, delete=False) as file:
        file.write("\n".join(pinned) + "\n")
    Path(file.name).chmod(0o644)
    Path(file.name).replace(line.constraints)
    return len(pinned)


def main() -> None:
    """Renew the files of all lines, or of those named on the command line (`3.0 3.3`)."""
    today = datetime.now(UTC).strftime("%Y-%m-%dT00:00:00Z")
    wanted = sys.argv[1:] or [line.minor for line in TRIED]
    for line in TRIED:
        if line.minor in wanted:
            count = renew(line, today)
            print(f"{line.constraints.relative_to(ROOT)}: Airflow {line.patch}, {count} packages")


if __name__ == "__main__":
    main()
