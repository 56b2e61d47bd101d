"""Fault 3: a worker is killed before each step that it takes; what the next worker finds, and what it does.

The rows that these tests produce are the tables of docs/custody-under-faults.md, line by line.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.faults.custody import Seller

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from tests.faults.conftest import Deployment

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

PAGE = Path(__file__).parents[2] / "docs" / "custody-under-faults.md"
STEPPED = {"variable": "tests.faults.steps.SteppedVariableStore", "sql": "tests.faults.steps.SteppedSqlStore"}
#: Seconds of one token call.
DEADLINE = 8.0
#: FeedAMP's answers are this late, so that a worker can be killed while one is on its way.
SLOW = 0.8


class Row(NamedTuple):
    """What became of a worker that was killed before one step, at a FeedAMP of one kind."""

    step: str
    found: str
    does: str
    ends: str


@dataclass(eq=False)
class Course:
    """One way that a renewal can go.

    :param losing: How many of FeedAMP's answers get lost.
    """

    deployment: Deployment
    sandbox: RunningSandbox
    store: str
    losing: int

    def seller(self, name: str) -> Seller:
        """Return a new seller."""
        name = f"{name} {self.losing}"
        return Seller(self.deployment, self.sandbox, STEPPED[self.store], name, {"deadline": DEADLINE})

    def relay(self, seller: Seller, *kills: str) -> dict[str, Any]:
        """Return the job of workers who renew the seller's token one after the other; all but one die."""
        victims = [seller.job("renew", losing=self.losing, kill_at=step) for step in kills]
        last = seller.job("renew", losing=0 if kills else self.losing)
        return {"do": "relay", "jobs": [seller.job("ask"), *victims, last]}


def test_after_a_kill_at_any_step_the_next_worker_ends_as_the_page_says(
    deployment: Deployment, strict: RunningSandbox, forgiving: RunningSandbox, store: str
) -> None:
    courses = [Course(deployment, each, store, losing) for losing in (0, 1) for each in (forgiving, strict)]

    plain, plain_strict, lost, lost_strict = kill_everywhere(courses)

    wanted = [printed(plain, plain_strict), printed(lost), printed(lost_strict)]
    page = PAGE.read_text()
    missing = "\n\n".join(table for table in wanted if table not in page)
    assert not missing, f"for {store} the page should have:\n{missing}"


def kill_everywhere(courses: list[Course]) -> list[list[Row]]:
    """Kill a worker before each step of each course, each for a seller of its own, and send the next."""
    deployment = courses[0].deployment
    for course in courses:
        course.sandbox.control.fault("slow", seconds=SLOW, times=None)
    unharmed = deployment.results(*(course.relay(course.seller("unharmed")) for course in courses))
    runs = [
        (course, step, course.seller(step))
        for course, relay in zip(courses, unharmed, strict=True)
        for step in relay[-1]["result"]["steps"]
    ]

    relays = deployment.results(*(course.relay(seller, step) for course, step, seller in runs))

    rows: dict[Course, list[Row]] = {course: [] for course in courses}
    for (course, step, seller), (_, victim, heir) in zip(runs, relays, strict=True):
        assert (victim["exit"], heir["exit"]) == (-signal.SIGKILL, 0), step
        assert_nothing_is_lost_unsaid(seller, heir["result"])
        rows[course].append(Row(step, *told(heir["result"])))
    return list(rows.values())


def assert_nothing_is_lost_unsaid(seller: Seller, heir: dict[str, Any]) -> None:
    """Check that the stored refresh token is one that FeedAMP takes, or else that a person is asked."""
    live = seller.sandbox.control.refresh_tokens(seller.name)
    if heir["outcome"] == "token":
        assert heir["record"]["state"] == "active"
        assert heir["record"]["refresh_token"] in live
    else:
        assert heir["record"]["state"] == "reauth_required"
        assert "was lost" in heir["record"]["reason"]


def told(result: dict[str, Any]) -> tuple[str, str, str]:
    """Say in words what the next worker found, what it did and how that ended."""
    found = f"{result['found']}, {'new' if result['generation'] > 1 else 'old'} pair"
    did = ["waits for the lease to end"] if result["waited"] else []
    did += ["waits one token deadline"] if DEADLINE in result["pauses"] else []
    free = "uses that pair" if result["outcome"] == "token" else "spends nothing"
    did += [f"asks FeedAMP {['', 'once', 'twice'][result['posts']]}"] if result["posts"] else [free]
    ends = {"token": "all is well", "ReauthorizationRequiredError": "a person is asked"}[result["outcome"]]
    return found, ", ".join(did), ends


def printed(rows: list[Row], strict: list[Row] | None = None) -> str:
    """Return the Markdown table; neighbours with the same fate share a row.

    :param strict: The same course at a FeedAMP without grace, to stand beside.
    """
    fates = [(row.step, (*row[1:], *([other.ends] if other else []))) for row, other in beside(rows, strict)]
    ends = "it ends, with grace | without grace" if strict else "it ends"
    lines = [
        f"| killed before | the next worker finds | it | {ends} |",
        "|---|---|---|---|" + "---|" * bool(strict),
    ]
    for fate, group in groupby(fates, key=lambda each: each[1]):
        names = [name for name, _ in group]
        span = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"
        lines.append(f"| {' | '.join((span, *fate))} |")
    return "\n".join(lines)


def beside(rows: list[Row], strict: list[Row] | None) -> list[tuple[Row, Row | None]]:
    """Pair the rows of two courses, which differ in their ends only."""
    if strict is None:
        return [(row, None) for row in rows]
    assert [row[:3] for row in rows] == [row[:3] for row in strict]
    return list(zip(rows, strict, strict=True))
