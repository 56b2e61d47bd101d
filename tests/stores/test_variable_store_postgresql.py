"""The variable store on a metadata database that many workers write at once: PostgreSQL."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.tokens.variable_store import VariableStore
from tests.airflow_runs import FERNET_KEY, PATIENCE
from tests.databases import PASSWORD, USER
from tests.stores.conftest import reconnect
from tests.stores.contract import TokenStoreContract

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.databases import PostgresqlServer

pytestmark = [pytest.mark.processes, pytest.mark.timeout(2 * PATIENCE)]


class Workers(TokenStoreContract):
    """The contract's test with processes, each of which has connections of its own."""

    def worker(self, store: object) -> VariableStore:
        settings: Any = import_module("airflow.settings")
        settings.engine.dispose(close=False)  # Airflow 2.11 leaves its parent's connections in the pool
        return VariableStore()


@pytest.fixture
def metadata(postgresql: PostgresqlServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresqlServer]:
    """Let this process's Airflow have its metadata in PostgreSQL, in tables as the models describe them."""
    postgresql.administer("DROP DATABASE IF EXISTS airflow", "CREATE DATABASE airflow")
    url = f"postgresql+psycopg2://{USER}:{PASSWORD}@127.0.0.1:{postgresql.port}/airflow"
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", url)
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", FERNET_KEY)
    reconnect()
    import_module("airflow.models").import_all_models()
    base: Any = import_module("airflow.models.base").Base
    tables = [base.metadata.tables[name] for name in ("team", "variable") if name in base.metadata.tables]
    base.metadata.create_all(import_module("airflow.settings").engine, tables=tables)
    yield postgresql
    monkeypatch.undo()
    reconnect()


@pytest.mark.usefixtures("metadata")
def test_64_workers_of_one_seller_make_one_post_and_nobody_fails(tmp_path: Path) -> None:
    """On Airflow 2.11 and 3.0 they meet in DELETE and INSERT: to lose that race is no failure."""
    Workers().test_many_processes_with_an_expired_token_make_one_post_and_nobody_fails(
        VariableStore(), tmp_path
    )
