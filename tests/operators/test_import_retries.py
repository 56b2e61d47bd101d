"""An import that ends half way in a real Airflow, by an error or a signal, and its retry."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

import airflow
import pytest
from packaging.version import Version

from airflow_provider_feedamp.sandbox.server import serve
from airflow_provider_feedamp.sandbox.settings import SandboxSettings
from tests.airflow_runs import PATIENCE, AirflowHome, make_airflow
from tests.house import ROOT
from tests.operators.support import lines, order

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_feedamp.sandbox.server import RunningSandbox

pytestmark = [pytest.mark.processes, pytest.mark.timeout(2 * PATIENCE)]

DAGS = ROOT / "tests" / "dags"
SELLERS = {"feedamp_fails": "hooli", "is_terminated": "globex", "runs_out_of_time": "initech"}
GOES_ON = Version(Version(airflow.__version__).base_version) >= Version("3.3")
NUMBER = 100


class Ran(NamedTuple):
    home: AirflowHome
    sandbox: RunningSandbox
    folder: Path
    output: str


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("orders")
    orders = [order(f"A-{line}", currency="?" if line % 10 == 0 else "USD") for line in range(1, NUMBER + 1)]
    (folder / "orders.ndjson").write_bytes(lines(*orders))
    with serve(SandboxSettings(sellers=tuple(SELLERS.values()))) as sandbox:
        connections = {f"feedamp_{seller}": sandbox.connection(seller) for seller in SELLERS.values()}
        place = {"on": "place_order"}
        sandbox.control.fault("http_error", status=503, wait=500, every=60, seller="hooli", **place)
        sandbox.control.fault("slow", seconds=0.05, times=60, seller="globex", **place)
        sandbox.control.fault("slow", seconds=0.1, times=70, seller="initech", **place)
        home = make_airflow(tmp_path_factory, DAGS, connections)
        settings = {
            "AIRFLOW__FEEDAMP__TOKEN_STORE": "memory",
            "IMPORT_RETRIES_FOLDER": str(folder),
            "IMPORT_RETRIES_SANDBOX": connections["feedamp_hooli"]["host"],
        }
        _, output = home.run({DAGS / "import_retries.py": {}}, settings=settings)
        yield Ran(home, sandbox, folder, output)


@pytest.mark.parametrize("task", SELLERS)
def test_the_retry_ends_with_the_account_of_the_whole_source(ran: Ran, task: str) -> None:
    end = ran.home.tasks("feedamp_import_retries")[task]
    returned = ran.home.returned("feedamp_import_retries")[task]

    assert end.state == "success", ran.output
    assert 2 <= end.tries <= 6
    assert (returned["read"], returned["placed"], returned["rejected"]) == (NUMBER, 90, 10)
    assert len(ran.sandbox.control.orders(SELLERS[task])) == 90
    kept = (ran.folder / f"{SELLERS[task]}.ndjson").read_bytes().splitlines()
    assert [json.loads(line)["line"] for line in kept] == list(range(10, NUMBER + 1, 10))


@pytest.mark.parametrize("task", SELLERS)
def test_the_retry_goes_on_where_airflow_keeps_checkpoints_and_else_sends_all_again(
    ran: Ran, task: str
) -> None:
    returned = ran.home.returned("feedamp_import_retries")[task]

    if GOES_ON:
        # Sent again is only what was under way: an order that is sent again is an update.
        assert returned["updated"] <= 4
        assert ran.output.count("Going on behind the first") >= len(SELLERS)
    else:
        assert returned["updated"] > 4
        assert "Airflow keeps no checkpoint for a retry before 3.3" in ran.output


def test_nothing_is_left_of_a_checkpoint_and_nothing_of_the_customer_was_in_it(ran: Ran) -> None:
    assert "rejects_size" not in ran.home.dump()
    assert "Secretname" not in ran.output
