"""The faults that an import meets: whatever happens, FeedAMP, the rejects and the account end as without.

All imports run at the same time, each for a seller of its own and in processes of their own. The orders are
the real ones where they are at hand, else made ones; each twentieth comes once more, changed.
docs/import-under-faults.md says what is seen here.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import airflow
import pytest
from packaging.version import Version

from airflow_provider_feedamp.sandbox.control import SandboxControl
from scripts.processes import started
from tests.airflow_runs import make_airflow
from tests.faults import importer
from tests.faults.imports import FAULTS, KILLS, TASK_KILLS, Seller, World, until
from tests.house import ROOT
from tests.operators.support import order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from subprocess import Popen

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

REAL_ORDERS = ROOT.parent / "shared" / "data" / "online_retail_orders.ndjson"
DAGS = ROOT / "tests" / "dags"
MADE = 4000
GOES_ON = Version(Version(airflow.__version__).base_version) >= Version("3.3")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Seller]]:
    """Run all imports at the same time."""
    folder = tmp_path_factory.mktemp("faults")
    source = folder / "orders.ndjson"
    lines = with_changes(real_lines() if REAL_ORDERS.exists() else made_lines())
    source.write_bytes(b"".join(lines))
    total = len({json.loads(line)["mp_order_number"] for line in lines})
    multiprocessing.get_context("forkserver").set_forkserver_preload(importer.PRELOADED)
    ready = folder / "ready.json"
    command = [sys.executable, "-m", "airflow_provider_feedamp.sandbox", "--port", "0"]
    command += ["--ready-file", str(ready), *(f"--seller={each.__name__}" for each in FAULTS)]
    with ExitStack() as stack:
        output = stack.enter_context((folder / "sandbox.log").open("wb"))
        server = stack.enter_context(started(command, os.environ, output))
        found = told(server, ready)
        connections = {"feedamp_default": found["connections"]["task_killed"]}
        home = make_airflow(tmp_path_factory, dags_of(folder), connections)
        world = World(found["connections"], SandboxControl(found["base_url"]), source, total, home)
        sellers = [Seller(world, each.__name__) for each in FAULTS]
        pool = stack.enter_context(ThreadPoolExecutor(len(FAULTS)))
        for future in [pool.submit(timed, fault, each) for fault, each in zip(FAULTS, sellers, strict=True)]:
            future.result()
        for each in sellers:
            print(f"{each.name}: {each.seconds:.0f} s; {each.tries()}")  # the figures of the page; see -s
        yield {each.name: each for each in sellers}


def told(server: Popen[bytes], ready: Path) -> Any:
    until(lambda: ready.exists() or server.poll() is not None, "the sandbox serves")
    return json.loads(ready.read_text())


def timed(fault: Callable[[Seller], None], seller: Seller) -> None:
    begun = time.monotonic()
    fault(seller)
    seller.seconds = time.monotonic() - begun


def dags_of(folder: Path) -> Path:
    """Return a DAG folder with the one DAG."""
    (folder / "dags").mkdir()
    (folder / "dags" / "import_killed.py").write_text((DAGS / "import_killed.py").read_text())
    return folder / "dags"


def real_lines() -> list[bytes]:
    return REAL_ORDERS.read_bytes().splitlines(keepends=True)


def made_lines() -> list[bytes]:
    made = (order(f"M-{at}", currency="?" if at % 23 == 0 else "USD") for at in range(MADE))
    return [json.dumps(each).encode() + b"\n" for each in made]


def with_changes(lines: list[bytes]) -> list[bytes]:
    """Return the lines, each twentieth followed by a later state of the same order."""
    changed = []
    for at, line in enumerate(lines):
        changed.append(line)
        if at % 20 == 0:
            later = json.loads(line) | {"marketplace_state": "AWAITING_SHIPMENT", "sales_channel": "LATER"}
            changed.append(json.dumps(later).encode() + b"\n")
    return changed


@pytest.mark.parametrize("fault", [each.__name__ for each in FAULTS])
def test_all_orders_end_in_the_same_state_with_the_same_rejects_and_account(
    ran: dict[str, Seller], fault: str
) -> None:
    faulty, wanted = ran[fault], ran["plain"]

    assert faulty.codes[-1] == 0, faulty.log()
    assert faulty.stored == wanted.stored
    assert faulty.rejects.read_bytes() == wanted.rejects.read_bytes()
    read, placed, inserted, updated, rejected = faulty.account()
    expected = wanted.account()
    assert (read, placed, rejected) == (expected[0], expected[1], expected[4])
    assert inserted + updated == placed
    assert not faulty.checkpoint.exists()


def test_without_a_fault_each_order_is_inserted_once_and_has_its_last_state(ran: dict[str, Seller]) -> None:
    seller = ran["plain"]
    lines = seller.world.source.read_bytes().splitlines()
    rejected = {json.loads(line)["line"] for line in seller.rejects.read_bytes().splitlines()}
    placed = [line.decode() for at, line in enumerate(lines, 1) if at not in rejected]

    assert seller.stored == {json.loads(line)["mp_order_number"]: line for line in placed}
    assert seller.account() == (
        len(lines),
        len(placed),
        len(seller.stored),
        len(placed) - len(seller.stored),
        len(rejected),
    )


def test_a_stop_of_feedamp_is_waited_for_and_said(ran: dict[str, Seller]) -> None:
    assert ran["stops"].codes == [0]
    assert "gave no answer (NewConnectionError)" in ran["stops"].log()


def test_a_minute_of_429_is_met_by_all_workers_together(ran: dict[str, Seller]) -> None:
    pauses = ran["busy"].log().count("all calls wait for")

    assert ran["busy"].codes == [0]
    assert 4 <= pauses <= 16
    # Those on their way at the first refusal, then a few at the end of each pause; not all 16 of them.
    assert ran["busy"].refused <= 16 + 6 * pauses


def test_lost_answers_are_asked_for_again(ran: dict[str, Seller]) -> None:
    lost = ran["drops"].log().count("gave no answer")

    assert ran["drops"].codes == [0]
    # What FeedAMP did before the answer was lost is an update when it is sent again.
    assert lost > ran["drops"].account()[1] // 20
    assert ran["drops"].account()[3] - ran["plain"].account()[3] > lost // 2


def test_a_full_disk_ends_the_import_with_the_account_of_what_is_in_the_file(ran: dict[str, Seller]) -> None:
    seller = ran["disk_full"]
    read, placed, _, _, rejected = seller.account(0)

    assert seller.codes == [1, 0]
    assert read == placed + rejected
    assert "RejectsFileError: Rejects file" in seller.log(0)
    assert "is not in it" in seller.log(0)
    assert f"Going on behind the first {read} orders" in seller.log()


def test_a_line_without_its_end_is_a_reject_and_the_whole_file_is_sent_anew(ran: dict[str, Seller]) -> None:
    seller = ran["cut_off"]

    assert seller.codes == [0, 0]
    assert "is not JSON" in seller.log(0) or "more orders were rejected" in seller.log(0)
    assert "Going on" not in seller.log()


def test_a_cut_off_gzip_file_is_an_error_with_an_account(ran: dict[str, Seller]) -> None:
    seller = ran["cut_off_gzip"]
    read, placed, _, _, rejected = seller.account(0)

    assert seller.codes == [1, 0]
    assert read == placed + rejected > 0
    assert "is not a whole gzip file" in seller.log(0)
    assert "Sending all orders again" in seller.log()


@pytest.mark.parametrize(("fault", "kills"), [("killed", KILLS), ("task_killed", TASK_KILLS)])
def test_after_a_kill_the_next_process_goes_on_behind_the_checkpoint(
    ran: dict[str, Seller], fault: str, kills: int
) -> None:
    seller = ran[fault]
    went_on = [seller.log(each).count("Going on behind the first") for each in range(kills + 1)]

    assert seller.codes == [-signal.SIGKILL] * kills + [0]
    if fault == "killed" or GOES_ON:
        # Before its first checkpoint a try leaves nothing to go on from.
        assert sum(went_on) >= kills // 2
        assert seller.account()[2] > ran["plain"].account()[2] // 10


def test_no_log_holds_a_token_or_a_customer(ran: dict[str, Seller]) -> None:
    world = ran["plain"].world
    orders = [json.loads(line) for line in world.source.read_bytes().splitlines()]
    people = {each["customer"]["full_name"] for each in orders} - {""}

    for seller in ran.values():
        logs = "".join(path.read_text() for path in seller.folder.glob("*.log"))
        assert [token for token in world.control.access_tokens(seller.name) if token in logs] == []
        assert [name for name in people if name in logs] == []
