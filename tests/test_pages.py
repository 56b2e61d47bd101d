"""The Python that pages show beside the example DAGs runs as it is shown, against a local FeedAMP."""

from __future__ import annotations

import json
import re
import textwrap
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
from tests.airflow_parts import AIRFLOW_3
from tests.conftest import forget
from tests.house import ROOT
from tests.sandbox.caller import order as an_order
from tests.sandbox.caller import return_
from tests.test_house_papers import classes_of

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_feedamp.sandbox.server import RunningSandbox

EXECUTED = re.compile(r"^( *)<!-- executed -->\n *```python\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
BLOCKS = {
    page: [textwrap.dedent(match[2]) for match in EXECUTED.finditer(page.read_text(encoding="utf-8"))]
    for page in sorted((ROOT / "docs").rglob("*.md"))
}


@pytest.fixture
def names(sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what a reader has at hand: the provider's classes, a connection, an order, a refund of it."""
    monkeypatch.setenv("AIRFLOW__FEEDAMP__TOKEN_STORE", "memory")
    monkeypatch.setenv("AIRFLOW_CONN_FEEDAMP_DEFAULT", json.dumps(sandbox.connection("hooli")))
    order = an_order("600A")
    hook = FeedAmpHook(seller="hooli")
    for number in ("600A", "600B"):
        hook.client.orders.place(order | {"mp_order_number": number})
    sandbox.control.ship("hooli", "600B")
    sandbox.control.create_refund("hooli", "600B")
    hook.client.returns.create("600A", "RET-1", return_())
    output = SimpleNamespace(output=["600A"])

    def come_back(url: str) -> str:
        (state,) = parse_qs(urlsplit(url).query)["state"]
        return f"https://marketplace.example/?code={sandbox.control.authorize('globex')}&state={state}"

    classes = [each for role in ("operators", "sensors", "transfers") for each in classes_of(role)]
    return {
        **{each.__name__: each for each in classes},
        **{"DAG": DAG, "task": task, "hook": hook, "order": order, "base_url": sandbox.base_url},
        "an_hour_ago": datetime.now(UTC) - timedelta(hours=1),
        "code": sandbox.control.authorize("globex"),
        "refund": next(iter(hook.client.refunds.list())),
        "fetch_orders": lambda: [order],
        **{"held": output, "shipped": output, "feedamp": sandbox},
        "url_that_the_browser_came_back_to": come_back,
        "ask": lambda question: True,
    }


@pytest.mark.parametrize("page", [page for page in BLOCKS if BLOCKS[page]], ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run(
    page: Path, names: dict[str, Any], sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    if page.stem == "event-driven" and not AIRFLOW_3:
        pytest.skip("assets are of Airflow 3")
    for block in BLOCKS[page]:
        with DAG(f"of_{page.stem.replace('-', '_')}", schedule=None):
            exec(compile(block, str(page), "exec"), names)  # noqa: S102
        if "def test_" in block:
            run_test(names, monkeypatch)
            names["feedamp"] = sandbox


def run_test(names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test that the sandbox's page shows, with its fixture and a DAG that places three orders."""

    def import_three() -> None:
        forget()
        for number in ("1", "2", "3"):
            FeedAmpHook(seller="hooli").client.orders.place(an_order(number))

    names["my_dag"] = SimpleNamespace(test=import_three)
    (test,) = [found for name, found in names.items() if name.startswith("test_")]
    serving = names["feedamp"]._get_wrapped_function()(monkeypatch)
    test(next(serving))
    assert list(serving) == []
