"""The variable store over a real Airflow metadata database, and over Variables that misbehave."""

from __future__ import annotations

import sqlite3
import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from airflow.models.variable import Variable
from cryptography.fernet import Fernet
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

from airflow_provider_feedamp.exceptions import TokenBusyError, TokenRecordError, TokenStoreError
from airflow_provider_feedamp.tokens.cache import CACHE
from airflow_provider_feedamp.tokens.records import TokenKey
from airflow_provider_feedamp.tokens.timed_lease import Timing
from airflow_provider_feedamp.tokens.variable_store import AirflowVariables, VariableStore, _record_name
from tests.airflow_runs import FERNET_KEY, PATIENCE
from tests.stores.conftest import reconnect
from tests.stores.contract import TokenStoreContract, full_record
from tests.stores.fernet import forget_fernet_keys, set_fernet_key
from tests.stores.sql_support import record
from tests.stores.supervisor import RUNNER, Supervisor, become_a_task
from tests.stores.virtual import KeptVariables
from tests.tokens.custody import Bench

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_feedamp.sandbox.server import RunningSandbox


KEY = TokenKey("https://feedamp.example/api/v1/access_token", "client", "hooli")
TOKEN, LEASE = f"feedamp_token_{KEY.digest}.hooli", f"feedamp_lease_{KEY.digest}"
#: A settling time that tests can wait for, and still longer than the bound; a lease that outlasts each test.
QUICK = Timing(bound=0.5, settle=0.55, ttl=20.0, poll=0.05)


@pytest.mark.timeout(2 * PATIENCE)  # a busy machine writes leases too late: each costs a minute
@pytest.mark.usefixtures("no_variables")
class TestVariableStore(TokenStoreContract):
    # SQLite takes one writer at a time; in test_variable_store_postgresql as many as usual meet.
    processes = 16
    patience = 90.0  # a lease that a busy machine writes too late costs 20 s

    @pytest.fixture
    def store(self) -> VariableStore:
        return VariableStore(timing=QUICK)

    def peer(self, store: object) -> VariableStore:
        return VariableStore(timing=QUICK)

    def worker(self, store: object) -> VariableStore:
        return VariableStore()  # with the times of a deployment


def test_no_token_stands_in_the_database_in_clear(
    no_variables: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_fernet_key(monkeypatch, FERNET_KEY)
    VariableStore().write(full_record(KEY).changed(refresh_token="refresh-in-clear"), expected=None)

    with sqlite3.connect(no_variables) as connection:
        rows = connection.execute("SELECT key, val, is_encrypted FROM variable").fetchall()
    assert [(key, bool(encrypted)) for key, _, encrypted in rows] == [(TOKEN, True)]
    assert b"refresh-in-clear" not in no_variables.read_bytes()
    monkeypatch.undo()
    forget_fernet_keys()


@pytest.mark.usefixtures("no_variables")
def test_deleting_a_record_takes_its_lease_too(no_variables: Path) -> None:
    store = VariableStore(timing=QUICK)
    store.write(full_record(KEY), expected=None)
    with store.lock(KEY, wait=90, stop=threading.Event()):
        pass

    store.delete(KEY)

    with sqlite3.connect(no_variables) as connection:
        assert connection.execute("SELECT count(*) FROM variable").fetchone() == (0,)


@pytest.mark.usefixtures("no_variables")
def test_a_variable_that_the_environment_shadows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    store = VariableStore()
    written = store.write(full_record(KEY), expected=None)
    monkeypatch.setenv(f"AIRFLOW_VAR_{TOKEN.upper()}", written.to_json())

    with pytest.raises(TokenStoreError, match=rf"{TOKEN}.*secrets backend"):
        store.write(written.changed(refresh_token="next"), expected=written.revision)


def test_a_database_that_is_down_is_a_retryable_error_without_the_value(
    airflow_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{airflow_database.parent}/missing/airflow.db"
    )
    reconnect()
    try:
        with pytest.raises(TokenStoreError, match=TOKEN) as raised:
            VariableStore().write(full_record(KEY).changed(refresh_token="never-shown"), expected=None)
    finally:
        monkeypatch.undo()
        reconnect()

    assert raised.value.retryable
    assert "never-shown" not in str(raised.value)
    assert raised.value.__cause__ is None


# Variables that misbehave


class Register(KeptVariables):
    """Some of these Variables ignore what is written, some are shadowed."""

    def __init__(self, *, deaf: str = "", shadows: dict[str, str] | None = None) -> None:
        super().__init__()
        self.deaf = deaf
        self.shadows = shadows or {}

    def get(self, name: str) -> str | None:
        return self.shadows.get(name, super().get(name))

    def set(self, name: str, value: str, description: str) -> None:
        if not self.deaf or not name.startswith(self.deaf):
            super().set(name, value, description)


def over(variables: Register) -> VariableStore:
    timing = Timing(bound=60.0, settle=0.0)  # nobody else is there, and no answer comes too late
    return VariableStore(timing=timing, variables=variables, sleep=lambda seconds: None)


@pytest.fixture
def bench(sandbox: RunningSandbox) -> Iterator[Bench]:
    yield Bench(sandbox)
    CACHE.clear()


@pytest.mark.parametrize("deaf", ["feedamp_token", "feedamp_lease"])
def test_a_write_that_is_swallowed_is_found_out_before_anything_is_spent(bench: Bench, deaf: str) -> None:
    store = over(Register(deaf=deaf))

    with pytest.raises(TokenStoreError, match=f"{deaf}_{bench.key().digest}"):
        bench.seeded(store=store).token()

    assert bench.posts() == 0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("feedamp_token", "somebody else's"),
        ("feedamp_token", None),  # an older copy of the record itself
        ("feedamp_lease", "somebody else's"),
        ("feedamp_lease", '{"nonce": "nonce"}'),  # a lease that the record names as released
    ],
)
def test_a_variable_that_is_shadowed_is_found_out_before_anything_is_spent(
    bench: Bench, name: str, text: str | None
) -> None:
    variables = Register()
    record = over(variables).write(full_record(bench.key()).changed(expires_at=0.0), expected=None)
    shadowed = f"{name}_{bench.key().digest}" + (".hooli" if name == "feedamp_token" else "")
    variables.shadows = {shadowed: record.to_json() if text is None else text}

    with pytest.raises((TokenStoreError, TokenBusyError)) as raised:
        bench.seeded(store=over(variables), lock_wait=0.0).token()

    assert bench.posts() == 0
    assert shadowed in str(raised.value) or isinstance(raised.value, TokenBusyError)


COPY = full_record(TokenKey(KEY.token_url, KEY.client_id, "globex")).to_json()


@pytest.mark.parametrize(
    "text", ["", "no json", "[]", '{"format": 99}', "{}", COPY], ids=lambda text: text[:9]
)
def test_what_is_no_record_or_another_sellers_is_named_with_its_variable_and_seller(text: str) -> None:
    with pytest.raises(TokenRecordError, match=rf"'hooli'.*{TOKEN}") as raised:
        over(Register(shadows={TOKEN: text})).read(KEY)

    assert not raised.value.retryable


@pytest.mark.parametrize("text", ["", "no json", "[]", "{}", "null"])
def test_a_lease_that_cannot_be_read_is_waited_out_like_any_other(text: str) -> None:
    variables, time = Register(), [0.0]
    variables.texts[LEASE] = text
    store = VariableStore(variables=variables, clock=lambda: time[0], sleep=lambda seconds: None)

    class Waiting(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            time[0] += timeout or 0.0
            return False

    with store.lock(KEY, wait=600, stop=Waiting()):
        assert time[0] >= Timing().ttl


OURS = [
    KEY,
    TokenKey(KEY.token_url, KEY.client_id, "a%b_c 商店"),
    TokenKey(KEY.token_url, KEY.client_id, "a name that is too long for a Variable's " + "x" * 300),
]
OTHER_CLIENT = TokenKey(KEY.token_url, "client-2", "hooli")
VALUES = {_record_name(key): record(key).to_json() for key in (*OURS, OTHER_CLIENT)}
#: What else there may be: nothing of ours, a lease, a damaged record, and one under another key's name.
STRANGE = {
    "feedampXtoken_1": "its name would match a careless LIKE",
    f"feedamp_lease_{KEY.digest}": "{}",
    "feedamp_token_damaged": "{",
    "feedamp_token_list": "[]",
    "feedamp_token_elsewhere": record(TokenKey(KEY.token_url, KEY.client_id, "copied")).to_json(),
}


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Return what adds Variables to a metadata database of this test's own."""
    set_fernet_key(monkeypatch, Fernet.generate_key().decode())
    engine = create_engine(f"sqlite:///{tmp_path}/airflow.db")
    table: Any = Variable.__table__
    table.metadata.create_all(engine, [table, *(each.column.table for each in table.foreign_keys)])
    monkeypatch.setattr("airflow.settings.Session", sessionmaker(engine))

    new: Any = Variable

    def add(values: dict[str, str]) -> None:
        with sessionmaker(engine)() as session:
            session.add_all(new(key=name, val=value) for name, value in values.items())
            session.commit()

    return add


def listed() -> set[TokenKey]:
    """Return what the store lists of our client."""
    return set(VariableStore().keys(KEY.token_url, KEY.client_id))


def test_beside_the_metadata_database_all_sellers_of_the_client_are_listed_and_nothing_else_is_asked_for(
    add: Callable[[dict[str, str]], None],
) -> None:
    add(VALUES | STRANGE)

    assert listed() == set(OURS)
    names = {name for name in VALUES | STRANGE if name.startswith("feedamp_token_")}
    assert set(AirflowVariables().names("feedamp_token_")) == names
    assert AirflowVariables().values("feedamp_token_").keys() == names


def test_a_record_that_airflow_cannot_decrypt_is_listed_and_hides_no_other(
    add: Callable[[dict[str, str]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = list(VALUES)
    add({names[0]: VALUES[names[0]]})
    set_fernet_key(monkeypatch, Fernet.generate_key().decode())
    add({names[1]: VALUES[names[1]]})

    assert listed() == set(OURS[:2])
    found = dict(VariableStore().records(KEY.token_url, KEY.client_id))
    assert isinstance(found[OURS[0]], TokenStoreError)
    assert "cannot be read" in str(found[OURS[0]])
    assert found[OURS[1]] == record(OURS[1])


def test_a_metadata_database_that_fails_is_an_error_that_a_retry_can_mend(
    add: Callable[[dict[str, str]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "airflow.settings.Session", sessionmaker(create_engine("sqlite:////nowhere/airflow.db"))
    )

    with pytest.raises(TokenStoreError, match=r"'feedamp_token_\*' could not be listed") as failed:
        listed()

    assert failed.value.retryable


def test_a_task_of_an_airflow_that_lists_variables_lists_sellers(monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = pytest.importorskip("airflow.sdk", reason="tasks of Airflow 2 have the metadata database at hand")
    if not hasattr(sdk.Variable, "keys"):
        pytest.skip("this Airflow's tasks cannot list Variables")
    supervisor = Supervisor()
    supervisor.texts = VALUES | STRANGE
    become_a_task(monkeypatch, supervisor)

    assert listed() == set(OURS)


def test_a_task_that_cannot_list_variables_says_where_to_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    runner: Any = ModuleType(RUNNER)
    runner.SUPERVISOR_COMMS = object()
    monkeypatch.setitem(sys.modules, RUNNER, runner)
    from airflow.providers.common.compat.sdk import Variable as TaskVariable

    monkeypatch.delattr(TaskVariable, "keys", raising=False)

    with pytest.raises(TokenStoreError, match=r"cannot list Airflow Variables before Airflow 3\.3.*'sql'"):
        listed()
