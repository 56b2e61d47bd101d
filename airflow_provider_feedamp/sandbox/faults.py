"""Faults that the sandbox commits on purpose, and the answers of calls, spoilt ones included."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from starlette.responses import JSONResponse, Response

from airflow_provider_feedamp.sandbox.models import Json, Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from starlette.types import Receive, Scope, Send

#: Where the outermost application puts the connection, so that a response can cut it (see ``endpoints``).
TRANSPORT = "feedamp_sandbox.transport"

# One encoder for all answers: json.dumps would build another for each call with separators of its own.
_ENCODER = json.JSONEncoder(separators=(",", ":"), default=datetime.isoformat)
_HTML = "<!DOCTYPE html><html><head><title>Service</title></head><body>Something went wrong</body></html>"


Target = Literal[
    "token", "data", "orders", "refunds", "returns",
    "list_orders", "get_order", "place_order", "get_fulfillments", "report_order_errors",
    "list_refunds", "get_order_refunds", "get_refund", "complete_refund", "report_refund_errors",
    "list_returns", "get_order_returns", "get_return", "create_return", "get_return_refunds",
    "complete_return", "report_return_errors",
]  # fmt: skip


@dataclass(config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Fault:
    """One thing that goes wrong; ``docs/sandbox.md`` describes the kinds and their fields.

    ``wait`` and ``seconds`` are seconds, ``times`` None is for all calls until the faults are cleared.

    :raises pydantic.ValidationError: when a value does not fit; it is a :class:`ValueError`.
    """

    kind: Literal["drop", "lose_answer", "slow", "http_error", "odd_body"]
    on: Target = "token"
    times: Annotated[int, Field(ge=1)] | None = 1
    every: Annotated[int, Field(ge=1)] = 1
    seller: str | None = None
    status: Annotated[int, Field(ge=400, le=599)] = 503
    body: Literal["json", "html", "empty", "truncated", "error", "list"] = "json"
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    wait: float | None = None
    wait_style: Literal["seconds", "date", "reset"] = "seconds"
    processed: bool = False
    seconds: float = 0.0
    replace: Json = dataclasses.field(default_factory=dict)
    remove: tuple[str, ...] = ()
    seen: int = dataclasses.field(default=0, init=False)


class FaultQueue(list[Fault]):
    """The faults that wait for their calls; the first that is meant for it is met, one per call."""

    def take(self, names: Collection[str], seller: str | None = None) -> Fault | None:
        """Return the fault that a call of these names meets, if any, and count it as met."""
        for fault in self:
            if fault.on not in names or fault.seller not in (None, seller):
                continue
            fault.seen += 1
            if fault.seen % fault.every:
                continue
            if fault.times is not None:
                fault.times -= 1
                if fault.times == 0:
                    self.remove(fault)
            return fault
        return None


async def deliver(fault: Fault | None, produce: Callable[[], Awaitable[Response]], style: str) -> Response:
    """Process a call and answer it, with the fault that it meets.

    :param fault: The fault, if any.
    :param produce: Processes the call; not called when the fault comes first.
    :param style: Form of injected error bodies.
    """
    if fault is None:
        return await produce()
    first = fault.kind == "drop" or (fault.kind == "http_error" and not fault.processed)
    response: Response = CutConnection() if first else await produce()
    await asyncio.sleep(fault.seconds)
    if fault.kind in ("drop", "lose_answer"):
        return CutConnection()
    if fault.kind == "http_error":
        words = "the sandbox was told to refuse this call"
        problem = Problem(code=f"INJECTED_{fault.status}", message=words)
        response = error_response(fault.status, [problem], style)
        if fault.body != "json":
            response = _spoilt(response, fault)
        response.headers.update({**fault.headers, **_wait_headers(fault)})
    elif fault.kind == "odd_body":
        response = _spoilt(response, fault)
    return response


class CutConnection(Response):
    """No answer at all: the connection is closed without one byte."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Close the transport and wait until the server has noticed."""
        scope[TRANSPORT].abort()
        while (await receive())["type"] != "http.disconnect":
            pass


class AsciiJSON(JSONResponse):
    """A JSON response in ASCII only: half of a surrogate pair, which UTF-8 has not, can be sent back."""

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return _ENCODER.encode(content).encode("ascii")


def error_response(status: int, problems: Sequence[Problem], style: str) -> Response:
    """Return an error in one of the forms of the ``error_body`` setting (A8: none is documented)."""
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    first, listed = problems[0], [each.model_dump() for each in problems]
    bodies: Json = {
        "list": listed,
        "object": {"message": first.message, "errors": listed},
        "oauth": {"error": first.code, "error_description": first.message},
    }
    if style in bodies:
        return AsciiJSON(bodies[style], status, headers)
    if style == "text":
        return Response(
            "; ".join(each.message for each in problems), status, headers, media_type="text/plain"
        )
    return Response(_HTML if style == "html" else "", status, headers, media_type="text/html")


def _spoilt(response: Response, fault: Fault) -> Response:
    """Return the response with the body that the fault wants."""
    status, content = response.status_code, bytes(response.body)
    if fault.body == "html":
        return Response(_HTML, status, media_type="text/html")
    if fault.body in ("empty", "truncated"):
        kept = b"" if fault.body == "empty" else content[: len(content) // 2]
        return Response(kept, status, media_type="application/json")
    body = json.loads(content) if content else {}
    if fault.body == "error":
        body = {"error": "server_error", "error_description": "try again later"}
    elif fault.body == "list":
        body = [body]
    elif isinstance(body, dict):
        body = {name: value for name, value in body.items() if name not in fault.remove} | fault.replace
    return AsciiJSON(body, status)


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
