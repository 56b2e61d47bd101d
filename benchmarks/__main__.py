"""Run the benchmarks, print a table and, as the last line, everything as JSON: ``make bench``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.rows import ROWS, Options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.rows import Row

RESULTS = Path(".bench")


def main() -> int:
    """Measure the rows that are asked for; not every goal reached is no failure of the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").strip())
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"some of {', '.join(ROWS)}; all by default")
    parser.add_argument("--rounds", type=int, default=5, help="turns that the contestants of a row take")
    parser.add_argument("--many", type=int, default=1_000_000, help="orders of the long import")
    arguments = parser.parse_args()
    if unknown := set(arguments.rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    options = Options(arguments.rounds, arguments.many)
    rows: list[Row] = []
    for name in arguments.rows or ROWS:
        print(f"{name} …", file=sys.stderr, flush=True)
        rows += ROWS[name](options)
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "airflow": version("apache-airflow"),
        "python": platform.python_version(),
        "requests": version("requests"),
        "urllib3": version("urllib3"),
    }
    print(table(rows, about))
    result = json.dumps({**about, "rows": [asdict(row) for row in rows]})
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "results.json").write_text(result + "\n", encoding="utf-8")
    print(result)
    return 0


def table(rows: Sequence[Row], about: dict[str, str]) -> str:
    """Return the rows as a table that docs/benchmarks.md takes as it is."""
    lines = ["| measure | result | against | ratio or figure | goal | reached |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row.measure} | {row.result} | {row.against} | {row.ratio:.2f} | {row.goal} "
        f"| {'yes' if row.reached else 'no'} |"
        for row in rows
    ]
    versions = f"Airflow {about['airflow']}, Python {about['python']}, requests {about['requests']}"
    where = f"Measured on {about['date']} with `make bench`: {versions}, urllib3 {about['urllib3']}"
    return "\n".join([*lines, "", f"{where}, {about['machine']}."])


def machine() -> str:
    """Return the processor and how many of it there are."""
    model = platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text(encoding="utf-8").splitlines()
        names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    return f"{os.cpu_count()} cores of {model}"


if __name__ == "__main__":
    sys.exit(main())
