"""An order lives from purchase to payout in one real Airflow, with the sandbox as FeedAMP."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.sandbox.server import serve
from tests.airflow_runs import PATIENCE, TaskEnd, make_airflow
from tests.leaks import Secrets
from tests.sandbox.caller import order, return_

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = [pytest.mark.once, pytest.mark.timeout(2 * PATIENCE)]

FILE = Path(__file__).parents[1] / "dags" / "order_life.py"
DAG_ID = "feedamp_order_life"
N = "600/A ü"
RETURN = "RET 1/ä"


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def quantities(order: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Return how much of each line the seller shipped and cancelled."""
    return {
        line["mp_line_number"]: {
            name: sum(entry["quantity"] for entry in line[name]) for name in ("shipments", "cancellations")
        }
        for line in order["fulfillments"]
    }


def test_an_order_lives_from_purchase_to_payout(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    placed = order(N, marketplace_state="PENDING")
    returned = return_(mp_order_number=N, mp_return_number=RETURN)
    with serve() as sandbox:
        home = make_airflow(tmp_path_factory, FILE.parent, {"feedamp_default": sandbox.connection("hooli")})
        conf = {"sandbox": sandbox.base_url, "order": placed, "return": returned, "folder": str(tmp_path)}
        report, output = home.run({FILE: conf})

        # Every task did its part at its first try.
        assert report[FILE.name] == {"dag_id": DAG_ID, "state": "success", "warnings": []}, output
        assert set(home.tasks(DAG_ID).values()) == {TaskEnd("success", 1)}
        assert output.count("running trigger in line") == 3  # as many sensors waited in the triggerer
        told = home.returned(DAG_ID)

        # Placed and held, released, begun, reported, mended, fulfilled, closed.
        assert (told["place"]["inserted"], told["release"]["set"]) == (1, 1)
        assert "PENDING" in told["held"]
        assert told["begun"] == told["fulfilled"] == [N]
        assert told["changed"] == [{"mp_order_number": N, "status": "IN_PROGRESS"}]
        assert list(told["close_too_early"]["skipped"]) == [N]
        assert told["close"]["shipped"] == 1
        [held] = sandbox.control.orders("hooli")
        assert (held["marketplace_state"], held["status"], held["acknowledged"]) == (
            "SHIPPED",
            "COMPLETE",
            True,
        )
        assert quantities(held) == {
            "L1": {"shipments": 3, "cancellations": 1},
            "L2": {"shipments": 0, "cancellations": 1},
        }
        assert placed | {"marketplace_state": "SHIPPED"} == {
            name: value for name, value in json.loads(held["raw"]).items() if name in placed
        }

        # The refund and the return are paid, and nothing is left to be resolved.
        assert [told[f"{each}_has_errors"] for each in ("order", "refund", "return")] == [
            {"orders": 1, "refunds": 0, "returns": 0},
            {"orders": 0, "refunds": 1, "returns": 0},
            {"orders": 0, "refunds": 0, "returns": 1},
        ]
        assert told["pay_refunds"] == {"completed": 1, "reported": 0, "skipped": {}, "failed": {}}
        assert [each["status"] for each in sandbox.control.refunds("hooli")] == ["COMPLETE"]
        assert [told[each][0]["status"] for each in ("authorised", "amounts_entered", "read_amounts")] == [
            "AUTHORIZED",
            "REFUNDED",
            "REFUNDED",
        ]
        [amount] = told["read_amounts"][0]["merchant_refund_lines"]
        assert amount["principal_refund_amount"] == 40.10
        [given_back] = sandbox.control.returns("hooli")
        assert given_back["status"] == "COMPLETED"
        assert held["errors"] == given_back["errors"] == []

        # The warehouse has it all.
        files = {path.name.partition(".")[0]: read(path) for path in tmp_path.glob("*.ndjson.gz")}
        assert {name: [each["mp_order_number"] for each in found] for name, found in files.items()} == {
            name: [N] for name in ("orders", "fulfillments", "refunds", "returns")
        }

        # One token served everything, and it is nowhere in clear.
        assert sandbox.control.counters()["tokens"] == {"refresh_token": {"issued": 1}}
        assert "feedamp_token_" in home.dump()
        assert Secrets(sandbox).found_in(home.dump()) == []
