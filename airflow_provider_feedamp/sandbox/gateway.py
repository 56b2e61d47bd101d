"""The way of every call of the API: count it, meet its fault, check its bearer, answer it.

Handlers are plain functions of a :class:`Call`; they know neither HTTP nor tokens nor faults, so that a
further resource is one more module with routes and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from airflow_provider_feedamp.sandbox.answers import (
    Answer,
    CutConnection,
    error_response,
    fault_error,
    spoilt,
    to_response,
)
from airflow_provider_feedamp.sandbox.openapi_operations import described
from airflow_provider_feedamp.sandbox.refusal import (
    INVALID_QUERY,
    INVALID_VALUE,
    UNAUTHORIZED,
    Refusal,
    bad_request,
    problem,
)

if TYPE_CHECKING:
    from fastapi import APIRouter

    from airflow_provider_feedamp.sandbox.faults import Fault
    from airflow_provider_feedamp.sandbox.settings import SandboxSettings
    from airflow_provider_feedamp.sandbox.state import Account, SandboxState

API_PREFIX = "/api/v1"
_TAIL = "tail_"

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Call:
    """One authorised call, taken apart."""

    account: Account
    settings: SandboxSettings
    path: dict[str, str]
    query: list[tuple[str, str]]
    body: bytes


Handler = Callable[[Call], Answer]


class Gateway:
    """Make HTTP endpoints of handlers.

    :param state: The sandbox.
    """

    def __init__(self, state: SandboxState) -> None:
        self._state = state
        #: What a fault can be meant for.
        self.fault_names = {"token", "data"}

    def add(
        self, router: APIRouter, method: str, path: str, resource: str, operation: str, handler: Handler
    ) -> None:
        """Add the route of one operation that needs a bearer.

        :param router: Where to add it.
        :param method: HTTP method.
        :param path: Path, which may end in a :func:`tail`.
        :param resource: Name of the resource.
        :param operation: Name of the operation, which is the route's as well.
        :param handler: What answers it.
        """
        endpoint = self.endpoint(resource, operation, handler)
        router.add_api_route(path, endpoint, methods=[method], **described(operation))

    def endpoint(self, resource: str, operation: str, handler: Handler) -> Endpoint:
        """Return the endpoint of one operation that needs a bearer.

        :param resource: Name of the resource, which faults can be meant for (``orders``).
        :param operation: Name of the operation, for faults and counters (``place_order``).
        :param handler: What answers it.
        """
        names = frozenset({"data", resource, operation})
        self.fault_names |= names

        async def endpoint(request: Request) -> Response:
            _check_tail(request, self._state.settings)
            try:
                body = await request.body()
            except ClientDisconnect:
                return Response(status_code=400)
            state = self._state
            seller = state.tokens.seller_of(_bearer(request))
            state.counters.call(operation, seller)
            fault = state.faults.take(names, seller)
            style = state.settings.error_body
            response = await self.deliver(fault, lambda: self._answer(request, body, seller, handler), style)
            if response.status_code >= 400:
                state.counters.refusal(response.status_code, seller)
            return response

        return endpoint

    async def deliver(self, fault: Fault | None, produce: Callable[[], Response], style: str) -> Response:
        """Process a call and answer it, with the fault that it meets.

        :param fault: The fault, if any.
        :param produce: Processes the call; not called when the fault comes first.
        :param style: Form of injected error bodies.
        """
        if fault is None:
            return produce()
        self._state.counters.fault(fault.kind)
        if fault.kind == "drop" or (fault.kind == "http_error" and not fault.processed):
            await asyncio.sleep(fault.seconds)
            return CutConnection() if fault.kind == "drop" else fault_error(fault, style)
        response = produce()
        await asyncio.sleep(fault.seconds)
        if fault.kind == "lose_answer":
            return CutConnection()
        if fault.kind == "http_error":
            return fault_error(fault, style)
        return spoilt(response, fault) if fault.kind == "odd_body" else response

    def _answer(self, request: Request, body: bytes, seller: str | None, handler: Handler) -> Response:
        try:
            return to_response(handler(self._call(request, body, seller)))
        except Refusal as refusal:
            return error_response(refusal.status, refusal.problems, self._state.settings.error_body)

    def _call(self, request: Request, body: bytes, seller: str | None) -> Call:
        if seller is None:
            raise Refusal(401, [problem(UNAUTHORIZED, "a valid access token is needed")])
        path = {name: unescape(value) for name, value in request.path_params.items()}
        return Call(self._state.accounts[seller], self._state.settings, path, query_pairs(request), body)


def tail(setting: str) -> str:
    """Return the last segment of a path that no page shows: whatever a setting says at the time.

    :param setting: Name of the setting.
    """
    return f"/{{{_TAIL}{setting}}}"


def with_tails(path: str, settings: SandboxSettings) -> str:
    """Return a route's path with its :func:`tail`, if any, as the settings have it."""
    start, mark, setting = path.partition("{" + _TAIL)
    return start + str(getattr(settings, setting.rstrip("}"))) if mark else path


def _check_tail(request: Request, settings: SandboxSettings) -> None:
    for name, value in request.path_params.items():
        if name.startswith(_TAIL) and value != getattr(settings, name.removeprefix(_TAIL)):
            raise HTTPException(404)


def written(settings: SandboxSettings, resource: object, *, created: bool) -> Answer:
    """Return the answer of a successful write, whose status and body no page says.

    :param settings: They decide.
    :param resource: What was written.
    :param created: Whether it is new.
    """
    by_effect = settings.write_status == "by_effect"
    status = (201 if created else 200) if by_effect else int(settings.write_status)
    return Answer(status) if settings.write_body == "empty" else Answer(status, resource)


def unescape(segment: str) -> str:
    """Return the text of one escaped path segment.

    :raises Refusal: 400 when it is not UTF-8.
    """
    try:
        return unquote(segment, errors="strict")
    except UnicodeDecodeError as error:
        raise bad_request(INVALID_VALUE, "the path is not UTF-8") from error


def query_pairs(request: Request) -> list[tuple[str, str]]:
    """Return the query's names and values in their order.

    :raises Refusal: 400 when it cannot be read.
    """
    text = request.scope["query_string"].decode("latin-1")
    if not text:
        return []
    try:
        return parse_qsl(text, keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise bad_request(INVALID_QUERY, "the query is not UTF-8") from error


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
