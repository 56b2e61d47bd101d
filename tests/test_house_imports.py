"""Imports point down: no room of the house knows the rooms above it, and parsing a DAG file stays cheap."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.house import circles, graph, imports
from tests.house import PACKAGE, ROOT

OURS = "airflow_provider_feedamp"
SDK = "airflow.providers.common.compat.sdk"

# What each room may import beside itself and the package's own version. A name stands for all below it.
GROUND = {"exceptions", "retry_after"}
TASK_SIDE = GROUND | {"api", "tokens", "hooks"}
MAY_IMPORT: dict[str, set[str]] = {
    "__init__": set(),
    "__main__": {"cli"},
    "get_provider_info": set(),
    "exceptions": set(),
    "retry_after": set(),
    "api": GROUND,
    "tokens": GROUND,
    "bulk": GROUND | {"api"},
    "hooks": GROUND | {"api", "tokens", "get_provider_info"},
    # The state of watches is among the metrics that an import has.
    "triggers": TASK_SIDE | {"bulk.progress"},
    "operators": TASK_SIDE | {"assets", "bulk", "triggers"},
    "cli": TASK_SIDE | {"bulk", "sandbox"},
    "plugins": GROUND | {"hooks", "tokens.store"},
    "assets": GROUND | {"bulk.paths", "triggers"},
    # What a task is given is read the same way by all tasks.
    "sensors": TASK_SIDE | {"triggers", "operators.base"},
    "transfers": TASK_SIDE | {"assets", "bulk", "triggers", "operators.base"},
    "sandbox": set(),
    "example_dags": {"operators", "sensors", "transfers", "hooks", "assets"},
}

# What each room, or single file, may import of Airflow; rooms that are not named may import nothing of it.
TASK_NAMES = {"airflow.providers.common.compat"}
METADATA = {"airflow.models.variable.Variable", "airflow.utils.session.create_session"}
AIRFLOW: dict[str, set[str]] = {
    "hooks": TASK_NAMES,
    # The base classes of triggers are in no SDK yet.
    "triggers": TASK_NAMES | {"airflow.triggers.base"},
    "triggers/polling.py": TASK_NAMES | {"airflow.triggers.base", "airflow.providers.standard.triggers.hitl"},
    "operators": TASK_NAMES,
    # The human in the loop, which Airflow has from 3.1 on.
    "operators/authorize_seller.py": TASK_NAMES
    | {"airflow.providers.standard.operators.hitl", "airflow.sdk.execution_time.hitl.HITLUser"},
    "sensors": TASK_NAMES,
    "transfers": TASK_NAMES,
    # Airflow 2 has no watchers, so that the SDK of the providers leaves this name out. The provider for
    # OpenLineage need not be installed.
    "assets": TASK_NAMES | {"airflow.sdk.AssetWatcher", "airflow.providers.openlineage.extractors"},
    "bulk": {f"{SDK}.ObjectStoragePath"},
    # An import's counters are among Airflow's own metrics.
    "bulk/progress.py": {f"{SDK}.Stats"},
    # A query as source reads on an Airflow connection.
    "bulk/sql.py": {f"{SDK}.BaseHook", f"{SDK}.AirflowNotFoundException"},
    # Beside a task's own Variables there are those of the command line, the webserver and the tests. The
    # version tells whether the supervisor logs what a task writes; the key opens rows that are listed.
    "tokens/variable_store.py": TASK_NAMES
    | METADATA
    | {"airflow.__version__", "airflow.models.crypto.get_fernet"},
    "tokens/sql_store.py": TASK_NAMES,
    "tokens/crypto.py": {f"{SDK}.conf"},
    "tokens/timed_lease.py": {f"{SDK}.conf"},
    "cli/main.py": {"airflow.cli.cli_config"},
    "plugins": TASK_NAMES,
    # The page is a part of the API server: it asks Airflow's own login and auth manager, finds connections in
    # the metadata database, and writes to its audit log. No SDK has these.
    "plugins/sellers_page.py": TASK_NAMES
    | {
        "airflow.api_fastapi.app.get_auth_manager",
        "airflow.api_fastapi.auth",
        "airflow.api_fastapi.core_api.security.get_user",
        "airflow.models.connection.Connection",
        "airflow.models.log.Log",
        "airflow.utils.session.create_session",
    },
}

SOURCES = {
    str(path.relative_to(folder)): path.read_text(encoding="utf-8")
    for folder in (PACKAGE, ROOT)
    for path in (folder if folder is PACKAGE else folder / "example_dags").rglob("*.py")
}


def room_of(file: str) -> str:
    """Return the room that a file of the package, or an example, belongs to."""
    return Path(file).parts[0].removesuffix(".py")


def beyond(names: set[str], allowed: set[str]) -> set[str]:
    """Return the names that are neither allowed nor below an allowed one."""
    return {
        name for name in names if not any(name == each or name.startswith(f"{each}.") for each in allowed)
    }


def upward(file: str, source: str) -> set[str]:
    """Return the imports of our own package that a file may not have; all of them if its room has no rule."""
    room = room_of(file)
    ours = {name.removeprefix(f"{OURS}.") for name in imports(source) if name.startswith(f"{OURS}.")}
    return (
        beyond(ours, MAY_IMPORT[room] | {room, "__version__"}) if room in MAY_IMPORT else {f"{room}: no rule"}
    )


def foreign(file: str, source: str) -> set[str]:
    """Return the imports of Airflow that a file may not have; an example may have any."""
    of_airflow = {name for name in imports(source) if name == "airflow" or name.startswith("airflow.")}
    room = room_of(file)
    return (
        set() if room == "example_dags" else beyond(of_airflow, AIRFLOW.get(file, AIRFLOW.get(room, set())))
    )


def test_a_file_imports_only_from_its_own_room_and_those_below() -> None:
    offenders = [f"{file}: {name}" for file, source in SOURCES.items() for name in upward(file, source)]

    assert len(SOURCES) > 50
    assert not offenders, "\n".join(sorted(offenders))


def test_a_file_imports_of_airflow_only_what_its_room_may() -> None:
    offenders = [f"{file}: {name}" for file, source in SOURCES.items() for name in foreign(file, source)]

    assert not offenders, "\n".join(sorted(offenders))


def test_there_is_no_circle_of_imports_nor_of_rooms() -> None:
    rooms = {room: {name.partition(".")[0] for name in below} for room, below in MAY_IMPORT.items()}
    offenders = [*circles(rooms), *circles(graph())]

    assert not offenders, "\n".join(map(str, offenders))


def test_what_the_rules_forbid_is_found() -> None:
    for file, source in [
        ("api/http.py", f"from {OURS}.hooks.feedamp import FeedAmpHook"),
        ("api/http.py", f"from {OURS} import tokens"),
        ("tokens/renewal.py", f"import {OURS}.hooks.connection"),
        ("bulk/place.py", f"def late():\n    from {OURS}.operators.orders import FeedAmpPlaceOrdersOperator"),
        ("sandbox/state.py", f"from {OURS}.api import http"),
        ("exceptions.py", f"from {OURS}.api.types import Order"),
        ("new_room/file.py", ""),
    ]:
        assert len(upward(file, source)) == 1, source
    for file, source in [
        ("get_provider_info.py", "import airflow"),
        ("api/session.py", f"from {SDK} import BaseHook"),
        ("bulk/paths.py", f"from {SDK} import Variable"),
        ("tokens/store.py", f"from {SDK} import Variable"),
        ("operators/orders.py", "from airflow.models import BaseOperator"),
    ]:
        assert len(foreign(file, source)) == 1, source
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]


HEAVY = {
    "requests",
    "urllib3",
    "pydantic",
    "sqlalchemy",
    "fastapi",
    "starlette",
    "uvicorn",
    "httpx",
    "fsspec",
    "httptools",
}
# Airflow's base classes come first: what they bring with them is not on our account. Those of triggers come
# after the modules that do without them.
PARSING = """
import importlib, json, sys
try:
    from airflow.sdk import BaseOperator
except ImportError:
    from airflow.models import BaseOperator
found = {}
for module in sys.argv[1:]:
    before = set(sys.modules)
    importlib.import_module(module)
    found[module] = sorted({name.partition(".")[0] for name in set(sys.modules) - before})
print("\\n" + json.dumps(found))
"""


def modules_of(room: str) -> list[str]:
    return [f"{OURS}.{room}.{path.stem}" for path in sorted((PACKAGE / room).glob("[!_]*.py"))]


# It starts an interpreter and Airflow in it. Both marks together leave it to the oldest cell of the matrix
# and to `make test`, which has the newest Airflow.
@pytest.mark.plain
@pytest.mark.processes
def test_importing_what_a_dag_file_uses_loads_nothing_heavy() -> None:
    for_dags = [f"{OURS}.assets", *modules_of("operators"), *modules_of("sensors"), *modules_of("transfers")]
    command = [sys.executable, "-c", PARSING, *for_dags, "airflow.triggers.base", *modules_of("triggers")]

    # Something heavy at the end shows that it would be seen.
    answer = subprocess.run([*command, "uvicorn"], capture_output=True, text=True, timeout=100, check=True)
    loaded: dict[str, list[str]] = json.loads(answer.stdout.splitlines()[-1])

    heavy = {
        module: set(names) & HEAVY for module, names in loaded.items() if module != "airflow.triggers.base"
    }
    assert {module: names for module, names in heavy.items() if names} == {"uvicorn": {"uvicorn"}}
