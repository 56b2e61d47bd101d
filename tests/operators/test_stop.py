"""A task that is told to stop stops between two refunds, never inside one, and says how far it came."""

from __future__ import annotations

import logging
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.exceptions import StoppedError
from airflow_provider_feedamp.operators.order_states import FeedAmpSetOrderStateOperator
from airflow_provider_feedamp.operators.refunds import FeedAmpProcessRefundsOperator
from airflow_provider_feedamp.sandbox.server import serve
from airflow_provider_feedamp.sandbox.settings import SandboxSettings
from tests.airflow_runs import PATIENCE, make_airflow
from tests.house import ROOT
from tests.operators.support import place, states, to_be_retried
from tests.operators.test_refunds import made, statuses
from tests.sandbox.caller import Caller

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_feedamp.sandbox.server import RunningSandbox

DAGS = ROOT / "tests" / "dags"


class Raised(BaseException):
    """What Airflow's handlers raise in the main thread, in principle."""


def test_on_kill_lets_the_refund_under_way_end_and_begins_no_other(
    feedamp: RunningSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    numbers = made(feedamp, "A", "B", "C", "D")
    paid: list[Any] = []

    def pay(refund: dict[str, Any]) -> None:
        paid.append(refund["feedamp_refund_id"])
        if len(paid) == 2:
            task.on_kill()

    task = FeedAmpProcessRefundsOperator(task_id="pay", process=pay)
    with to_be_retried(StoppedError) as caught:
        task.execute({})

    left = sorted(set(numbers) - set(paid))
    assert len(paid) == 2
    assert statuses(feedamp) == dict.fromkeys(paid, "COMPLETE") | dict.fromkeys(left, "CREATED")
    assert "after 2 of 4 refunds (completed 2, reported 0, skipped 0, failed 0). Not begun: " in str(
        caught.value
    )
    assert all(f"/{number}" in str(caught.value) for number in left)
    assert "Stopped before the end of the 4 refunds; until then: completed 2" in caplog.text


def test_a_task_that_is_told_before_the_first_does_nothing_and_after_the_last_is_a_success(
    feedamp: RunningSandbox,
) -> None:
    place(*[f"N{number}" for number in range(12)])
    numbers = list(states(feedamp))
    task = FeedAmpSetOrderStateOperator(task_id="cancel", state="CANCELLED", mp_order_numbers=numbers)
    task.on_kill()

    with pytest.raises(StoppedError, match=r"after 0 of 12 orders .* and 2 more\."):
        task.execute({})
    assert set(states(feedamp).values()) == {"AWAITING_SHIPMENT"}

    made(feedamp, "A")
    last = FeedAmpProcessRefundsOperator(task_id="pay", process=lambda _: last.on_kill())
    assert last.execute({})["completed"] == 1


def test_what_a_signal_raises_cuts_no_refund_in_two_and_ends_the_task(feedamp: RunningSandbox) -> None:
    made(feedamp, "A", "B", "C")
    raised = threading.Event()

    def handler(*_: object) -> None:
        raised.set()
        raise Raised

    def pay(_: dict[str, Any]) -> None:
        signal.raise_signal(signal.SIGALRM)
        assert raised.wait(10)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(Raised):
            FeedAmpProcessRefundsOperator(task_id="pay", process=pay).execute({})
    finally:
        signal.signal(signal.SIGALRM, before)

    assert sorted(statuses(feedamp).values()) == ["COMPLETE", "CREATED", "CREATED"]


@pytest.mark.processes
@pytest.mark.timeout(2 * PATIENCE)
def test_a_sigterm_of_airflows_pays_nobody_twice(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with serve(SandboxSettings(sellers=("hooli",))) as sandbox:
        control = sandbox.control
        for number in range(6):
            assert Caller(sandbox, "hooli").place(f"P{number}").ok
            control.create_refund("hooli", f"P{number}")
        home = make_airflow(tmp_path_factory, DAGS, {"feedamp_default": sandbox.connection("hooli")})

        settings = {"AIRFLOW__FEEDAMP__TOKEN_STORE": "memory", "REFUNDS_KILLED_FOLDER": str(tmp_path)}
        _, output = home.run({DAGS / "refunds_killed.py": {}}, settings=settings)

        end = home.tasks("feedamp_refunds_killed")["pay"]
        refunds = control.refunds("hooli")

    first, second, _ = (tmp_path / "paid").read_text().split("end of a try\n")
    assert (end.state, end.tries) == ("success", 2), output
    assert len(first.splitlines()) == 2
    assert sorted(first.splitlines() + second.splitlines()) == sorted(
        str(each["feedamp_refund_id"]) for each in refunds
    )
    assert {each["status"] for each in refunds} == {"COMPLETE"}
    assert "Stopped before the end of the 6 refunds; until then: completed 2" in output
