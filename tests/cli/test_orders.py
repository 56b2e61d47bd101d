"""``feedamp orders import``: the operator's import from a shell."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.bulk.progress import Progress
from airflow_provider_feedamp.cli import orders
from airflow_provider_feedamp.cli.base import OWN_LOGGER
from airflow_provider_feedamp.cli.orders import Bar, bar_line
from tests.bulk.feedamps import write_orders
from tests.cli.support import run
from tests.house import ROOT
from tests.operators.support import order

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.support import Shop

# What one Airflow does with it is in test_end_to_end.
pytestmark = pytest.mark.once

PATIENCE = 60
HALF = Progress(done=50, placed=48, rejected=2, total=100, rate=10.0)


def numbers(shop: Shop, seller: str = "hooli") -> list[str]:
    return [each["mp_order_number"] for each in shop.sandbox.control.orders(seller)]


def test_a_check_sends_nothing_and_needs_neither_connection_nor_token(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_FEEDAMP_DEFAULT", raising=False)
    rejects = tmp_path / "rejects.ndjson"

    result = run("orders", "import", source, "--check", "--rejects", str(rejects), code=1)

    assert f"Checked all orders of {source}: read 5, placed 0" in result.stdout
    assert "1 of 5 orders was rejected, and --max-failures is 0." in result.stderr
    assert [json.loads(line)["line"] for line in rejects.read_text().splitlines()] == [3]


@pytest.mark.parametrize(("most", "code"), [("0", 1), ("1", 0), ("any", 0)])
def test_more_rejects_than_allowed_are_a_failure(shop: Shop, source: str, most: str, code: int) -> None:
    result = run("orders", "import", source, "--max-failures", most)

    assert result.exit_code == code
    assert "rejected 1" in result.stdout
    assert "--rejects names a file for them" in result.stdout
    assert result.stderr.endswith("--max-failures is 0.\n") is bool(code)


def test_the_orders_go_to_the_named_seller_of_the_named_connection(
    shop: Shop, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", os.environ["AIRFLOW_CONN_FEEDAMP_DEFAULT"])
    monkeypatch.delenv("AIRFLOW_CONN_FEEDAMP_DEFAULT")
    shop.put("globex", refresh_token=shop.sandbox.control.refresh_tokens("globex")[-1])

    result = run(
        "orders", "import", source, "--conn-id", "other", "--seller", "globex", "--max-failures", "1"
    )

    assert result.exit_code == 0, result.output
    assert (len(numbers(shop)), len(numbers(shop, "globex"))) == (0, 4)


def test_the_pace_and_the_number_of_workers_are_kept(
    shop: Shop, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_feedamp.bulk import place as run_module
    from airflow_provider_feedamp.hooks import feedamp as hook_module

    seen: dict[str, Any] = {}
    placing: Any = run_module.place_orders
    hook = hook_module.FeedAmpHook

    def place(orders: Any, *args: Any, **options: Any) -> Any:
        seen.update(options)
        return placing(orders, *args, **options)

    class Hook(hook):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **options: Any) -> None:
            seen.update(options)
            super().__init__(*args, **options)

    monkeypatch.setattr(run_module, "place_orders", place)
    monkeypatch.setattr(hook_module, "FeedAmpHook", Hook)

    run("orders", "import", source, "--max-workers", "3", "--requests-per-second", "500")

    assert (seen["max_workers"], seen["pool_size"], seen["requests_per_second"]) == (3, 3, 500.0)


def test_an_empty_file_is_misuse_unless_it_is_fine(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "none.ndjson").touch()
    command = ("orders", "import", str(tmp_path / "none.ndjson"))

    assert (run(*command).exit_code, run(*command, "--allow-empty").exit_code) == (2, 0)


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-file.ndjson",),
        ("orders.txt",),
        (),
        ("a.ndjson", "--max-failures", "-1"),
        ("a.ndjson", "--max-failures", "some"),
        ("a.ndjson", "--max-workers", "0"),
        ("a.ndjson", "--max-workers", "257"),
        ("a.ndjson", "--requests-per-second", "0"),
        ("a.ndjson", "--requests-per-second", "nan"),
        ("a.ndjson", "--rejects", "a.ndjson"),
        ("a.ndjson", "--seller", " "),
    ],
)
def test_a_misuse_is_one_line_and_exit_code_2(shop: Shop, arguments: tuple[str, ...]) -> None:
    result = run("orders", "import", *arguments, code=2)

    assert [line[:7] for line in result.stderr.splitlines()] == ["Error: "]
    assert result.stdout == ""


def test_a_query_is_run_on_the_named_connection(shop: Shop, tmp_path: Path) -> None:
    result = run("orders", "import", "SELECT body FROM orders", "--sql-conn-id", "no_such_database")

    assert result.exit_code in (1, 2)
    assert "no_such_database" in result.stderr
    assert "SELECT" not in result.output


def test_a_failure_half_way_still_gives_the_account(shop: Shop, source: str) -> None:
    shop.sandbox.control.fault("http_error", on="place_order", status=403, every=3, times=1)

    result = run("orders", "import", source, "--max-workers", "1", code=1)

    assert "Until then: 3 orders done, 2 placed, 1 rejected" in result.stdout
    assert "403" in result.stderr


def test_tokens_that_end_with_the_command_are_not_obtained(
    shop: Shop, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__FEEDAMP__TOKEN_STORE", "memory")

    result = run("orders", "import", source, code=1)

    assert "'memory'" in result.stderr
    assert shop.sandbox.control.counters()["token_posts"] == 0


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
def test_on_a_terminal_it_draws_a_bar_and_an_interruption_ends_with_the_account(
    shop: Shop, tmp_path: Path, how: str
) -> None:
    source = write_orders(tmp_path / "many.ndjson", (order(f"B-{line}") for line in range(400)))
    shop.sandbox.control.fault("slow", on="place_order", seconds=0.05, times=None)
    command = [sys.executable, "-m", "airflow_provider_feedamp", "orders", "import", source]
    ours, theirs = pty.openpty()
    seen = b""
    # A session of its own with the terminal as the one that Ctrl-C comes from.
    with subprocess.Popen(
        ["setsid", "--ctty", *command, "--max-workers", "2"],
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        while chunk := read(ours):
            seen += chunk
            if b"\r[" in seen and how:  # the first orders are done
                if how == "Ctrl-C":
                    os.write(ours, b"\x03")
                else:
                    process.send_signal(signal.SIGTERM)
                how = ""
        process.wait(PATIENCE)
    os.close(ours)
    text = seen.decode()

    assert process.returncode == 1, text
    (account,) = [line for line in text.splitlines() if line.startswith("Until then: ")]
    placed = int(account.split()[5])
    # Whatever was answered is counted, and nothing else.
    assert 0 < placed == len(numbers(shop)) < 400
    assert "Stopped before the end. A new import sends all orders again" in text
    assert "Secretname" not in text


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how a terminal says that nobody is left at the other end
        return b""


def test_the_bar_says_how_far_it_is_in_the_width_that_there_is() -> None:
    words = "50 of about 100, 10/s, 2 rejected, 5 s left"

    assert bar_line(HALF, 120) == f"[{'#' * 15}{'-' * 15}]  50%  {words}"
    assert bar_line(HALF, 50) == f"[##---]  50%  {words}"[:49]
    assert bar_line(Progress(3, 3, 0, None, 1.0), 80) == "3 orders done, 1/s, 0 rejected"


@pytest.mark.parametrize("whose", ["", OWN_LOGGER], ids=["Airflow's", "ours"])
def test_a_log_line_comes_above_the_bar(whose: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    logger = logging.getLogger(whose)
    monkeypatch.setattr(logger, "propagate", False)
    before = list(logger.handlers)
    logger.addHandler(handler)
    try:
        bar = Bar(out)
        bar(HALF)
        logger.getChild("bulk").warning("Rejected line 3")
        bar(Progress(100, 98, 2, 100, 10.0, ended=True))
    finally:
        logger.removeHandler(handler)

    drawn_first, room, rest = out.getvalue().split("\r")[1:4]
    assert room.strip() == ""
    assert len(room) >= len(drawn_first)
    assert rest.startswith("Rejected line 3\n")
    assert out.getvalue().endswith(", 0 s left\n")
    assert logger.handlers == before


def test_without_a_terminal_there_is_a_line_every_few_seconds(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lines() -> list[str]:
        told = run("orders", "import", source, "--check", "--max-failures", "any").stderr.splitlines()
        return [line for line in told if re.search(r"orders done, \d+ per second, \d rejected", line)]

    at_once = lines()  # all of it takes less than the seconds between two lines
    monkeypatch.setattr(orders, "LINE_EVERY", 0.0)

    assert at_once == []
    assert lines()
