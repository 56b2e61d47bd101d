"""README's first screen does what it says, on the oldest and on the newest Airflow."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from airflow import __version__ as airflow_version

from scripts import quick_start
from scripts.versions import LINES, NEWEST
from tests.house import ROOT

pytestmark = pytest.mark.processes


@pytest.mark.skipif(
    not airflow_version.startswith((LINES[0].minor, NEWEST.minor)),
    reason="runs on the oldest and the newest Airflow",
)
@pytest.mark.timeout(300)
def test_its_commands_and_its_dag_import_the_sample_orders() -> None:
    where = {"PYTHONPATH": str(ROOT), "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO"}

    assert " s, " in quick_start.run(Path(sys.prefix), install=False, env=where)


def test_a_line_that_it_promises_and_that_does_not_come_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = quick_start.blocks()
    blocks["text"] = ["20 orders went to the moon\n"]
    connection = "export AIRFLOW_CONN_FEEDAMP_DEFAULT='{}'"
    blocks["bash"] = [f'printf "%s\\n" "{connection}" "Sample orders"; sleep 60', "echo done"]
    monkeypatch.setattr(quick_start, "blocks", lambda: blocks)

    with pytest.raises(SystemExit, match="went to the moon"):
        quick_start.run(Path(sys.prefix))
    assert os.environ.get("AIRFLOW_CONN_FEEDAMP_DEFAULT") is None


def test_readme_fits_its_bound() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
