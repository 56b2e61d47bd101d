"""Run the tests on every Airflow line that we support, on the oldest and the newest Python that it has here.

The next Airflow is tried as well: its cells may fail.

`make matrix` runs all cells, `make matrix CELLS="3.0-3.11 3.3"` some, and `make matrix CELLS=needed` those
that every change has to pass. Three cells run at a time; each writes to
a log of its own under .matrix/, and a table at the end says how each one went.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scripts import environment, pythons
from scripts.processes import end_group, started
from scripts.versions import LINES, NEWEST, OLDEST_PYTHON, ROOT, TRIED, Line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MATRIX = ROOT / ".matrix"
AT_A_TIME = 3  # most of a cell is waiting for other processes
CELL_TIMEOUT = 1500.0  # seconds; a cell takes a few minutes, so this only ends one that hangs
NEXT_TIMEOUT = 900.0  # seconds for a cell of the next Airflow, for whose faults nobody shall wait
SUMMARY = re.compile(r"^(?:=+ )?(\d+ (?:passed|failed|error|skipped).*) in [\d.]+s", re.MULTILINE)
OLDEST = f"3.{OLDEST_PYTHON[1]}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One Airflow line on one Python."""

    line: Line
    python: str
    interpreter: Path

    @property
    def name(self) -> str:
        """Return the name to pick the cell by, such as `3.0-3.11`."""
        return f"{self.line.minor}-{self.python}"

    @property
    def venv(self) -> Path:
        """Return where its environment lives."""
        return MATRIX / self.name

    @property
    def groups(self) -> tuple[str, ...]:
        """Return its dependency groups: the oldest cell alone (SQLAlchemy 1.4) has the database drivers.

        The newest ones (SQLAlchemy 2) are in `.venv`, where `make test` runs.
        """
        oldest = self.line == LINES[0] and self.python == OLDEST
        return ("test", *environment.DATABASES) if oldest else ("test",)

    @property
    def marks(self) -> str:
        """Return which tests it runs. The two Pythons of a line share them; the oldest cell has them all."""
        left_out = ["faults", "browser", "deployment", "once"]
        if self.python != OLDEST:
            left_out.append("processes")
        elif self.line != LINES[0]:
            left_out.append("plain")
        return " and ".join(f"not {mark}" for mark in left_out)

    def make(self) -> None:
        """Make its environment, unless it is there and current."""
        if not environment.is_current(self.venv, self.line, self.interpreter, self.groups):
            print(f"{self.name}: setting up Airflow {self.line.patch} on {self.interpreter}", flush=True)
            environment.make(self.venv, self.line, self.interpreter, self.groups)

    @property
    def log(self) -> Path:
        """Return the file that takes its output."""
        return MATRIX / f"{self.name}.log"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a cell went."""

    cell: Cell
    passed: bool
    words: str
    seconds: float

    @property
    def result(self) -> str:
        """Return the word for it."""
        if self.passed:
            return "ok"
        return "failed (allowed)" if self.cell.line.may_fail else "FAILED"


def cells_of(line: Line) -> list[Cell]:
    """Return a line's cells: Python 3.11, and the newest one that the line supports and this machine has."""
    here = {version: found for version in line.pythons if (found := pythons.find(version))}
    missing = [version for version in line.pythons if version not in here]
    if missing:
        print(f"Airflow {line.minor}: no Python {' or '.join(missing)} on this machine, skipped")
    chosen = dict.fromkeys([version for version in here if version == OLDEST] + list(here)[:1])
    return [Cell(line, version, here[version]) for version in chosen]


def picked(cells: Sequence[Cell], wanted: Sequence[str]) -> list[Cell]:
    """Return the cells that were asked for by name or by Airflow line; all when none was."""
    known = {cell.name for cell in cells} | {cell.line.minor for cell in cells}
    if unknown := [name for name in wanted if name not in known]:
        raise SystemExit(
            f"no such cell: {', '.join(unknown)}. There are: {', '.join(cell.name for cell in cells)}"
        )
    return [cell for cell in cells if not wanted or cell.name in wanted or cell.line.minor in wanted]


def needed(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells that every change has to pass beside `make test`, which is one of them.

    Of the newest Pythons it is that of the newest Airflow line only.
    """
    here = f"{NEWEST.minor}-{sys.version_info.major}.{sys.version_info.minor}"
    return [cell for cell in cells if cell.name != here and (cell.line is NEWEST or cell.python == OLDEST)]


class Runner:
    """Runs cells side by side and ends what it started, whatever happens."""

    def __init__(self, pytest_arguments: Sequence[str]) -> None:
        self.pytest_arguments = pytest_arguments
        self.running: set[subprocess.Popen[bytes]] = set()
        self.stopped = threading.Event()
        self.printing = threading.Lock()

    def run_all(self, cells: Sequence[Cell]) -> list[Outcome]:
        """Run the cells, three at a time, and return their outcomes in order."""
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            try:
                return list(pool.map(self.run, cells))
            finally:
                self.stop()

    def run(self, cell: Cell) -> Outcome:
        """Run one cell: environment, then tests."""
        begun = time.monotonic()
        if self.stopped.is_set():
            return Outcome(cell, passed=False, words="not run", seconds=0.0)
        try:
            words, passed = self.test(cell)
        except SystemExit as error:
            cell.log.write_text(str(error))
            words, passed = "no environment", False
        outcome = Outcome(cell, passed, words, time.monotonic() - begun)
        self.say(f"{cell.name}: {outcome.result}, {words}, {outcome.seconds:.0f} s")
        return outcome

    def test(self, cell: Cell) -> tuple[str, bool]:
        """Run the tests in a cell's environment; return pytest's summary and whether all is well."""
        cell.make()
        home = cell.venv / "home"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        self.say(f"{cell.name}: testing, log in {cell.log.relative_to(ROOT)}")
        code = self.pytest(cell, home)
        words = summary(cell.log.read_text(errors="replace"))
        return words or f"exit code {code}", code == 0 and bool(words)

    def pytest(self, cell: Cell, home: Path) -> int:
        """Run pytest in a process group of its own, with its output in the cell's log."""
        command = [
            *(str(cell.venv / "bin" / "python"), "-m", "pytest", "-q", "-m", cell.marks),
            *("-o", f"cache_dir={home / 'cache'}", f"--basetemp={home / 'tmp'}", *self.pytest_arguments),
        ]
        path = f"{cell.venv / 'bin'}{os.pathsep}{os.environ['PATH']}"
        settings = {**os.environ, "AIRFLOW_HOME": str(home), "PATH": path, "VIRTUAL_ENV": str(cell.venv)}
        settings["FEEDAMP_TEST_DATABASES"] = "yes" if "databases" in cell.groups else "no"
        with cell.log.open("wb") as log, started(command, settings, log) as process:
            self.running.add(process)
            try:
                return process.wait(NEXT_TIMEOUT if cell.line.may_fail else CELL_TIMEOUT)
            except subprocess.TimeoutExpired:
                return -1
            finally:
                self.running.discard(process)

    def stop(self) -> None:
        """Start no further cell and end those that run."""
        self.stopped.set()
        for process in list(self.running):
            end_group(process)

    def say(self, text: str) -> None:
        """Print a line that no other cell's line breaks into."""
        with self.printing:
            print(text, flush=True)


def summary(log: str) -> str:
    """Return pytest's closing words, such as `312 passed, 2 skipped`, or nothing when it never got there."""
    found = SUMMARY.findall(log)
    return str(found[-1]) if found else ""


def report(outcomes: Sequence[Outcome]) -> None:
    """Print the end of each failed cell's log, then the table."""
    for outcome in outcomes:
        log = outcome.cell.log
        if not outcome.passed and log.exists():
            print(f"\n--- {outcome.cell.name}: end of {log.relative_to(ROOT)}")
            print("\n".join(log.read_text(errors="replace").splitlines()[-60:]))
    print(f"\n{'cell':<10} {'airflow':<8} {'python':<7} {'result':<16} {'seconds':>7}  tests")
    for outcome in outcomes:
        cell = outcome.cell
        place = f"{cell.name:<10} {cell.line.patch:<8} {cell.python:<7}"
        print(f"{place} {outcome.result:<16} {outcome.seconds:>7.0f}  {outcome.words}")


def main() -> None:
    """Run the cells named on the command line, or all, and exit with 1 when one of them failed."""
    parser = argparse.ArgumentParser(prog="make matrix")
    parser.add_argument("--cells", default="", help="such as 3.0-3.11, 3.0 for both Pythons, or needed")
    parser.add_argument("--make", action="store_true", help="make the environments, test nothing")
    parser.add_argument("pytest_arguments", nargs="*", help="what to hand to pytest")
    asked = parser.parse_args()
    MATRIX.mkdir(exist_ok=True)
    everything = [cell for line in TRIED for cell in cells_of(line)]
    wanted = asked.cells.replace(",", " ").split()
    cells = needed(everything) if wanted == ["needed"] else picked(everything, wanted)
    if asked.make:
        for cell in cells:
            cell.make()
        return
    outcomes = Runner(asked.pytest_arguments).run_all(cells)
    report(outcomes)
    passed = sum(outcome.passed for outcome in outcomes)
    print(f"\nmatrix: {passed} of {len(outcomes)} cells are well")
    failed = any(outcome.result == "FAILED" for outcome in outcomes)
    sys.exit(1 if failed or not outcomes else 0)


if __name__ == "__main__":
    main()
