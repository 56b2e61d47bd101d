"""Token records under Airflow's Fernet keys and our own: several keys, a lost one, none at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.fernet import Fernet

from airflow_provider_feedamp.exceptions import ConfigurationError, TokenStoreError
from airflow_provider_feedamp.tokens.crypto import Sealer
from airflow_provider_feedamp.tokens.sql_store import SqlStore
from tests.stores.fernet import set_fernet_key
from tests.stores.sql_support import CONN_ID, KEY, VARIABLE, record, sqlite

if TYPE_CHECKING:
    from pathlib import Path

FORMER, NEW = (Fernet.generate_key().decode() for _ in range(2))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SqlStore:
    """Return a store whose workers have the former key."""
    monkeypatch.setenv(VARIABLE, sqlite(tmp_path))
    set_fernet_key(monkeypatch, FORMER)
    return SqlStore(CONN_ID)


def test_a_record_under_a_replaced_key_is_read_and_written_again_under_the_new_one(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = store.write(record(), expected=None)

    set_fernet_key(monkeypatch, f"{NEW},{FORMER}")
    assert store.read(KEY) == written
    rewritten = store.write(record(generation=1), expected=written.revision)

    set_fernet_key(monkeypatch, NEW)
    assert store.read(KEY) == rewritten


def test_a_record_that_no_key_decrypts_is_an_error_that_another_worker_may_not_meet(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = store.write(record(), expected=None)
    set_fernet_key(monkeypatch, NEW)

    with pytest.raises(TokenStoreError, match=r"seller 'hooli'.*encryption_key.*fernet_key") as refused:
        store.read(KEY)

    assert refused.value.retryable
    set_fernet_key(monkeypatch, FORMER)
    assert store.read(KEY) == written


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [("", "encryption_key and .* are both empty"), ("not-a-key", "is not a list of Fernet keys")],
)
def test_without_a_usable_key_nothing_is_written(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch, keys: str, complaint: str
) -> None:
    set_fernet_key(monkeypatch, keys)

    with pytest.raises(ConfigurationError, match=rf"{complaint}.*FEEDAMP__ENCRYPTION_KEY") as refused:
        store.write(record(), expected=None)

    assert "not-a-key" not in str(refused.value)
    set_fernet_key(monkeypatch, FORMER)
    assert store.read(KEY) is None


def test_without_a_key_nothing_is_taken_for_clear_text(monkeypatch: pytest.MonkeyPatch) -> None:
    set_fernet_key(monkeypatch, "")

    with pytest.raises(TokenStoreError):
        Sealer().open("{}", KEY)


def test_the_same_text_is_encrypted_differently_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    set_fernet_key(monkeypatch, NEW)
    sealer = Sealer()

    assert sealer.seal("text") != sealer.seal("text")
    assert sealer.open(sealer.seal("text"), KEY)[0] == "text"


# The keys of [feedamp] encryption_key


def test_own_keys_come_before_airflows_and_a_record_says_which_one_it_is_under(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    former, new = (Fernet.generate_key().decode() for _ in range(2))
    written, under = store.write(record(), expected=None), []
    for keys in ("", former, f"{new}, {former}"):
        monkeypatch.setenv("AIRFLOW__FEEDAMP__ENCRYPTION_KEY", keys)
        worker = SqlStore(CONN_ID)
        found = worker.read(KEY)
        assert found == written
        written = worker.write(found, expected=found.revision)
        again = worker.read(KEY)
        assert again is not None
        under.append((found.sealed_with, again.sealed_with))

    assert under == [
        ("fernet_key", "fernet_key"),
        ("fernet_key", "encryption_key"),
        ("encryption_key 2", "encryption_key"),
    ]


def test_a_record_under_an_own_key_is_no_record_of_a_worker_without_it(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__FEEDAMP__ENCRYPTION_KEY", NEW)
    SqlStore(CONN_ID).write(record(), expected=None)

    with pytest.raises(TokenStoreError, match="untouched") as refused:
        store.read(KEY)

    assert refused.value.retryable


def test_a_list_of_own_keys_that_is_none_is_refused_without_being_quoted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__FEEDAMP__ENCRYPTION_KEY", f"{NEW},not-a-key")

    with pytest.raises(ConfigurationError, match=r"encryption_key is not .*feedamp keygen") as refused:
        SqlStore(CONN_ID)

    assert "not-a-key" not in str(refused.value)
