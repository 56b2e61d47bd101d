"""All real orders go into a local FeedAMP, over many access tokens, and each one is accounted for."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.operators.orders import FeedAmpPlaceOrdersOperator
from airflow_provider_feedamp.sandbox.server import RunningSandbox, serve
from airflow_provider_feedamp.sandbox.settings import SandboxSettings
from tests.house import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REAL_ORDERS = ROOT.parent / "shared" / "data" / "online_retail_orders.ndjson"
TOKEN_SECONDS = 1

pytestmark = pytest.mark.skipif(
    not REAL_ORDERS.exists(), reason=f"the real orders are not here: ../shared/data/{REAL_ORDERS.name}"
)


@dataclass(frozen=True, slots=True)
class Import:
    """What became of the import.

    :param lines: The source, by line number.
    :param rejects: The rejected lines, by line number.
    """

    counts: dict[str, Any]
    lines: dict[int, str]
    rejects: dict[int, dict[str, Any]]
    sandbox: RunningSandbox
    stored: dict[str, str]


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Import]:
    rejects = tmp_path_factory.mktemp("orders") / "rejects.ndjson"
    with (
        serve(SandboxSettings(access_token_ttl=TOKEN_SECONDS)) as sandbox,
        pytest.MonkeyPatch.context() as patch,
    ):
        connection = sandbox.connection("hooli")
        patch.setenv("AIRFLOW__FEEDAMP__TOKEN_STORE", "memory")
        patch.setenv("AIRFLOW_CONN_FEEDAMP_DEFAULT", json.dumps(connection))
        task = FeedAmpPlaceOrdersOperator(
            task_id="place_orders", source=str(REAL_ORDERS), rejects=str(rejects), max_failures=None
        )
        counts = task.execute({})
        stored = {each["mp_order_number"]: each["raw"] for each in sandbox.control.orders("hooli")}
        yield Import(counts, numbered(REAL_ORDERS), kept_in(rejects), sandbox, stored)


def numbered(source: Path) -> dict[int, str]:
    # Not splitlines(): a product's name may hold any kind of separator.
    return dict(enumerate(source.read_text(encoding="utf-8").removesuffix("\n").split("\n"), 1))


def kept_in(rejects: Path) -> dict[int, dict[str, Any]]:
    if not rejects.exists():
        return {}
    kept = [json.loads(line) for line in rejects.read_text(encoding="utf-8").removesuffix("\n").split("\n")]
    assert len({each["line"] for each in kept}) == len(kept)  # no line is rejected twice
    return {each["line"]: each for each in kept}


def number_of(line: str) -> str:
    return str(json.loads(line)["mp_order_number"])


def test_every_line_is_placed_or_rejected(imported: Import) -> None:
    counts = imported.counts

    assert counts["read"] == len(imported.lines) == 6185
    assert counts["placed"] + counts["rejected"] == 6185
    assert counts["inserted"] + counts["updated"] == counts["placed"]
    assert counts["rejected"] == len(imported.rejects)


def test_what_was_placed_is_in_the_account_exactly_as_in_the_file(imported: Import) -> None:
    placed = [line for at, line in imported.lines.items() if at not in imported.rejects]

    # An order that comes twice ends as its last line has it.
    assert imported.stored == {number_of(line): line for line in placed}


def test_nothing_is_lost_and_nothing_is_placed_twice(imported: Import) -> None:
    placed = Counter(number_of(line) for at, line in imported.lines.items() if at not in imported.rejects)

    assert set(imported.stored) == set(placed)
    assert imported.counts["inserted"] == len(placed)
    counters = imported.sandbox.control.counters()
    # FeedAMP was asked once per order, and once more for each bearer that ended on the way.
    assert counters["calls"]["place_order"] - counters["refused"].get("401", 0) == sum(placed.values())
    assert set(counters["refused"]) <= {"401"}


def test_every_reject_is_whole_and_has_its_reason(imported: Import) -> None:
    for at, kept in imported.rejects.items():
        assert kept["reason"]
        assert kept["order"] == json.loads(imported.lines[at])
        assert kept["mp_order_number"] == number_of(imported.lines[at])


def test_access_tokens_ended_on_the_way_and_no_order_failed_for_it(imported: Import) -> None:
    counters = imported.sandbox.control.counters()

    assert counters["tokens"].keys() == {"refresh_token"}
    assert counters["tokens"]["refresh_token"].keys() == {"issued"}
    assert counters["tokens"]["refresh_token"]["issued"] >= 3
    assert counters["token_posts_in_flight_max"] == 1


def test_the_other_sellers_account_stays_empty(imported: Import) -> None:
    assert imported.sandbox.control.orders("globex") == []
