"""What is kept of an import so that its retry goes on where it ended."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_feedamp.bulk.progress import PlaceCounts
from airflow_provider_feedamp.bulk.rejects import Kept, still_there

if TYPE_CHECKING:
    from collections.abc import Callable

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

    @property
    def kept(self) -> Kept:
        """The rejects that it stands for."""
        return Kept(self.counts.rejected, self.rejects_size)

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


def find_start(
    store: CheckpointStore, stamp: Callable[[int], str | None], rejects: str | None
) -> Checkpoint | None:
    """Return where to go on; None to begin anew, and the log says why if there was a start.

    :param stamp: Returns what the import is about now, as far as a number of orders; None if its source
        cannot be known again.
    :param rejects: The path of the rejects file.
    """
    value = store.load()
    if value is None:
        return None
    found = checkpoint_of(value)
    if found is None or found.stamp != stamp(found.counts.read):
        reason = (
            "the source (of a query: its text or its first rows), the seller or the path of the rejects is "
            "not the same as in the try before"
        )
    elif not still_there(rejects, found.kept):
        reason = "the rejects file of the try before is not there, or cannot be added to"
    else:
        log.info(
            "Going on behind the first %d orders, of an earlier try: %s", found.counts.read, found.counts
        )
        return found
    log.info("Sending all orders again, as %s; FeedAMP keys them by their number", reason)
    return None


class Saver:
    """Saves a checkpoint now and then.

    An import does not fail because its checkpoint cannot be kept: the one before still holds, and at worst
    all orders are sent again.

    :param store: Where checkpoints are kept.
    :param make: Returns the checkpoint as of now; None while there is nothing that could be gone on from.
    :param every: Seconds between two checkpoints.
    :param clock: Seconds on a clock that never goes back; tests hand in their own.
    """

    def __init__(
        self,
        store: CheckpointStore,
        make: Callable[[], Checkpoint | None],
        *,
        every: float = SAVE_EVERY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._make = make
        self._every = every
        self._clock = clock
        self._next = clock() + every
        self._failed = False

    def save_if_due(self) -> None:
        """Save one if the last one is old enough."""
        if self._clock() >= self._next:
            self.save()

    def save(self) -> None:
        """Save one now."""
        checkpoint = self._make()
        if checkpoint is None:
            return
        try:
            self._store.save(checkpoint.as_json())
        except Exception as error:  # noqa: BLE001 - best effort, see above; whatever Airflow or its API raises
            if not self._failed:
                log.warning("The checkpoint could not be kept (%s); the import goes on", type(error).__name__)
            self._failed = True
        self._next = self._clock() + self._every
