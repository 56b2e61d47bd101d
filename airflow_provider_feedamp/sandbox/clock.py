"""The sandbox's clock: real time, or the caller's, plus what the control surface has added."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def _real_time() -> datetime:
    return datetime.now(UTC)


class SandboxClock:
    """Tell the time of the sandbox, which can be moved forward.

    :param now: Where time comes from, as timezone-aware datetimes; real time by default.
    """

    def __init__(self, now: Callable[[], datetime] | None = None) -> None:
        self._now = now or _real_time
        self._ahead = timedelta()

    def now(self) -> datetime:
        """Return the present instant in UTC."""
        return self._now().astimezone(UTC) + self._ahead

    def advance(self, seconds: float) -> datetime:
        """Move the clock forward.

        :param seconds: How far.
        :return: The new present instant.
        :raises ValueError: when asked to go back.
        """
        if seconds < 0:
            raise ValueError("The sandbox's clock only goes forward: advance_seconds must be 0 or more")
        self._ahead += timedelta(seconds=seconds)
        return self.now()
