"""Turn the sandbox's answers and refusals into HTTP responses, spoilt ones included."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from airflow_provider_feedamp.sandbox.refusal import Problem, problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import Receive, Scope, Send

    from airflow_provider_feedamp.sandbox.faults import Fault

#: Where the outermost application puts the connection, so that a response can cut it (see ``app``).
TRANSPORT = "feedamp_sandbox.transport"

_NOTHING = object()
# One encoder for all answers: json.dumps would build another for each call with separators of its own.
_ENCODER = json.JSONEncoder(separators=(",", ":"))
_HTML = "<!DOCTYPE html><html><head><title>Service</title></head><body>Something went wrong</body></html>"


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer: its status and the value that becomes the JSON body."""

    status: int = 200
    body: Any = _NOTHING


class CutConnection(Response):
    """No answer at all: the connection is closed without one byte."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Close the transport and wait until the server has noticed."""
        scope[TRANSPORT].abort()
        while (await receive())["type"] != "http.disconnect":
            pass


class AsciiJSON(JSONResponse):
    """A JSON response in ASCII only, so that any text a client sent can be sent back."""

    def render(self, content: Any) -> bytes:
        """Return the body; half of a surrogate pair is a character that UTF-8 has not."""
        return _ENCODER.encode(content).encode("ascii")


def json_response(status: int, body: Any, headers: dict[str, str] | None = None) -> Response:
    """Return a JSON response."""
    return AsciiJSON(body, status, headers)


def to_response(answer: Answer) -> Response:
    """Return the response of a successful call."""
    if answer.body is _NOTHING or answer.status == 204:
        return Response(status_code=answer.status)
    return json_response(answer.status, answer.body)


def error_response(status: int, problems: Sequence[Problem], style: str) -> Response:
    """Return an error in one of the forms that it might have (A8: none is documented).

    :param status: HTTP status.
    :param problems: What is wrong.
    :param style: A value of the ``error_body`` setting.
    """
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    first = problems[0]
    if style == "list":
        return json_response(status, list(problems), headers)
    if style == "object":
        return json_response(status, {"message": first["message"], "errors": list(problems)}, headers)
    if style == "oauth":
        return json_response(status, {"error": first["code"], "error_description": first["message"]}, headers)
    if style == "text":
        return Response(
            "; ".join(each["message"] for each in problems), status, headers, media_type="text/plain"
        )
    return Response(_HTML if style == "html" else "", status, headers, media_type="text/html")


def fault_error(fault: Fault, style: str) -> Response:
    """Return the response of an ``http_error`` fault."""
    problems = [problem(f"INJECTED_{fault.status}", "the sandbox was told to refuse this call")]
    response = error_response(fault.status, problems, style)
    if fault.body != "json":
        response = spoilt(response, fault)
    response.headers.update(fault.headers)
    response.headers.update(_wait_headers(fault))
    return response


def spoilt(response: Response, fault: Fault) -> Response:
    """Return the response with the body that the fault wants."""
    status, content = response.status_code, bytes(response.body)
    if fault.body == "html":
        return Response(_HTML, status, media_type="text/html")
    if fault.body == "empty":
        return Response(b"", status, media_type="application/json")
    if fault.body == "truncated":
        return Response(content[: len(content) // 2], status, media_type="application/json")
    if fault.body == "error":
        return json_response(status, {"error": "server_error", "error_description": "try again later"})
    body = json.loads(content) if content else {}
    if fault.body == "list":
        return json_response(status, [body])
    if isinstance(body, dict):
        kept = {name: value for name, value in body.items() if name not in fault.remove}
        return json_response(status, {**kept, **fault.replace})
    return response


def _wait_headers(fault: Fault) -> dict[str, str]:
    """Return the headers that ask for a wait; by real time, for the caller's clock is not the sandbox's."""
    if fault.wait is None:
        return {}
    until = datetime.now(UTC) + timedelta(seconds=fault.wait)
    if fault.wait_style == "seconds":
        return {"Retry-After": f"{fault.wait:g}"}
    if fault.wait_style == "date":
        return {"Retry-After": format_datetime(until, usegmt=True)}
    reset = str(int(until.timestamp()))
    return {"X-Rate-Limit-Group": "sandbox", "X-Rate-Limit-Remaining": "0", "X-Rate-Limit-Reset": reset}
