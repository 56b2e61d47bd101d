"""What Airflow's API server answers below ``/feedamp``: the page "FeedAMP sellers".

Airflow does not ask who calls a plugin's routes. So each route here takes :data:`User`, which asks for
Airflow's own login, and then asks Airflow's auth manager about the connection that it works on: to see its
sellers one needs to read it, to authorise or to forget one to edit it.

A form is accepted with a token that was made for its user and connection, and from this page alone. The
token is what counts: with ``Referrer-Policy: no-referrer`` browsers send ``Origin: null`` with a form, and
they send ``Sec-Fetch-Site`` only over https. Nothing here changes anything on GET but the redirect from
FeedAMP, which has the signed state.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails
from airflow.api_fastapi.auth.tokens import get_signing_key
from airflow.api_fastapi.core_api.security import get_user
from airflow.models.connection import Connection
from airflow.models.log import Log
from airflow.providers.common.compat.sdk import conf
from airflow.utils.session import create_session
from fastapi import Depends, FastAPI, Form, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from itsdangerous import BadData, URLSafeTimedSerializer
from jinja2 import Environment, PackageLoader
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from airflow_provider_feedamp.exceptions import ConfigurationError, FeedAmpError, InputError
from airflow_provider_feedamp.hooks.authorisation import Authorisation, redirect_query
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook, token_store
from airflow_provider_feedamp.hooks.sellers import WARN_DAYS
from airflow_provider_feedamp.plugins import NAME, URL_PREFIX
from airflow_provider_feedamp.tokens.store import MemoryStore

if TYPE_CHECKING:
    from typing import Literal

log = logging.getLogger(__name__)

#: Seconds that a form may stay open.
_FORM_AGE = 12 * 3600
_CALLBACK = "/callback"
#: Marks the browser session that an authorisation was begun in.
_COOKIE = "feedamp_authorise"
#: What Airflow accepts as a connection's id.
_CONN_ID: dict[str, Any] = {"pattern": r"^[\w#!()\-.:/\\]+$", "max_length": 250}

#: Who is logged in to Airflow; without a login the request ends with 401.
User = Annotated[BaseUser, Depends(get_user)]

app = FastAPI(title=NAME, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)


class RefusedError(Exception):
    """The request is refused, for a reason that the page says.

    :param status: The HTTP status.
    :param reason: One sentence for the person.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Asked:
    """A form that was filled in on this page by somebody who may edit the connection.

    :param user: Who has sent it.
    :param conn_id: The connection.
    :param seller: The seller.
    """

    user: BaseUser
    conn_id: str
    seller: str


def _asked(
    request: Request,
    user: User,
    conn_id: Annotated[str, Form(**_CONN_ID)],
    seller: Annotated[str, Form()],
    csrf_token: Annotated[str, Form()] = "",
) -> Asked:
    _require(user, "PUT", conn_id)
    if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none") or not _is_ours(
        csrf_token, user, conn_id
    ):
        raise RefusedError(
            403, "This form is too old, or was not made for you. Open the page of sellers and try again."
        )
    if not seller.strip() or any(unicodedata.category(each) == "Cc" for each in seller):
        raise InputError(
            "A seller's name must not be empty, and this page cannot send one with line breaks or other "
            "control characters: use the command `feedamp sellers`."
        )
    return Asked(user, conn_id, seller)


Filled = Annotated[Asked, Depends(_asked)]


def _redirect_query(request: Request) -> str:
    """Return the query of FeedAMP's redirect, and keep it out of the access log: the code may be unspent."""
    query = request.url.query
    # Airflow's access log, and uvicorn's, read it from here when the answer begins.
    request.scope["query_string"] = b""
    return query


@app.get("/")
def show(request: Request, user: User, conn_id: Annotated[str | None, Query(**_CONN_ID)] = None) -> Response:
    """Show the sellers of the connections that the user may read, or of one of them.

    :param conn_id: A connection that is not in Airflow's database.
    """
    if conn_id:
        _require(user, "GET", conn_id)
        readable = [conn_id]
    else:
        with create_session() as session:
            query = select(Connection.conn_id).where(Connection.conn_type == FeedAmpHook.conn_type)
            known = list(session.scalars(query.order_by(Connection.conn_id)))
        readable = [each for each in known if _may(user, "GET", each)]
        if not readable:
            _require(user, "GET", None)
    return _page(
        request,
        "sellers.html",
        title=NAME,
        connections=[_listed(user, each) for each in readable],
        framed=request.headers.get("sec-fetch-dest") == "iframe",
        warn_days=WARN_DAYS,
    )


def _listed(user: BaseUser, conn_id: str) -> dict[str, Any]:
    """Return what the page shows of a connection; one that fails does not hide the others."""
    shown: dict[str, Any] = {"conn_id": conn_id, "rows": [], "error": None}
    try:
        shown["rows"] = FeedAmpHook(conn_id).seller_states()
    except FeedAmpError as error:
        shown["error"] = str(error)
    may_edit = _may(user, "PUT", conn_id)
    return {**shown, "may_edit": may_edit, "csrf_token": _csrf_token(user, conn_id) if may_edit else None}


@app.post("/authorise")
def authorise(request: Request, asked: Filled) -> Response:
    """Begin to authorise a seller, and lead to FeedAMP's consent page."""
    if type(token_store()) is MemoryStore:
        raise ConfigurationError(
            "The token store of this deployment is 'memory': only this process would have the tokens. Set "
            "[feedamp] token_store to variable or sql."
        )
    _audit("feedamp_authorise_start", asked.user, asked.conn_id, asked.seller)
    base = conf.get("api", "base_url", fallback="") or str(request.base_url)
    browser = request.cookies.get(_COOKIE) or secrets.token_urlsafe(16)
    started = _authorisation(asked, browser).start(f"{base.rstrip('/')}{URL_PREFIX}{_CALLBACK}")
    response = _answer(
        request,
        f"Authorise seller {asked.seller}",
        f"Log in to FeedAMP as seller {asked.seller!r}, in this browser: the account that agrees is the one "
        "that this seller's orders will go to.",
        f"FeedAMP then sends you back here. This has to be done by {started.expires_at:%H:%M} UTC.",
        link={"href": started.url, "text": "Continue at FeedAMP"},
    )
    # Lax: it comes back with the redirect, which is another site's link.
    secure = request.url.scheme == "https"
    response.set_cookie(_COOKIE, browser, httponly=True, samesite="lax", secure=secure)
    return response


@app.get(_CALLBACK)
def callback(request: Request, query: Annotated[str, Depends(_redirect_query)], user: User) -> Response:
    """Take the browser back from FeedAMP: exchange the code, and ask whether it is the right account."""
    redirect = redirect_query(query) or {"state": ""}
    conn_id = seller = None
    try:
        conn_id, seller = Authorisation.whose(redirect["state"])
        _require(user, "PUT", conn_id)
        asked = Asked(user, conn_id, seller)
        found = _authorisation(asked, request.cookies.get(_COOKIE)).redeem(redirect)
    except FeedAmpError as error:
        _audit_done("feedamp_authorise_failed", user, conn_id, seller, reason=str(error))
        raise
    if found.confirmed:
        known = f" Its account has order {found.known_order!r}, as before." if found.known_order else ""
        return _authorised(request, asked, known)
    return _question(request, asked, found.state, str(found.question))


@app.post("/confirm")
def confirm(
    request: Request, asked: Filled, state: Annotated[str, Form()], answer: Annotated[str, Form()]
) -> Response:
    """Store the tokens of an account that had to be confirmed, or drop them."""
    authorisation = _authorisation(asked, request.cookies.get(_COOKIE))
    try:
        if answer == "yes":
            authorisation.confirm(state)
            return _authorised(request, asked)
        authorisation.discard(state)
    except FeedAmpError as error:
        _audit_done("feedamp_authorise_failed", asked.user, asked.conn_id, asked.seller, reason=str(error))
        if not error.retryable:
            raise
        # The tokens wait, and no other page asks about them: a redirect works once.
        text = f"{error} The new tokens still wait, and what was stored before is untouched. Try again?"
        return _question(request, asked, state, text, 503)
    reason = "the person did not confirm the account"
    _audit_done("feedamp_authorise_failed", asked.user, asked.conn_id, asked.seller, reason=reason)
    return _answer(
        request,
        f"Seller {asked.seller} was not authorised",
        "The new tokens are dropped. What was stored before is untouched.",
    )


@app.post("/forget")
def forget(request: Request, asked: Filled, answer: Annotated[str, Form()] = "") -> Response:
    """Remove a seller's tokens from the store, after a question."""
    if answer != "yes":
        return _answer(
            request,
            f"Forget seller {asked.seller}?",
            f"The tokens of seller {asked.seller!r} (connection {asked.conn_id!r}) are removed from the "
            "store. Imports for this seller fail until somebody authorises it again.",
            form={"action": "forget", "fields": _fields(asked), "answers": {"yes": "Remove the tokens"}},
        )
    hook = FeedAmpHook(asked.conn_id, asked.seller)
    if not hook.forget():
        raise InputError(f"There are no tokens of seller {asked.seller!r} in the store.")
    _audit_done("feedamp_forgotten", asked.user, asked.conn_id, asked.seller)
    texts = ["The tokens are removed from the store."]
    if hook.config.refresh_token and hook.config.seller == asked.seller:
        texts.append(
            "The connection still holds a refresh token for this seller: the next task starts with it."
        )
    return _answer(request, f"Seller {asked.seller} is forgotten", *texts)


def _authorised(request: Request, asked: Asked, known: str = "") -> Response:
    _audit_done("feedamp_authorised", asked.user, asked.conn_id, asked.seller)
    return _answer(request, f"Seller {asked.seller} is authorised", f"The new tokens are stored.{known}")


def _question(request: Request, asked: Asked, state: str, text: str, status: int = 200) -> Response:
    return _answer(
        request,
        f"Check the account of seller {asked.seller}",
        text,
        form={
            "action": "confirm",
            "fields": {**_fields(asked), "state": state},
            "answers": {"yes": "Yes, store the tokens", "no": "No, drop them"},
        },
        status=status,
    )


def _fields(asked: Asked) -> dict[str, str]:
    """Return the hidden fields of a form that asks the same person about the same seller."""
    token = _csrf_token(asked.user, asked.conn_id)
    return {"csrf_token": token, "conn_id": asked.conn_id, "seller": asked.seller}


def _authorisation(asked: Asked, browser: str | None) -> Authorisation:
    # The prefix: no user's id is taken for the command, or for a task. The browser's mark: a redirect that is
    # opened in another session of the same user goes nowhere.
    mark = hashlib.sha256((browser or "").encode()).hexdigest()[:16]
    return Authorisation(FeedAmpHook(asked.conn_id, asked.seller), f"user {asked.user.get_id()} in {mark}")


# Who may do what


def _may(user: BaseUser, method: Literal["GET", "PUT"], conn_id: str | None) -> bool:
    team = Connection.get_team_name(conn_id) if conn_id else None
    details = ConnectionDetails(conn_id=conn_id, team_name=team)
    return get_auth_manager().is_authorized_connection(method=method, details=details, user=user)


def _require(user: BaseUser, method: Literal["GET", "PUT"], conn_id: str | None) -> None:
    if not _may(user, method, conn_id):
        which = f"the connection {conn_id!r}" if conn_id else "connections"
        verb = "read" if method == "GET" else "edit"
        raise RefusedError(
            403, f"Your role in Airflow may not {verb} {which}. Ask an administrator of Airflow."
        )


def _serializer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(get_signing_key("api", "secret_key"), salt="feedamp sellers: form")


def _csrf_token(user: BaseUser, conn_id: str) -> str:
    token = _serializer().dumps([user.get_id(), conn_id])
    return token.decode() if isinstance(token, bytes) else token


def _is_ours(csrf_token: str, user: BaseUser, conn_id: str) -> bool:
    try:
        made_for = _serializer().loads(csrf_token, max_age=_FORM_AGE)
    except BadData:
        return False
    return bool(made_for == [user.get_id(), conn_id])


def _audit(event: str, user: BaseUser, conn_id: str | None, seller: str | None, **more: str) -> None:
    """Write an entry of Airflow's audit log."""
    extra = json.dumps({"connection_id": conn_id, "seller": seller, **more})
    name = user.get_name()
    with create_session() as session:
        session.add(Log(event=event, owner=name, owner_display_name=name, extra=extra))


def _audit_done(event: str, user: BaseUser, conn_id: str | None, seller: str | None, **more: str) -> None:
    """Write an entry about what is done already, and stays done when Airflow's database fails now."""
    try:
        _audit(event, user, conn_id, seller, **more)
    except SQLAlchemyError as error:
        log.error(  # noqa: TRY400 - a database's traceback may quote what it was given
            "The audit log of Airflow has no entry (%s): %s by %s, connection %r, seller %r%s",
            type(error).__name__,
            event,
            user.get_name(),
            conn_id,
            seller,
            "".join(f", {name}: {text}" for name, text in more.items()),
        )


# Answers


@app.exception_handler(HTTPException)
def _not_served(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    if status not in (401, 403):
        _redirect_query(request)  # a redirect that came in a way that is not served has a code all the same
        return _answer(request, "There is no such page", status=status)
    # Airflow answers 401 without a login and with one that has ended, and 403 to one that is not its own.
    login = f"{_root(request).removesuffix(URL_PREFIX)}/api/v2/auth/login?next="
    here = f"{_root(request)}/"
    path = request.scope["path"]
    if request.method == "GET" and not path.endswith(_CALLBACK):
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(login + quote(here + query, safe="/"), 303, _headers())
    # A redirect would carry an unspent code on to the login page.
    return _answer(
        request,
        "You are not logged in to Airflow",
        "So nothing was done. Log in, and begin anew.",
        link={"href": login + quote(here, safe="/"), "text": "Log in"},
        status=401,
    )


@app.exception_handler(RefusedError)
def _refused(request: Request, error: Exception) -> Response:
    return _answer(request, "This is not for you", str(error), status=getattr(error, "status", 403))


@app.exception_handler(RequestValidationError)
def _incomplete(request: Request, error: Exception) -> Response:
    return _answer(
        request, "That request is not complete", "Open the page of sellers and try again.", status=400
    )


@app.exception_handler(FeedAmpError)
def _failed(request: Request, error: Exception) -> Response:
    log.info("%s %r: %s", request.method, request.scope["path"], error)
    status = 503 if getattr(error, "retryable", False) else 400
    return _answer(request, "That did not work", str(error), status=status)


@app.exception_handler(SQLAlchemyError)
@app.exception_handler(Exception)
def _unexpected(request: Request, error: Exception) -> Response:
    # Its text may quote what no page should show; the server's log has the traceback.
    log.error("%s %r failed", request.method, request.scope["path"], exc_info=error)
    what = "Airflow's database" if isinstance(error, SQLAlchemyError) else "Something unexpected"
    return _answer(
        request,
        "That did not work",
        f"{what} failed ({type(error).__name__}). The log of the API server has more.",
        status=500,
    )


def _answer(request: Request, title: str, *texts: str, status: int = 200, **more: Any) -> Response:
    return _page(request, "answer.html", status, title=title, texts=texts, **more)


def _page(request: Request, template: str, status: int = 200, **context: Any) -> Response:
    nonce = secrets.token_urlsafe(16)
    text = _templates().get_template(template).render(nonce=nonce, root=_root(request), **context)
    # A seller's name may hold half of a surrogate pair.
    return Response(text.encode(errors="replace"), status, _headers(nonce), "text/html")


def _root(request: Request) -> str:
    """Return the path of the page, with what the API server's own address has before it."""
    root: str = request.scope["root_path"]
    return root


def _headers(nonce: str = "") -> dict[str, str]:
    style = f"'nonce-{nonce}'" if nonce else "'none'"
    return {
        "Cache-Control": "no-store",
        "Content-Security-Policy": f"default-src 'none'; style-src {style}; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'self'",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "SAMEORIGIN",
    }


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["instant"] = lambda text: text.replace("T", " ")[:16] + " UTC"
    return environment
