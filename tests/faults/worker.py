"""What the worker processes of these tests do: each function is one job of one process."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.exceptions import FeedAmpError
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
from airflow_provider_feedamp.tokens import renewal
from airflow_provider_feedamp.tokens.endpoint import TokenEndpoint
from tests.faults import driver
from tests.faults.steps import STEPS, SteppedEndpoint, trace

if TYPE_CHECKING:
    from airflow_provider_feedamp.tokens.custodian import TokenCustodian

Job = dict[str, Any]


def hook(job: Job) -> FeedAmpHook:
    """Return a new hook on the job's connection and store, with the job's clock.

    :param job: ``connection`` as a dictionary; ``store`` by its name; ``clock``: seconds that this worker's
        wall clock is ahead; ``deadline``: seconds of one token call, with the protocol's pauses shortened
        likewise.
    """
    os.environ["AIRFLOW_CONN_FEEDAMP_DEFAULT"] = json.dumps(job["connection"])
    os.environ["AIRFLOW__FEEDAMP__TOKEN_STORE"] = job["store"]
    if "deadline" in job:
        hurry(job["deadline"])
    made = FeedAmpHook()
    ahead = job.get("clock", 0.0)
    change(made, now=lambda: time.time() + ahead)
    return made


def change(made: FeedAmpHook, **parts: Any) -> TokenCustodian:
    """Put other parts into a hook's custodian, and return it."""
    custodian = dataclasses.replace(made._custodian, **parts)
    made.__dict__["_custodian"] = custodian
    return custodian


def ask(job: Job) -> Job:
    """Ask for the seller's token in several threads, each with a hook of its own.

    ``refused`` is a token that FeedAMP has refused to this worker.
    """
    hooks = [hook(job) for _ in range(job.get("threads", 1))]
    gate = threading.Barrier(len(hooks))

    def one(each: FeedAmpHook) -> tuple[str, str]:
        gate.wait()
        try:
            if "refused" in job:
                return "token", each._custodian.replace(job["refused"]).value
            return "token", each.get_access_token()
        except FeedAmpError as error:
            return "error", f"{type(error).__name__}: {error}"

    with ThreadPoolExecutor(len(hooks)) as pool:
        results = list(pool.map(one, hooks))
    return {
        "tokens": [value for kind, value in results if kind == "token"],
        "errors": [value for kind, value in results if kind == "error"],
    }


def look(job: Job) -> Job:
    """Return the stored record."""
    record = hook(job)._custodian.record()
    return dataclasses.asdict(record) if record is not None else {}


def renew(job: Job) -> Job:
    """Renew the token step by step, to the end or until ``kill_at``.

    ``losing`` answers of FeedAMP get lost. The heir of a killed worker was refused the same access token.
    """
    made = hook(job)
    custodian = made._custodian
    found = custodian.record()
    assert found is not None
    # Of a stored new pair nobody was refused anything: the one before was.
    refused = found.access_token if found.generation == 1 else "the first one"
    fields = {each.name: getattr(custodian.endpoint, each.name) for each in dataclasses.fields(TokenEndpoint)}
    endpoint = SteppedEndpoint(**fields, seller=made.seller, losing=[True] * job.get("losing", 0))
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        time.sleep(seconds)

    STEPS.begin(job.get("kill_at"))
    custodian = change(made, endpoint=endpoint, sleep=sleep)
    outcome = "token"
    try:
        custodian.replace(refused or "")
    except FeedAmpError as error:
        outcome = type(error).__name__
    taken = trace()
    return {
        "found": found.state,
        "generation": found.generation,
        "outcome": outcome,
        "pauses": pauses,
        "record": look(job),
        **taken,
    }


def hurry(deadline: float) -> None:
    """Shorten the protocol's pauses, in this process only."""
    os.environ["AIRFLOW__FEEDAMP__TOKEN_DEADLINE"] = str(deadline)
    renewal.SAVE_RESERVE = 0.5
    renewal._REPLAY_PAUSE = (0.2, 0.4)


def relay(job: Job) -> list[Job]:
    """Run jobs one after the other, each in a process of its own; say how each ended."""
    return [driver.run_all([each])[0] for each in job["jobs"]]
