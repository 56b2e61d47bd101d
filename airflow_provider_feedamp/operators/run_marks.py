"""The watermarks that a task's runs leave for the runs after them, kept in XCom."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_feedamp.api.changes import Watermark

# How far away the mark of a mapped task's seller is looked for, when the list of sellers has changed.
_INDEXES_AROUND = 50


class RunMarks:
    """The marks of one task for one seller; those of later runs than its own are not seen.

    Each run leaves the mark that it began from and the one that it came to. The latter counts only if the
    task has succeeded; so what a failed run has read is read again by the next one.

    :param context: The running task's context.
    :param owner: Whose orders the marks are about; a task that changes its seller per run, or is mapped over
        sellers, keeps their marks apart.
    """

    def __init__(self, context: Context, owner: tuple[str, str]) -> None:
        self._ti: Any = context["ti"]
        self._dag_run: Any = context["dag_run"]
        name = hashlib.blake2b(repr(owner).encode(), digest_size=8).hexdigest()
        # Runs without a logical date have keys of their own: databases disagree on where in the order of
        # dates Airflow finds them, and a mark of long ago could hide all newer ones.
        self._keys = {False: f"feedamp_watermark_{name}", True: f"feedamp_watermark_{name}_undated"}

    def latest(self) -> Watermark | None:
        """Return the mark to go on from, or None if no run before this one has left any."""
        for index in self._indexes():
            marks = [
                self._mark(kept) for kept in map(self._pulled, [*self._keys.values()], [index] * 2) if kept
            ]
            if marks:
                return max(marks, key=lambda mark: mark.at)
        return None

    def keep(self, before: Watermark, after: Watermark | None) -> None:
        """Leave a mark for later runs.

        :param before: The mark that this run began from.
        :param after: The mark that it has come to, or None while it is not there yet.
        """
        kept = {
            "run_id": self._ti.run_id,
            "map_index": self._ti.map_index,
            "before": before.to_json(),
            "after": after.to_json() if after else None,
        }
        self._ti.xcom_push(key=self._keys[self._dag_run.logical_date is None], value=kept)

    def _pulled(self, key: str, index: int) -> dict[str, Any] | None:
        kept: dict[str, Any] | None = self._ti.xcom_pull(
            task_ids=self._ti.task_id, key=key, include_prior_dates=True, map_indexes=index
        )
        return kept

    def _mark(self, kept: dict[str, Any]) -> Watermark:
        from airflow_provider_feedamp.api.changes import Watermark

        came_through = kept["after"] and self._state(kept["run_id"], kept["map_index"]) == "success"
        return Watermark.from_json(kept["after"] if came_through else kept["before"])

    def _state(self, run_id: str, map_index: int) -> str | None:
        """Return the state of this task in a run."""
        dag_id, task_id = self._ti.dag_id, self._ti.task_id
        if not hasattr(self._ti, "get_task_states"):  # Airflow 2
            instance = self._dag_run.fetch_task_instance(dag_id, run_id, task_id, map_index=map_index)
            return None if instance is None else str(instance.state)
        states = self._ti.get_task_states(
            dag_id=dag_id, task_ids=[task_id], run_ids=[run_id], map_index=map_index
        )
        return next(iter(states.get(run_id, {}).values()), None)

    def _indexes(self) -> Iterator[int]:
        """Yield this task's own map index first; then, if it is mapped, those around it."""
        own = self._ti.map_index
        yield own
        if own >= 0:
            for step in range(1, _INDEXES_AROUND + 1):
                yield from (index for index in (own - step, own + step) if index >= 0)
