"""The 19 endpoints of the API (feedamp-api.md A1) and the control surface as one FastAPI application.

FastAPI reads paths, queries and bodies by the signatures, and describes them at ``/docs``. A docstring begins
with FeedAMP's own name of the endpoint; ``[D]`` is documented by FeedAMP, ``[I]`` inferred, ``[U]`` a guess.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Awaitable, Callable, Coroutine
from html import escape
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from fastapi import APIRouter, Body, FastAPI, Query
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError, create_model
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Match

from airflow_provider_feedamp.sandbox import models
from airflow_provider_feedamp.sandbox.faults import TRANSPORT, AsciiJSON, deliver, error_response
from airflow_provider_feedamp.sandbox.models import (
    INVALID_PAYLOAD,
    INVALID_QUERY,
    Json,
    Problem,
    Refusal,
)
from airflow_provider_feedamp.sandbox.state import act
from airflow_provider_feedamp.sandbox.tokens import (
    FORM,
    INVALID_CLIENT,
    INVALID_GRANT,
    GrantRefused,
    token_fields,
)

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from airflow_provider_feedamp.sandbox.accounts import Book, SellerAccount
    from airflow_provider_feedamp.sandbox.state import SandboxState

API_PREFIX = "/api/v1"
_ORDER = "/orders/{mp_order_number}"
_REFUND = _ORDER + "/refunds/{feedamp_refund_id}"
_RETURN = _ORDER + "/returns/{mp_return_number}"

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


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
    #: The body as it came.
    raw: bytes

    @property
    def headers(self) -> Headers:
        """What FastAPI decides by how to read the body."""
        return _AS_JSON

    @property
    def order_number(self) -> str:
        """The order in the path."""
        return self._segment("mp_order_number")

    @property
    def refund_id(self) -> str:
        """The refund in the path."""
        return self._segment("feedamp_refund_id")

    @property
    def return_number(self) -> str:
        """The return in the path."""
        return self._segment("mp_return_number")

    def _segment(self, name: str) -> str:
        try:
            return unquote(self.path_params[name], errors="strict")
        except UnicodeDecodeError:
            raise models.bad_request(f"'{name}' is not UTF-8") from None

    async def json(self) -> Any:
        """Return the body, parsed once."""
        if not hasattr(self, "_json"):
            self._json = _read_json(self.raw)
        return self._json

    def page(self, kind: str, book: Book[Any], filters: models.Page) -> Response:
        """Answer a list call: one page, and the cursor of the next one.

        :param kind: The field that wraps the page.
        :param book: What is listed.
        :param filters: The query, its parameters checked one by one.
        """
        settings = self.sandbox.settings
        names = [name for name, _ in parse_qsl(self.url.query, keep_blank_values=True)]
        for name in names:
            if names.count(name) > 1:
                raise models.bad_request(f"'{name}' is given twice: lists are comma-delimited", INVALID_QUERY)
            if settings.strict_fields and name not in type(filters).model_fields:
                raise models.bad_request(f"'{name}' is not a parameter of this list", INVALID_QUERY)
        found, cursor = self.sandbox.cursors.page(book, filters)
        body: Json = {kind: [each.resource() for each in found]}
        if cursor is not None or settings.cursor_end != "missing":
            body["next_cursor"] = cursor or ("" if settings.cursor_end == "empty" else None)
        return AsciiJSON(body)

    def of_order(self, kind: str, book: Book[Any]) -> Response:
        """Answer with all that the order has of a kind, not paged."""
        number = self.account.orders[self.order_number].number
        return AsciiJSON({kind: [each.resource() for each in book.values() if each.order_number == number]})

    def written(self, resource: Json, *, created: bool = False) -> Response:
        """Answer a successful write, whose status and body no page says: the settings decide."""
        settings = self.sandbox.settings
        by_effect = settings.write_status == "by_effect"
        status = (201 if created else 200) if by_effect else int(settings.write_status)
        if settings.write_body == "empty" or status == 204:
            return Response(status_code=status)
        return AsciiJSON(resource, status)


class Endpoint(APIRoute):
    """A route of the API that needs a bearer: count the call, meet its fault, check its bearer, answer it."""

    @property
    def tag(self) -> str:
        """The resource."""
        return str(self.tags[0])

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Say whether a path is this route's; the last segment may be a setting, for no page shows it."""
        match, child = super().matches(scope)
        if match is not Match.NONE and self.path.endswith("_complete_path}"):
            *_, (name, value) = child["path_params"].items()
            if value != getattr(_sandbox(scope).settings, name):
                return Match.NONE, {}
        return match, child

    def get_route_handler(self) -> Handler:
        """Return what answers a request."""
        answer = super().get_route_handler()
        if self.tag == "oauth":
            return answer
        operation, names = self.name, frozenset({"data", self.tag, self.name})

        async def handle(request: Request) -> Response:
            call = Call(request.scope, request.receive)
            try:
                call.raw = await call.body()
            except ClientDisconnect:
                return Response(status_code=400)
            call.sandbox = sandbox = _sandbox(request.scope)
            seller = sandbox.tokens.seller_of(_bearer(request.headers))
            sandbox.counters.count(seller, "calls", operation)

            async def produce() -> Response:
                if seller is None:
                    raise Refusal(
                        401, [Problem(code=models.UNAUTHORIZED, message="a valid access token is needed")]
                    )
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
    fault = sandbox.faults.take(names, seller)
    if fault is not None:
        sandbox.counters.count(None, "faults", fault.kind)
    settings = sandbox.settings
    style = settings.token_error_body if "token" in names else settings.error_body

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
        found = [Problem(code=models.NOT_FOUND, message=str(error.detail))]
        return error_response(error.status_code, found, style)
    raise error


def _sandbox(scope: Scope) -> SandboxState:
    state: SandboxState = scope["app"].state.sandbox
    return state


def _bearer(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _read(model: type[BaseModel]) -> dict[str, Any]:
    """Return what FastAPI needs to describe what an endpoint answers with."""
    return {"responses": {200: {"model": model}}, "response_model": None}


def _list_of(kind: str, model: type[BaseModel]) -> dict[str, Any]:
    return _read(create_model(kind.title(), **{kind: (list[model], ...), "next_cursor": (str | None, None)}))  # type: ignore[valid-type,call-overload]


def _write(model: type[BaseModel] | None = None) -> dict[str, Any]:
    body: Json = {"model": model} if model else {}
    answers = {
        200: body,
        201: {**body, "description": "Created"},
        204: {"description": "Done, without a body"},
    }
    return {"responses": answers, "response_model": None}


api = APIRouter(
    prefix=API_PREFIX,
    route_class=Endpoint,
    default_response_class=Response,
    generate_unique_id_function=lambda route: route.name,
)
Errors = Annotated[list[models.ReportedError], Body(json_schema_extra={"minItems": 1})]
OrderErrors = Annotated[list[models.OrderError], Body(json_schema_extra={"minItems": 1})]


@api.get("/orders", tags=["orders"], **_list_of("orders", models.Order))
async def list_orders(call: Call, filters: Annotated[models.OrderFilters, Query()]) -> Response:
    """Get Orders [D]: a fully shipped order that is not closed is found under `PARTIALLY_FULFILLED`."""
    return call.page("orders", call.account.orders, filters)


@api.get(_ORDER, tags=["orders"], **_read(models.Order))
async def get_order(call: Call) -> Response:
    """Get Order [D]: not wrapped."""
    return AsciiJSON(call.account.orders[call.order_number].resource())


@api.put(_ORDER, tags=["orders"], **_write(models.Order))
async def place_order(call: Call, order: models.NewOrder) -> Response:
    """Place Order [D]: inserts or updates; status and body of the answer are guessed."""
    body = await call.json()
    placed, created = call.account.place_order(call.order_number, order, body, call.raw)
    return call.written(placed.resource(body), created=created)


@api.get(_ORDER + "/fulfillments", tags=["orders"], **_read(models.Fulfillments))
async def get_fulfillments(call: Call) -> Response:
    """Get Fulfillments [D]: lines without activity are shown as `PENDING` (a guess)."""
    return AsciiJSON(call.account.orders[call.order_number].fulfillments())


@api.post(_ORDER + "/errors", tags=["orders"], **_write())
async def report_order_errors(call: Call, errors: OrderErrors) -> Response:
    """Report Errors [D]: appends (a guess); the body is a list, even for one error."""
    call.account.report_order_errors(call.order_number, errors, await call.json())
    return call.written({})


@api.get("/refunds", tags=["refunds"], **_list_of("refunds", models.Refund))
async def list_refunds(call: Call, filters: Annotated[models.RefundFilters, Query()]) -> Response:
    """Get Seller Initiated Refunds [D]: compares the instant of creation, and shows only its date."""
    return call.page("refunds", call.account.refunds, filters)


@api.get(_ORDER + "/refunds", tags=["refunds"], **_list_of("refunds", models.Refund))
async def get_order_refunds(call: Call) -> Response:
    """Get Seller Initiated Refunds for an order [I]: not paged."""
    return call.of_order("refunds", call.account.refunds)


@api.get(_REFUND, tags=["refunds"], **_read(models.Refund))
async def get_refund(call: Call) -> Response:
    """Get one refund [D]: not wrapped."""
    return AsciiJSON(call.account.refund(call.order_number, call.refund_id).resource())


@api.post(_REFUND + "/errors", tags=["refunds"], **_write())
async def report_refund_errors(call: Call, errors: Errors) -> Response:
    """Report refund errors [D]: pauses the refund until the seller resolves them."""
    call.account.report_refund_errors(call.order_number, call.refund_id, await call.json())
    return call.written({})


# The guessed last segments come after the others: they could be any word.
@api.post(_REFUND + "/{refund_complete_path}", tags=["refunds"], **_write())
async def complete_refund(call: Call) -> Response:
    """Mark the refund as complete [U]: the last segment is a guess, setting `refund_complete_path`."""
    call.account.complete_refund(call.order_number, call.refund_id)
    return call.written({})


@api.get("/returns", tags=["returns"], **_list_of("returns", models.Return))
async def list_returns(call: Call, filters: Annotated[models.ReturnFilters, Query()]) -> Response:
    """Get returns [I]: the path is documented, the parameters are guesses."""
    return call.page("returns", call.account.returns, filters)


@api.get(_ORDER + "/returns", tags=["returns"], **_list_of("returns", models.Return))
async def get_order_returns(call: Call) -> Response:
    """Get returns for an order [I]: not paged."""
    return call.of_order("returns", call.account.returns)


@api.get(_RETURN, tags=["returns"], **_read(models.Return))
async def get_return(call: Call) -> Response:
    """Get one return [D]: not wrapped."""
    return AsciiJSON(call.account.returns[call.order_number, call.return_number].resource())


@api.put(_RETURN, tags=["returns"], **_write(models.Return))
async def create_return(call: Call, asked: models.NewReturn) -> Response:
    """Create a return [D]: `mp_order_number` may be left out; what a second PUT does is guessed."""
    placed, created = call.account.place_return(
        call.order_number, call.return_number, asked, await call.json(), call.raw
    )
    return call.written(placed.resource(), created=created)


@api.get(_RETURN + "/refunds", tags=["returns"], **_read(models.ReturnRefunds))
async def get_return_refunds(call: Call) -> Response:
    """Get refunded amounts [D]: the lean endpoint to poll."""
    return AsciiJSON(call.account.returns[call.order_number, call.return_number].refunds())


@api.post(_RETURN + "/errors", tags=["returns"], **_write())
async def report_return_errors(call: Call, errors: Errors) -> Response:
    """Report return errors [D]: keeps the status (a guess)."""
    call.account.report_return_errors(call.order_number, call.return_number, await call.json())
    return call.written({})


@api.post(_RETURN + "/{return_complete_path}", tags=["returns"], **_write())
async def complete_return(call: Call) -> Response:
    """Mark the return as complete [U]: the last segment is a guess, setting `return_complete_path`."""
    call.account.complete_return(call.order_number, call.return_number)
    return call.written({})


_PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>FeedAMP sandbox</title></head>
<body>
<h1>FeedAMP sandbox</h1><p>The marketplace <b>{client}</b> asks to place orders into a seller's account.</p>
<form method="post" action="{action}">{hidden}
<label>Seller <input name="sandbox_seller" list="sellers" value="{seller}" required></label>
<datalist id="sellers">{options}</datalist>
<button name="decision" value="approve">Approve</button>
<button name="decision" value="deny" formnovalidate>Deny</button>
</form></body></html>"""


@api.get("/authorize", tags=["oauth"], response_model=None, response_class=HTMLResponse, responses={302: {}})
async def authorize(request: Request, asked: Annotated[models.Authorization, Query()]) -> Response:
    """OAuth Authorization [D]: the seller's browser comes here, and goes back with `code` and `state`."""
    sandbox = _sandbox(request.scope)
    if sandbox.settings.approval != "page":
        return _redirect(sandbox, asked, approved=sandbox.settings.approval == "auto")
    _check_client(sandbox, asked)
    sellers = list(sandbox.accounts)[:50]
    fields = asked.model_dump(exclude={"sandbox_seller"})
    page = _PAGE.format(
        client=escape(asked.client_id),
        action=API_PREFIX + "/authorize",
        seller=escape(asked.sandbox_seller or next(iter(sellers), "")),
        hidden="".join(
            f'<input type="hidden" name="{name}" value="{escape(value)}">' for name, value in fields.items()
        ),
        options="".join(f'<option value="{escape(name)}">' for name in sellers),
    )
    return HTMLResponse(page)


@api.post("/authorize", response_model=None, tags=["oauth"], include_in_schema=False)
async def decide(request: Request) -> Response:
    """Take the seller's decision from the approval page, which is no part of the API."""
    form = dict(parse_qsl((await request.body()).decode("latin-1"), keep_blank_values=True))
    try:
        asked = models.Authorization.model_validate(form)
    except ValidationError as error:
        found = [{**each, "loc": ("query", *each["loc"])} for each in error.errors()]
        raise RequestValidationError(found) from error
    return _redirect(_sandbox(request.scope), asked, approved=form.get("decision") == "approve")


def _check_client(sandbox: SandboxState, asked: models.Authorization) -> None:
    if asked.client_id != sandbox.settings.client_id:
        raise models.bad_request("'client_id' is not known", INVALID_QUERY)


def _redirect(sandbox: SandboxState, asked: models.Authorization, *, approved: bool) -> Response:
    """Send the browser back with a code, or with ``error=access_denied`` (a guess)."""
    _check_client(sandbox, asked)
    outcome = {"error": "access_denied"}
    if approved:
        seller = asked.sandbox_seller or next(iter(sandbox.accounts), "")
        if seller not in sandbox.accounts:
            raise models.bad_request("'sandbox_seller' is not a seller of this sandbox", INVALID_QUERY)
        outcome = {"code": sandbox.tokens.authorize(seller)}
    target = urlsplit(asked.redirect_url)
    added = urlencode({**outcome, "state": asked.state})
    query = f"{target.query}&{added}" if target.query else added
    return RedirectResponse(urlunsplit(target._replace(query=query)), status_code=302)


_TOKEN_BODY = {"schema": models.TokenRequest.model_json_schema()}
_TOKEN_BODIES = {"required": True, "content": {"application/json": _TOKEN_BODY, FORM: _TOKEN_BODY}}
_TOKEN_REFUSED: Json = {"description": "Refused (setting token_error_body)", "model": models.TokenError}


@api.post(
    "/access_token",
    tags=["oauth"],
    openapi_extra={"requestBody": _TOKEN_BODIES},
    responses={200: {"model": models.Tokens}, 400: _TOKEN_REFUSED, 401: _TOKEN_REFUSED},
)
async def access_token(request: Request) -> Response:
    """Access Token [D]: both grants; whether the old refresh token ends is unknown, setting `rotation`."""
    try:
        body = await request.body()
    except ClientDisconnect:
        return Response(status_code=400)
    sandbox = _sandbox(request.scope)

    async def produce() -> Response:
        return _token_answer(sandbox, body, request.headers.get("content-type", ""))

    counters = sandbox.counters
    counters.count(None, "token_posts")
    counters.in_flight(+1)
    try:
        return await _deliver(sandbox, frozenset({"token"}), None, produce)
    finally:
        counters.in_flight(-1)


def _token_answer(sandbox: SandboxState, body: bytes, content_type: str) -> Response:
    settings, grant_type = sandbox.settings, "unknown"
    try:
        fields = token_fields(body, content_type, settings.token_encoding)
        grant_type = fields.grant
        grant = sandbox.tokens.grant(fields)
    except GrantRefused as refusal:
        sandbox.counters.count(refusal.seller, "tokens", grant_type, refusal.error)
        status = settings.token_error_status if refusal.error in (INVALID_CLIENT, INVALID_GRANT) else 400
        raise Refusal(status, [Problem(code=refusal.error, message=refusal.description)]) from refusal
    sandbox.counters.count(grant.seller, "tokens", grant_type, "issued")
    pair = {"access_token": grant.access_token, "token_type": "Bearer", "refresh_token": grant.refresh_token}
    return AsciiJSON({**pair, "expires_in": grant.expires_in}, 200, {"Cache-Control": "no-store"})


#: The endpoints of the API, each with its ``name`` and its ``tag``.
OPERATIONS = [each for each in api.routes if isinstance(each, Endpoint) and each.include_in_schema]


async def control(request: Request) -> Response:
    """Do one action of the control surface, which speaks JSON whatever the error bodies of the API are."""
    try:
        body = _read_json(await request.body())
        return AsciiJSON(act(_sandbox(request.scope), request.path_params["action"], body))
    except json.JSONDecodeError:
        found = [Problem(code=INVALID_PAYLOAD, message="the body is not JSON")]
    except ValidationError as error:
        places = ((models.where(each["loc"]), models.in_words(each)[1]) for each in error.errors())
        found = [Problem(code=INVALID_PAYLOAD, message=f"'{place}' {words}") for place, words in places]
    except (Refusal, ValueError) as error:
        refusal = error if isinstance(error, Refusal) else models.bad_request(str(error))
        return error_response(refusal.status, refusal.problems, "list")
    return error_response(422, found, "list")


_TEXT = (
    "A stand-in for tests. FeedAMP publishes no OpenAPI file; this one describes what the sandbox does, and "
    "each operation says how sure it is: [D] documented by FeedAMP, [I] inferred, [U] unknown, a guess. The "
    "control surface is the sandbox's own."
)


def create_app(state: SandboxState) -> ASGIApp:
    """Return the application that serves this state.

    :param state: The sandbox.
    """
    app = FastAPI(
        title="FeedAMP Order Source API (sandbox)",
        version="0.2.0",
        description=_TEXT,
        redirect_slashes=False,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    app.state.sandbox = state
    # include_router() would make each route once more, which is half of what a start costs.
    app.router.routes.extend(api.routes)
    app.router.add_route("/_sandbox/{action}", control, methods=["POST"], include_in_schema=False)
    app.openapi = lambda: _description(app, state)  # type: ignore[method-assign]

    async def on_error(_request: Request, error: Exception) -> Response:
        return _refused(error, state.settings.error_body)

    for kind in (Refusal, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, on_error)
    return RawPath(app)


def _description(app: FastAPI, state: SandboxState) -> Json:
    """Return the OpenAPI description: FastAPI's, what signatures do not say, and the control surface."""
    about: Json = {"title": app.title, "version": app.version, "description": app.description}
    found = get_openapi(routes=app.routes, separate_input_output_schemas=False, **about)
    schemas: Json = found["components"]["schemas"]
    schemas["Problems"] = TypeAdapter(list[Problem]).json_schema(ref_template=_REF)
    schemas |= schemas["Problems"].pop("$defs")
    found["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    paths: Json = {}
    for path, methods in found["paths"].items():
        for operation in methods.values():
            _complete(operation, re.findall(r"{(\w+number|\w+_id)}", path))
        paths[_TAIL.sub(lambda tail: str(getattr(state.settings, tail[1])), path)] = methods
    return {**found, "paths": paths}


_REF = "#/components/schemas/{model}"
_TAIL = re.compile(r"{(\w+_complete_path)}")
_NUMBER = {"type": "string", "minLength": 1, "maxLength": 128}
_REFUSALS = {
    "400": "What was sent does not fit",
    "401": "No live access token",
    "404": "There is no such thing",
}


def _complete(operation: Json, path: list[str]) -> None:
    """Add to an operation of the API what its signature does not say.

    :param operation: The operation.
    :param path: Names in its path.
    """
    operation["summary"] = operation["description"].partition(" [")[0]
    parameters = operation.setdefault("parameters", [])
    for parameter in parameters:
        if any(each.get("type") == "array" for each in parameter["schema"].get("anyOf", ())):
            parameter |= {"style": "form", "explode": False}
    parameters += [{"name": name, "in": "path", "required": True, "schema": _NUMBER} for name in path]
    answers = operation["responses"]
    answers.pop("422", None)
    if operation["tags"] != ["oauth"]:
        operation["security"] = [{"bearer": []}]
    for status in ("400", "401", "404") if path else ("400", "401"):
        content = {"application/json": {"schema": {"$ref": _REF.format(model="Problems")}}}
        answers.setdefault(status, {"description": _REFUSALS[status], "content": content})


class RawPath:
    """Route by the path as it was sent, and remember the connection.

    Starlette routes by the unescaped path, in which an order number ``A/1`` is two segments. Routes match the
    escaped path here, and :class:`Call` unescapes.

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
