"""The client's exchange with FeedAMP: one loop from the pace of a call to its answer."""

from __future__ import annotations

import json as jsonlib
import logging
import os
import platform
import random
import threading
import time
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlencode

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ProxyError, SSLError

from airflow_provider_feedamp import __version__
from airflow_provider_feedamp.api.errors import error_from, is_html, unreachable, unreadable
from airflow_provider_feedamp.api.wire import Request, Wire, closed_while_idle
from airflow_provider_feedamp.exceptions import InputError, TokenError, forget_variables
from airflow_provider_feedamp.retry_after import TOO_MANY, seconds_asked

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from airflow_provider_feedamp.api.types import TokenSource
    from airflow_provider_feedamp.api.wire import Response


log = logging.getLogger(__name__)

#: Seconds of waiting that are worth a line in a task's log, and the least time between two such lines.
_WORTH_A_LINE = 5.0
_BETWEEN_LINES = 60.0

#: Seconds; the doubling waits between tries end here.
BACKOFF_CAP = 30.0
#: Seconds between two calls that leave a pause: all at once would only be refused again.
_STEP = 0.05
#: Seconds after which an earlier pause has nothing to do with the next one.
_FORGOTTEN = 60.0

#: Seconds to connect, and between two pieces of an answer.
DEFAULT_TIMEOUT = (10.0, 60.0)
DEFAULT_POOL_SIZE = 32
#: With jitter eight retries bridge at least a minute.
DEFAULT_RETRIES = 8
#: Seconds. When the server asks for more there is no retry here: the error says how long, the slot is free.
LONGEST_WAIT = 120.0
#: Repeating these changes nothing on the server (a PUT is keyed by its path). A POST may append twice.
RETRIED_METHODS = frozenset({"GET", "PUT"})
#: 520 to 524 are Cloudflare's, when the server behind it is away or slow.
RETRIED_STATUSES = frozenset({500, 502, 503, 504, 520, 521, 522, 523, 524})
#: The server has not waited for the whole request, or not yet dared to look at it: it did nothing.
NOT_PROCESSED = frozenset({408, 425})
#: Seconds of the pauses before a fresh token that was refused is tried again: replicas and clocks lag.
FRESH_TOKEN_WAITS = (1.0, 3.0)
_URLLIB3 = urllib3.__version__  # type: ignore[attr-defined]
HEADERS = {
    "User-Agent": f"airflow-provider-feedamp/{__version__} urllib3/{_URLLIB3} "
    f"Python/{platform.python_version()}",
    "Accept": "application/json",
    "Accept-Encoding": "gzip",  # what the wire unpacks
    "Connection": "keep-alive",
}

_pacers: dict[Hashable, Pacer] = {}
_pacers_lock = threading.Lock()


@dataclass(eq=False)
class Pacer:
    """Spaces calls evenly: each caller takes the next free slot and waits for it without holding a lock.

    :param requests_per_second: How many calls may start in a second, a number above 0.
    :param clock: Seconds on a clock that never goes back; injected by tests, as ``sleep`` is.
    """

    requests_per_second: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _next_slot: float = field(default=0.0, init=False)
    _waited: float = field(default=0.0, init=False)
    _next_line: float = field(default=0.0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def wait(self) -> None:
        """Wait until the next call may start."""
        waited = 0.0
        with self._lock:
            now = self.clock()
            slot = max(now, self._next_slot)
            self._next_slot = slot + 1 / self.requests_per_second
            delay = slot - now
            self._waited += delay
            if self._waited >= _WORTH_A_LINE and now >= self._next_line:
                waited, self._waited = self._waited, 0.0
                self._next_line = now + _BETWEEN_LINES
        if waited:
            text = "Calls wait to keep to %g requests per second: %.1f s in all since the last such line"
            log.info(text, self.requests_per_second, waited)
        if delay > 0:
            self.sleep(delay)


@dataclass(eq=False)
class Pause:
    """A pause that one refused call begins: it holds up all calls, and they leave it one by one.

    :param most: How many pauses in a row, without any call being taken in between, are worth trying.
    :param clock: Seconds on a clock that never goes back; injected by tests, as ``sleep`` is.
    :param jitter: A random number from 0 to 1; injected by tests.
    """

    most: int
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random
    #: Whether calls have to wait, and how many pauses there were in a row.
    active: bool = field(default=False, init=False)
    pauses: int = field(default=0, init=False)
    _opens: float = field(default=0.0, init=False)
    _turn: float = field(default=0.0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def wait(self) -> None:
        """Wait until the pause is over, if there is one, and it is this call's turn."""
        while self.active:
            with self._lock:
                now, opens, turn = self.clock(), self._opens, self._turn
                if now >= opens:
                    self.active = False
                    return
                self._turn += _STEP
            self.sleep(turn - now)
            if self._opens == opens:  # else a call that left before this one was refused again
                return

    def begin(self, asked: float) -> float | None:
        """Begin a pause, because FeedAMP has refused a call.

        :param asked: The seconds that FeedAMP asked for; 0 when it did not say.
        :return: The seconds of the pause that this call began; 0 when there is one already; None when no
            further one is worth trying.
        """
        with self._lock:
            now = self.clock()
            if now < self._opens:
                if now + asked > self._opens:
                    self._opens = self._turn = now + asked
                return 0.0
            if now - self._opens > _FORGOTTEN:
                self.reset()
            if self.pauses >= self.most:
                return None
            # A server that asks for a second every time is not believed for ever.
            seconds = max(asked, backoff(self.pauses, self.jitter()))
            self.pauses += 1
            self._opens = self._turn = now + seconds
            self.active = True
            return seconds

    def reset(self) -> None:
        """Take note that FeedAMP has taken a call: the next pause begins a new row."""
        self.pauses = 0


def backoff(tries: int, jitter: float) -> float:
    """Return the seconds to wait after so many earlier tries, shortened by up to half by a random number."""
    return min(BACKOFF_CAP, 2.0**tries) * (0.5 + jitter / 2)


def pacer_for(key: Hashable, requests_per_second: float | None) -> Pacer | None:
    """Return the pacer that everything in this process shares for a key.

    :param key: What the limit belongs to, such as the base URL and the seller.
    :param requests_per_second: The limit; the latest one given for a key holds. None means no pacing.
    :return: The pacer, or None without a limit.
    """
    if requests_per_second is None:
        return None
    with _pacers_lock:
        pacer = _pacers.setdefault(key, Pacer(requests_per_second))
        pacer.requests_per_second = requests_per_second
        return pacer


def _after_fork() -> None:
    """Give the child locks of its own: one that a thread of the parent held would never be released."""
    global _pacers_lock
    _pacers_lock = threading.Lock()
    for pacer in _pacers.values():
        pacer._lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


@dataclass(slots=True)
class _Call(Request):
    """A request with what belongs to all its sendings."""

    fresh: bool = False
    refusals: int = 0
    retries: int = 0


class Answer(NamedTuple):
    """A success: its status, and its body as parsed from JSON (None when there is none)."""

    status: int
    body: Any


class Http:
    """Sends the client's calls to one FeedAMP base URL, and again where that is safe and can help.

    A 429 makes all calls pause together, see :class:`Pause`. A GET or PUT is repeated after a connection
    error, a cut answer and a 5xx; any call is repeated that surely was not processed. A refused access token
    is replaced once; while FeedAMP refuses the fresh one too, all calls pause twice for a few seconds. One
    object serves any number of threads.

    Proxies and certificates are those of the environment at the first call, as requests finds them. A
    redirect is not followed: a redirected PUT would become a GET, and its 200 would pass for a placed order.

    :param base_url: Base URL of the API, such as ``https://host/api/v1``; a trailing slash does not matter.
    :param tokens: Where access tokens come from.
    :param timeout: Seconds: one number, or one to connect and one to read. Default: 10 and 60.
    :param pacer: Spaces all calls; None sends them as they come.
    :param list_pacer: Spaces the list calls further apart; None leaves them to ``pacer``.
    :param retries: How often a call is repeated at most; for a 429, how many pauses in a row. Default: 8.
    :param pool_size: Connections that are kept open; give at least as many as threads. Default: 32.
    :param sleep: As ``jitter`` and ``clock`` for :class:`Pause`; injected by tests.
    """

    def __init__(
        self,
        base_url: str,
        tokens: TokenSource,
        timeout: float | tuple[float, float] = DEFAULT_TIMEOUT,
        pacer: Pacer | None = None,
        list_pacer: Pacer | None = None,
        *,
        retries: int = DEFAULT_RETRIES,
        pool_size: int = DEFAULT_POOL_SIZE,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        both = timeout if isinstance(timeout, tuple) else (timeout, timeout)
        self.wire = Wire(base_url.rstrip("/") + "/", both, pool_size, HEADERS)
        self._tokens = tokens
        self._pacers = (pacer,) if pacer else ()
        self._list_pacers = (list_pacer, *self._pacers) if list_pacer else self._pacers
        self._pause = Pause(retries, clock, sleep, jitter)
        self._accepted = ""
        self._proven = False

    def authorise(self) -> None:
        """Obtain the access token that the next call will use, and send nothing to the order API.

        :raises ConfigurationError: The proxy or the certificates of the environment cannot be used.
        :raises TokenError: There is no access token to be had.
        """
        self.wire.prepare()
        sendable(self._tokens.token())

    def request(
        self,
        method: str,
        path: Sequence[str],
        *,
        what: str,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        body: bytes | None = None,
        listing: bool = False,
    ) -> Answer:
        """Send one call, and return its answer or raise the error that says what went wrong.

        :param method: HTTP method.
        :param path: The path's segments below the base URL, as they are; each is escaped here.
        :param what: The call in words for errors, such as ``placing order '600A'``; no personal data.
        :param params: Query parameters.
        :param json: A value to send as JSON.
        :param body: JSON to send byte for byte, instead of ``json``.
        :param listing: Whether this asks for a page of a list, which has a pace of its own.
        :return: The answer, when its status is 2xx.
        :raises InputError: A segment or the value cannot be sent; nothing was sent.
        :raises ApiError: FeedAMP refused, failed, or did not answer.
        """
        place = "/".join([_segment(value, what) for value in path])
        target = f"{place}?{urlencode(params)}" if params else place
        if json is not None:
            body = _encoded(json, what)
        started = time.monotonic()
        try:
            response = self.call(method, target, body, listing=listing)
        except HTTPError as error:
            forget_variables(error)
            repeatable = method in RETRIED_METHODS or never_sent(error)
            unreached = unreachable(error, what, repeatable=repeatable)
            raise unreached from unreached.__cause__
        log.debug("%s %s: %s in %.3f s", method, place, response.status_code, time.monotonic() - started)
        if not 200 <= response.status_code < 300:
            raise error_from(response, what)
        return Answer(response.status_code, _parsed(response, method, what))

    def call(self, method: str, target: str, body: bytes | None = None, *, listing: bool = False) -> Response:
        """Send one call and return FeedAMP's last answer to it, whatever its status.

        :param method: HTTP method.
        :param target: What follows the base URL, escaped.
        :param body: JSON to send, byte for byte.
        :param listing: Whether this asks for a page of a list, which has a pace of its own.
        :raises HTTPError: No answer came, and no retry was left or allowed.
        :raises ApiError: The answer is longer than an answer may be.
        :raises ConfigurationError: The proxy or the certificates of the environment cannot be used.
        :raises TokenError: There is no access token to be had.
        """
        call = _Call(method, target, body, sendable(self._tokens.token()))
        pacers = self._list_pacers if listing else self._pacers
        while True:
            if self._pause.active:
                self._pause.wait()
            for pacer in pacers:
                pacer.wait()
            if pacers and self._pause.active:  # a pause may have begun meanwhile
                self._pause.wait()
            try:
                response = self.wire.exchange(call)
            except HTTPError as error:
                if not self._goes_on_without_answer(call, error):
                    raise
            else:
                if not self._goes_on(call, response):
                    response.proven = self._proven
                    return response

    def _goes_on_without_answer(self, call: _Call, error: HTTPError) -> bool:
        """Decide after a missing answer whether to send the call again, and wait until then."""
        repeatable = call.method in RETRIED_METHODS
        if repeatable and closed_while_idle(error):
            text = "FeedAMP gave no answer (it closed a kept connection) to %s %s; trying again at once"
            log.info(text, call.method, self.wire.path(call))
            return True
        if isinstance(error, SSLError) or not (repeatable or never_sent(error)):
            return False
        return self._waits(call, f"gave no answer ({type(error).__name__}) to")

    def _goes_on(self, call: _Call, response: Response) -> bool:
        """Decide after an answer whether to send the call again, and wait until then."""
        status = response.status_code
        if status == 401:
            if not call.fresh:
                call.token, call.fresh = sendable(self._tokens.replace(call.token)), True
                return True
            if call.refusals == len(FRESH_TOKEN_WAITS):
                return False
            call.refusals += 1
            return self._pauses(call, FRESH_TOKEN_WAITS[call.refusals - 1], "401 with a fresh token")
        if call.token != self._accepted:
            self._accepted = call.token
            self._tokens.accepted(call.token)
        if status == TOO_MANY:
            asked = seconds_asked(response) or 0.0
            return asked <= LONGEST_WAIT and self._pauses(call, asked)
        if self._pause.pauses:
            self._pause.reset()
        self._proven = self._proven or status < 300
        return repeats(call.method, status) and self._waits(
            call, f"answered {status} to", seconds_asked(response) or 0.0
        )

    def _pauses(self, call: _Call, asked: float, refusal: str = "429") -> bool:
        """Begin a pause of all calls; False when no further one is worth trying."""
        seconds = self._pause.begin(asked)
        if seconds:
            log.info(
                "FeedAMP answered %s to %s %s; all calls wait for %.1f s (pause %d of %d in a row)",
                *(refusal, call.method, self.wire.path(call), seconds, self._pause.pauses, self._pause.most),
            )
        return seconds is not None

    def _waits(self, call: _Call, reason: str, asked: float = 0.0) -> bool:
        """Wait before the next try of one call; False when there is none."""
        if call.retries >= self._pause.most or asked > LONGEST_WAIT:
            return False
        seconds = max(asked, backoff(call.retries, self._pause.jitter()))
        call.retries += 1
        log.info(
            "FeedAMP %s %s %s; trying again in %.1f s (retry %d of %d)",
            *(reason, call.method, self.wire.path(call), seconds, call.retries, self._pause.most),
        )
        self._pause.sleep(seconds)
        return True


def repeats(method: str, status: int) -> bool:
    """Whether a call may be sent again after an answer of this status."""
    return status in NOT_PROCESSED or (status in RETRIED_STATUSES and method in RETRIED_METHODS)


def never_sent(error: HTTPError) -> bool:
    """Whether an error says that no connection came about, so that FeedAMP has not seen the request."""
    return isinstance(error, ConnectTimeoutError | NewConnectionError | ProxyError)


def sendable(token: str) -> str:
    """Return a token that a header can carry; another could end its line, or be shown in http.client's error.

    :raises TokenError: No header can carry it.
    """
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise TokenError(
            "The access token from FeedAMP is empty or holds characters that an HTTP header cannot carry."
        )
    return token


def _segment(value: str, what: str) -> str:
    """Return a value as one path segment, escaped."""
    try:
        escaped = quote(value, safe="")
    except (UnicodeEncodeError, TypeError):
        escaped = ""
    # "." and ".." mean a folder, escaped or not: clients and servers on the way take them out of a path.
    if escaped in {"", ".", ".."}:
        raise InputError(
            f"{what!r} needs an identifier that a URL can carry; it is empty, '.', '..' or not text."
        )
    return escaped


def _encoded(value: Any, what: str) -> bytes:
    try:
        return jsonlib.dumps(
            value, allow_nan=False, separators=(",", ":"), default=_float_of_same_digits
        ).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{what} was not sent, because it cannot be written as JSON: {error}") from error


def _float_of_same_digits(value: object) -> float:
    """Return a decimal from a database as the float that is written with the same digits."""
    if isinstance(value, Decimal):
        number = float(value)
        if Decimal(repr(number)) == value:
            return number
        raise ValueError("a Decimal has more digits than a JSON number keeps")
    raise TypeError(f"a value of type {type(value).__name__} has no JSON form")


def _parsed(response: Response, method: str, what: str) -> Any:
    """Return the body of a success; a write may be answered with nothing or a few words, a read may not."""
    content = response.content
    if content:
        try:
            return jsonlib.loads(content)
        except (ValueError, RecursionError) as error:
            if method == "GET" or is_html(response):
                raise unreadable(response, what) from error
    return None
