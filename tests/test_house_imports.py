"""Imports point down: no room of the house knows the rooms above it, and some do not know Airflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house import PACKAGE, ROOT, imports

OURS = "airflow_provider_feedamp"
SDK = "airflow.providers.common.compat.sdk"

# What each room may import beside itself and the package's own version. A name stands for all below it.
GROUND = {"exceptions", "retry_after"}
TASK_SIDE = GROUND | {"api", "tokens", "stores", "hooks"}
MAY_IMPORT: dict[str, set[str]] = {
    "__init__": set(),
    "__main__": {"cli"},
    "get_provider_info": set(),
    "exceptions": set(),
    "retry_after": set(),
    "api": GROUND,
    "tokens": GROUND | {"stores.base"},
    "stores": GROUND | {"tokens.models"},
    "bulk": GROUND | {"api"},
    "hooks": GROUND | {"api", "tokens", "stores", "get_provider_info"},
    "triggers": TASK_SIDE | {"bulk.metrics"},
    "assets": GROUND | {"triggers"},
    "operators": TASK_SIDE | {"bulk", "triggers"},
    "sensors": TASK_SIDE | {"triggers", "operators.parameters"},
    # What a task is given is read the same way by all tasks.
    "transfers": TASK_SIDE | {"bulk", "triggers", "operators.parameters"},
    # The command reads its options as the operator reads its parameters.
    "cli": TASK_SIDE | {"bulk", "sandbox", "operators.parameters"},
    "contract": {"exceptions", "stores", "tokens"},
    "sandbox": {"api.types"},
    "example_dags": {"operators", "sensors", "transfers", "hooks", "assets"},
}

# What each room, or single file, may import of Airflow; rooms that are not named may import nothing of it.
TASK_NAMES = {"airflow.providers.common.compat"}
METADATA = {"airflow.models.variable.Variable", "airflow.utils.session.create_session"}
AIRFLOW: dict[str, set[str]] = {
    "hooks": TASK_NAMES,
    # The base classes of triggers are in no SDK yet.
    "triggers": TASK_NAMES | {"airflow.triggers.base"},
    "operators": TASK_NAMES,
    "sensors": TASK_NAMES,
    "transfers": TASK_NAMES,
    # Airflow 2 has no watchers, so that the SDK of the providers leaves this name out.
    "assets": TASK_NAMES | {"airflow.sdk.AssetWatcher"},
    "cli": TASK_NAMES,
    "bulk": {f"{SDK}.ObjectStoragePath"},
    # An import's counters are among Airflow's own metrics.
    "bulk/metrics.py": {f"{SDK}.Stats"},
    # A query as source reads on an Airflow connection.
    "bulk/sql_source.py": {f"{SDK}.BaseHook", f"{SDK}.AirflowNotFoundException"},
    # Beside a task's own Variables there are those of the command line, the webserver and the tests.
    "stores/variable.py": TASK_NAMES | METADATA,
    # The version tells whether the supervisor logs what a task writes; the key opens rows that are listed.
    "stores/airflow_variables.py": TASK_NAMES
    | METADATA
    | {"airflow.__version__", "airflow.models.crypto.get_fernet"},
    "stores/crypto.py": {f"{SDK}.conf"},
    "stores/timed_lease.py": {f"{SDK}.conf"},
    # The version tells whether the supervisor logs what a task writes; the key opens rows that are listed.
    "stores/sql_database.py": TASK_NAMES,
    "cli/definition.py": {"airflow.cli.cli_config"},
}

FILES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))
EXAMPLES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "example_dags").rglob("*.py"))


def room_of(file: str) -> str:
    """Return the room that a file of the package, or an example, belongs to."""
    return Path(file).parts[0].removesuffix(".py")


def beyond(names: set[str], allowed: set[str]) -> set[str]:
    """Return the names that are neither allowed nor below an allowed one."""
    return {
        name for name in names if not any(name == each or name.startswith(f"{each}.") for each in allowed)
    }


def upward(room: str, source: str) -> set[str]:
    """Return the imports of our own package that a room may not have."""
    ours = {name.removeprefix(f"{OURS}.") for name in imports(source) if name.startswith(f"{OURS}.")}
    return beyond(ours, MAY_IMPORT[room] | {room, "__version__"})


def foreign(file: str, source: str) -> set[str]:
    """Return the imports of Airflow that a file of the package may not have."""
    of_airflow = {name for name in imports(source) if name == "airflow" or name.startswith("airflow.")}
    return beyond(of_airflow, AIRFLOW.get(file, AIRFLOW.get(room_of(file), set())))


@pytest.mark.parametrize("file", FILES)
def test_a_file_imports_only_from_its_own_room_and_those_below(file: str) -> None:
    # The tests for store authors renew tokens as workers do.
    room = "contract" if file == "stores/contract.py" else room_of(file)
    assert upward(room, (PACKAGE / file).read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize("file", FILES)
def test_a_file_imports_of_airflow_only_what_its_room_may(file: str) -> None:
    assert foreign(file, (PACKAGE / file).read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize("file", EXAMPLES)
def test_an_example_uses_only_what_is_meant_for_dags(file: str) -> None:
    assert upward("example_dags", (ROOT / file).read_text(encoding="utf-8")) == set()


def test_the_rules_cover_every_room_of_the_package() -> None:
    rooms = {room_of(file) for file in FILES}

    assert rooms <= MAY_IMPORT.keys()


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("api", f"from {OURS}.hooks.feedamp import FeedAmpHook"),
        ("api", f"from {OURS} import tokens"),
        ("tokens", f"import {OURS}.stores.variable"),
        ("bulk", f"def late():\n    from {OURS}.operators.orders import FeedAmpPlaceOrdersOperator"),
        ("sandbox", f"from {OURS}.api import transport"),
        ("exceptions", f"from {OURS}.api.types import Order"),
    ],
)
def test_an_import_that_points_up_is_found(room: str, source: str) -> None:
    assert len(upward(room, source)) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("get_provider_info.py", "import airflow"),
        ("api/session.py", f"from {SDK} import BaseHook"),
        ("bulk/paths.py", f"from {SDK} import Variable"),
        ("stores/memory.py", f"from {SDK} import Variable"),
        ("operators/orders.py", "from airflow.models import BaseOperator"),
    ],
)
def test_an_import_of_airflow_in_the_wrong_place_is_found(file: str, source: str) -> None:
    assert len(foreign(file, source)) == 1
