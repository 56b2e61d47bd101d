"""What Airflow gives tasks and lineage, for tests that run no Airflow."""

from __future__ import annotations

import sys
from typing import Any
from unittest.mock import patch


def airflow_outlet_events() -> Any:
    """Return Airflow's own accessors of the events of outlets, as a task's context has them."""
    try:
        from airflow.sdk.execution_time.context import OutletEventAccessors
    except ImportError:  # Airflow 2
        from airflow.utils.context import OutletEventAccessors
    made: Any = OutletEventAccessors
    return made()


def lineage_of(task: Any) -> tuple[list[str], dict[str, tuple[int, int | None]]]:
    """Return what a task has read and written, as it tells lineage."""
    with patch.object(sys.modules[type(task).__module__], "operator_lineage", lambda _, *told: told):
        told: tuple[list[str], dict[str, tuple[int, int | None]]]
        told = task.get_openlineage_facets_on_complete(None)
    return told
