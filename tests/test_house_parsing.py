"""Parsing a DAG file that uses our operators stays cheap: nothing heavy comes in on our account."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.house import PACKAGE

# Each of them starts an interpreter and Airflow in it. Both marks together leave them to the oldest cell of
# the matrix and to `make test`, which has the newest Airflow.
pytestmark = [pytest.mark.plain, pytest.mark.processes]

HEAVY = {
    "requests",
    "urllib3",
    "pydantic",
    "sqlalchemy",
    "fastapi",
    "starlette",
    "uvicorn",
    "httpx",
    "fsspec",
}
MODULES = sorted(
    f"airflow_provider_feedamp.{room}.{path.stem}"
    for room in ("operators", "sensors", "transfers", "triggers")
    for path in (PACKAGE / room).glob("[!_]*.py")
)
MODULES.append("airflow_provider_feedamp.assets")

# Airflow's base classes come first: what they bring with them is not on our account.
SCRIPT = """
import importlib, json, sys
try:
    from airflow.sdk import BaseOperator
except ImportError:
    from airflow.models import BaseOperator
if ".triggers." in {module!r}:
    import airflow.triggers.base
before = set(sys.modules)
importlib.import_module({module!r})
print("\\n" + json.dumps(sorted(set(sys.modules) - before)))
"""


def imported_by(module: str) -> set[str]:
    """Return the top-level packages that a fresh interpreter loads for a module, beyond Airflow's own."""
    command = [sys.executable, "-c", SCRIPT.format(module=module)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    return {name.partition(".")[0] for name in json.loads(answer.stdout.splitlines()[-1])}


@pytest.mark.parametrize("module", MODULES)
def test_importing_an_operator_module_loads_nothing_heavy(module: str) -> None:
    assert imported_by(module) & HEAVY == set()


def test_a_heavy_import_would_be_seen() -> None:
    assert "uvicorn" in imported_by("uvicorn")
