"""What cannot be read is never taken for absent: beside the metadata database, and in a task."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.fernet import Fernet

from airflow_provider_feedamp.exceptions import (
    ReauthorizationRequiredError,
    TokenBusyError,
    TokenError,
    TokenStoreError,
)
from airflow_provider_feedamp.sandbox.server import RunningSandbox, serve
from airflow_provider_feedamp.sandbox.settings import SandboxSettings
from airflow_provider_feedamp.tokens.cache import CACHE
from airflow_provider_feedamp.tokens.timed_lease import Timing
from airflow_provider_feedamp.tokens.variable_store import _CANARY, VariableStore, _lease_name, _record_name
from tests.airflow_runs import FERNET_KEY
from tests.stores.fernet import set_fernet_key
from tests.stores.supervisor import Supervisor, become_a_task
from tests.tokens.custody import HOUR, Bench

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_feedamp.tokens.custodian import TokenCustodian
    from airflow_provider_feedamp.tokens.records import TokenRecord


@pytest.fixture(scope="module")
def strict() -> Iterator[RunningSandbox]:
    """Serve a FeedAMP that ends everything once a refresh token is used twice."""
    with serve(SandboxSettings(rotation="revoke_family")) as running:
        yield running


@pytest.fixture(autouse=True)
def no_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep these hundreds of tokens from Airflow's masker, which takes longer with each one."""
    for module in list(sys.modules.values()):
        masker = getattr(module, "SecretsMasker", None)
        if isinstance(masker, type):
            monkeypatch.setattr(masker, "add_mask", lambda self, secret, name=None: None)


@pytest.fixture
def bench(strict: RunningSandbox) -> Iterator[Bench]:
    strict.control.reset()
    CACHE.clear()
    yield Bench(strict)
    CACHE.clear()


def store() -> VariableStore:
    """Return the store of a process of its own, whose lease settles at once, as nobody else is there."""
    timing = Timing(bound=60.0, settle=0.0, poll=0.001)  # nor does any answer come too late
    return VariableStore(timing=timing, sleep=lambda seconds: None)


def expired(bench: Bench, **parts: Any) -> str:
    """Let a seller be imported to for some time, and its access token end; return the first refresh token."""
    first = bench.live()
    bench.seeded(store=store(), **parts).token()
    bench.later(HOUR + 1)
    bench.seeded(store=store(), seed=first).token()
    bench.later(HOUR + 1)
    CACHE.clear()
    return first


def whole(bench: Bench) -> bool:
    """Say whether the stored refresh token is the one that FeedAMP accepts.

    A pair that the store did not take is in this process, and is stored by the next call.
    """
    if bench.slot().unsaved is not None:
        bench.slot().save_at = 0.0
        bench.custodian(store=store()).token()
    record = store().read(bench.key())
    return record is not None and record.refresh_token == bench.live()


# Beside the metadata database


@pytest.fixture
def beside(no_variables: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    set_fernet_key(monkeypatch, FERNET_KEY)
    return no_variables


def rows(database: Path) -> dict[str, str]:
    with sqlite3.connect(database) as connection:
        return dict(connection.execute("SELECT key, val FROM variable").fetchall())


def test_a_worker_with_another_fernet_key_spends_nothing_and_leaves_the_record_alone(
    bench: Bench, beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = expired(bench)
    before, posts = rows(beside), bench.posts()

    set_fernet_key(monkeypatch, Fernet.generate_key().decode())
    for seed in (first, None):
        custodian = bench.custodian(store=store(), seed=seed)
        for ask in (custodian.token, custodian.record, partial(custodian.exchange_code, "code")):
            with pytest.raises(TokenStoreError, match=r"cannot be read\. Nothing was spent") as failed:
                ask()
            assert failed.value.retryable

    assert (rows(beside), bench.posts()) == (before, posts)
    set_fernet_key(monkeypatch, FERNET_KEY)
    assert bench.custodian(store=store()).token().renewed
    assert whole(bench)


@pytest.mark.parametrize("many", [1, 2, 1000])
def test_reads_that_airflow_passes_over_lose_nothing(
    bench: Bench, beside: Path, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    from airflow.secrets.metastore import MetastoreBackend

    first = expired(bench)
    look_up = MetastoreBackend.get_variable

    for place in range(1, 12):
        number = 0

        def failing(self: Any, *args: Any, place: int = place, **kwargs: Any) -> Any:
            nonlocal number
            number += 1
            if place <= number < place + many:
                raise sqlite3.OperationalError("the metadata database is away")
            return look_up(self, *args, **kwargs)

        monkeypatch.setattr(MetastoreBackend, "get_variable", failing)
        outcome(bench.custodian(store=store(), seed=first))
        monkeypatch.setattr(MetastoreBackend, "get_variable", look_up)
        assert whole(bench), place
        bench.later(HOUR + 1)
        CACHE.clear()


def outcome(custodian: TokenCustodian) -> str:
    """Ask for a token; only what a retry can mend may go wrong."""
    try:
        custodian.token()
    except ReauthorizationRequiredError:
        raise
    except TokenError as error:
        return type(error).__name__ if error.retryable else "final"
    return "token"


def a_lease_later(bench: Bench, supervisor: Supervisor) -> None:
    """Let an hour pass, and with it the lease of whoever failed before it was released."""
    bench.later(HOUR + 1)
    CACHE.clear()
    record = store().read(bench.key())
    assert record is not None
    supervisor.texts[_lease_name(bench.key())] = json.dumps({"nonce": record.released, "record": True})


# In a task


@pytest.fixture(params=["as this Airflow is", "without a listing of names"])
def supervisor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    """Be a task, of this Airflow, and of one that cannot list Variables (3.0 to 3.2)."""
    sdk = pytest.importorskip("airflow.sdk", reason="tasks of Airflow 2 have the metadata database at hand")
    monkeypatch.setenv("AIRFLOW__FEEDAMP__ENCRYPTION_KEY", FERNET_KEY)  # Airflow 3.0 needs it
    if request.param != "as this Airflow is":
        monkeypatch.delattr(sdk.Variable, "keys", raising=False)
    running = Supervisor()
    become_a_task(monkeypatch, running)
    return running


@pytest.mark.parametrize("many", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize("seeded", [True, False], ids=["seeded", "authorised by a code"])
def test_failing_reads_at_every_place_lose_nothing(
    bench: Bench, supervisor: Supervisor, many: int, seeded: bool
) -> None:
    first = expired(bench)
    ends = set()

    for place in range(1, 25):
        supervisor.gets = 0
        supervisor.fails = range(place, place + many).__contains__
        ends.add(outcome(bench.custodian(store=store(), seed=first if seeded else None)))
        reads = supervisor.gets
        supervisor.fails = lambda number: False
        assert whole(bench), (place, many)
        a_lease_later(bench, supervisor)
        if reads < place:
            break

    assert "token" in ends
    assert "final" not in ends
    if many > 2:
        assert ends - {"token"}  # some reads matter, else these runs have shown nothing


def test_a_seller_who_is_new_is_seeded_though_reads_failed_before(
    bench: Bench, supervisor: Supervisor
) -> None:
    for place in range(1, 20):
        supervisor.texts.clear()
        bench.control.reset()
        CACHE.clear()
        supervisor.gets = 0
        supervisor.fails = place.__eq__
        custodian = bench.seeded(store=store())
        outcome(custodian)
        supervisor.fails = lambda number: False
        CACHE.clear()
        supervisor.texts.pop(_lease_name(bench.key()), None)  # as if its time were over
        custodian.token()
        assert whole(bench), place
        assert bench.posts() == 1, place


def test_a_lease_that_reads_as_none_lets_no_second_worker_in(bench: Bench, supervisor: Supervisor) -> None:
    first = expired(bench)
    held = store()
    with held.lock(bench.key(), wait=0, stop=threading.Event()):
        posts = bench.posts()
        for place in range(1, 12):
            supervisor.gets = 0
            supervisor.fails = place.__eq__
            custodian = bench.custodian(store=store(), seed=first, lock_wait=0.05)
            with pytest.raises((TokenBusyError, TokenStoreError)):
                custodian.token()
        supervisor.fails = lambda number: False
        assert bench.posts() == posts


def test_a_lease_that_knows_of_a_record_is_believed(bench: Bench, supervisor: Supervisor) -> None:
    """Where nothing proves that the record is absent: its read fails again and again, all others do not."""
    first = expired(bench)
    record = _record_name(bench.key())
    text = supervisor.texts.pop(record)

    if hasattr(_sdk_variable(), "keys"):
        assert bench.custodian(store=store()).record() is None  # the listing says that it is gone
        return
    with pytest.raises(TokenStoreError, match=f"there was a record.*{_lease_name(bench.key())}"):
        bench.custodian(store=store(), seed=first).token()
    supervisor.texts[record] = text
    assert whole(bench)


def test_what_cannot_be_told_is_told_by_the_canary(bench: Bench, supervisor: Supervisor) -> None:
    expired(bench)
    listing = hasattr(_sdk_variable(), "keys")

    assert (_CANARY in supervisor.texts) is not listing
    supervisor.fails = lambda number: True
    custodian = bench.custodian(store=store())
    with pytest.raises(TokenStoreError, match=r"(cannot|could not) be read"):
        custodian.record()


def _sdk_variable() -> Any:
    from airflow.sdk import Variable

    return Variable


# Who owns the Variables, and what they hold


def test_the_variables_say_whose_they_are(bench: Bench, supervisor: Supervisor) -> None:
    expired(bench)

    for name in (_record_name(bench.key()), _lease_name(bench.key())):
        assert "'hooli'" in supervisor.descriptions[name]
        assert "airflow-provider-feedamp" in supervisor.descriptions[name]


def test_records_are_encrypted_before_they_leave_the_process(bench: Bench, supervisor: Supervisor) -> None:
    expired(bench)
    record = store().read(bench.key())

    assert record is not None
    assert record.sealed_with == "encryption_key"
    text = supervisor.texts[_record_name(bench.key())]
    assert text.startswith("gAAAA")
    assert not any(each in text for each in (record.refresh_token, record.access_token or "-"))


def test_encryption_can_be_turned_on_later_and_keys_can_be_replaced(
    bench: Bench, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW__FEEDAMP__ENCRYPTION_KEY")
    monkeypatch.setattr("airflow.__version__", "3.1.0")
    expired(bench)
    keys = [Fernet.generate_key().decode() for _ in range(2)]
    names = []
    for value in ("", keys[0], f"{keys[1]},{keys[0]}", keys[1]):
        monkeypatch.setenv("AIRFLOW__FEEDAMP__ENCRYPTION_KEY", value)
        record = store().read(bench.key())
        assert record is not None
        names.append(record.sealed_with)
        bench.custodian(store=store()).token()
        bench.later(HOUR + 1)
        CACHE.clear()

    assert names == ["", "", "encryption_key 2", "encryption_key"]
    assert whole(bench)


def test_a_worker_without_the_encryption_key_spends_nothing(
    bench: Bench, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = expired(bench)
    before, posts = dict(supervisor.texts), bench.posts()
    monkeypatch.setenv("AIRFLOW__FEEDAMP__ENCRYPTION_KEY", Fernet.generate_key().decode())

    with pytest.raises(TokenStoreError, match="encryption_key") as failed:
        bench.custodian(store=store(), seed=first).token()

    assert failed.value.retryable
    assert (supervisor.texts, bench.posts()) == (before, posts)


def test_airflow_3_0_gets_no_token_in_clear(
    bench: Bench, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow.__version__", "3.0.6")
    monkeypatch.delenv("AIRFLOW__FEEDAMP__ENCRYPTION_KEY")

    exchange = partial(bench.custodian(store=store()).exchange_code, "code")
    for ask in (bench.seeded(store=store()).token, exchange):
        with pytest.raises(Exception, match=r"scheduler's log, in clear.*encryption_key"):
            ask()

    assert (supervisor.texts.keys() - {_CANARY}, bench.posts()) == (set(), 0)


def test_a_worker_that_runs_no_task_says_so_and_makes_no_database(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(TokenStoreError, match="cannot be reached from this process"):
        bench.seeded(store=store()).record()

    assert os.listdir(tmp_path) == []


def records(store: VariableStore, bench: Bench) -> list[TokenRecord | TokenStoreError | None]:
    key = bench.key()
    return [found for _, found in store.records(key.token_url, key.client_id)]


def test_listing_reads_no_value_and_masks_nothing(
    bench: Bench, beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expired(bench)
    asked: list[str] = []
    _note_masks(monkeypatch, asked.append)
    store().read(bench.key())
    assert asked  # by Airflow's own look-up
    asked.clear()

    assert [key.seller for key in store().keys(bench.key().token_url, "demo-client")] == ["hooli"]
    assert len(records(store(), bench)) == 1
    assert asked == []


def _note_masks(monkeypatch: pytest.MonkeyPatch, note: Callable[[str], None]) -> None:
    import airflow.models.variable as variables

    monkeypatch.setattr(variables, "mask_secret", lambda secret, name=None: note(str(name)))
