"""The sandbox's description of itself: OpenAPI at ``/openapi.json``, and a page of it at ``/docs``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from fastapi.openapi.utils import get_openapi
from starlette.responses import HTMLResponse, Response

from airflow_provider_feedamp.sandbox.answers import json_response
from airflow_provider_feedamp.sandbox.docs_page import page
from airflow_provider_feedamp.sandbox.gateway import with_tails
from airflow_provider_feedamp.sandbox.openapi_schemas import SCHEMAS

if TYPE_CHECKING:
    from fastapi import FastAPI

    from airflow_provider_feedamp.sandbox.state import SandboxState

OPENAPI_PATH = "/openapi.json"
DOCS_PATH = "/docs"
_TITLE = "FeedAMP Order Source API (sandbox)"
_TEXT = (
    "A stand-in for tests. FeedAMP publishes no OpenAPI file; this one describes what the sandbox does, and "
    "each operation says how sure it is: [D] documented by FeedAMP, [I] inferred, [U] unknown. The control "
    "surface is the sandbox's own."
)


class DocsRoutes:
    """Describe an application.

    :param app: The application with all its other routes.
    :param state: The sandbox, whose settings are part of some paths.
    """

    def __init__(self, app: FastAPI, state: SandboxState) -> None:
        self._app = app
        self._state = state

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter(include_in_schema=False)
        router.add_api_route(OPENAPI_PATH, self.openapi, methods=["GET"], response_model=None)
        router.add_api_route(DOCS_PATH, self.docs, methods=["GET"], response_model=None)
        return router

    async def openapi(self) -> Response:
        """Return the description as JSON."""
        return json_response(200, self.description())

    async def docs(self) -> Response:
        """Return the description as a page, which needs nothing of any other host."""
        return HTMLResponse(page(self.description()))

    def description(self) -> dict[str, Any]:
        """Return the description as the settings have it now."""
        found = get_openapi(title=_TITLE, version="0.2.0", description=_TEXT, routes=self._app.routes)
        settings = self._state.settings
        found["paths"] = {with_tails(path, settings): each for path, each in found["paths"].items()}
        components = found.setdefault("components", {})
        components.setdefault("schemas", {}).update(SCHEMAS)
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        return found
