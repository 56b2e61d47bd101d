"""What the tests with a browser share: a headless Chromium, a whole Airflow with its pages, a local FeedAMP.

They run with `make system`. All of them use one Airflow, one FeedAMP and one browser, so each test takes care
of what it finds: connections, sellers and DAG runs of its own names.
"""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from airflow_provider_feedamp.sandbox.server import RunningSandbox, serve
from tests.airflow_parts import add_connection
from tests.airflow_runs import make_airflow
from tests.browser.deployment import AIRFLOW_2, PASSWORD, Deployment, airflow_2, airflow_3
from tests.house import ROOT
from tests.leaks import Secrets, settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from playwright.sync_api import Browser, Locator, Page

CHROMIUM = "/usr/bin/chromium"
#: The example DAGs that the Airflow of these tests has.
EXAMPLES = ("order_import.py", "onboard_seller.py")
#: Milliseconds to wait for what a page is to show: a busy machine takes its time.
PATIENCE = 60_000
PATIENCE_WITH_TASKS = 240  # seconds
WIDTH = 1200  # pixels, of the pictures too

HERE = Path(__file__).parent
# The cells of the matrix have no Playwright.
collect_ignore_glob = [] if find_spec("playwright") else ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder; a run that does not ask for the mark leaves them out."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.timeout(600))


class OpenPage(Protocol):
    """Opens a page as somebody who is logged in."""

    def __call__(self, user: str = "admin", path: str = "/", **options: Any) -> Page:
        """Return the page.

        :param user: One of ``USERS``; an empty text for nobody.
        :param path: What to open first.
        :param options: For the browser's context, such as ``color_scheme="dark"`` or ``viewport``.
        """
        ...


@pytest.fixture(scope="session")
def feedamp() -> Iterator[RunningSandbox]:
    """Serve a local FeedAMP, with the sellers hooli and globex."""
    with serve(settings()) as running:
        yield running


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory, feedamp: RunningSandbox) -> Iterator[Deployment]:
    """Run the newest Airflow with all its parts, and with the connection ``feedamp_default``."""
    dags = tmp_path_factory.mktemp("dags")
    for name in EXAMPLES:
        if (example := ROOT / "example_dags" / name).exists():
            (dags / name).write_text(example.read_text(encoding="utf-8"), encoding="utf-8")
    home = make_airflow(tmp_path_factory, dags, {})
    connection = feedamp.connection("hooli")
    add_connection(home, "feedamp_default", connection, json.dumps(connection["extra"]))
    with airflow_3(home, more={"AIRFLOW__CORE__TEST_CONNECTION": "Enabled"}) as running:
        yield running


@pytest.fixture(scope="session")
def old_airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Run the web server of Airflow 2.11, where everybody is an administrator."""
    if not AIRFLOW_2.exists():
        pytest.skip("there is no Airflow 2.11 here: make matrix CELLS=2.11-3.11")
    home = make_airflow(tmp_path_factory, tmp_path_factory.mktemp("dags"), {}, str(AIRFLOW_2))
    with airflow_2(home) as running:
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Run a headless Chromium that reaches this machine and nothing else."""
    from playwright.sync_api import expect, sync_playwright

    options = (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
    )
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=list(options))
        yield running
        running.close()


@pytest.fixture(scope="session")
def sessions() -> dict[str, Any]:
    """Keep the cookies of those who have logged in."""
    return {}


@pytest.fixture
def open_page(airflow: Deployment, browser: Browser, sessions: dict[str, Any]) -> Iterator[OpenPage]:
    """Return what opens a page of the newest Airflow; each call is a browser of its own."""
    contexts = []

    def opened(user: str = "admin", path: str = "/", **options: Any) -> Page:
        if user and user not in sessions:
            sessions[user] = logged_in(browser, airflow.url, user)
        context = browser.new_context(
            **{
                "base_url": airflow.url,
                "viewport": {"width": WIDTH, "height": 900},
                "locale": "en-US",
                "timezone_id": "UTC",
                "storage_state": sessions.get(user),
                **options,
            }
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.goto(path)
        return page

    yield opened
    for context in contexts:
        for page in context.pages:
            page.unroute_all(behavior="ignoreErrors")  # a request may be on its way
        context.close()


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    """Return a page of the newest Airflow, as an administrator who is logged in."""
    return open_page()


class Trigger(Protocol):
    """Triggers a DAG with the button and waits for tasks of it."""

    def __call__(self, page: Page, dag_id: str, until: Mapping[str, str], **params: str) -> str:
        """Return the address of the run's page.

        :param page: A page of somebody who may do it.
        :param dag_id: The DAG, which nobody has run before.
        :param until: The states to wait for, by task.
        :param params: Run parameters to fill in.
        """
        ...


class WaitForTasks(Protocol):
    """Waits until tasks are in a state, and fails when one of them ends otherwise."""

    def __call__(self, page: Page, dag_id: str, until: Mapping[str, str]) -> None:
        """Wait.

        :param page: Any page.
        :param dag_id: The DAG.
        :param until: The states to wait for, by task.
        """
        ...


@pytest.fixture
def wait_for_tasks(airflow: Deployment) -> WaitForTasks:
    """Return what waits for tasks of the newest Airflow."""

    def waited(page: Page, dag_id: str, until: Mapping[str, str]) -> None:
        for _ in range(2 * PATIENCE_WITH_TASKS):
            states = {name: end.state for name, end in airflow.home.tasks(dag_id).items()}
            if until.items() <= states.items():
                return
            assert not {"failed", "upstream_failed", "up_for_retry"} & set(states.values()), states
            page.wait_for_timeout(500)
        pytest.fail(f"the tasks of {dag_id} are {states}, and not {until}")

    return waited


@pytest.fixture
def trigger(wait_for_tasks: WaitForTasks) -> Trigger:
    """Return what triggers a DAG."""

    def triggered(page: Page, dag_id: str, until: Mapping[str, str], **params: str) -> str:
        page.goto(f"/dags/{dag_id}")
        page.get_by_role("button", name="Trigger").click()
        form = page.get_by_role("dialog")
        for name, value in params.items():
            form.locator(f"[name=element_{name}]").fill(value)
        form.get_by_role("button", name="Trigger").click()
        page.wait_for_url("**/runs/**")
        wait_for_tasks(page, dag_id, until)
        return page.url.partition("?")[0].rstrip("/")

    return triggered


class TakePicture(Protocol):
    """Takes a picture that the pages of docs/ show."""

    def __call__(self, name: str, shown: Page | Locator) -> None:
        """Keep it in docs/pictures/ if that is asked for (`make pictures`).

        :param name: Its name, without folder and ending.
        :param shown: The page, or the part of it that the picture shows.
        """
        ...


@pytest.fixture
def picture(feedamp: RunningSandbox, airflow: Deployment, tmp_path: Path) -> TakePicture:
    """Return what takes a picture, and fails if it shows a secret or a path of this machine."""
    from playwright.sync_api import Locator

    folder = Path(os.environ.get("FEEDAMP_PICTURES", tmp_path))

    def taken(name: str, shown: Page | Locator) -> None:
        text = (shown if isinstance(shown, Locator) else shown.locator("body")).inner_text()
        assert Secrets(feedamp).found_in(text) == []
        assert [path for path in (ROOT, airflow.home.path.parent) if str(path) in text] == []
        shown.screenshot(path=folder / f"{name}.png", animations="disabled", caret="hide")

    return taken


def logged_in(browser: Browser, url: str, user: str) -> Any:
    """Log in with the form, and return the browser's storage."""
    with browser.new_context(base_url=url) as context:
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.goto("/")
        page.locator("[name=username]").fill(user)
        page.locator("[name=password]").fill(PASSWORD)
        page.locator("[type=submit]").click()
        page.wait_for_url(f"{url}/")
        return context.storage_state()
