"""What a task keeps between its tries: Airflow's task state store, from Airflow 3.3 on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

KEY = "feedamp_import"
_SAFE = "FeedAMP keys them by their number, so sending them again is safe"


class TaskCheckpoints:
    """Keeps an import's checkpoint in the task state store (``bulk.checkpoint.CheckpointStore``).

    The store outlives a clear of the task, and a person who clears a task wants it done anew. A clear raises
    the number of tries that the task may have, a retry does not: so that number is kept with the checkpoint.

    :param store: ``context["task_state_store"]``.
    :param max_tries: That number.
    """

    def __init__(self, store: Any, max_tries: int) -> None:
        self._store = store
        self._max_tries = max_tries

    def load(self) -> Any:
        """Return the checkpoint of an earlier try since the task was last cleared, or None."""
        value = self._store.get(KEY)
        if isinstance(value, dict) and value.get("max_tries") == self._max_tries:
            return value
        return None

    def save(self, value: dict[str, Any]) -> None:
        """Keep a checkpoint for the next try."""
        self._store.set(KEY, value | {"max_tries": self._max_tries})

    def clear(self) -> None:
        """Forget the checkpoint."""
        self._store.delete(KEY)


def checkpoints_of(context: Mapping[str, Any]) -> TaskCheckpoints | None:
    """Return the place for the task's checkpoint, if Airflow has one; say so if an earlier try left none."""
    store, ti = context.get("task_state_store"), context.get("ti")
    found = None if store is None or ti is None else TaskCheckpoints(store, ti.max_tries)
    if getattr(ti, "try_number", 1) > 1:
        if found is None:
            log.info("All orders are sent, as Airflow keeps no checkpoint for a retry before 3.3; %s", _SAFE)
        elif found.load() is None:
            log.info(
                "All orders are sent, as no try since the task was last cleared left a checkpoint; %s", _SAFE
            )
    return found


def metric_tags(context: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags that Airflow gives its own metrics of a task."""
    ti = context.get("ti")
    return {} if ti is None else {"dag_id": str(ti.dag_id), "task_id": str(ti.task_id)}
