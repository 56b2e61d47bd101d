"""The scripts behind the Makefile: what they read from logs, and that they leave nothing behind."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from airflow_provider_feedamp.hooks.sellers import one_line
from airflow_provider_feedamp.sandbox.__main__ import write_orders
from scripts import pythons
from scripts.demo import essential
from scripts.house import entered
from scripts.matrix import Cell, Outcome, needed, picked, report, summary
from scripts.processes import started
from scripts.versions import LINES, NEWEST, NEXT, TRIED, Line
from tests.house import ROOT

CELLS = [Cell(line, "3.11", Path(sys.executable)) for line in LINES]
STAMP = "2026-11-23T04:00:36.797029Z"
OPERATOR = "airflow.task.operators.airflow_provider_feedamp.operators.orders.FeedAmpPlaceOrdersOperator"


def test_the_matrix_takes_the_closing_words_from_a_log() -> None:
    for log, words in [
        ("...\n312 passed, 2 skipped in 61.20s (0:01:01)\n", "312 passed, 2 skipped"),
        ("=== 1 failed, 3 passed in 0.50s ===\n", "1 failed, 3 passed"),
        ("1 error in 0.50s\n", "1 error"),
        ("Killed\n", ""),
        ("the words 3 passed in the middle of a line\n", ""),
    ]:
        assert summary(log) == words


def test_a_cell_is_picked_by_its_name_or_its_airflow_and_all_are_when_none_is_named() -> None:
    assert picked(CELLS, []) == CELLS
    for name in ("3.0", "3.0-3.11"):
        assert [cell.line.patch for cell in picked(CELLS, [name])] == ["3.0.6"]
    with pytest.raises(SystemExit, match=r"no such cell: 4\.0.*2\.11-3\.11"):
        picked(CELLS, ["4.0"])


def test_the_two_pythons_of_a_line_run_all_that_the_matrix_runs_and_so_does_the_oldest_cell() -> None:
    for line, mark in itertools.product(LINES, ("plain", "processes")):
        cells = [Cell(line, python, Path(sys.executable)) for python in ("3.11", "3.13")]
        assert any(f"not {mark}" not in cell.marks for cell in cells), (line, mark)
    assert CELLS[0].marks == "not faults and not browser and not deployment and not once"


def test_the_needed_cells_are_every_airflow_and_the_newest_python_of_the_newest() -> None:
    here = f"3.{sys.version_info.minor}"
    cells = [Cell(line, python, Path(sys.executable)) for line in LINES for python in ("3.11", "3.13")]

    names = [cell.name for cell in needed(cells)]

    assert names == [
        name
        for name in ["2.11-3.11", "3.0-3.11", "3.1-3.11", "3.2-3.11", "3.3-3.11", "3.3-3.13"]
        if name != f"3.3-{here}"
    ]


def test_a_cell_of_the_next_airflow_may_fail_and_the_table_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cells = [Cell(line, "3.9", Path(sys.executable)) for line in (*NEXT, NEWEST)]
    outcomes = [Outcome(cell, passed, "", 1.0) for cell in cells for passed in (True, False)]

    report(outcomes)

    assert [each.result for each in outcomes] == ["ok", "failed (allowed)", "ok", "FAILED"]
    assert f"{NEXT[0].patch}  3.9     failed (allowed)" in capsys.readouterr().out


def test_the_newest_line_is_the_last_of_the_table_and_the_next_one_is_newer() -> None:
    def minor(line: Line) -> list[int]:
        return [int(part) for part in line.minor.split(".")]

    assert sorted(TRIED, key=minor) == [*LINES, *NEXT]
    assert LINES[-1] is NEWEST
    assert [line.may_fail for line in TRIED] == [line in NEXT for line in TRIED]


def test_a_python_is_found_by_its_version_and_only_when_it_runs(tmp_path: Path) -> None:
    shim = tmp_path / "python3.11"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)

    assert pythons.find("{}.{}".format(*sys.version_info)) == Path(sys.executable).resolve()
    assert pythons.find("3.99") is None
    assert not pythons.runs(shim, "3.11")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (
            f"{STAMP} [info     ] Placed 292 orders      [{OPERATOR}] loc=orders.py:9\n",
            "04:00:36    Placed 292 orders",
        ),
        (f"{STAMP} [error    ] Task failed            [task] loc=x.py:1\n", "04:00:36    Task failed"),
        (
            f"{STAMP} [info     ] [DAG TEST] running task <TaskInstance: feedamp_order_import.place_orders"
            " run [None]> [airflow.sdk.definitions.dag] loc=dag.py:1504\n",
            "04:00:36  task place_orders",
        ),
        (f"{STAMP} [debug    ] PUT orders 200         [{OPERATOR}] loc=orders.py:9\n", ""),
        (f"{STAMP} [info     ] Pushing xcom           [task] loc=x.py:1\n", ""),
        ("Traceback (most recent call last):\n", ""),
    ],
)
def test_the_demo_shows_the_essence_of_the_log(line: str, shown: str) -> None:
    assert essential(line) == shown


def test_the_order_file_of_the_demo_is_the_same_every_time(tmp_path: Path) -> None:
    bad = [write_orders(tmp_path / name, 300, bad=True) for name in ("a", "b")]

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert len((tmp_path / "a").read_text(encoding="utf-8").splitlines()) == 300 + bad[0]


def test_a_program_and_its_children_are_gone_after_the_block() -> None:
    with started(["sh", "-c", "sleep 60 & echo $!; wait"], os.environ, subprocess.PIPE) as program:
        assert program.stdout
        child = int(program.stdout.readline())

    assert program.poll() is not None
    # It was killed with its group; how soon the kernel gets to it is the kernel's.
    deadline = time.monotonic() + 10
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(child)


def test_the_house_names_the_files_that_a_run_enters_in_any_thread() -> None:
    def work() -> None:
        thread = threading.Thread(target=one_line, args=("text",))
        thread.start()
        thread.join()

    assert entered(work) == ["hooks/sellers.py"]
    assert entered(lambda: None) == []


@pytest.mark.once
@pytest.mark.processes
def test_the_house_prints_its_figures_and_names_the_files_behind_them() -> None:
    command = [sys.executable, "-m", "scripts.house", "-v"]

    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()

    figures = [line for line in lines if not line.startswith(" ")]
    assert len(figures) == 9
    assert [line for line in figures if not re.search(r"  [\d,]+( \(sandbox [\d,]+\))?$", line)] == []
    assert "    operators/orders.py" in lines


def is_running(pid: int) -> bool:
    """Tell whether a process runs; one that only waits to be collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
