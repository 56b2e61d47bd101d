"""What the tests of the page share: a real API server of Airflow, a local FeedAMP, and people with roles."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests

from airflow_provider_feedamp.sandbox.server import serve
from tests.airflow_parts import add_connection
from tests.airflow_runs import PATIENCE, AirflowHome, make_airflow
from tests.browser.deployment import airflow_3

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_feedamp.sandbox.server import RunningSandbox

AIRFLOW = tuple(map(int, version("apache-airflow").split(".")[:2]))
PASSWORD = "only-for-tests"
#: Who can log in, and their roles in Airflow's simple auth manager.
PEOPLE = {"viewer": "VIEWER", "user": "USER", "op": "OP", "admin": "ADMIN", "reader": "VIEWER"}
PAGE = "/feedamp/"
#: All that was ever answered, for the test that looks for tokens in it.
SEEN: list[str] = []

# The page is for Airflow 3.1 and later.
collect_ignore_glob = [] if AIRFLOW >= (3, 1) else ["test_page_*.py"]


@dataclass(frozen=True, slots=True)
class Server:
    """An API server that runs.

    :param url: Where, with the path before Airflow's own; no slash at the end.
    :param home: Its home, with its database.
    :param public: Where it is for browsers, if a proxy stands before it.
    """

    url: str
    home: AirflowHome
    public: str = ""

    @property
    def log(self) -> str:
        """Return all that it has printed."""
        return (self.home.path / "api-server.log").read_text(encoding="utf-8")

    def visitor(self, name: str = "") -> Visitor:
        """Return somebody with a browser, logged in under a name, or not at all."""
        visitor = Visitor(self)
        if name:
            answer = visitor.session.post(
                f"{self.url}/auth/token", json={"username": name, "password": PASSWORD}, timeout=PATIENCE
            )
            assert answer.status_code == 201, answer.text
            visitor.session.cookies.set("_token", answer.json()["access_token"])
        return visitor

    def events(self, seller: str) -> list[tuple[str, str, dict[str, Any]]]:
        """Return event, user and details of the audit log's entries about a seller, in their order."""
        with closing(sqlite3.connect(self.home.database)) as database:
            rows = database.execute(
                "select event, owner, extra from log where event like 'feedamp%' order by id"
            )
            found = [(event, owner, json.loads(extra)) for event, owner, extra in rows]
        return [each for each in found if each[2]["seller"] == seller]


class Page(HTMLParser):
    """What a person sees of a page, and the forms that can be sent from it.

    :param answer: What requests, or Starlette's test client, has got.
    """

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer
        self.forms: list[Form] = []
        self.links: list[str] = []
        self._words: list[str] = []
        self._skip = False
        self.feed(answer.text)

    @property
    def text(self) -> str:
        """Return the words of the page."""
        return " ".join(" ".join(self._words).split())

    def form(self, action: str, **fields: str) -> Form:
        """Return the first form or button that leads to an action, and has or takes these fields."""
        for form in self.forms:
            for button in form.buttons:
                if button.get("formaction", form.action).endswith(action) and all(
                    form.fields.get(name, button["value"] if button["name"] == name else None) == value
                    for name, value in fields.items()
                ):
                    return form.pressed(button)
        raise AssertionError(f"no form {action} {fields} in: {self.answer.text}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(Form(values["action"], values["method"]))
        elif tag == "input":
            self.forms[-1].fields[values["name"]] = values.get("value", "")
        elif tag == "button":
            self.forms[-1].buttons.append({"name": "", "value": "", **values})
        elif tag == "a":
            self.links.append(values["href"])
        self._skip = tag == "style"

    def handle_data(self, data: str) -> None:
        if not self._skip:
            self._words.append(data)


@dataclass
class Form:
    """A form of a page."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[dict[str, str]] = field(default_factory=list)

    def pressed(self, button: Mapping[str, str]) -> Form:
        """Return the form as the browser sends it when a button is pressed."""
        own = {button["name"]: button["value"]} if button["name"] else {}
        return Form(button.get("formaction", self.action), self.method, {**self.fields, **own})


@dataclass
class Visitor:
    """Somebody with a browser that follows nothing by itself."""

    server: Server
    session: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self.session.trust_env = False

    def open(self, path: str = PAGE, **options: Any) -> Page:
        """Open a page by its path behind Airflow's address, or by its URL."""
        return self._call("GET", path if "://" in path else f"{self.server.url}{path}", **options)

    def send(self, form: Form, headers: Mapping[str, str] | None = None, **changed: str) -> Page:
        """Send a form as a browser does over http, with some fields changed."""
        parts = urlsplit(self.server.url)
        return self._call(
            "POST",
            f"{parts.scheme}://{parts.netloc}{form.action}",
            data={**form.fields, **changed},
            headers={"Origin": "null", **(headers or {})},
        )

    def _call(self, method: str, url: str, **options: Any) -> Page:
        answer = self.session.request(method, url, timeout=PATIENCE, allow_redirects=False, **options)
        SEEN.append(answer.text + repr(answer.headers))
        return Page(answer)

    def consent(self, page: Page, account: str, *, declined: bool = False) -> str:
        """Go to FeedAMP from a page, agree there with an account, and return where the browser is sent."""
        (url,) = [link for link in page.links if "/authorize?" in link]
        asked = dict(parse_qsl(urlsplit(url).query))
        public = self.server.public or self.server.url
        assert asked["redirect_url"] == f"{public}/feedamp/callback"
        answer = self.session.post(
            url.partition("?")[0],
            data={**asked, "sandbox_seller": account, "decision": "decline" if declined else "approve"},
            timeout=PATIENCE,
            allow_redirects=False,
        )
        assert answer.status_code == 302, answer.text
        return answer.headers["Location"].replace(public, self.server.url)

    def begun(self, seller: str, conn_id: str = "feedamp_default") -> Page:
        """Press the button that begins to authorise a seller, and return the page that leads to FeedAMP."""
        form = self.open().form("/authorise", conn_id=conn_id, seller="")
        return self.send(form, seller=seller)

    def redirected(self, seller: str, account: str) -> str:
        """Begin to authorise a seller, agree with an account, and return where that leads back to."""
        return self.consent(self.begun(seller), account)

    def authorised(self, seller: str, account: str) -> Page:
        """Authorise a seller with an account, whatever the page asks."""
        page = self.open(self.redirected(seller, account))
        if page.forms:
            page = self.send(page.form("/confirm", answer="yes"))
        assert f"Seller {seller} is authorised" in page.text
        return page


@contextmanager
def api_server(home: AirflowHome, public: str = "") -> Iterator[Server]:
    """Run an API server with the people that can log in; when the block is left, it has ended.

    :param public: What ``[api] base_url`` says, if it is not the server's own address.
    """
    passwords = home.path / "people.json"
    passwords.write_text(json.dumps(dict.fromkeys(PEOPLE, PASSWORD)), encoding="utf-8")
    settings = {
        "AIRFLOW__CORE__AUTH_MANAGER": "tests.plugins.auth_manager.ReaderAuthManager",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{who}:{role}" for who, role in PEOPLE.items()),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__FEEDAMP__TOKEN_STORE": "sql",
        "AIRFLOW__FEEDAMP__TOKEN_STORE_CONN_ID": "tokens",
        **({"AIRFLOW__API__BASE_URL": public} if public else {}),
    }
    with airflow_3(home, parts=False, more=settings) as running:
        yield Server(f"{running.url}{urlsplit(public).path}", home, public)


@pytest.fixture(scope="session")
def feedamp() -> Iterator[RunningSandbox]:
    """Serve a local FeedAMP, with the sellers hooli and globex."""
    with serve() as running:
        yield running


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, feedamp: RunningSandbox) -> AirflowHome:
    """Make an Airflow with connections in its database; tokens are kept in a database of their own."""
    folder = tmp_path_factory.mktemp("tokens")
    tokens = {"conn_type": "sqlite", "host": str(folder / "tokens.db")}
    home = make_airflow(
        tmp_path_factory, folder, {"tokens": tokens, "feedamp_env": feedamp.connection("globex")}
    )
    for conn_id in ("feedamp_default", "feedamp_other"):
        connection = feedamp.connection("hooli")
        add_connection(home, conn_id, connection, json.dumps(connection["extra"]))
    return home


@pytest.fixture(scope="session")
def server(home: AirflowHome) -> Iterator[Server]:
    """Run an API server."""
    with api_server(home) as running:
        yield running
