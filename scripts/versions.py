"""The Airflow lines that the provider supports, and the next one: what setup, matrix and constraints read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = (3, 11)

# Packages that a line takes newer than its own release day, because the provider's floor asks for it.
COMPAT = "apache-airflow-providers-common-compat"


@dataclass(frozen=True, slots=True)
class Line:
    """One minor version of Airflow at the patch that we test, with what is needed to pin its dependencies.

    What fails on a line that may fail is shown, and fails nothing.
    """

    minor: str
    patch: str
    released: date
    newest_python: tuple[int, int]
    newer: tuple[str, ...] = ()
    may_fail: bool = False

    @property
    def constraints(self) -> Path:
        """Return the file that pins this line's dependencies."""
        return ROOT / "constraints" / f"airflow-{self.minor}.txt"

    @property
    def pythons(self) -> list[str]:
        """Return the Python versions that this line supports and we test, newest first, as `3.13`."""
        newest = self.newest_python[1]
        return [f"3.{minor}" for minor in range(newest, OLDEST_PYTHON[1] - 1, -1)]


LINES = (
    Line("2.11", "2.11.2", date(2026, 3, 14), (3, 12), (COMPAT,)),
    # common.compat 1.22 asks for an asgiref that is younger than Airflow 3.0.6.
    Line("3.0", "3.0.6", date(2025, 8, 29), (3, 12), (COMPAT, "asgiref")),
    Line("3.1", "3.1.8", date(2026, 3, 11), (3, 13), (COMPAT,)),
    Line("3.2", "3.2.2", date(2026, 5, 29), (3, 14), (COMPAT,)),
    Line("3.3", "3.3.2", date(2026, 9, 17), (3, 14), (COMPAT,)),
)
NEWEST = LINES[-1]
# The next Airflow, as far as it is; an empty tuple when there is nothing of it yet.
NEXT = (Line("3.4", "3.4.0b2", date(2026, 10, 20), (3, 14), (COMPAT,), may_fail=True),)
TRIED = (*LINES, *NEXT)
