"""The sandbox as one ASGI application: add a resource by adding its routes here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from airflow_provider_feedamp.sandbox.after_sale_routes import AfterSaleRoutes
from airflow_provider_feedamp.sandbox.answers import TRANSPORT, error_response
from airflow_provider_feedamp.sandbox.control_routes import CONTROL_PREFIX, ControlRoutes
from airflow_provider_feedamp.sandbox.docs_routes import DocsRoutes
from airflow_provider_feedamp.sandbox.gateway import Gateway
from airflow_provider_feedamp.sandbox.oauth_routes import OAuthRoutes
from airflow_provider_feedamp.sandbox.order_routes import OrderRoutes
from airflow_provider_feedamp.sandbox.refund_routes import RefundRoutes
from airflow_provider_feedamp.sandbox.refusal import INVALID_PAYLOAD, NOT_FOUND, Problem, Refusal, problem
from airflow_provider_feedamp.sandbox.return_routes import ReturnRoutes

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from airflow_provider_feedamp.sandbox.state import SandboxState

ROUTES = (OAuthRoutes, OrderRoutes, RefundRoutes, ReturnRoutes, ControlRoutes, AfterSaleRoutes)


def create_app(state: SandboxState) -> ASGIApp:
    """Return the application that serves this state.

    :param state: The sandbox.
    """
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    gateway = Gateway(state)
    routers = [routes(state, gateway).router() for routes in ROUTES]
    # include_router() would make each route once more, which is half of what a start costs.
    for router in (*routers, DocsRoutes(app, state).router()):
        app.router.routes.extend(router.routes)

    async def on_refusal(request: Request, error: Exception) -> Response:
        controls = request.url.path.startswith(CONTROL_PREFIX)
        style = "list" if controls else state.settings.error_body
        if isinstance(error, HTTPException):
            return error_response(error.status_code, [problem(NOT_FOUND, str(error.detail))], style)
        if isinstance(error, Refusal):
            return error_response(error.status, error.problems, style)
        if isinstance(error, RequestValidationError):
            return error_response(422, [_misshapen(each) for each in error.errors()], style)
        raise error

    app.add_exception_handler(Refusal, on_refusal)
    # FastAPI's own answer quotes what was sent, and fails when that is no JSON again.
    app.add_exception_handler(RequestValidationError, on_refusal)
    # The router raises it: there is no such path, or not with that method.
    app.add_exception_handler(HTTPException, on_refusal)
    return RawPath(app)


def _misshapen(error: dict[str, Any]) -> Problem:
    """Return the problem of a body that a control endpoint cannot read: where, and what is expected."""
    where = ".".join(str(part) for part in error["loc"][1:])
    return problem(INVALID_PAYLOAD, f"'{where}' {error['msg']}")


class RawPath:
    """Route by the path as it was sent, and remember the connection.

    Starlette routes by the unescaped path, in which an order number ``A/1`` is two segments. Routes match the
    escaped path here, and handlers unescape what they get.

    :param app: The application behind.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with the path escaped."""
        raw = scope.get("raw_path")
        scope["path"] = raw.decode("ascii") if raw else quote(scope["path"])
        # ASGI cannot cut a connection: uvicorn's receive is a method of the object that holds the transport.
        scope[TRANSPORT] = getattr(getattr(receive, "__self__", None), "transport", None)
        await self._app(scope, receive, send)
