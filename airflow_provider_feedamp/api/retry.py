"""Sending a request again when FeedAMP did not answer, asked to wait, or failed."""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from requests.exceptions import ChunkedEncodingError, ConnectionError, ConnectTimeout, SSLError, Timeout
from urllib3.exceptions import NewConnectionError

from airflow_provider_feedamp.api.adapter import LeanAdapter, take_in
from airflow_provider_feedamp.api.gate import Gate, backoff
from airflow_provider_feedamp.retry_after import TOO_MANY, seconds_asked

if TYPE_CHECKING:
    from collections.abc import Callable

    from requests import PreparedRequest, RequestException, Response

log = logging.getLogger(__name__)

#: Repeating these changes nothing on the server (a PUT is keyed by its path). A POST may append twice.
RETRIED_METHODS = frozenset({"GET", "PUT"})
#: 520 to 524 are Cloudflare's, when the server behind it is away or slow.
RETRIED_STATUSES = frozenset({500, 502, 503, 504, 520, 521, 522, 523, 524})
#: The server has not waited for the whole request, or not yet dared to look at it: it did nothing.
NOT_PROCESSED = frozenset({408, 425})
#: With jitter eight retries bridge at least a minute.
DEFAULT_RETRIES = 8
#: Seconds. When the server asks for more there is no retry here: the error says how long, the slot is free.
LONGEST_WAIT = 120.0


class RetryAdapter(LeanAdapter):
    """A transport adapter that repeats what is safe to repeat, and says so in the log.

    It covers the whole exchange. urllib3's own retries end before requests reads the body: a connection that
    is cut in the middle of an answer would not be tried again. When the retries are used up, the last answer
    is returned or the last error raised, whichever there was.

    A 429 makes all requests of the adapter pause together, see :class:`Gate`. A request for which no
    connection came about was not sent, so that too is repeated whatever its method.

    :param retries: How often a request is sent again at most; for a 429, how many pauses in a row there are.
    :param longest_wait: Seconds; a server that asks for a longer wait gets no retry.
    :param sleep: Waits for so many seconds; tests hand in their own.
    :param jitter: A random number from 0 to 1; tests hand in their own.
    :param clock: Seconds on a clock that never goes back; tests hand in their own.
    :param adapter_options: Passed to :class:`requests.adapters.HTTPAdapter`, such as ``pool_maxsize``.
    """

    def __init__(
        self,
        retries: int = DEFAULT_RETRIES,
        *,
        longest_wait: float = LONGEST_WAIT,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
        **adapter_options: Any,
    ) -> None:
        super().__init__(**adapter_options)
        self.retries = retries
        self.longest_wait = longest_wait
        self._sleep = sleep
        self._jitter = jitter
        self._gate = Gate(retries, clock=clock, sleep=sleep, jitter=jitter)

    def send(self, request: PreparedRequest, stream: bool = False, *args: Any, **options: Any) -> Response:
        """Send a request, and again after a wait while that is safe and can help."""
        retry = 0
        while True:
            self._go_ahead(request)
            try:
                response = super().send(request, stream, *args, **options)
                take_in(response, stream)  # here, as a connection cut in the body is a missing answer, too
            except (ConnectionError, Timeout, ChunkedEncodingError) as error:
                repeatable = request.method in RETRIED_METHODS or never_sent(error)
                wait = None if isinstance(error, SSLError) else self._wait(request, retry, repeatable)
                if wait is None:
                    raise
                reason = f"gave no answer ({type(error).__name__})"
            else:
                if response.status_code == TOO_MANY:
                    if self._paused(request, response):
                        continue
                    return response
                self._gate.taken()
                status = response.status_code
                if status not in RETRIED_STATUSES and status not in NOT_PROCESSED:
                    return response
                repeatable = status in NOT_PROCESSED or request.method in RETRIED_METHODS
                wait = self._wait(request, retry, repeatable, seconds_asked(response) or 0.0)
                if wait is None:
                    return response
                response.close()
                reason = f"answered {response.status_code}"
            retry += 1
            path = urlsplit(request.url or "").path
            text = "FeedAMP %s to %s %s; trying again in %.1f s (retry %d of %d)"
            log.info(text, reason, request.method, path, wait, retry, self.retries)
            self._sleep(wait)

    def _go_ahead(self, request: PreparedRequest) -> None:
        """Wait for the end of a pause, and for the pace of a call of the client's."""
        self._gate.wait()
        if pacers := getattr(request, "pacers", ()):
            for pacer in pacers:
                pacer.wait()
            self._gate.wait()  # a pause may have begun meanwhile

    def _wait(
        self, request: PreparedRequest, retry: int, repeatable: bool, asked: float = 0.0
    ) -> float | None:
        """Return the seconds to wait before the next try, or None when there is none."""
        if not repeatable or retry >= self.retries or asked > self.longest_wait or not rewind(request):
            return None
        return max(asked, backoff(retry, self._jitter()))

    def _paused(self, request: PreparedRequest, response: Response) -> bool:
        """Begin a pause of all requests after a 429; False when the answer has to be handed back."""
        asked = seconds_asked(response) or 0.0
        if asked > self.longest_wait or not rewind(request):
            return False
        seconds = self._gate.close(asked)
        if seconds is None:
            return False
        response.close()
        if seconds:
            path = urlsplit(request.url or "").path
            text = "FeedAMP answered 429 to %s %s; all calls wait for %.1f s (pause %d of %d in a row)"
            log.info(text, request.method, path, seconds, self._gate.pauses, self.retries)
        return True


def never_sent(error: RequestException) -> bool:
    """Whether an error says that no connection came about, so that the server has not seen the request."""
    inner = error.args[0] if error.args else None
    return isinstance(error, ConnectTimeout) or isinstance(getattr(inner, "reason", None), NewConnectionError)


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
