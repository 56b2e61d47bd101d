"""The one method through which every call to the FeedAMP API goes."""

from __future__ import annotations

import json as jsonlib
import logging
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlencode

from urllib3.exceptions import HTTPError

from airflow_provider_feedamp.api.errors import error_from, is_html, unreachable, unreadable
from airflow_provider_feedamp.api.http import RETRIED_METHODS, never_sent
from airflow_provider_feedamp.exceptions import InputError, forget_variables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_feedamp.api.http import Http, Response
    from airflow_provider_feedamp.api.pacing import Pacer

log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """A success: its status, and its body as parsed from JSON (None when there is none)."""

    status: int
    body: Any


class Transport:
    """Sends one call and returns its answer, or raises the error that says what went wrong.

    :param http: Authorises and sends the calls, and repeats what is safe to repeat.
    :param pacer: Spaces all calls; None sends them as they come.
    :param list_pacer: Spaces the list calls further apart; None leaves them to ``pacer``.
    """

    def __init__(self, http: Http, pacer: Pacer | None = None, list_pacer: Pacer | None = None) -> None:
        self._http = http
        self._pacers = (pacer,) if pacer else ()
        self._list_pacers = (list_pacer, *self._pacers) if list_pacer else self._pacers

    def authorise(self) -> None:
        """Obtain an access token, as :meth:`Http.authorise` does."""
        self._http.authorise()

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
        """Send one call.

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
        pacers = self._list_pacers if listing else self._pacers
        started = time.monotonic()
        try:
            response = self._http.call(method, target, body, pacers)
        except HTTPError as error:
            forget_variables(error)
            repeatable = method in RETRIED_METHODS or never_sent(error)
            unreached = unreachable(error, what, repeatable=repeatable)
            raise unreached from unreached.__cause__
        log.debug("%s %s: %s in %.3f s", method, place, response.status_code, time.monotonic() - started)
        if not 200 <= response.status_code < 300:
            raise error_from(response, what)
        return Answer(response.status_code, _parsed(response, method, what))


def _segment(value: str, what: str) -> str:
    """Return a value as one path segment; requests and urllib3 leave what is escaped here as it is."""
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
        return jsonlib.dumps(value, allow_nan=False, separators=(",", ":"), default=_number).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{what} was not sent, because it cannot be written as JSON: {error}") from error


def _number(value: object) -> float:
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
