"""How long an answer of FeedAMP's asks to wait, for the order API and the token endpoint alike."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The caller is asked to come back later, and nothing was done: this may be repeated whatever the method.
TOO_MANY = 429
#: Numbers above these are instants, not durations: seconds and milliseconds since 1970.
_EPOCH_SECONDS = 1e9
_EPOCH_MILLISECONDS = 1e11


class _Answer(Protocol):
    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...


def seconds_asked(response: _Answer) -> float | None:
    """Return how long an answer asks to wait.

    That is ``Retry-After`` in both its forms, and on a 429 also ``X-Rate-Limit-Reset``, which other
    Feedonomics APIs send with every answer. Instants are compared to the answer's own ``Date``, so that our
    clock may be wrong.
    """
    headers = response.headers
    now = _instant(headers.get("Date")) or time.time()
    asked = _seconds(headers.get("Retry-After"), now)
    if asked is None and response.status_code == TOO_MANY:
        asked = _seconds(headers.get("X-Rate-Limit-Reset"), now)
    return asked


def _seconds(value: str | None, now: float) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        instant = _instant(value)
        return None if instant is None else max(0.0, instant - now)
    if not math.isfinite(number):
        return None
    if number > _EPOCH_MILLISECONDS:
        number /= 1000
    return max(0.0, number - now if number > _EPOCH_SECONDS else number)


def _instant(value: str | None) -> float | None:
    """Return the seconds since 1970 of an HTTP date or an ISO 8601 instant."""
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        with suppress(ValueError):
            instant = parse(value or "")
            return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()
    return None
