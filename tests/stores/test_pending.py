"""Authorisations that meet, or whose process is killed, over the stores that deployments use."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.models.variable import Variable
from airflow.utils.session import create_session
from cryptography.fernet import Fernet
from sqlalchemy import select

from airflow_provider_feedamp.exceptions import RedirectRefusedError
from airflow_provider_feedamp.hooks.connection import read_connection
from airflow_provider_feedamp.hooks.feedamp import custodian_of
from airflow_provider_feedamp.tokens import pending
from airflow_provider_feedamp.tokens.cache import CACHE
from airflow_provider_feedamp.tokens.custodian import known_order, note_order
from airflow_provider_feedamp.tokens.pending import PendingAuthorisation
from airflow_provider_feedamp.tokens.records import TokenRecord
from airflow_provider_feedamp.tokens.store import Lease, open_store, records_of
from tests.stores import sql_support
from tests.stores.fernet import set_fernet_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_feedamp.sandbox.server import RunningSandbox

pytestmark = pytest.mark.timeout(180)
SELLER = "initech"


@pytest.fixture(params=["variable", "sql"])
def deployment(
    request: pytest.FixtureRequest,
    sandbox: RunningSandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> RunningSandbox:
    """Keep the tokens of connection feedamp_default in a store of that name."""
    set_fernet_key(monkeypatch, Fernet.generate_key().decode())
    monkeypatch.setenv("AIRFLOW__FEEDAMP__TOKEN_STORE", request.param)
    # A lease that a busy machine writes too late is waited for, and soon over.
    lease = {"LEASE_BOUND": "0.5", "LEASE_SETTLE": "0.6", "LEASE_TTL": "22", "TOKEN_DEADLINE": "5"}
    for name, value in lease.items():
        monkeypatch.setenv(f"AIRFLOW__FEEDAMP__{name}", value)
    monkeypatch.setenv("AIRFLOW_CONN_FEEDAMP_DEFAULT", json.dumps(sandbox.connection("hooli")))
    if request.param == "sql":
        monkeypatch.setenv("AIRFLOW__FEEDAMP__TOKEN_STORE_CONN_ID", sql_support.CONN_ID)
        monkeypatch.setenv(sql_support.VARIABLE, sql_support.sqlite(tmp_path))
    else:
        request.getfixturevalue("no_variables")
    sandbox.control.connect(SELLER)
    return sandbox


def pending_authorisation() -> PendingAuthorisation:
    """Return it as another process would make it."""
    open_store.cache_clear()
    custodian = custodian_of(read_connection("feedamp_default"), SELLER)
    return PendingAuthorisation(custodian, "feedamp_default", "ada")


def record() -> TokenRecord | None:
    return pending_authorisation().custodian.record()


def authorised(sandbox: RunningSandbox) -> str:
    state, _ = pending_authorisation().start(600)
    pending_authorisation().redeem(state, sandbox.control.authorize(SELLER))
    pending_authorisation().confirm(state)
    return state


def test_a_seller_is_authorised_and_nobody_lists_more_than_sellers(deployment: RunningSandbox) -> None:
    authorised(deployment)
    own = pending_authorisation().custodian
    note_order(own.store, own.key, "A/1")
    state, _ = pending_authorisation().start(600)

    stored = record()
    assert stored is not None
    assert (stored.generation, stored.refresh_token) == (1, deployment.control.refresh_tokens(SELLER)[-1])
    assert [key for key, _ in records_of(own.store, own.key.token_url, own.key.client_id)] == [own.key]
    assert own.store.keys(own.key.token_url, own.key.client_id) == [own.key]
    assert known_order(own.store, own.key) == "A/1"
    assert pending.whose(own.store, state) == ("feedamp_default", SELLER)


def test_of_redirects_that_come_at_once_one_goes_on(deployment: RunningSandbox) -> None:
    """Each has a code of its own: nothing but the mark keeps FeedAMP from taking them all."""
    state, _ = pending_authorisation().start(600)
    ones = [(pending_authorisation(), deployment.control.authorize(SELLER)) for _ in range(4)]
    left = iter(ones)
    guard = threading.Lock()

    def redeem() -> object:
        with guard:
            authorisation, code = next(left)
        return authorisation.redeem(state, code)

    results = sql_support.all_at_once(redeem, threads=4)

    refused = [each for each in results if isinstance(each, RedirectRefusedError)]
    assert len(refused) == 3, results
    assert all("was used before" in str(each) for each in refused)
    assert deployment.control.counters()["token_posts"] == 1


class SlowReader(PendingAuthorisation):
    """Goes on with what it has read of the mark when another one has read it, too."""

    both = threading.Barrier(2)

    def _begun(self, name: str) -> Any:
        found = super()._begun(name)
        self.both.wait(30)
        return found


@pytest.mark.parametrize("deployment", ["sql"], indirect=True)
def test_the_write_decides_where_a_lease_has_run_out(
    deployment: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever slept until the lease was over is inside together with the next one."""
    state, _ = pending_authorisation().start(600)
    ours = pending_authorisation()
    monkeypatch.setattr(type(ours.custodian.store), "lock", lambda self, key, **how: nullcontext(Lease(60)))
    codes = [deployment.control.authorize(SELLER) for _ in range(2)]

    results = sql_support.all_at_once(
        lambda: SlowReader(ours.custodian, ours.conn_id, ours.by).redeem(state, codes.pop()), threads=2
    )

    assert sorted(isinstance(each, RedirectRefusedError) for each in results) == [False, True]
    assert deployment.control.counters()["token_posts"] == 1


def test_a_pair_becomes_the_sellers_once_also_when_two_confirm_at_once(deployment: RunningSandbox) -> None:
    state, _ = pending_authorisation().start(600)
    pending_authorisation().redeem(state, deployment.control.authorize(SELLER))
    ones = [pending_authorisation() for _ in range(3)]

    results = sql_support.all_at_once(lambda: ones.pop().confirm(state), threads=3)

    stored = record()
    assert stored is not None
    assert [each.generation for each in results if isinstance(each, TokenRecord)] == [1, 1, 1], results
    assert stored.refresh_token == deployment.control.refresh_tokens(SELLER)[-1]


def killed(work: Callable[[], object]) -> None:
    """Do the work in a child of this process, which must be killed on the way."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


def die(*args: object, **kwargs: object) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("endpoint.TokenEndpoint.exchange_code", "is being exchanged just now, or the process .* was ended"),
        ("pending.PendingAuthorisation._keep", "is being exchanged just now, or the process .* was ended"),
        ("", "its tokens wait for a person's answer"),
    ],
)
def test_a_process_killed_before_it_is_confirmed_leaves_the_seller_as_it_was(
    deployment: RunningSandbox, monkeypatch: pytest.MonkeyPatch, step: str, said: str
) -> None:
    authorised(deployment)
    before = record()
    state, _ = pending_authorisation().start(600)
    code = deployment.control.authorize(SELLER)

    def work() -> None:
        if step:
            monkeypatch.setattr(f"airflow_provider_feedamp.tokens.{step}", die)
        pending_authorisation().redeem(state, code)
        die()

    killed(work)

    assert record() == before
    with pytest.raises(RedirectRefusedError, match=said):
        pending_authorisation().redeem(state, code)
    CACHE.clear()
    custodian = pending_authorisation().custodian
    assert custodian.replace(custodian.token().value).generation == 2


def test_a_process_killed_while_it_confirms_is_followed_up(
    deployment: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seller's record was written, and what became of the mark was not: a task may have renewed since."""
    state, _ = pending_authorisation().start(600)
    pending_authorisation().redeem(state, deployment.control.authorize(SELLER))

    def work() -> None:
        monkeypatch.setattr(PendingAuthorisation, "_end", die)
        pending_authorisation().confirm(state)

    killed(work)
    end_leases(deployment)
    custodian = pending_authorisation().custodian
    custodian.replace(custodian.token().value)

    assert pending_authorisation().confirm(state).generation == 2
    stored = record()
    assert stored is not None
    assert stored.refresh_token == deployment.control.refresh_tokens(SELLER)[-1]


def end_leases(deployment: RunningSandbox) -> None:
    """Let the leases of a process that was killed be over."""
    if os.environ["AIRFLOW__FEEDAMP__TOKEN_STORE"] == "sql":
        sql_support.execute("UPDATE feedamp_tokens SET lease_until = 0")
        return
    with create_session() as session:
        for variable in session.scalars(select(Variable).where(Variable.key.startswith("feedamp_lease_"))):
            session.delete(variable)


def test_a_mark_that_is_over_is_removed_with_its_tokens(
    deployment: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, _ = pending_authorisation().start(600)
    pending_authorisation().redeem(state, deployment.control.authorize(SELLER))
    monkeypatch.setattr("time.time", lambda real=time.time: real() + 700)

    later = pending_authorisation()
    later = replace(later, custodian=replace(later.custodian, now=time.time))
    later.start(600)

    with pytest.raises(RedirectRefusedError):
        pending.whose(later.custodian.store, state)
    assert len(later.custodian.store.keys("authorisation", "")) == 1
