"""From an answer that is an error to the exception that says so, without giving away its body."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, NamedTuple

from urllib3.exceptions import ProxyError, SSLError

from airflow_provider_feedamp.exceptions import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    RateLimitError,
    ServerError,
    UnreachableError,
    UnreadableError,
)
from airflow_provider_feedamp.retry_after import seconds_asked

if TYPE_CHECKING:
    from urllib3.exceptions import HTTPError

    from airflow_provider_feedamp.api.wire import Response

#: Characters of FeedAMP's own words that an error keeps; more would be a body.
_LONGEST_WORDS = 1000
#: Codes, and names of fields, that an error has at most.
_MOST = 20
_REQUEST_ID_HEADERS = ("X-Request-Id", "X-Correlation-Id", "X-Amzn-RequestId", "CF-Ray")
_CODE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_FIELD = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")
_NOT_OF_AN_ID = re.compile(r"[^A-Za-z0-9_.:/+=-]")
_CODES = ("code", "error_code", "error")
_MESSAGES = ("message", "error_description", "error_message", "detail", "title", "msg")
_CLASSES: dict[int, type[ApiError]] = {
    401: AuthenticationError,
    403: AuthenticationError,
    404: NotFoundError,
    408: ServerError,
    425: ServerError,
    429: RateLimitError,
}
_HINTS: dict[type[ApiError], str] = {
    NotFoundError: "It is not in this seller's account; check the number and the seller.",
    RateLimitError: "It asks for fewer requests; lower requests_per_second or try again later.",
    ServerError: "The fault is FeedAMP's; try again later.",
}


class Problem(NamedTuple):
    """One entry of an error body: FeedAMP's code, the field and its words, each empty when there is none."""

    code: str
    field: str
    message: str


def error_from(response: Response, what: str) -> ApiError:
    """Return the error for an answer that is not a success.

    FeedAMP does not document its error bodies, so a list of ``{code, message}``, an object with ``message``,
    ``error`` or ``errors``, an OAuth error, text, HTML and nothing at all are understood. Its text has codes
    and names of fields alone: FeedAMP's words may quote a customer, whatever they are about.

    :param response: The answer.
    :param what: The call in words, such as ``placing order '600A'``.
    """
    status = response.status_code
    found = next((found for name in _REQUEST_ID_HEADERS if (found := response.headers.get(name))), "")
    request_id = _NOT_OF_AN_ID.sub("", found)[:128] or None  # of harmless characters only: it is shown
    text = response.content.decode(errors="replace")
    if response.token:  # a server may quote the bearer that it refuses
        text = text.replace(response.token, "***")
    problems: list[Problem] = []
    with suppress(ValueError, RecursionError):
        problems = list(_problems(json.loads(text)))
    codes = list(dict.fromkeys(each.code for each in problems if each.code))[:_MOST]
    fields = list(dict.fromkeys(each.field for each in problems if each.field))[:_MOST]
    kind = _CLASSES.get(status, BadRequestError)
    if status < 400 or status >= 500:
        kind = ServerError if status >= 500 else ApiError
    parts = dict.fromkeys(": ".join(filter(None, problem)) for problem in problems)
    words = " ".join("; ".join(parts).split())
    said = ", ".join(codes) or _described(response)
    said += f" (fields: {', '.join(fields)})" if fields else ""
    where = f"HTTP {status}" + (f", request id {request_id}" if request_id else "")
    hint = _hint(kind, response)
    verb = "failed at" if kind is ServerError else "refused"
    error = kind(
        f"FeedAMP {verb} {what} ({where}): {said}" + (f". {hint}" if hint else ""),
        status=status,
        codes=codes,
        request_id=request_id,
        retry_after=seconds_asked(response),
        server_message=words if len(words) <= _LONGEST_WORDS else f"{words[:_LONGEST_WORDS]}…",
    )
    # A client that has been let in before is not shut out for good by a server that lags behind.
    error.retryable = error.retryable or (status == 401 and response.proven)
    return error


def unreadable(response: Response, what: str) -> UnreadableError:
    """Return the error for a success whose body is not what the API promises."""
    return UnreadableError(
        f"FeedAMP answered {what} with HTTP {response.status_code} and {_described(response)}, which cannot "
        "be read. If it stays so, check that the connection's host is the base URL of the order API, and for "
        "a proxy in between.",
        status=response.status_code,
    )


def unreachable(error: HTTPError, what: str, *, repeatable: bool) -> UnreachableError:
    """Return the error for a call without an answer; urllib3's own text is left out.

    urllib3's error is its cause, which a traceback shows, unless that quotes what came instead of an answer.
    """
    doubt = "" if repeatable else " FeedAMP may have received it, so it was not repeated blindly."
    advice = "Check the connection's host and the network."
    if isinstance(error, ProxyError):
        advice = "The proxy failed: check HTTPS_PROXY, its address and its login."
    elif isinstance(error, SSLError):
        advice = (
            "TLS failed: check the connection's host, and its certificate. If a company's own authority "
            "issued that, REQUESTS_CA_BUNDLE names the file that has the authority's."
        )
    unreached = UnreachableError(
        f"No answer from FeedAMP to {what} ({type(error).__name__}).{doubt} {advice}"
    )
    quotes = any(isinstance(each, HTTPException) for each in error.args)
    unreached.__cause__ = None if quotes else error
    return unreached


def _hint(kind: type[ApiError], response: Response) -> str:
    if response.status_code == 407:
        return "A proxy asks for its own login; put it into HTTPS_PROXY."
    if response.status_code < 400 and "Location" in response.headers:
        return "It redirects the call, which is not followed; check the connection's host."
    if kind is AuthenticationError and response.status_code == 403:
        return "The seller's account or the client is not allowed to do this; a new token cannot help."
    if kind is AuthenticationError:
        return (
            "A fresh access token was refused as well; check the seller's authorisation and the connection's "
            "host."
        )
    return _HINTS.get(kind, "")


def _problems(body: Any, depth: int = 0) -> Iterator[Problem]:
    """Find codes, fields and messages in the shapes that error bodies have."""
    if depth > 3:
        return
    if isinstance(body, list):
        for entry in body:
            yield from _problems(entry, depth + 1)
    elif isinstance(body, Mapping):
        yield from _problem(body)
        for name in ("errors", "error", "detail"):
            yield from _problems(body.get(name), depth + 1)
        yield from _by_field(body.get("errors"), depth + 1)


def _problem(body: Mapping[Any, Any]) -> Iterator[Problem]:
    """Find one problem that an object is about."""
    code, field, message = _first_text(body, *_CODES), body.get("field"), _first_text(body, *_MESSAGES)
    if code and not _CODE.fullmatch(code):
        code, message = "", message or code
    place = body.get("loc")
    if isinstance(place, list):  # such as ["body", "order_lines", 0, "sku"]
        field = ".".join(str(step) for step in place if isinstance(step, str | int))
    if not isinstance(field, str) or not _FIELD.fullmatch(field):
        field = ""
    if code or field or message:
        yield Problem(code, field, message)


def _by_field(errors: object, depth: int) -> Iterator[Problem]:
    """Find the problems of an object that has them by the name of the field."""
    if not isinstance(errors, Mapping) or any(name in errors for name in (*_CODES, *_MESSAGES)):
        return
    for name, found in errors.items():
        entries = found if isinstance(found, list) else [found]
        if _FIELD.fullmatch(str(name)):
            yield Problem("", str(name), "; ".join(each for each in entries if isinstance(each, str)))
        yield from _problems(entries, depth + 1)


def _first_text(body: Mapping[Any, Any], *names: str) -> str:
    found = (body.get(name) for name in names)
    return next((str(value) for value in found if isinstance(value, str | int) and value), "")


def _described(response: Response) -> str:
    """Say what a body without codes is, without showing it."""
    size = len(response.content)
    if not size:
        return "an empty body"
    if is_html(response):
        return f"an HTML page of {size} bytes"
    return f"a body of {size} bytes without a code"


def is_html(response: Response) -> bool:
    """Whether an answer is a web page, as proxies and log-in pages send them whatever was asked for."""
    kind = response.headers.get("Content-Type", "")
    return "html" in kind.lower() or response.content[:256].lstrip()[:1] == b"<"
