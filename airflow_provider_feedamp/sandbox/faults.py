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
    """One thing that goes wrong.

    :param kind: ``drop`` cuts the connection before the request is processed; ``lose_answer`` processes it
        and cuts the connection without answering; ``slow`` answers late; ``http_error`` answers ``status``;
        ``odd_body`` spoils the body of the real answer.
    :param on: ``token``, ``data`` (every call with a bearer), a resource (``orders``) or one operation
        (``place_order``).
    :param times: How many calls meet it; None for all until the faults are cleared.
    :param every: Only every n-th matching call meets it.
    :param seller: Only this seller's data calls meet it.
    :param status: Status of ``http_error``.
    :param body: Body of ``http_error`` and ``odd_body``; ``json`` is the usual one, ``error`` an error object
        under the unchanged status.
    :param headers: Headers to add to ``http_error``.
    :param wait: Seconds that ``http_error`` asks to wait, in the headers of ``wait_style``.
    :param wait_style: ``Retry-After`` in seconds, ``Retry-After`` as a date, or ``X-Rate-Limit-Reset``.
    :param processed: Whether ``http_error`` comes after the request was processed all the same.
    :param seconds: Delay before the answer (or the cut), for every kind.
    :param replace: Fields to put into the JSON object of ``odd_body``.
    :param remove: Fields to take out of it.
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

    def applies(self, names: Collection[str], seller: str | None) -> bool:
        """Say whether the fault is meant for a call that goes by these names."""
        return self.on in names and self.seller in (None, seller)


class FaultQueue:
    """The faults that wait for their calls; the first that applies is met, one per call."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Put a fault at the end of the queue."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Take all faults back."""
        self._faults.clear()

    def take(self, names: Collection[str], seller: str | None = None) -> Fault | None:
        """Return the fault that this call meets, if any, and count it as met."""
        for fault in self._faults:
            if not fault.applies(names, seller):
                continue
            fault.seen += 1
            if fault.seen % fault.every:
                continue
            if fault.times is not None:
                fault.times -= 1
                if fault.times == 0:
                    self._faults.remove(fault)
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
    if fault.kind == "drop" or (fault.kind == "http_error" and not fault.processed):
        await asyncio.sleep(fault.seconds)
        return CutConnection() if fault.kind == "drop" else _fault_error(fault, style)
    response = await produce()
    await asyncio.sleep(fault.seconds)
    if fault.kind == "lose_answer":
        return CutConnection()
    if fault.kind == "http_error":
        return _fault_error(fault, style)
    return _spoilt(response, fault) if fault.kind == "odd_body" else response


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
    """Return an error in one of the forms that it might have (A8: none is documented).

    :param status: HTTP status.
    :param problems: What does not fit.
    :param style: A value of the ``error_body`` setting.
    """
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


def _fault_error(fault: Fault, style: str) -> Response:
    """Return the response of an ``http_error`` fault."""
    problems = [Problem(code=f"INJECTED_{fault.status}", message="the sandbox was told to refuse this call")]
    response = error_response(fault.status, problems, style)
    if fault.body != "json":
        response = _spoilt(response, fault)
    response.headers.update(fault.headers)
    response.headers.update(_wait_headers(fault))
    return response


def _spoilt(response: Response, fault: Fault) -> Response:
    """Return the response with the body that the fault wants."""
    status, content = response.status_code, bytes(response.body)
    if fault.body == "html":
        return Response(_HTML, status, media_type="text/html")
    if fault.body == "empty":
        return Response(b"", status, media_type="application/json")
    if fault.body == "truncated":
        return Response(content[: len(content) // 2], status, media_type="application/json")
    if fault.body == "error":
        return AsciiJSON({"error": "server_error", "error_description": "try again later"}, status)
    body = json.loads(content) if content else {}
    if fault.body == "list":
        return AsciiJSON([body], status)
    if isinstance(body, dict):
        kept = {name: value for name, value in body.items() if name not in fault.remove}
        return AsciiJSON({**kept, **fault.replace}, status)
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
