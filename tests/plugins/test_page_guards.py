"""Who may do what on the page, and what an attacker, a mistake or a failure gets to see."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.core_api.security import get_user
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError

from airflow_provider_feedamp.plugins import sellers_page
from airflow_provider_feedamp.plugins.sellers_page import Asked, _asked, app
from tests.airflow_runs import PATIENCE
from tests.plugins.conftest import PAGE, PEOPLE, Form, Page

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from tests.plugins.conftest import Server

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

#: What each route is asked with when somebody tries what he may not.
ROUTES = {
    ("GET", "/"): "",
    ("GET", "/callback"): "",
    ("POST", "/authorise"): "",
    ("POST", "/confirm"): "",
    ("POST", "/forget"): "",
}
DOCS = Path(__file__).parents[2] / "docs" / "sellers-page.md"
SCRIPT = "<script>alert(1)</script>\"'"


def posts(**fields: str) -> list[Form]:
    """Return every form of the page, filled in without having seen it."""
    filled = {
        "conn_id": "feedamp_default",
        "seller": "hooli",
        "state": "x",
        "answer": "yes",
        "csrf_token": "",
    }
    return [
        Form(f"/feedamp{path}", "post", {**filled, **fields}) for method, path in ROUTES if method == "POST"
    ]


def said(page: Page, status: int, *sentences: str) -> None:
    """Check that a page refuses with a status and sentences, shows nothing else, and has all headers."""
    assert page.answer.status_code == status, page.text
    for sentence in sentences:
        assert sentence in page.text
    for never in ("Traceback", 'File "', "sbx-", "demo-secret"):
        assert never not in page.answer.text
    guarded(page)


def guarded(page: Page) -> None:
    headers = page.answer.headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Frame-Options"] == "SAMEORIGIN"
    assert headers["X-Content-Type-Options"] == "nosniff"
    policy = re.sub(r"'nonce-[\w-]{22}'", "'nonce'", headers["Content-Security-Policy"])
    assert policy in (
        f"default-src 'none'; style-src {style}; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
        for style in ("'nonce'", "'none'")
    )


# Login and permission


def test_these_are_all_routes() -> None:
    found = {
        (method, route.path)
        for route in app.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }

    assert len(app.routes) == len(ROUTES)
    assert found == ROUTES.keys()


def test_without_a_login_the_page_leads_to_airflows_login(server: Server) -> None:
    nobody = server.visitor()

    for path in (PAGE, f"{PAGE}?conn_id=feedamp_env"):
        page = nobody.open(path)

        assert page.answer.status_code == 303
        location = page.answer.headers["Location"]
        assert location.startswith("/api/v2/auth/login?next=/feedamp/")
        guarded(page)
        # Airflow takes it for one of its own pages.
        login = nobody.open(location)
        assert login.answer.status_code == 307
        assert "next=/feedamp/" in unquote(login.answer.headers["Location"])


@pytest.mark.parametrize("cookie", ["", "not a token"])
def test_without_a_login_nothing_else_is_answered(server: Server, cookie: str) -> None:
    nobody = server.visitor()

    for form in posts():
        nobody.session.cookies.set("_token", cookie)
        said(nobody.send(form), 401, "You are not logged in to Airflow")


def test_a_callback_without_a_login_uses_nothing_and_leaves_no_code_in_the_log(server: Server) -> None:
    admin = server.visitor("admin")
    back = admin.redirected("later", "hooli")

    said(server.visitor().open(back), 401, "You are not logged in to Airflow", "nothing was done")

    assert "sbx-code" not in server.log
    assert "Seller later" in admin.send(admin.open(back).form("/confirm", answer="yes")).text


def test_each_role_sees_what_the_documentation_says(server: Server) -> None:
    documented = re.findall(
        r"^\| `(\w+)` \| (\w+) \| (\w+) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE
    )
    seen = []
    for name, role in PEOPLE.items():
        if name == "reader":
            continue
        visitor = server.visitor(name)
        page = visitor.open()
        sees = page.answer.status_code == 200
        if not sees:
            said(page, 403, "Your role in Airflow may not read connections")
        started = visitor.send(posts(seller=f"of {name}")[0]) if not sees else visitor.begun(f"of {name}")
        assert len(server.events(f"of {name}")) == started.answer.ok
        seen.append((role, *("yes" if each else "no" for each in (sees, started.answer.ok))))

    assert seen == documented


def test_who_may_only_read_connections_sees_the_sellers_and_can_change_nothing(server: Server) -> None:
    admin, reader = server.visitor("admin"), server.visitor("reader")
    admin.authorised("seen", "hooli")
    form = admin.open().form("/authorise", conn_id="feedamp_default", seller="")

    page = reader.open()

    assert " seen active " in page.text
    assert [each.action for each in page.forms] == [PAGE]  # which only looks
    for tried in posts(csrf_token=form.fields["csrf_token"], seller="seen"):
        said(reader.send(tried), 403, "Your role in Airflow may not edit the connection 'feedamp_default'")
    said(reader.open(admin.redirected("seen", "hooli")), 403, "may not edit the connection")
    assert " seen active " in reader.open().text


def test_who_may_not_read_connections_is_not_told_whether_one_exists(server: Server) -> None:
    viewer = server.visitor("viewer")

    for conn_id in ("feedamp_default", "nowhere"):
        said(viewer.open(f"{PAGE}?conn_id={conn_id}"), 403, f"may not read the connection '{conn_id}'")


@pytest.mark.parametrize(("method", "path"), [("HEAD", ""), ("POST", ""), ("GET", "/")])
def test_a_redirect_that_comes_in_a_way_that_is_not_served_leaves_no_code_in_the_log(
    server: Server, method: str, path: str
) -> None:
    code = f"unspent-{method}"
    url = f"{server.url}/feedamp/callback{path}?code={code}&state=s"

    admin = server.visitor("admin")

    assert admin.session.request(method, url, timeout=PATIENCE).status_code in (404, 405)
    admin.open(f"{PAGE}?conn_id=after")  # by then the entry before is written

    assert f"/feedamp/callback{path}" in server.log
    assert code not in server.log


# Forms


def test_a_form_is_accepted_only_with_the_token_of_its_user_and_connection(server: Server) -> None:
    admin, op = server.visitor("admin"), server.visitor("op")
    mine = admin.open().form("/authorise", conn_id="feedamp_default", seller="").fields["csrf_token"]
    tokens = {
        "none": "",
        "another's": op.open().form("/authorise", conn_id="feedamp_default", seller="").fields["csrf_token"],
        "another connection's": admin.open()
        .form("/authorise", conn_id="feedamp_other", seller="")
        .fields["csrf_token"],
        "a changed one": mine[:-2] + ("AA" if mine[-2:] != "AA" else "BB"),
    }

    for token in tokens.values():
        for form in posts(csrf_token=token, seller="forged"):
            said(admin.send(form), 403, "This form is too old, or was not made for you")
    for site in ("cross-site", "same-site"):
        for form in posts(csrf_token=mine, seller="forged"):
            said(admin.send(form, {"Sec-Fetch-Site": site}), 403, "was not made for you")
    assert server.events("forged") == []
    start = posts(csrf_token=mine, seller="forged")[0]
    assert admin.send(start, {"Sec-Fetch-Site": "same-origin"}).answer.ok


def test_a_form_that_is_not_complete_is_refused(server: Server) -> None:
    admin = server.visitor("admin")
    form = admin.open().form("/authorise", conn_id="feedamp_default", seller="")

    said(admin.send(Form(form.action, "post", {})), 400, "not complete")
    said(admin.send(form, conn_id="no id\0"), 400, "not complete")
    said(admin.send(form, seller="  "), 400, "A seller's name must not be empty")
    said(admin.send(form, seller="two\nlines"), 400, "line breaks")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/feedamp/nothing", 404),
        ("GET", "/feedamp//evil.invalid/", 404),
        ("GET", "/feedamp/authorise", 405),
        ("GET", "/feedamp/authorise/", 404),
        ("POST", "/feedamp/", 405),
        ("GET", "/feedamp/openapi.json", 404),
        ("GET", f"/feedamp/?conn_id={SCRIPT}", 400),
    ],
)
def test_what_is_not_there_is_answered_with_the_same_headers(
    server: Server, method: str, path: str, status: int
) -> None:
    page = Page(server.visitor("admin").session.request(method, server.url + path, allow_redirects=False))

    said(page, status)
    assert SCRIPT not in page.answer.text


def test_what_a_person_or_feedamp_writes_is_shown_as_text(server: Server, feedamp: RunningSandbox) -> None:
    admin = server.visitor("admin")
    feedamp.control.connect(SCRIPT)
    start = admin.begun(SCRIPT)
    question = admin.open(admin.consent(start, SCRIPT))
    done = admin.send(question.form("/confirm", answer="yes"))
    asked = admin.send(admin.open().form("/forget", conn_id="feedamp_default", seller=SCRIPT))
    error = admin.open(f"/feedamp/callback?error={SCRIPT}&state={SCRIPT}")

    for page in (start, question, done, admin.open(), asked):
        assert "<script" not in page.answer.text
        assert f"{SCRIPT}" in page.text
        assert page.answer.ok
    assert "<script" not in error.answer.text


def test_only_airflows_own_pages_may_show_it_in_a_frame_and_then_nothing_can_be_done_in_it(
    server: Server,
) -> None:
    page = server.visitor("admin").open(headers={"Sec-Fetch-Dest": "iframe"})

    assert "open this page in a tab of its own" in page.text
    assert [each.action for each in page.forms] == [PAGE]
    guarded(page)


def test_a_forged_host_does_not_change_where_feedamp_sends_the_code(server: Server) -> None:
    admin = server.visitor("admin")
    form = admin.open().form("/authorise", conn_id="feedamp_default", seller="")

    page = admin.send(form, {"Host": "evil.invalid", "X-Forwarded-Host": "evil.invalid"}, seller="hosted")

    assert page.answer.ok
    assert "evil.invalid" not in page.answer.text
    login = server.visitor().open(headers={"Host": "evil.invalid"})
    assert login.answer.headers["Location"].startswith("/api/v2/auth/login?next=/feedamp/")


# The redirect


def test_a_redirect_works_once(server: Server) -> None:
    admin = server.visitor("admin")
    back = admin.redirected("twice", "hooli")
    question = admin.open(back)

    said(admin.open(back), 400, "This redirect URL was used before")
    said(server.visitor("admin").send(question.form("/confirm", answer="yes")), 400, "in another browser")

    assert "is authorised" in admin.send(question.form("/confirm", answer="yes")).text
    said(admin.open(back), 400, "This redirect URL was used before: its tokens are stored")
    assert server.events("twice")[-1][0] == "feedamp_authorise_failed"


def test_a_redirect_that_is_not_ones_own_is_refused_and_its_code_stays_unused(server: Server) -> None:
    admin, op = server.visitor("admin"), server.visitor("op")
    back = admin.redirected("mine", "hooli")
    url, _, state = back.rpartition("state=")
    cases = {
        "another person's": (op, back, "another person has begun"),
        "another session's": (server.visitor("admin"), back, "in another browser"),
        "cut": (admin, f"{url}state={state[:-5]}", "No authorisation"),
        "made up": (admin, f"{url}state=6b091d62-{'0' * 32}.{'A' * 43}", "No authorisation"),
        "another signature": (admin, f"{url}state={state[:-5]}AAAAA", "something in it was changed"),
        "none": (admin, "/feedamp/callback", "No authorisation"),
        "two": (admin, f"{back}&state={state}", "No authorisation"),
    }

    for who, tried, sentence in cases.values():
        said(who.open(tried), 400, sentence)

    assert "is authorised" in admin.send(admin.open(back).form("/confirm", answer="yes")).text


def test_a_seller_who_declines_is_said_to_have_declined(server: Server) -> None:
    admin = server.visitor("admin")
    back = admin.consent(admin.begun("declining"), "hooli", declined=True)

    said(admin.open(back), 400, "access was declined")

    event, owner, details = server.events("declining")[-1]
    assert (event, owner) == ("feedamp_authorise_failed", "admin")
    assert "access was declined" in details["reason"]


def test_a_connection_that_is_deleted_meanwhile(server: Server, feedamp: RunningSandbox) -> None:
    admin = server.visitor("admin")
    with closing(sqlite3.connect(server.home.database)) as database:
        database.execute("update connection set conn_id = 'going' where conn_id = 'feedamp_other'")
        database.commit()
        back = admin.consent(admin.begun("orphan", "going"), "hooli")
        form = admin.open().form("/authorise", conn_id="going", seller="")
        database.execute("update connection set conn_id = 'feedamp_other' where conn_id = 'going'")
        database.commit()

    said(admin.open(back), 400, "There is no Airflow connection 'going'")
    said(admin.send(form, seller="orphan"), 400, "There is no Airflow connection 'going'")


def test_a_store_that_cannot_be_read_hides_nothing_else_and_loses_nothing(server: Server) -> None:
    admin = server.visitor("admin")
    admin.authorised("safe", "hooli")
    back = admin.redirected("safe", "globex")
    form = admin.open().form("/forget", conn_id="feedamp_default", seller="safe")
    database = Path(server.home.connections["tokens"]["host"])
    kept = database.read_bytes()
    database.write_bytes(b"no database" * 4096)
    try:
        page = admin.open()
        said(page, 200, "The database behind the Airflow connection 'tokens' failed")
        assert "feedamp_default" in page.text
        said(admin.open(back), 503, "The database behind the Airflow connection 'tokens' failed")
        said(
            admin.send(form, answer="yes"), 503, "The database behind the Airflow connection 'tokens' failed"
        )
        said(admin.begun("unsafe"), 503, "The database behind the Airflow connection 'tokens' failed")
    finally:
        database.write_bytes(kept)

    assert "safe active" in admin.open().text
    assert "is authorised" in admin.send(admin.open(back).form("/confirm", answer="yes")).text


def test_an_answer_that_the_store_does_not_take_is_asked_for_again(server: Server) -> None:
    """The redirect works once, so no other page asks about the tokens that wait."""
    admin = server.visitor("admin")
    question = admin.open(admin.redirected("asked", "hooli"))
    database = Path(server.home.connections["tokens"]["host"])
    kept = database.read_bytes()
    database.write_bytes(b"no database" * 4096)
    try:
        again = admin.send(question.form("/confirm", answer="yes"))
        said(again, 503, "The database behind the Airflow connection 'tokens' failed", "Try again?")
        refused = admin.send(again.form("/confirm", answer="no"))
        said(refused, 503, "The database behind the Airflow connection 'tokens' failed", "Try again?")
    finally:
        database.write_bytes(kept)

    assert "is authorised" in admin.send(refused.form("/confirm", answer="yes")).text
    said(admin.send(again.form("/confirm", answer="no")), 400, "its tokens are stored")
    assert "asked active" in admin.open().text


def test_what_is_done_is_said_to_be_done_when_airflows_audit_log_fails(server: Server) -> None:
    admin = server.visitor("admin")
    questions = [admin.open(admin.redirected("unlogged", "hooli")) for _ in range(2)]
    form = admin.open().form("/authorise", conn_id="feedamp_default", seller="")
    with closing(sqlite3.connect(server.home.database)) as database:
        database.execute("alter table log rename to log_away")
        try:
            refused = admin.open("/feedamp/callback?code=c&state=s")
            stored = admin.send(questions[0].form("/confirm", answer="yes"))
            dropped = admin.send(questions[1].form("/confirm", answer="no"))
            forgotten = admin.send(admin.open().form("/forget", conn_id="feedamp_default", seller="unlogged"))
            forgotten = admin.send(forgotten.form("/forget", answer="yes"))
            begun = admin.send(form, seller="unlogged")
        finally:
            database.execute("alter table log_away rename to log")

    said(refused, 400, "No authorisation waits")
    said(stored, 200, "Seller unlogged is authorised")
    said(dropped, 200, "Seller unlogged was not authorised")
    said(forgotten, 200, "Seller unlogged is forgotten")
    said(begun, 500, "Airflow's database failed")  # nothing begins that is not logged
    assert server.log.count("The audit log of Airflow has no entry") == 4
    assert "feedamp_authorised by admin" in server.log


def test_a_feedamp_that_is_away_loses_nothing(server: Server, feedamp: RunningSandbox) -> None:
    admin = server.visitor("admin")
    admin.authorised("patient", "hooli")
    back = admin.redirected("patient", "hooli")
    feedamp.control.fault("http_error", on="token", status=429)
    try:
        said(admin.open(back), 503, "FeedAMP")
    finally:
        feedamp.control.clear_faults()
    assert "patient active" in admin.open().text
    assert "is authorised" in admin.send(admin.open(back).form("/confirm", answer="yes")).text

    back = admin.redirected("patient", "hooli")
    feedamp.control.fault("drop", on="token")
    try:
        said(admin.open(back), 400, "The seller's tokens of before are untouched")
    finally:
        feedamp.control.clear_faults()
    assert "patient active" in admin.open().text


# What nobody expects


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """Return what asks the page in this process, where things can be broken; nobody checks who asks."""
    anybody = Asked(BaseUser(), "feedamp_default", "hooli")  # type: ignore[abstract]
    monkeypatch.setattr(
        app, "dependency_overrides", {get_user: lambda: anybody.user, _asked: lambda: anybody}
    )
    return TestClient(app, raise_server_exceptions=False)


@pytest.mark.parametrize(
    "error", [RuntimeError("sbx-secret"), OperationalError("sbx-secret", {}, Exception())]
)
def test_what_is_not_expected_is_not_shown(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> bool:
        raise error

    monkeypatch.setattr(sellers_page, "_may", fail)

    said(Page(client.get("/?conn_id=any")), 500, f"failed ({type(error).__name__})")


def test_tokens_that_would_be_kept_in_memory_are_not_obtained(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__FEEDAMP__TOKEN_STORE", "memory")

    said(Page(client.post("/authorise")), 400, "The token store of this deployment is 'memory'")
