"""Airflow's Variables as the token store sees them: read, write, delete and list, with errors of ours."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.exceptions import TokenStoreError

if TYPE_CHECKING:
    from collections.abc import Callable

#: Airflow 3.0 and 3.1 talk to the supervisor over one unlocked socket: our own calls never overlap.
_CALLS = threading.Lock()


def _after_fork() -> None:
    """Make the lock anew: one that another thread of the parent held would never be released."""
    global _CALLS
    _CALLS = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


class AirflowVariables:
    """Airflow's Variables, wherever this code runs, with errors that name the Variable and no value."""

    def get(self, name: str) -> str | None:
        """Return the value, or None."""

        def get(variables: Any) -> Any:
            try:
                return variables.get(name, None)
            except KeyError:
                return None  # how some releases say that there is no such Variable

        value = self._call(name, "read", get)
        return None if value is None else str(value)

    def set(self, name: str, value: str) -> None:
        """Write the value."""
        self._call(name, "written", lambda variables: variables.set(name, value))

    def delete(self, name: str) -> None:
        """Take the name out."""
        self._call(name, "deleted", lambda variables: variables.delete(name))

    def starting_with(self, prefix: str) -> dict[str, str]:
        """Return the values of all Variables whose names begin with the prefix, by name."""
        if not _in_task():
            return dict(self._call(f"{prefix}*", "listed", lambda variables: _rows(variables, prefix)))
        if not hasattr(_variables(), "keys"):
            raise TokenStoreError(
                "A task cannot list Airflow Variables before Airflow 3.3. List where the metadata database "
                "is at hand (the feedamp command on the scheduler's machine), or use the token store 'sql'."
            )
        names = self._call(f"{prefix}*", "listed", lambda variables: list(variables.keys(prefix)))
        values = {name: self.get(name) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    def _call(self, name: str, done: str, action: Callable[[Any], Any]) -> Any:
        try:
            with _CALLS:
                return action(_variables())
        except Exception as error:  # noqa: BLE001 - whatever the database or the API server raises
            # Its text may quote the value that was sent.
            raise TokenStoreError(
                f"Airflow Variable {name!r} could not be {done} ({type(error).__name__}). Is the database up?"
            ) from None


def _in_task() -> bool:
    """Say whether this is a task, or a trigger, that reaches Variables through its supervisor only."""
    return hasattr(sys.modules.get("airflow.sdk.execution_time.task_runner"), "SUPERVISOR_COMMS")


def _variables() -> Any:
    """Return the Variable class that works here: a task's own, or the one beside the metadata database."""
    if _in_task():
        from airflow.providers.common.compat.sdk import Variable
    else:
        from airflow.models.variable import Variable
    return Variable


def _rows(variables: Any, prefix: str) -> dict[str, str]:
    """Return the values of the metadata database's Variables; Airflow logs those that it cannot decrypt."""
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        found = session.scalars(select(variables).where(variables.key.startswith(prefix, autoescape=True)))
        return {row.key: row.val for row in found if row.val is not None}
