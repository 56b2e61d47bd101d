"""Airflow's Variables as the token store sees them: what cannot be read is an error, not None."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.exceptions import TokenConflictError, TokenStoreError

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
    """Airflow's Variables, wherever this code runs, with errors that name the Variable and no value.

    Airflow answers None for a Variable that is not there, and also for one that it cannot decrypt, whose
    database fails, or whose API server answers with an error.
    """

    @property
    def proves_absence(self) -> bool:
        """Whether None from :meth:`get` is proof that there is no such Variable.

        Beside the metadata database the row proves it, in a task of Airflow 3.3 the listing of names. In a
        task of Airflow 3.0 to 3.2 nothing does, nor with teams: the listing leaves out rows without a team.
        """
        return not _in_task() or (hasattr(_variables(), "keys") and not _has_teams())

    @property
    def logs_values(self) -> bool:
        """Whether what is written from here comes into Airflow's log in clear, at the default level.

        The supervisor of Airflow 3.0 logs each request of a task; later ones do so at DEBUG only.
        """
        from airflow import __version__

        return _in_task() and __version__.startswith("3.0.")

    def get(self, name: str) -> str | None:
        """Return the value, or None when there is none; see :attr:`proves_absence`.

        :raises TokenStoreError: if there is one that cannot be read, or it cannot be told.
        """

        def get(variables: Any) -> Any:
            try:
                return variables.get(name, None)
            except KeyError:
                return None  # how some releases say that there is no such Variable

        value = self._call(name, "read", get)
        if value is None and self.proves_absence and name in self.names(name):
            # It is there: either it was written between the two questions, or it cannot be read.
            value = self._call(name, "read", get)
            if value is None:
                raise TokenStoreError(unreadable(name))
        return None if value is None else str(value)

    def set(self, name: str, value: str, description: str) -> None:
        """Write the value.

        :raises TokenConflictError: if another worker has written the Variable at the same moment.
        """
        self._call(name, "written", lambda variables: variables.set(name, value, description))

    def delete(self, name: str) -> None:
        """Take the name out."""
        self._call(name, "deleted", lambda variables: variables.delete(name))

    def names(self, prefix: str) -> list[str]:
        """Return the names that begin with the prefix, reading no value."""
        if not _in_task():
            return list(self._call(f"{prefix}*", "listed", lambda variables: _rows(variables, prefix, "key")))
        if not hasattr(_variables(), "keys"):
            raise TokenStoreError(
                "A task cannot list Airflow Variables before Airflow 3.3. List where the metadata database "
                "is at hand (the feedamp command on the scheduler's machine), or use the token store 'sql'."
            )
        return list(self._call(f"{prefix}*", "listed", lambda variables: list(variables.keys(prefix))))

    def values(self, prefix: str) -> dict[str, str | None]:
        """Return the values of all Variables whose names begin with the prefix; None where unreadable.

        Beside the metadata database this is one query, past Airflow's look-up: that would have each value
        masked, and the masker takes longer with each one that it knows.
        """
        if _in_task():
            return {name: self._get_or_none(name) for name in self.names(prefix)}
        return dict(self._call(f"{prefix}*", "listed", lambda variables: _rows(variables, prefix, "val")))

    def _get_or_none(self, name: str) -> str | None:
        try:
            return self.get(name)
        except TokenStoreError:
            return None

    def _call(self, name: str, done: str, action: Callable[[Any], Any]) -> Any:
        try:
            with _CALLS:
                return action(_variables())
        except TokenStoreError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the database or the API server raises
            # Its text may quote the value that was sent.
            kind = type(error).__name__
            if kind == "IntegrityError":
                # Airflow 2.11 and 3.0 write a Variable as DELETE and INSERT: of two that meet, one gets this.
                raise TokenConflictError(
                    f"Airflow Variable {name!r} was written by another worker at the same moment."
                ) from None
            raise TokenStoreError(
                f"Airflow Variable {name!r} could not be {done} ({kind}). Nothing was spent. Is the database "
                "up?"
            ) from None


def unreadable(name: str) -> str:
    """Return what to say of a Variable that is there, or may be, and reads as None."""
    return (
        f"Airflow Variable {name!r} is there and cannot be read. Nothing was spent, and it is untouched. "
        "Either this process (or the API server) has another [core] fernet_key than the one that it was "
        "written with, or the metadata database, the API server or a secrets backend failed just now: "
        "Airflow's log says which."
    )


def _in_task() -> bool:
    """Say whether this is a task, or a trigger, that reaches Variables through its supervisor only."""
    return hasattr(sys.modules.get("airflow.sdk.execution_time.task_runner"), "SUPERVISOR_COMMS")


def _has_teams() -> bool:
    from airflow.providers.common.compat.sdk import conf

    return bool(conf.getboolean("core", "multi_team", fallback=False))


def _variables() -> Any:
    """Return the Variable class that works here: a task's own, or the one beside the metadata database."""
    if _in_task():
        from airflow.providers.common.compat.sdk import Variable
    elif os.environ.get("_AIRFLOW_PROCESS_CONTEXT") == "client":
        # Airflow's models would make a database of their own here.
        raise TokenStoreError(
            "Airflow Variables cannot be reached from this process: it belongs to a worker and runs no task "
            "(Airflow tests connections in such a one). Nothing was read, written or spent."
        )
    else:
        from airflow.models.variable import Variable
    return Variable


def _rows(variables: Any, prefix: str, column: str) -> Any:
    """Return the names of the metadata database's Variables, or their names with their values.

    Airflow logs those that it cannot decrypt, and gives None for them.
    """
    from airflow.utils.session import create_session
    from sqlalchemy import select

    begins = variables.key.startswith(prefix, autoescape=True)
    with create_session() as session:
        if column == "key":
            return list(session.scalars(select(variables.key).where(begins)))
        return {row.key: row.val for row in session.scalars(select(variables).where(begins))}
