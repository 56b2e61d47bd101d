"""What is kept of an import so that its retry goes on where it ended."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_feedamp.bulk.progress import Interval, PlaceCounts
from airflow_provider_feedamp.bulk.rejects import can_be_continued, still_there
from airflow_provider_feedamp.exceptions import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_feedamp.bulk.rejects import RejectsFile

log = logging.getLogger(__name__)

#: Seconds between two checkpoints, each of which is a call to Airflow.
SAVE_EVERY = 5.0


class CheckpointStore(Protocol):
    """Where a checkpoint is kept between the tries of a task."""

    def load(self) -> Any:
        """Return what was saved last, or None."""

    def save(self, value: dict[str, Any]) -> None:
        """Keep a value that JSON can hold, instead of the one before."""

    def clear(self) -> None:
        """Forget what was saved."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The first orders of a source are accounted for; it holds no personal data and no secret.

    :param stamp: What the account is about: a digest of the source and of where its orders and rejects go.
    :param counts: The account of the first ``counts.read`` orders.
    :param rejects_size: How many bytes their rejects take in the rejects file.
    """

    stamp: str
    counts: PlaceCounts
    rejects_size: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return it as a value that JSON can hold."""
        return {"stamp": self.stamp, **asdict(self.counts), "rejects_size": self.rejects_size}


def checkpoint_of(value: Any) -> Checkpoint | None:
    """Return the checkpoint that a stored value is; None if it is something else."""
    try:
        numbers = {name: int(value[name]) for name in PlaceCounts.__slots__}
        found = Checkpoint(str(value["stamp"]), PlaceCounts(**numbers), int(value["rejects_size"]))
    except (KeyError, TypeError, ValueError):
        return None
    counts = found.counts
    adds_up = counts.read == counts.placed + counts.rejected and counts.read > 0 <= found.rejects_size
    return found if adds_up else None


class Checkpoints:
    """Those of one import: where an earlier try ended, and now and then where this one is.

    :param store: Where they are kept; None keeps none.
    :param stamp: Returns what the import is about, as far as a number of orders; None if its source cannot
        be known again.
    :param rejects: The path of the rejects file; None if there is none.
    """

    def __init__(
        self, store: CheckpointStore | None, stamp: Callable[[int], str | None], rejects: str | None
    ) -> None:
        self._store = store
        self._stamp = stamp
        self._rejects = rejects
        self._every = Interval(SAVE_EVERY)
        self._failed = False

    def find_start(self) -> Checkpoint | None:
        """Return where to go on; None to begin anew, and the log says why if there was a start."""
        value = None if self._store is None else self._store.load()
        if value is None:
            return None
        found = checkpoint_of(value)
        if found is None or found.stamp != self._stamp(found.counts.read):
            reason = (
                "the source (of a query: its text or its first rows), the seller or the path of the rejects "
                "is not the same as in the try before"
            )
        elif not still_there(self._rejects, found.counts.rejected, found.rejects_size):
            reason = "the rejects file of the try before is not there, or cannot be added to"
        else:
            log.info(
                "Going on behind %s of an earlier try: %s", counted(found.counts.read, "orders"), found.counts
            )
            return found
        log.info("Sending all orders again, as %s; FeedAMP keys them by their number", reason)
        return None

    def save_if_due(self, counts: PlaceCounts, rejects: RejectsFile) -> None:
        """Save a checkpoint if the last one is old enough."""
        if self._every.is_over():
            self.save(counts, rejects)
            self._every.begin()  # from its end on: where saving is slow, it must not be all that is done

    def save(self, counts: PlaceCounts, rejects: RejectsFile) -> None:
        """Save a checkpoint, if a retry could go on from it.

        An import does not fail because its checkpoint cannot be kept: the one before still holds, and at
        worst all orders are sent again.
        """
        # Where rejects cannot be continued, a retry can go on from the last checkpoint without rejects.
        if self._store is None or not counts.read or (rejects.count and not can_be_continued(self._rejects)):
            return
        stamp = self._stamp(counts.read)
        if stamp is None:
            return
        try:
            self._store.save(Checkpoint(stamp, replace(counts), rejects.size).as_json())
        except Exception as error:  # noqa: BLE001 - best effort, see above; whatever Airflow or its API raises
            if not self._failed:
                log.warning("The checkpoint could not be kept (%s); the import goes on", type(error).__name__)
            self._failed = True

    def clear(self, *, must: bool = True) -> None:
        """Forget the checkpoint.

        :param must: Whether it is an error if one stays: after all orders are placed, it does no harm.
        """
        try:
            if self._store is not None:
                self._store.clear()
        except Exception as error:
            if must:
                raise
            log.warning("The checkpoint could not be removed (%s)", type(error).__name__)
