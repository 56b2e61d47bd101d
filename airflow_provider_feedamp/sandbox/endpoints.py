"""The 19 endpoints of the API (feedamp-api.md A1) and the control surface as one FastAPI application.

FastAPI reads paths, queries and bodies by the signatures, and describes them at ``/docs``. A docstring begins
with FeedAMP's own name of the endpoint; ``[D]`` is documented by FeedAMP, ``[I]`` inferred, ``[U]`` a guess.
"""

from __future__ import annotations

import functools
import json
import math
import re
from html import escape
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from fastapi import APIRouter, Body, Depends, FastAPI, Query
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError, create_model
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Match

from airflow_provider_feedamp.sandbox import models
from airflow_provider_feedamp.sandbox.accounts import SellerAccount, StoredOrder, StoredRefund, StoredReturn
from airflow_provider_feedamp.sandbox.faults import TRANSPORT, AsciiJSON, deliver, error_response
from airflow_provider_feedamp.sandbox.models import INVALID_QUERY, Json, Problem, Refusal
from airflow_provider_feedamp.sandbox.state import SandboxState, act
from airflow_provider_feedamp.sandbox.tokens import FORM, GrantRefused, token_fields

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from starlette.types import Receive, Scope, Send

API_PREFIX = "/api/v1"
_ORDER = "/orders/{mp_order_number}"
_REFUND = _ORDER + "/refunds/{feedamp_refund_id}"
_RETURN = _ORDER + "/returns/{mp_return_number}"


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number does not fit")
    return number


# One decoder for all requests: json.loads would build another for each call with an argument of its own.
_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)
_AS_JSON = Headers({"content-type": "application/json"})


def _read_json(body: bytes) -> Any:
    """Return the value of a body.

    :raises json.JSONDecodeError: when it is not one JSON value in UTF-8.
    """
    try:
        return _DECODER.decode(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise json.JSONDecodeError("not JSON", "", 0) from error


class Call(Request):
    """One authorised call of the API, whose body is strict JSON whatever its Content-Type says."""

    account: SellerAccount
    sandbox: SandboxState
    #: The body as it came, and parsed.
    raw: bytes
    value: Any

    @property
    def headers(self) -> Headers:
        """What FastAPI decides by how to read the body."""
        return _AS_JSON

    async def json(self) -> Any:
        """Return the body, parsed."""
        self.value = _read_json(self.raw)
        return self.value

    def number(self, name: str) -> str:
        """Return a number in the path; FastAPI would need a tenth of an order's time to read it."""
        try:
            text = unquote(self.path_params[name], errors="strict")
        except UnicodeDecodeError:
            raise models.bad_request(f"'{name}' is not UTF-8") from None
        if len(text) > 128:
            raise models.bad_request(f"'{name}' must have 1 to 128 characters")
        return text

    def page(self, kind: str, filters: models.Page) -> Response:
        """Answer a list call: one page, and the cursor of the next one.

        :param kind: The field that wraps the page.
        :param filters: The query, its parameters checked one by one.
        """
        settings = self.sandbox.settings
        names = [name for name, _ in parse_qsl(self.url.query, keep_blank_values=True)]
        for name in names:
            if names.count(name) > 1:
                raise models.bad_request(f"'{name}' is given twice: lists are comma-delimited", INVALID_QUERY)
            if settings.strict_fields and name not in type(filters).model_fields:
                raise models.bad_request(f"'{name}' is not a parameter of this list", INVALID_QUERY)
        found, cursor = self.sandbox.cursors.page(getattr(self.account, kind), filters)
        body: Json = {kind: [each.resource() for each in found]}
        if cursor is not None or settings.cursor_end != "missing":
            body["next_cursor"] = cursor or ("" if settings.cursor_end == "empty" else None)
        return AsciiJSON(body)

    def of_order(self, kind: str, order: StoredOrder) -> Response:
        """Answer with all that the order has of a kind, not paged."""
        found = [
            each.resource()
            for each in getattr(self.account, kind).values()
            if each.mp_order_number == order.mp_order_number
        ]
        return AsciiJSON({kind: found})

    def written(self, resource: Json, *, created: bool = False) -> Response:
        """Answer a successful write, whose status and body no page says: the settings decide."""
        settings = self.sandbox.settings
        by_effect = 201 if created else 200
        status = by_effect if settings.write_status == "by_effect" else int(settings.write_status)
        if settings.write_body == "empty" or status == 204:
            return Response(status_code=status)
        return AsciiJSON(resource, status)


class Endpoint(APIRoute):
    """A route of the API that needs a bearer: count the call, meet its fault, check its bearer, answer it."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Say whether a path is this route's; the last segment may be a setting, for no page shows it."""
        match, child = super().matches(scope)
        if match is not Match.NONE and self.path.endswith("_complete_path}"):
            *_, (name, value) = child["path_params"].items()
            if value != getattr(_sandbox(scope).settings, name):
                return Match.NONE, {}
        return match, child

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        answer = super().get_route_handler()
        if self.tags == ["oauth"]:
            return answer
        operation, names = self.name, frozenset({"data", str(self.tags[0]), self.name})

        async def handle(request: Request) -> Response:
            call = Call(request.scope, request.receive)
            call.raw = await call.body()
            call.sandbox = sandbox = _sandbox(request.scope)
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            seller = sandbox.tokens.seller_of(token.strip() if scheme.lower() == "bearer" else "")
            sandbox.counters.count(seller, "calls", operation)

            async def produce() -> Response:
                if seller is None:
                    problem = Problem(code=models.UNAUTHORIZED, message="a valid access token is needed")
                    raise Refusal(401, problem)
                call.account = sandbox.accounts[seller]
                return await answer(call)

            response = await _deliver(sandbox, names, seller, produce)
            if response.status_code >= 400:
                sandbox.counters.count(seller, "refused", str(response.status_code))
            return response

        return handle


async def _deliver(
    sandbox: SandboxState,
    names: frozenset[str],
    seller: str | None,
    produce: Callable[[], Awaitable[Response]],
) -> Response:
    """Process a call and answer it, with the fault that it meets."""
    settings = sandbox.settings
    style = settings.token_error_body if "token" in names else settings.error_body
    fault = sandbox.faults.take(names, seller)
    if fault is not None:
        sandbox.counters.count(None, "faults", fault.kind)

    async def settled() -> Response:
        try:
            return await produce()
        except (Refusal, RequestValidationError, HTTPException) as error:
            return _refused(error, style)

    return await deliver(fault, settled, style)


def _refused(error: Exception, style: str) -> Response:
    """Return the answer to a request that does not fit, cannot be granted, or has no such path or method."""
    if isinstance(error, Refusal):
        return error_response(error.status, error.problems, style)
    if isinstance(error, RequestValidationError):
        return error_response(400, list(models.problems(error.errors())), style)
    if isinstance(error, HTTPException):
        problem = Problem(code=models.NOT_FOUND, message=str(error.detail))
        return error_response(error.status_code, [problem], style)
    return Response(status_code=400)  # The caller has hung up.


def _sandbox(scope: Scope) -> SandboxState:
    state: SandboxState = scope["app"].state.sandbox
    return state


@functools.cache
def _list_of(kind: str, model: type[models.Shape]) -> Json:
    """Return what describes a list to FastAPI."""
    fields: Json = {kind: (list[model], ...), "next_cursor": (str | None, None)}  # type: ignore[valid-type]
    return {"tags": [kind], "response_model": create_model(kind.title(), **fields)}


def _write(kind: str, model: type[models.Shape] | None = None) -> Json:
    """Return what describes a write to FastAPI: its answer is as the settings have it."""
    body: Json = {"model": model} if model else {}
    done = {201: {**body, "description": "Created"}, 204: {"description": "Done, without a body"}}
    return {"tags": [kind], "responses": {200: body, **done}, "response_model": None}


async def _order(call: Call) -> StoredOrder:
    return call.account.orders[call.number("mp_order_number")]


async def _refund(call: Call) -> StoredRefund:
    refund = call.account.refunds[call.number("feedamp_refund_id")]
    if refund.mp_order_number != call.number("mp_order_number"):
        raise models.not_found("refund")
    return refund


async def _return(call: Call) -> StoredReturn:
    return call.account.returns[call.number("mp_order_number"), call.number("mp_return_number")]


AnOrder = Annotated[StoredOrder, Depends(_order)]
ARefund = Annotated[StoredRefund, Depends(_refund)]
AReturn = Annotated[StoredReturn, Depends(_return)]
Errors = Annotated[list[models.ReportedError], Body(min_length=1)]
OrderErrors = Annotated[list[models.OrderError], Body(min_length=1)]

api = APIRouter(
    prefix=API_PREFIX,
    route_class=Endpoint,
    default_response_class=Response,
    generate_unique_id_function=lambda route: route.name,
)


# The route that thousands of calls take is the first to be tried.
@api.put(_ORDER, **_write("orders", models.Order))
async def place_order(call: Call, order: models.NewOrder) -> Response:
    """Place Order [D]: inserts or updates; status and body of the answer are guessed."""
    number = call.number("mp_order_number")
    placed, created = call.account.place_order(number, order, call.value, call.raw)
    return call.written(placed.resource(call.value), created=created)


@api.get("/orders", **_list_of("orders", models.Order))
async def list_orders(call: Call, filters: Annotated[models.OrderFilters, Query()]) -> Response:
    """Get Orders [D]: a fully shipped order that is not closed is found under `PARTIALLY_FULFILLED`."""
    return call.page("orders", filters)


@api.get(_ORDER, tags=["orders"], response_model=models.Order)
async def get_order(order: AnOrder) -> Response:
    """Get Order [D]: not wrapped."""
    return AsciiJSON(order.resource())


@api.get(_ORDER + "/fulfillments", tags=["orders"], response_model=models.Fulfillments)
async def get_fulfillments(order: AnOrder) -> Response:
    """Get Fulfillments [D]: also lists lines without activity (a guess)."""
    return AsciiJSON(order.fulfillments())


@api.post(_ORDER + "/errors", **_write("orders"))
async def report_order_errors(call: Call, order: AnOrder, errors: OrderErrors) -> Response:
    """Report Errors [D]: appends (a guess); the body is a list, even for one error."""
    call.account.report_order_errors(order, errors, call.value)
    return call.written({})


@api.get("/refunds", **_list_of("refunds", models.Refund))
async def list_refunds(call: Call, filters: Annotated[models.RefundFilters, Query()]) -> Response:
    """Get Seller Initiated Refunds [D]: compares the instant of creation, and shows only its date."""
    return call.page("refunds", filters)


@api.get(_ORDER + "/refunds", **_list_of("refunds", models.Refund))
async def get_order_refunds(call: Call, order: AnOrder) -> Response:
    """Get Seller Initiated Refunds for an order [I]: not paged."""
    return call.of_order("refunds", order)


@api.get(_REFUND, tags=["refunds"], response_model=models.Refund)
async def get_refund(refund: ARefund) -> Response:
    """Get one refund [D]: not wrapped."""
    return AsciiJSON(refund.resource())


@api.post(_REFUND + "/errors", **_write("refunds"))
async def report_refund_errors(call: Call, refund: ARefund, errors: Errors) -> Response:
    """Report refund errors [D]: pauses the refund until the seller resolves them."""
    call.account.report_errors(refund, call.value)
    return call.written({})


# The guessed last segments come after the others: they could be any word.
@api.post(_REFUND + "/{refund_complete_path}", **_write("refunds"))
async def complete_refund(call: Call, refund: ARefund) -> Response:
    """Mark the refund as complete [U]: the last segment is a guess, setting `refund_complete_path`."""
    call.account.complete(refund)
    return call.written({})


@api.get("/returns", **_list_of("returns", models.Return))
async def list_returns(call: Call, filters: Annotated[models.ReturnFilters, Query()]) -> Response:
    """Get returns [I]: the path is documented, the parameters are guesses."""
    return call.page("returns", filters)


@api.get(_ORDER + "/returns", **_list_of("returns", models.Return))
async def get_order_returns(call: Call, order: AnOrder) -> Response:
    """Get returns for an order [I]: not paged."""
    return call.of_order("returns", order)


@api.get(_RETURN, tags=["returns"], response_model=models.Return)
async def get_return(found: AReturn) -> Response:
    """Get one return [D]: not wrapped."""
    return AsciiJSON(found.resource())


@api.put(_RETURN, **_write("returns", models.Return))
async def create_return(call: Call, order: AnOrder, asked: models.NewReturn) -> Response:
    """Create a return [D]: `mp_order_number` may be left out; what a second PUT does is guessed."""
    number = call.number("mp_return_number")
    placed, created = call.account.place_return(order, number, asked, call.value, call.raw)
    return call.written(placed.resource(), created=created)


@api.get(_RETURN + "/refunds", tags=["returns"], response_model=models.ReturnRefunds)
async def get_return_refunds(found: AReturn) -> Response:
    """Get refunded amounts [D]: the lean endpoint to poll."""
    return AsciiJSON(found.refunds())


@api.post(_RETURN + "/errors", **_write("returns"))
async def report_return_errors(call: Call, found: AReturn, errors: Errors) -> Response:
    """Report return errors [D]: keeps the status (a guess)."""
    call.account.report_errors(found, call.value)
    return call.written({})


@api.post(_RETURN + "/{return_complete_path}", **_write("returns"))
async def complete_return(call: Call, found: AReturn) -> Response:
    """Mark the return as complete [U]: the last segment is a guess, setting `return_complete_path`."""
    call.account.complete(found)
    return call.written({})


_PAGE = """<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>FeedAMP sandbox</title>
<h1>FeedAMP sandbox</h1><p>The marketplace <b>{client}</b> asks to place orders into a seller's account.</p>
<form method="post" action="{action}">{hidden}
<label>Seller <input name="sandbox_seller" list="sellers" autocomplete="off" required></label>
<datalist id="sellers">{options}</datalist>
<button name="decision" value="approve">Approve</button>
<button name="decision" value="deny" formnovalidate>Deny</button></form></html>"""


@api.get("/authorize", tags=["oauth"], response_model=None, response_class=HTMLResponse, responses={302: {}})
async def authorize(request: Request, asked: Annotated[models.Authorization, Query()]) -> Response:
    """OAuth Authorization [D]: the seller's browser comes here, and goes back with `code` and `state`."""
    sandbox = _sandbox(request.scope)
    if sandbox.settings.approval != "page":
        asked.sandbox_seller = asked.sandbox_seller or next(iter(sandbox.accounts), "")
    return _browser_step(sandbox, asked, sandbox.settings.approval)


@api.post("/authorize", response_model=None, tags=["oauth"], include_in_schema=False)
async def decide(request: Request) -> Response:
    """Take the seller's decision from the approval page, which is no part of the API."""
    form = dict(parse_qsl((await request.body()).decode("latin-1"), keep_blank_values=True))
    try:
        asked = models.Authorization.model_validate(form)
    except ValidationError as error:
        found = [{**each, "loc": ("query", *each["loc"])} for each in error.errors()]
        raise RequestValidationError(found) from error
    return _browser_step(
        _sandbox(request.scope), asked, "auto" if form.get("decision") == "approve" else "deny"
    )


def _browser_step(sandbox: SandboxState, asked: models.Authorization, approval: str) -> Response:
    """Show the page, or send the browser back with a code or with ``error=access_denied`` (a guess)."""
    if asked.client_id != sandbox.settings.client_id:
        raise models.bad_request("'client_id' is not known", INVALID_QUERY)
    if approval == "page":
        # Nobody is chosen beforehand: a person has to name the account.
        fields = asked.model_dump(exclude={"sandbox_seller"}).items()
        hidden = (f'<input type="hidden" name="{name}" value="{escape(value)}">' for name, value in fields)
        options = "".join(f'<option value="{escape(name)}">' for name in list(sandbox.accounts)[:50])
        client, action = escape(asked.client_id), API_PREFIX + "/authorize"
        page = _PAGE.format(client=client, action=action, hidden="".join(hidden), options=options)
        return HTMLResponse(page)
    outcome = {"error": "access_denied"}
    if approval == "auto":
        if asked.sandbox_seller not in sandbox.accounts:
            raise models.bad_request("'sandbox_seller' is not a seller of this sandbox", INVALID_QUERY)
        outcome = {"code": sandbox.tokens.authorize(asked.sandbox_seller)}
    target = urlsplit(asked.redirect_url)
    query = urlencode({**outcome, "state": asked.state})
    query = f"{target.query}&{query}" if target.query else query
    return RedirectResponse(urlunsplit(target._replace(query=query)), status_code=302)


_TOKEN_BODY = {"schema": models.TokenRequest.model_json_schema()}
_TOKEN_BODIES = {"required": True, "content": {"application/json": _TOKEN_BODY, FORM: _TOKEN_BODY}}
_TOKEN_REFUSED: Json = {"description": "Refused (setting token_error_body)", "model": models.TokenError}


@api.post(
    "/access_token",
    tags=["oauth"],
    openapi_extra={"requestBody": _TOKEN_BODIES},
    response_model=models.Tokens,
    responses={400: _TOKEN_REFUSED, 401: _TOKEN_REFUSED},
)
async def access_token(request: Request) -> Response:
    """Access Token [D]: both grants; whether the old refresh token ends is unknown, setting `rotation`."""
    body, sandbox = await request.body(), _sandbox(request.scope)
    settings, counters = sandbox.settings, sandbox.counters

    async def produce() -> Response:
        grant_type = "unknown"
        try:
            fields = token_fields(body, request.headers.get("content-type", ""), settings.token_encoding)
            if fields.get("grant_type") in ("authorization_code", "refresh_token"):
                grant_type = fields["grant_type"]
            tokens = sandbox.tokens.grant(fields)
        except GrantRefused as refusal:
            counters.count(refusal.seller, "tokens", grant_type, refusal.problems[0].code)
            raise
        counters.count(tokens.seller, "tokens", grant_type, "issued")
        return AsciiJSON(tokens.model_dump(), 200, {"Cache-Control": "no-store"})

    counters.count(None, "token_posts")
    counters.in_flight(+1)
    try:
        return await _deliver(sandbox, frozenset({"token"}), None, produce)
    finally:
        counters.in_flight(-1)


#: The endpoints of the API, each with its ``name`` and its resource as the first of its ``tags``.
OPERATIONS = [each for each in api.routes if isinstance(each, Endpoint) and each.include_in_schema]


async def control(request: Request) -> Response:
    """Do one action of the control surface, which speaks JSON whatever the error bodies of the API are."""
    try:
        body = _read_json(await request.body())
        return AsciiJSON(act(_sandbox(request.scope), request.path_params["action"], body))
    except json.JSONDecodeError:
        refusal = Refusal(422, Problem(code=models.INVALID_PAYLOAD, message="the body is not JSON"))
    except ValidationError as error:
        places = ((models.where(each["loc"]), models.in_words(each)[1]) for each in error.errors())
        found = [f"'{place}' {words}" for place, words in places]
        refusal = Refusal(422, *(Problem(code=models.INVALID_PAYLOAD, message=each) for each in found))
    except (Refusal, ValueError) as error:
        refusal = error if isinstance(error, Refusal) else models.bad_request(str(error))
    return _refused(refusal, "list")


_TEXT = (
    "A stand-in for tests. FeedAMP publishes no OpenAPI file; this one describes what the sandbox does, and "
    "each operation says how sure it is: [D] documented by FeedAMP, [I] inferred, [U] unknown, a guess. The "
    "control surface is the sandbox's own."
)
_NUMBER = {"type": "string", "minLength": 1, "maxLength": 128}
_TAIL = re.compile(r"{(\w+_complete_path)}")
_PROBLEMS = "#/components/schemas/{model}"
_REFUSALS = {
    "400": "What was sent does not fit",
    "401": "No live access token",
    "404": "There is no such thing",
}


class SandboxApp(FastAPI):
    """The application that serves a sandbox, on paths that are not unescaped.

    Starlette routes by the unescaped path, in which an order number ``A/1`` is two segments.

    :param sandbox: The sandbox.
    """

    def __init__(self, sandbox: SandboxState) -> None:
        super().__init__(
            title="FeedAMP Order Source API (sandbox)",
            version="0.2.0",
            description=_TEXT,
            redirect_slashes=False,
            redoc_url=None,
            swagger_ui_oauth2_redirect_url=None,
        )
        self.state.sandbox = sandbox
        # include_router() would make each route once more, which is half of what a start costs.
        self.router.routes[:0] = api.routes
        self.router.add_route("/_sandbox/{action}", control, methods=["POST"], include_in_schema=False)
        for kind in (Refusal, RequestValidationError, HTTPException, ClientDisconnect):
            self.add_exception_handler(kind, self._on_error)

    async def _on_error(self, _request: Request, error: Exception) -> Response:
        return _refused(error, self.state.sandbox.settings.error_body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with the path escaped, and remember the connection."""
        raw = scope.get("raw_path")
        scope["path"] = raw.decode("ascii") if raw else quote(scope["path"])
        # ASGI cannot cut a connection: uvicorn's receive is a method of the object that holds the transport.
        scope[TRANSPORT] = getattr(getattr(receive, "__self__", None), "transport", None)
        await super().__call__(scope, receive, send)

    def openapi(self) -> Json:
        """Return FastAPI's description, with what signatures do not say and the paths of the settings."""
        about: Json = {"title": self.title, "version": self.version, "description": self.description}
        found = get_openapi(routes=self.routes, separate_input_output_schemas=False, **about)
        schemas: Json = found["components"]["schemas"]
        schemas["Problems"] = TypeAdapter(list[Problem]).json_schema(ref_template=_PROBLEMS)
        schemas |= schemas["Problems"].pop("$defs")
        refused = {"application/json": {"schema": {"$ref": _PROBLEMS.format(model="Problems")}}}
        found["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        paths, settings = {}, self.state.sandbox.settings
        for path, methods in found["paths"].items():
            for operation in methods.values():
                operation["summary"] = operation["description"].partition(" [")[0]
                parameters = operation.setdefault("parameters", [])
                for each in parameters:
                    if any(kind.get("type") == "array" for kind in each["schema"].get("anyOf", ())):
                        each |= {"style": "form", "explode": False}
                for name in re.findall(r"{(\w+number|\w+_id)}", path):
                    parameters.append({"name": name, "in": "path", "required": True, "schema": _NUMBER})
                if operation["tags"] != ["oauth"]:
                    operation["security"] = [{"bearer": []}]
                operation["responses"].pop("422", None)
                for status in ("400", "401", "404") if "{" in path else ("400", "401"):
                    refusal = {"description": _REFUSALS[status], "content": refused}
                    operation["responses"].setdefault(status, refusal)
            paths[_TAIL.sub(lambda tail: str(getattr(settings, tail[1])), path)] = methods
        return {**found, "paths": paths}
