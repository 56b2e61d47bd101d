"""The benchmarks measure what they say: the server, the short rows, and the table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from airflow_provider_feedamp.api.checks import order_problems
from benchmarks.__main__ import main, table
from benchmarks.contestants import WARM_UP, new_token
from benchmarks.orders import number_of, order_line, write_orders
from benchmarks.rows import ROWS, Row
from benchmarks.world import World, world

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def place() -> Iterator[World]:
    with world() as running:
        yield running


def put(place: World, body: bytes, token: str) -> tuple[int, bytes]:
    headers = {"Authorization": f"Bearer {token}"}
    request = Request(f"{place.url}/orders/A", data=body, method="PUT", headers=headers)  # noqa: S310
    with urlopen(request) as answer:  # noqa: S310
        return answer.status, answer.read()


def test_an_order_is_answered_with_itself(place: World) -> None:
    body = order_line(1)
    assert put(place, body, new_token(place.url)) == (201, body)


def test_a_token_that_was_not_given_out_is_refused_and_counted(place: World) -> None:
    before = place.counts()["refused"]
    with pytest.raises(HTTPError, match="401"):
        put(place, b"{}", "somebody's")
    assert place.counts()["refused"] == before + 1


def test_the_orders_are_good_ones_with_their_own_numbers(tmp_path: Path) -> None:
    lines = write_orders(tmp_path / "orders.ndjson", 3).read_bytes().splitlines()
    orders = [json.loads(line) for line in lines]
    assert [order["mp_order_number"] for order in orders] == [number_of(0), number_of(1), number_of(2)]
    assert [order_problems(order) for order in orders] == [[], [], []]


def test_another_way_places_the_orders_and_says_what_it_took(place: World) -> None:
    before = place.counts()["PUT"]
    figures = place.contestant("http-hook", place.orders(20), 1)
    assert figures["orders"] == 20
    assert place.counts()["PUT"] - before >= 20
    assert 0 < figures["cpu"] < 60
    assert 0 < figures["seconds"]


def test_a_warm_token_costs_no_store_access_and_a_new_process_one_read_and_no_token(place: World) -> None:
    assert place.ours("token")["store_accesses"] == 0
    posts = place.counts()["POST"]
    assert place.ours("new-process")["accesses"] == {"read": 1}
    assert place.counts()["POST"] == posts


def test_warm_calls_and_a_task_place_what_is_measured(place: World) -> None:
    before = place.counts()["PUT"]
    assert place.ours("call", "--count", "5")["orders"] == 5
    assert place.counts()["PUT"] - before == WARM_UP + 5
    figures = place.first_request()
    assert place.counts()["PUT"] - before == WARM_UP + 6
    assert figures["orders"] == 1
    assert 0 < figures["cpu"] < 60


def test_the_table_has_a_line_for_each_row_and_says_where_it_was_measured() -> None:
    about = {
        "date": "2026-01-01",
        "machine": "2 cores",
        "airflow": "3.3",
        "python": "3.11",
        "requests": "2",
        "urllib3": "2",
    }
    rows = [
        Row("a", "1 ms", "b: 2 ms", 0.5, "at most 1", reached=True),
        Row("c", "1", "", 9, "under 5", False),
    ]
    lines = table(rows, about).splitlines()
    assert lines[2:4] == [
        "| a | 1 ms | b: 2 ms | 0.50 | at most 1 | yes |",
        "| c | 1 |  | 9.00 | under 5 | no |",
    ]
    assert lines[-1].startswith("Measured on 2026-01-01 with `make bench`: Airflow 3.3,")


def test_an_unknown_row_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", "token", "speeed"])
    monkeypatch.setitem(ROWS, "token", lambda options: pytest.fail("it was measured"))
    with pytest.raises(SystemExit):
        main()
    assert "speeed" in capsys.readouterr().err
