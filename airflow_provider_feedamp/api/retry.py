"""Sending a request again when FeedAMP did not answer, asked to wait, or failed."""

from __future__ import annotations

import logging
import math
import random
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from requests.adapters import HTTPAdapter
from requests.exceptions import ChunkedEncodingError, ConnectionError, SSLError, Timeout

if TYPE_CHECKING:
    from collections.abc import Callable

    from requests import PreparedRequest, Response

log = logging.getLogger(__name__)

#: Repeating these changes nothing on the server (a PUT is keyed by its path). A POST may append twice.
RETRIED_METHODS = frozenset({"GET", "PUT"})
RETRIED_STATUSES = frozenset({429, 500, 502, 503, 504})
#: With jitter six retries bridge at least half a minute, with a ``Retry-After`` as long as the server asks.
DEFAULT_RETRIES = 6
#: Seconds. When the server asks for more there is no retry here: the error says how long, the slot is free.
LONGEST_WAIT = 120.0
#: Seconds; the doubling waits between retries end here.
BACKOFF_CAP = 30.0
#: Numbers above these are instants, not durations: seconds and milliseconds since 1970.
_EPOCH_SECONDS = 1e9
_EPOCH_MILLISECONDS = 1e11


class RetryAdapter(HTTPAdapter):
    """A transport adapter that repeats what is safe to repeat, and says so in the log.

    It covers the whole exchange. urllib3's own retries end before requests reads the body: a connection that
    is cut in the middle of an answer would not be tried again. When the retries are used up, the last answer
    is returned or the last error raised, whichever there was.

    :param retries: How often a request is sent again at most.
    :param longest_wait: Seconds; a server that asks for a longer wait gets no retry.
    :param sleep: Waits for so many seconds; tests hand in their own.
    :param jitter: A random number from 0 to 1; tests hand in their own.
    :param adapter_options: Passed to :class:`requests.adapters.HTTPAdapter`, such as ``pool_maxsize``.
    """

    def __init__(
        self,
        retries: int = DEFAULT_RETRIES,
        *,
        longest_wait: float = LONGEST_WAIT,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
        **adapter_options: Any,
    ) -> None:
        super().__init__(**adapter_options)
        self.retries = retries
        self.longest_wait = longest_wait
        self._sleep = sleep
        self._jitter = jitter

    def send(self, request: PreparedRequest, stream: bool = False, *args: Any, **options: Any) -> Response:
        """Send a request, and again after a wait while that is safe and can help."""
        retry = 0
        while True:
            try:
                response = super().send(request, stream, *args, **options)
                if not stream:
                    response.content  # noqa: B018  a connection cut in the body is a missing answer, too
            except (ConnectionError, Timeout, ChunkedEncodingError) as error:
                wait = None if isinstance(error, SSLError) else self._wait(request, retry, None)
                if wait is None:
                    raise
                reason = f"gave no answer ({type(error).__name__})"
            else:
                if response.status_code not in RETRIED_STATUSES:
                    return response
                wait = self._wait(request, retry, response)
                if wait is None:
                    return response
                response.close()
                reason = f"answered {response.status_code}"
            retry += 1
            path = urlsplit(request.url or "").path
            text = "FeedAMP %s to %s %s; trying again in %.1f s (retry %d of %d)"
            log.info(text, reason, request.method, path, wait, retry, self.retries)
            self._sleep(wait)

    def _wait(self, request: PreparedRequest, retry: int, response: Response | None) -> float | None:
        """Return the seconds to wait before the next try, or None when there is none."""
        if retry >= self.retries or request.method not in RETRIED_METHODS or not rewind(request):
            return None
        asked = None if response is None else seconds_asked(response)
        if asked:
            return asked if asked <= self.longest_wait else None
        return min(BACKOFF_CAP, 2.0**retry) * (0.5 + self._jitter() / 2)


def seconds_asked(response: Response) -> float | None:
    """Return how long an answer asks to wait.

    That is ``Retry-After`` in both its forms, and on a 429 also ``X-Rate-Limit-Reset``, which other
    Feedonomics APIs send with every answer. Instants are compared to the answer's own ``Date``, so that our
    clock may be wrong.
    """
    headers = response.headers
    now = _instant(headers.get("Date")) or time.time()
    asked = _seconds(headers.get("Retry-After"), now)
    if asked is None and response.status_code == 429:
        asked = _seconds(headers.get("X-Rate-Limit-Reset"), now)
    return asked


def rewind(request: PreparedRequest) -> bool:
    """Make a request's body ready to be sent once more; False when that is not possible."""
    body: Any = request.body
    if body is None or isinstance(body, bytes | str | bytearray):
        return True
    start = getattr(
        request, "_body_position", None
    )  # where requests found a file when it prepared the request
    if not isinstance(start, int) or not hasattr(body, "seek"):
        return False
    body.seek(start)
    return True


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
    if not value:
        return None
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            instant = parse(value)
        except ValueError:
            continue
        return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp()
    return None
