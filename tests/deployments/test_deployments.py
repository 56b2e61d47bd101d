"""Token custody in whole deployments: a crowd of tasks, killed workers, a triggerer that is stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.airflow_runs import TaskEnd
from tests.deployments.conftest import PATIENCE
from tests.deployments.dags.deployed import SELLERS, TASKS

if TYPE_CHECKING:
    from tests.deployments.conftest import Deployment

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(4 * PATIENCE)]

#: Seconds that FeedAMP takes for the answer to the renewal that is cut.
POST = 3.0


def test_forty_tasks_of_four_sellers_on_ended_tokens_spend_four_refresh_tokens(
    deployment: Deployment,
) -> None:
    feedamp = deployment.feedamps["crowd"].control
    before = feedamp.counters()["token_posts"]

    deployment.begin("crowd")
    deployment.until("the crowd is through", lambda: deployment.ended("crowd"))

    assert deployment.tasks("crowd") == {f"place[{n}]": TaskEnd("success", 1) for n in range(TASKS)}
    assert feedamp.counters()["token_posts"] - before == len(SELLERS)
    assert feedamp.counters()["tokens"]["refresh_token"] == {"issued": len(SELLERS)}
    placed = [order["mp_order_number"] for seller in SELLERS for order in feedamp.orders(seller)]
    assert sorted(placed) == sorted(f"A{n}" for n in range(TASKS))


@pytest.fixture(scope="module")
def killed(deployment: Deployment) -> None:
    """Kill workers in the middle of two renewals, of which FeedAMP has read one and processed the other.

    Airflow misses a worker after half a minute: the next test passes the time.
    """
    faults = {"unread": "drop", "replaced": "slow"}
    for name, kind in faults.items():
        deployment.feedamps[name].control.fault(kind, seconds=60.0)
    deployment.begin("killed")

    def all_killed() -> bool:
        for name, kind in list(faults.items()):
            if kind in deployment.feedamps[name].control.counters()["faults"]:
                assert deployment.kept(name) is (name == "unread")
                deployment.kill_worker_of("killed", name)
                del faults[name]
        return not faults

    deployment.until("both renewals are under way", all_killed)


@pytest.mark.usefixtures("killed")
def test_a_triggerer_that_is_stopped_during_a_renewal_stores_the_token_and_another_one_goes_on(
    deployment: Deployment,
) -> None:
    feedamp = deployment.feedamps["deferred"].control

    def deferred() -> bool:
        return [task.state for task in deployment.tasks("deferred").values()] == ["deferred"]

    deployment.begin("deferred")
    deployment.until("the sensor is deferred", deferred)
    feedamp.fault("slow", seconds=POST, times=None)
    deployment.until("the triggerer is in a renewal", lambda: not deployment.kept("deferred"))
    deployment.airflow.stop("triggerer", group=True)
    assert deployment.kept("deferred")
    feedamp.clear_faults()
    deployment.airflow.start("triggerer", "--skip-serve-logs")
    feedamp.ship("hooli", "A")
    deployment.until("the sensor goes on", lambda: deployment.ended("deferred"))

    assert deployment.tasks("deferred")["wait"].state == "success"
    assert set(feedamp.counters()["tokens"]["refresh_token"]) == {"issued"}


@pytest.mark.usefixtures("killed")
def test_the_tokens_of_workers_that_were_killed_during_a_renewal_are_renewed_by_the_retries(
    deployment: Deployment,
) -> None:
    deployment.until("the killed tasks have been run again", lambda: deployment.ended("killed"))

    assert deployment.tasks("killed") == {name: TaskEnd("success", 2) for name in ("unread", "replaced")}
    for name, issued in (("unread", 1), ("replaced", 2)):
        assert deployment.feedamps[name].control.counters()["tokens"]["refresh_token"] == {"issued": issued}
        assert deployment.kept(name)
