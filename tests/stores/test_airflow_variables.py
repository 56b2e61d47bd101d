"""Listing records that are in Airflow Variables: beside the metadata database, and in a task."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from airflow.models.variable import Variable
from cryptography.fernet import Fernet
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

from airflow_provider_feedamp.exceptions import TokenStoreError
from airflow_provider_feedamp.tokens.records import TokenKey
from airflow_provider_feedamp.tokens.variable_store import AirflowVariables, VariableStore, _record_name
from tests.stores.fernet import set_fernet_key
from tests.stores.sql_support import KEY, record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OURS = [
    KEY,
    TokenKey(KEY.token_url, KEY.client_id, "a%b_c 商店"),
    TokenKey(KEY.token_url, KEY.client_id, "a name that is too long for a Variable's " + "x" * 300),
]
OTHER_CLIENT = TokenKey(KEY.token_url, "client-2", "acme")
RUNNER = "airflow.sdk.execution_time.task_runner"
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


class Supervisor:
    """Answers a task's questions about Variables, as Airflow 3.3 does."""

    def send(self, message: Any) -> Any:
        """Answer a list of names, in pages, or one value."""
        from airflow.sdk.execution_time import comms

        if isinstance(message, comms.GetVariableKeys):
            names = sorted(name for name in VALUES | STRANGE if name.startswith(message.prefix or ""))
            page = names[message.offset : message.offset + message.limit]
            return comms.VariableKeysResult(keys=page, total_entries=len(names))
        return comms.VariableResult(key=message.key, value=(VALUES | STRANGE)[message.key])


def listed() -> set[TokenKey]:
    """Return what the store lists of our client."""
    return set(VariableStore().keys(KEY.token_url, KEY.client_id))


def test_beside_the_metadata_database_all_sellers_of_the_client_are_listed(
    add: Callable[[dict[str, str]], None],
) -> None:
    add(VALUES | STRANGE)

    assert listed() == set(OURS)


def test_only_names_that_begin_so_are_asked_for(add: Callable[[dict[str, str]], None]) -> None:
    add(VALUES | STRANGE)

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
    monkeypatch.setattr(f"{RUNNER}.SUPERVISOR_COMMS", Supervisor(), raising=False)

    assert listed() == set(OURS)


def test_a_task_that_cannot_list_variables_says_where_to_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    runner: Any = ModuleType(RUNNER)
    runner.SUPERVISOR_COMMS = object()
    monkeypatch.setitem(sys.modules, RUNNER, runner)
    from airflow.providers.common.compat.sdk import Variable as TaskVariable

    monkeypatch.delattr(TaskVariable, "keys", raising=False)

    with pytest.raises(TokenStoreError, match=r"cannot list Airflow Variables before Airflow 3\.3.*'sql'"):
        listed()
