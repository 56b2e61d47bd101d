"""The task that returns what a seller changed since its last run, run after run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
import time_machine
from airflow.providers.common.compat.sdk import Asset

from airflow_provider_feedamp.exceptions import ApiError, InputError
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
from airflow_provider_feedamp.operators.changed_orders import FeedAmpChangedOrdersOperator
from tests.lineage import airflow_outlet_events
from tests.operators.support import CUSTOMER, for_good, order

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox

pytestmark = pytest.mark.once

HOUR = timedelta(hours=1)
NEW_YORK = ZoneInfo("America/New_York")


@dataclass
class Run:
    """A DAG run with its task, whose XCom behaves as Airflow's own (tests/system has the real one)."""

    history: Runs
    run_id: str
    logical_date: datetime | None
    run_after: datetime
    task_id: str = "changed_orders"
    dag_id: str = "polling"
    map_index: int = -1
    states: dict[int, str] = field(default_factory=dict)
    xcom: dict[tuple[int, str], tuple[int, Any]] = field(default_factory=dict)
    outlet_events: Any = None

    def xcom_push(self, key: str, value: Any) -> None:
        self.history.pushes += 1
        self.xcom[self.map_index, key] = self.history.pushes, json.loads(json.dumps(value))

    def xcom_pull(self, *, task_ids: str, key: str, include_prior_dates: bool, map_indexes: int) -> Any:
        assert include_prior_dates
        assert task_ids == self.task_id
        found = [
            (run.logical_date, *run.xcom[map_indexes, key])
            for run in self.history.runs
            if (map_indexes, key) in run.xcom
            and (run.logical_date or run.run_after) <= (self.logical_date or self.run_after)
        ]
        undated = datetime.max if self.history.undated_first else datetime.min
        found.sort(key=lambda each: (each[0] or undated.replace(tzinfo=UTC), each[1]))
        return found[-1][2] if found else None

    def get_task_states(
        self, *, dag_id: str, task_ids: list[str], run_ids: list[str], map_index: int
    ) -> dict[str, dict[str, str]]:
        [run_id] = run_ids
        [run] = [run for run in self.history.runs if run.run_id == run_id]
        return {run_id: {f"{self.task_id}_{map_index}": run.states[map_index]}}

    def returns(self, map_index: int = -1, **arguments: Any) -> list[str]:
        """Run the task, or run it again, and return the numbers of the orders that it returns."""
        self.map_index = map_index
        self.xcom = {at: kept for at, kept in self.xcom.items() if at[0] != map_index}
        self.states[map_index] = "running"
        interval = {} if self.logical_date is None else {"data_interval_start": self.logical_date}
        context: Any = {"ti": self, "dag_run": SimpleNamespace(**vars(self)), **interval}
        context["outlet_events"] = self.outlet_events = airflow_outlet_events()
        self.states[map_index] = "failed"
        orders = FeedAmpChangedOrdersOperator(task_id=self.task_id, **arguments).execute(context)
        self.states[map_index] = "success"
        assert json.loads(json.dumps(orders)) == orders
        return [order["mp_order_number"] for order in orders]


@dataclass
class Runs:
    """All runs of a DAG, on a database that sorts runs without a date first or last."""

    undated_first: bool = False
    runs: list[Run] = field(default_factory=list)
    pushes: int = 0

    def dated(self, logical_date: datetime) -> Run:
        return self._add(logical_date, logical_date)

    def undated(self, run_after: datetime) -> Run:
        return self._add(None, run_after)

    def _add(self, logical_date: datetime | None, run_after: datetime) -> Run:
        self.runs.append(Run(self, f"run {len(self.runs)}", logical_date, run_after))
        return self.runs[-1]


class Seller:
    """Ships orders; the marketplace places them first."""

    def __init__(self, sandbox: RunningSandbox, name: str = "hooli") -> None:
        self._control, self._name = sandbox.control, name

    def ship(self, number: str, line: str | None = None) -> None:
        held = {order["mp_order_number"] for order in self._control.orders(self._name)}
        if number not in held:
            FeedAmpHook(seller=self._name).client.orders.place(order(number))
        self._control.ship(self._name, number, **({"mp_line_number": line} if line else {}))


@pytest.fixture
def seller(feedamp: RunningSandbox) -> Seller:
    return Seller(feedamp)


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


def test_each_run_returns_what_is_new_since_the_one_before(seller: Seller, now: datetime) -> None:
    runs = Runs()
    seller.ship("A/1 ü%", "1")
    assert runs.dated(now).returns() == ["A/1 ü%"]
    seller.ship("A2")
    assert runs.dated(now + HOUR).returns() == ["A2"]
    seller.ship("A/1 ü%", "2")
    assert runs.dated(now + 2 * HOUR).returns() == ["A/1 ü%"]
    assert runs.dated(now + 3 * HOUR).returns() == []


def test_it_returns_numbers_and_statuses_alone(seller: Seller, now: datetime) -> None:
    seller.ship("A1")
    run = Runs().dated(now)
    context: Any = {"ti": run, "dag_run": run, "data_interval_start": now}

    orders = FeedAmpChangedOrdersOperator(task_id="changed_orders").execute(context)

    assert orders == [{"mp_order_number": "A1", "status": "FULFILLED"}]
    assert CUSTOMER not in json.dumps([kept for _, kept in run.xcom.values()])


def test_a_run_that_fails_leaves_its_changes_to_the_next(
    seller: Seller, feedamp: RunningSandbox, now: datetime
) -> None:
    runs = Runs()
    runs.dated(now).returns()
    seller.ship("A1")
    feedamp.control.fault("http_error", on="list_orders", status=400)
    with pytest.raises(ApiError):
        runs.dated(now + HOUR).returns()
    feedamp.control.clear_faults()

    assert runs.dated(now + 2 * HOUR).returns() == ["A1"]


def test_a_first_run_that_fails_leaves_its_start_to_the_next(
    seller: Seller, feedamp: RunningSandbox, now: datetime
) -> None:
    runs = Runs()
    with time_machine.travel(now - 2 * HOUR):
        seller.ship("A1")
    feedamp.control.fault("http_error", on="list_orders", status=400)
    with pytest.raises(ApiError):
        runs.dated(now - 3 * HOUR).returns()
    feedamp.control.clear_faults()

    # The data interval of this run begins two hours behind the change.
    assert runs.dated(now).returns() == ["A1"]


def test_a_task_that_dies_after_it_has_left_its_mark_counts_as_failed(seller: Seller, now: datetime) -> None:
    runs = Runs()
    runs.dated(now).returns()
    seller.ship("A1")
    died = runs.dated(now + HOUR)
    assert died.returns() == ["A1"]
    died.states[-1] = "failed"

    assert runs.dated(now + 2 * HOUR).returns() == ["A1"]


def test_an_old_run_that_is_cleared_returns_its_changes_again_and_moves_no_other_mark(
    seller: Seller, now: datetime
) -> None:
    runs = Runs()
    runs.dated(now).returns()
    seller.ship("A1")
    old = runs.dated(now + HOUR)
    assert old.returns() == ["A1"]
    seller.ship("A2")
    assert runs.dated(now + 2 * HOUR).returns() == ["A2"]

    assert old.returns() == ["A1", "A2"]
    assert runs.dated(now + 3 * HOUR).returns() == []


def test_a_backfill_of_earlier_dates_sees_no_later_mark_and_leaves_them_alone(
    seller: Seller, now: datetime
) -> None:
    runs = Runs()
    seller.ship("A1")
    assert runs.dated(now).returns() == ["A1"]
    assert runs.dated(now - 24 * HOUR).returns() == ["A1"]

    assert runs.dated(now + HOUR).returns() == []


@pytest.mark.parametrize("undated_first", [False, True])
def test_runs_without_a_logical_date_go_on_from_whatever_ran_before(
    seller: Seller, now: datetime, undated_first: bool
) -> None:
    runs = Runs(undated_first)
    seller.ship("A1")
    assert runs.undated(now).returns() == ["A1"]
    with time_machine.travel(now + HOUR):
        assert runs.dated(now + HOUR).returns() == []
    with time_machine.travel(now + 2 * HOUR):
        seller.ship("A2")
        assert runs.undated(now + 2 * HOUR).returns() == ["A2"]
    with time_machine.travel(now + 3 * HOUR):
        assert runs.undated(now + 3 * HOUR).returns() == []
        seller.ship("A3")
        assert runs.dated(now + 3 * HOUR).returns() == ["A3"]
    with time_machine.travel(now + 5 * HOUR):
        assert runs.dated(now + 5 * HOUR).returns() == []
    # Each went on from the latest mark, whichever kind of run had left it: nothing was asked for twice.
    ats = [kept["before"]["at"] for run in runs.runs for _, kept in run.xcom.values()]
    assert ats == sorted(ats)
    assert len(set(ats)) == len(ats)


# Sellers


def test_mapped_sellers_keep_their_marks_when_their_places_change(
    seller: Seller, feedamp: RunningSandbox, now: datetime
) -> None:
    FeedAmpHook(seller="globex").exchange_code(feedamp.control.authorize("globex"))
    globex, runs = Seller(feedamp, "globex"), Runs()
    seller.ship("A1")
    globex.ship("G1")
    first = runs.dated(now)
    assert first.returns(0, seller="hooli") == ["A1"]
    assert first.returns(1, seller="globex") == ["G1"]

    second = runs.dated(now + HOUR)
    assert second.returns(4, seller="hooli") == []
    assert second.returns(0, seller="globex") == []


def test_a_task_whose_seller_changes_per_run_goes_on_for_each(
    seller: Seller, feedamp: RunningSandbox, now: datetime
) -> None:
    FeedAmpHook(seller="globex").exchange_code(feedamp.control.authorize("globex"))
    runs = Runs()
    seller.ship("A1")
    Seller(feedamp, "globex").ship("G1")

    returned = [
        runs.dated(now + hours * HOUR).returns(seller=name)
        for hours, name in enumerate(["hooli", "globex", "hooli", "globex"])
    ]

    assert returned == [["A1"], ["G1"], [], []]


# What the event of an outlet has

PARTITIONS = hasattr(airflow_outlet_events()[Asset("feedamp://x")], "add_partitions")
OUTLETS = [Asset("feedamp://feedamp_default/changes"), Asset("s3://lake/changes")]


def test_the_event_says_how_many_orders_of_whom_have_changed(seller: Seller, now: datetime) -> None:
    run = Runs().dated(now)
    seller.ship("A1")
    run.returns(outlets=OUTLETS)

    ours, other = (run.outlet_events[each] for each in OUTLETS)
    assert (ours.extra, other.extra) == ({"seller": "hooli", "changed": 1}, {})
    assert not getattr(ours, "partition_keys", set())


@pytest.mark.skipif(not PARTITIONS, reason="assets have partitions from Airflow 3.3 on")
def test_a_seller_who_has_changed_something_is_a_partition_of_the_event(
    seller: Seller, now: datetime
) -> None:
    runs, keys = Runs(), []
    for hours, number in enumerate(["A1", None, "A2"]):
        if number:
            seller.ship(number)
        run = runs.dated(now + hours * HOUR)
        run.returns(outlets=OUTLETS, partition_by_seller="True")
        keys.append([run.outlet_events[each].partition_keys for each in OUTLETS])

    assert keys == [[{"hooli"}, set()], [set(), set()], [{"hooli"}, set()]]


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ({}, "needs an outlet whose URI begins with feedamp://"),
        ({"outlets": OUTLETS[1:]}, "needs an outlet whose URI begins with feedamp://"),
        (
            {"outlets": OUTLETS, "seller": "x" * 251},
            "at most 250 characters.*has 251" if PARTITIONS else "Airflow 3.3",
        ),
        ({"outlets": OUTLETS, "partition_by_seller": "perhaps"}, "partition_by_seller must be True or False"),
    ],
)
def test_partitions_that_cannot_be_are_refused_before_anything_is_sent(
    feedamp: RunningSandbox, arguments: dict[str, Any], wrong: str
) -> None:
    with for_good(InputError, match=wrong):
        Runs().dated(START).returns(**{"partition_by_seller": True} | arguments)

    assert feedamp.control.counters()["token_posts"] == 0


def test_an_airflow_without_partitions_is_named(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = SimpleNamespace(extra={})
    monkeypatch.setattr("airflow_provider_feedamp.operators.changed_orders.outlet_events", lambda *_: [event])

    with pytest.raises(InputError, match=r"needs Airflow 3\.3 or later"):
        Runs().dated(START).returns(outlets=OUTLETS, partition_by_seller=True)


# Where the first run begins


def asked_since(feedamp: RunningSandbox, run: Run, **arguments: Any) -> str:
    run.returns(**arguments)
    [(_, kept)] = run.xcom.values()
    return str(kept["before"]["at"])


START = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("arguments", "since"),
    [
        ({}, "2026-03-01T11:55:00+00:00"),
        ({"start": ""}, "2026-03-01T11:55:00+00:00"),
        ({"start": "None"}, "2026-03-01T11:55:00+00:00"),
        ({"start": "2026-01-01T00:00:00Z"}, "2025-12-31T23:55:00+00:00"),
        ({"start": "2026-01-01T00:00:00-05:00", "overlap": "60"}, "2026-01-01T04:59:00+00:00"),
        ({"start": datetime(2026, 1, 1, tzinfo=NEW_YORK), "overlap": 0}, "2026-01-01T05:00:00+00:00"),
        ({"overlap": timedelta(hours=2)}, "2026-03-01T10:00:00+00:00"),
    ],
)
def test_the_first_run_begins_at_start_or_with_its_data_interval(
    feedamp: RunningSandbox, arguments: dict[str, Any], since: str
) -> None:
    assert asked_since(feedamp, Runs().dated(START), **arguments) == since


def test_a_first_run_without_a_data_interval_begins_when_it_could_run(feedamp: RunningSandbox) -> None:
    assert asked_since(feedamp, Runs().undated(START)) == "2026-03-01T11:55:00+00:00"


@pytest.mark.parametrize(
    "arguments",
    [
        {"start": "2026-01-01T00:00:00"},
        {"start": datetime(2026, 1, 1)},
        {"start": "yesterday"},
        {"start": 7},
        {"overlap": -1},
        {"overlap": "nan"},
        {"overlap": "soon"},
        {"overlap": None},
        {"do_xcom_push": False},
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sent(
    feedamp: RunningSandbox, arguments: dict[str, Any]
) -> None:
    wrong = (
        "^start must be a datetime with a time zone|^overlap is .* seconds of 0 or more|leave do_xcom_push on"
    )

    with for_good(InputError, match=wrong):
        Runs().dated(START).returns(**arguments)

    assert feedamp.control.counters()["token_posts"] == 0


# Clock changes


@pytest.mark.parametrize(
    "first",
    [
        datetime(2026, 11, 1, 3, 30, tzinfo=UTC),  # 23:30 in New York; the hour from 01:00 comes twice
        datetime(2026, 3, 8, 4, 30, tzinfo=UTC),  # 23:30 in New York; the hour from 02:00 is left out
    ],
)
def test_hourly_runs_around_a_clock_change_of_new_york_miss_and_repeat_nothing(
    feedamp: RunningSandbox, first: datetime
) -> None:
    runs, seller, returned, shipped = Runs(), Seller(feedamp), [], []
    for hours in range(8):
        at = first + hours * HOUR
        # The sandbox reads an instant without a zone as New York's, and its clock is this process's.
        with time_machine.travel(at):
            number = f"{at.astimezone(NEW_YORK):%H:%M} {hours}"
            seller.ship(number)
            shipped.append([number])
        with time_machine.travel(at + HOUR / 2):
            returned.append(runs.dated(at.astimezone(NEW_YORK)).returns(overlap=20 * 60))

    assert returned == shipped
