from __future__ import annotations

import shutil
import sqlite3
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.airflow_runs import migrated_database
from tests.stores.fernet import forget_fernet_keys

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _forget_fernet_keys() -> Iterator[None]:
    """Let no test's keys reach the next one."""
    yield
    forget_fernet_keys()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a metadata database as `airflow db migrate` makes it."""
    source = migrated_database(tmp_path_factory.getbasetemp())
    return Path(shutil.copy(source, tmp_path_factory.mktemp("variables")))


@pytest.fixture(scope="module")
def database(migrated: Path) -> Iterator[Path]:
    """Let this process's Airflow use the migrated database."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{migrated}")
        reconnect()
        import_module("airflow.models").import_all_models()
        yield migrated
    reconnect()


def reconnect() -> None:
    settings: Any = import_module("airflow.settings")
    settings.dispose_orm()
    settings.configure_vars()
    settings.configure_orm()


@pytest.fixture
def no_variables(database: Path) -> Path:
    with sqlite3.connect(database) as connection:
        connection.execute("DELETE FROM variable")
    return database
