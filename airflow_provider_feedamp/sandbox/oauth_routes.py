"""The OAuth browser step and the token endpoint (feedamp-api.md A2)."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, RedirectResponse, Response

from airflow_provider_feedamp.sandbox.answers import error_response, json_response
from airflow_provider_feedamp.sandbox.gateway import API_PREFIX, Gateway, query_pairs
from airflow_provider_feedamp.sandbox.openapi_operations import described
from airflow_provider_feedamp.sandbox.refusal import INVALID_QUERY, Refusal, bad_request, problem
from airflow_provider_feedamp.sandbox.token_request import required, token_fields
from airflow_provider_feedamp.sandbox.tokens import (
    INVALID_CLIENT,
    INVALID_GRANT,
    UNSUPPORTED_GRANT,
    Grant,
    GrantRefused,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_feedamp.sandbox.state import SandboxState

_TOKEN_NAMES = frozenset({"token"})
_PARAMETERS = ("response_type", "client_id", "state", "redirect_url")
# The real page knows who is logged in; the sandbox has to be told.
_SELLER = "sandbox_seller"
_PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>FeedAMP sandbox</title></head>
<body>
<h1>FeedAMP sandbox</h1><p>The marketplace <b>{client}</b> asks to place orders into a seller's account.</p>
<form method="post" action="{action}">{hidden}
<label>Seller <input name="sandbox_seller" list="sellers" value="{seller}" required></label>
<datalist id="sellers">{options}</datalist>
<button name="decision" value="approve">Approve</button>
<button name="decision" value="deny" formnovalidate>Deny</button>
</form></body></html>"""


class OAuthRoutes:
    """Answer the browser step and the token call.

    :param state: The sandbox.
    :param gateway: Delivers token answers with the faults they meet.
    """

    def __init__(self, state: SandboxState, gateway: Gateway) -> None:
        self._state = state
        self._gateway = gateway

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter()
        path = API_PREFIX + "/authorize"
        router.add_api_route(path, self.authorize, methods=["GET"], **described("authorize"))
        # The form of the approval page posts here: no part of the API.
        router.add_api_route(
            path, self.decide, methods=["POST"], response_model=None, include_in_schema=False
        )
        token = API_PREFIX + "/access_token"
        router.add_api_route(token, self.access_token, methods=["POST"], **described("access_token"))
        return router

    async def authorize(self, request: Request) -> Response:
        """Show the approval page, or redirect at once as the ``approval`` setting says."""
        settings = self._state.settings
        try:
            query = dict(query_pairs(request))
            self._check(query)
            if settings.approval == "page":
                return self._page(query)
            return self._redirect(query, approved=settings.approval == "auto")
        except Refusal as refusal:
            return error_response(refusal.status, refusal.problems, settings.error_body)

    async def decide(self, request: Request) -> Response:
        """Take the seller's decision from the approval page."""
        try:
            form = dict(parse_qsl((await request.body()).decode("latin-1"), keep_blank_values=True))
            self._check(form)
            return self._redirect(form, approved=form.get("decision") == "approve")
        except Refusal as refusal:
            return error_response(refusal.status, refusal.problems, self._state.settings.error_body)

    async def access_token(self, request: Request) -> Response:
        """Answer the token call, with the fault that it meets."""
        try:
            body = await request.body()
        except ClientDisconnect:
            return Response(status_code=400)
        counters = self._state.counters
        counters.token_post_begins()
        try:
            content_type = request.headers.get("content-type", "")
            fault = self._state.faults.take(_TOKEN_NAMES)
            style = self._state.settings.token_error_body
            return await self._gateway.deliver(fault, lambda: self._token_answer(body, content_type), style)
        finally:
            counters.token_post_ends()

    def _token_answer(self, body: bytes, content_type: str) -> Response:
        settings, grant_type = self._state.settings, "unknown"
        try:
            fields = token_fields(body, content_type, settings.token_encoding)
            asked = required(fields, "grant_type")
            grant_type = asked if asked in ("authorization_code", "refresh_token") else "unknown"
            grant = self._grant(grant_type, fields)
        except GrantRefused as refusal:
            self._state.counters.token_outcome(grant_type, refusal.error, refusal.seller)
            status = settings.token_error_status if refusal.error in (INVALID_CLIENT, INVALID_GRANT) else 400
            return error_response(
                status, [problem(refusal.error, refusal.description)], settings.token_error_body
            )
        self._state.counters.token_outcome(grant_type, "issued", grant.seller)
        answer = {
            "access_token": grant.access_token,
            "token_type": "Bearer",
            "refresh_token": grant.refresh_token,
            "expires_in": grant.expires_in,
        }
        return json_response(200, answer, {"Cache-Control": "no-store"})

    def _grant(self, grant_type: str, fields: dict[str, str]) -> Grant:
        tokens = self._state.tokens
        tokens.check_client(required(fields, "client_id"), required(fields, "client_secret"))
        if grant_type == "authorization_code":
            return tokens.exchange(required(fields, "code"))
        if grant_type == "refresh_token":
            return tokens.refresh(required(fields, "refresh_token"))
        raise GrantRefused(UNSUPPORTED_GRANT, "grant_type must be authorization_code or refresh_token")

    def _check(self, fields: Mapping[str, str]) -> None:
        for name in _PARAMETERS:
            if not fields.get(name):
                raise bad_request(INVALID_QUERY, f"'{name}' is required")
        if fields["response_type"] != "code":
            raise bad_request(INVALID_QUERY, "'response_type' must be code")
        if fields["client_id"] != self._state.settings.client_id:
            raise bad_request(INVALID_QUERY, "'client_id' is not known")
        target = urlsplit(fields["redirect_url"])
        if target.scheme not in ("http", "https") or not target.netloc:
            raise bad_request(INVALID_QUERY, "'redirect_url' must be a fully qualified URL")

    def _page(self, query: Mapping[str, str]) -> Response:
        sellers = list(self._state.accounts)[:50]
        page = _PAGE.format(
            client=escape(query["client_id"]),
            action=API_PREFIX + "/authorize",
            seller=escape(query.get(_SELLER) or next(iter(sellers), "")),
            hidden="".join(
                f'<input type="hidden" name="{name}" value="{escape(query[name])}">' for name in _PARAMETERS
            ),
            options="".join(f'<option value="{escape(name)}">' for name in sellers),
        )
        return HTMLResponse(page)

    def _redirect(self, fields: Mapping[str, str], *, approved: bool) -> Response:
        """Send the browser back with a code, or with ``error=access_denied`` (a guess)."""
        outcome = {"error": "access_denied"}
        if approved:
            seller = fields.get(_SELLER) or next(iter(self._state.accounts), "")
            if seller not in self._state.accounts:
                raise bad_request(INVALID_QUERY, f"'{_SELLER}' is not a seller of this sandbox")
            outcome = {"code": self._state.tokens.authorize(seller)}
        target = urlsplit(fields["redirect_url"])
        added = urlencode({**outcome, "state": fields["state"]})
        query = f"{target.query}&{added}" if target.query else added
        return RedirectResponse(urlunsplit(target._replace(query=query)), status_code=302)
