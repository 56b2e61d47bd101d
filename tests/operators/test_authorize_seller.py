"""The task in which a person authorises a seller, with a supervisor that keeps the form as Airflow does."""

from __future__ import annotations

import importlib
import json
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from airflow import __version__ as airflow_version
from packaging.version import Version

from airflow_provider_feedamp.exceptions import ConfigurationError, RedirectRefusedError
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
from airflow_provider_feedamp.operators.authorize_seller import (
    PASTED,
    RIGHT,
    WRONG,
    FeedAmpAuthorizeSellerOperator,
)
from tests.operators.support import order
from tests.stores.supervisor import become_a_task

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox

SELLER = "initech"
HAS_FORMS = Version(airflow_version).release >= (3, 1)
needs_forms = pytest.mark.skipif(not HAS_FORMS, reason="Airflow asks people from 3.1 on")


class Airflow:
    """Keeps a task's form as the API server does: the first one's words stay for all of its questions."""

    def __init__(self) -> None:
        self.form: Any = None
        self.asked = 0
        self.xcoms: dict[str, Any] = {}

    def send(self, msg: Any) -> Any:
        if type(msg).__name__ == "CreateHITLDetailPayload":
            self.asked += 1
            self.form = self.form or msg
        return msg


class Task:
    """One try of the task: each step runs in a process of its own."""

    def __init__(self, airflow: Airflow, run_id: str = "run", **arguments: Any) -> None:
        self.airflow = airflow
        self.arguments: dict[str, Any] = {"task_id": "authorize", "seller": SELLER, **arguments}
        ti = SimpleNamespace(
            id="0198b6f5-7b6c-7000-8000-000000000001",
            dag_id="onboard",
            task_id="authorize",
            run_id=run_id,
            map_index=-1,
            xcom_push=lambda key, value: airflow.xcoms.update({key: value}),
        )
        self.context: dict[str, Any] = {"ti": ti, "task_instance": ti}
        self.waits: Any = None

    def begins(self) -> str:
        """Return the URL of the consent page in the form."""
        self._until_it_waits(lambda operator: operator.execute(self.context))
        body = str(self.airflow.form.body)
        return body[body.index("(http") + 1 : body.index(")")]

    def answered(self, chosen: str, pasted: str | None = None, **event: Any) -> Any:
        """Answer the form, and return what the task returns; None if it asks again."""
        answer = {
            "chosen_options": [chosen],
            "params_input": {"redirect_url": pasted},
            "responded_at": datetime.now(UTC),
            "responded_by_user": {"id": "1", "name": "ada"},
        } | event
        kwargs = json.loads(json.dumps(self.waits.kwargs))
        method = self.waits.method_name
        return self._until_it_waits(
            lambda operator: getattr(operator, method)(self.context, event=answer, **kwargs)
        )

    def _until_it_waits(self, step: Any) -> Any:
        try:
            return step(FeedAmpAuthorizeSellerOperator(**self.arguments))
        except BaseException as waits:
            if not hasattr(waits, "method_name"):
                raise
            self.waits = waits
            return None


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Airflow:
    airflow = Airflow()
    become_a_task(monkeypatch, airflow)  # type: ignore[arg-type]  # it is asked for forms alone
    return airflow


def agree(sandbox: RunningSandbox, url: str, account: str = SELLER) -> str:
    """Return the URL that the browser comes back to."""
    if account not in sandbox.control.sellers():
        sandbox.control.connect(account)
    query = parse_qs(urlsplit(url).query)
    code = sandbox.control.authorize(account)
    return f"{query['redirect_url'][0]}?code={code}&state={query['state'][0]}"


def stored(sandbox: RunningSandbox) -> str:
    """Return the stored refresh token."""
    record = FeedAmpHook(seller=SELLER)._custodian.record()
    return record.refresh_token if record else ""


@needs_forms
def test_a_new_seller_is_authorised_after_a_look_at_the_account(
    feedamp: RunningSandbox, airflow: Airflow, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    task = Task(airflow)
    redirect = agree(feedamp, task.begins())

    assert task.answered(PASTED, redirect) is None
    assert stored(feedamp) == ""
    question = airflow.xcoms["question"]
    assert question.startswith("No order of seller 'initech' is known to tell the account by.")
    assert question.endswith(f"Answer with {RIGHT!r} or {WRONG!r}.")
    result = task.answered(RIGHT)

    assert (result["seller"], result["renewed"], result["generation"]) == (SELLER, True, 1)
    assert set(result) == {"seller", "expires_at", "renewed", "generation"}
    assert stored(feedamp) in feedamp.control.refresh_tokens(SELLER)
    (code,) = parse_qs(urlsplit(redirect).query)["code"]
    shown = f"{caplog.text} {result} {airflow.xcoms} {task.waits.kwargs}"
    for secret in (code, *feedamp.control.refresh_tokens(SELLER), *feedamp.control.access_tokens(SELLER)):
        assert secret not in shown


@pytest.mark.skipif(
    not HAS_FORMS or Version(airflow_version).release >= (3, 3), reason="from Airflow 3.3 on no trigger waits"
)
def test_a_trigger_waits_that_shows_no_answer(feedamp: RunningSandbox, airflow: Airflow) -> None:
    task = Task(airflow)
    task.begins()

    path, arguments = task.waits.trigger.serialize()

    assert path == "airflow_provider_feedamp.triggers.polling.RedirectTrigger"
    assert arguments["options"] == [PASTED, RIGHT, WRONG]


@needs_forms
def test_the_seller_of_before_needs_one_answer(feedamp: RunningSandbox, airflow: Airflow) -> None:
    first = Task(airflow)
    first.answered(PASTED, agree(feedamp, first.begins()))
    first.answered(RIGHT)
    hook = FeedAmpHook(seller=SELLER)
    hook.client.orders.place(order("A-1"))
    airflow.form, airflow.asked = None, 0

    again = Task(airflow, "next run")
    result = again.answered(PASTED, agree(feedamp, again.begins()))

    assert (result["generation"], airflow.asked) == (2, 1)


@needs_forms
def test_a_wrong_account_is_dropped_and_the_same_page_brings_the_right_one(
    feedamp: RunningSandbox, airflow: Airflow
) -> None:
    task = Task(airflow)
    url = task.begins()
    task.answered(PASTED, agree(feedamp, url, "globex"))

    assert task.answered(WRONG) is None
    assert stored(feedamp) == ""
    task.answered(PASTED, agree(feedamp, url))
    assert task.answered(RIGHT)["generation"] == 1
    assert stored(feedamp) in feedamp.control.refresh_tokens(SELLER)


@needs_forms
@pytest.mark.parametrize(
    ("pasted", "said"),
    [
        (None, "not the URL which the browser came back to"),
        ("the-code-alone", "not the URL which the browser came back to"),
        ("{back}&state=more", "not the URL which the browser came back to"),
        ("{back}x", "is cut"),
        ("http://127.0.0.1/?code=never-given&state={state}", "Open FeedAMP's page again"),
        ("http://127.0.0.1/?error=access_denied&state={state}", "access was declined"),
    ],
)
def test_an_answer_that_cannot_be_used_is_asked_for_again(
    feedamp: RunningSandbox, airflow: Airflow, pasted: str | None, said: str
) -> None:
    task = Task(airflow)
    url = task.begins()
    (state,) = parse_qs(urlsplit(url).query)["state"]
    back = agree(feedamp, url)

    assert task.answered(PASTED, pasted and pasted.format(back=back, state=state)) is None
    assert said in airflow.xcoms["question"]
    assert "never-given" not in airflow.xcoms["question"]
    task.answered(PASTED, agree(feedamp, url))
    assert task.answered(RIGHT)["generation"] == 1


@needs_forms
def test_another_runs_redirect_is_refused(feedamp: RunningSandbox, airflow: Airflow) -> None:
    task, other = Task(airflow), Task(Airflow(), "other run")
    task.begins()
    other.airflow = airflow
    airflow.form = None
    redirect = agree(feedamp, other.begins())

    task.answered(PASTED, redirect)

    assert "another person has begun" in airflow.xcoms["question"]
    assert feedamp.control.counters()["token_posts"] == 0


@needs_forms
@pytest.mark.parametrize("chosen", [RIGHT, WRONG])
def test_the_redirect_of_an_earlier_try_is_answered_as_what_it_is(
    feedamp: RunningSandbox, airflow: Airflow, chosen: str
) -> None:
    """A seller may have agreed at the page of the try before; its tokens are those that are asked about."""
    earlier, task = Task(airflow), Task(airflow)
    redirect = agree(feedamp, earlier.begins())
    airflow.form = None
    url = task.begins()
    assert task.answered(PASTED, redirect) is None

    result = task.answered(chosen)

    if chosen == RIGHT:
        assert result["generation"] == 1
        assert stored(feedamp) == feedamp.control.refresh_tokens(SELLER)[-1]
    else:
        assert "were dropped" in airflow.xcoms["question"]
        task.answered(PASTED, agree(feedamp, url))
        assert task.answered(RIGHT)["generation"] == 1


@needs_forms
def test_the_task_fails_when_its_page_works_no_more(
    feedamp: RunningSandbox, airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(airflow, response_timeout=timedelta(seconds=0))
    redirect = agree(feedamp, task.begins())
    task.waits.kwargs["until"] = 0.0

    with pytest.raises(RedirectRefusedError):
        task.answered(PASTED, redirect + "x")


@needs_forms
def test_a_time_out_fails_as_in_the_standard_provider(feedamp: RunningSandbox, airflow: Airflow) -> None:
    task = Task(airflow)
    task.begins()

    with pytest.raises(Exception, match="too late") as caught:
        task.answered(PASTED, error="too late", error_type="timeout")
    assert type(caught.value).__name__ == "HITLTimeoutError"


@needs_forms
def test_users_notifiers_and_time_reach_the_form(feedamp: RunningSandbox, airflow: Airflow) -> None:
    from airflow.sdk.bases.notifier import BaseNotifier

    told: list[str] = []

    class Notifier(BaseNotifier):
        def notify(self, context: Any) -> None:
            told.append("told")

    task = Task(
        airflow,
        notifiers=Notifier(),
        assigned_users={"id": "7", "name": "ada"},
        response_timeout=timedelta(hours=1),
    )
    url = task.begins()
    task.answered(PASTED, agree(feedamp, url))

    assert [user.id for user in airflow.form.assigned_users] == ["7"]
    assert told == ["told", "told"]
    assert airflow.form.subject == f"Authorise FeedAMP seller {SELLER!r}"
    assert airflow.form.options == [PASTED, RIGHT, WRONG]
    assert "redirect_url" in airflow.form.params


def test_where_airflow_asks_nobody_the_error_names_the_command(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "airflow.providers.standard.operators.hitl", None)
    standard = importlib.import_module("airflow.providers.standard.operators")
    monkeypatch.delattr(standard, "hitl", raising=False)
    operator = FeedAmpAuthorizeSellerOperator(task_id="authorize", seller=SELLER, feedamp_conn_id="shop")

    with pytest.raises(ConfigurationError, match="feedamp sellers authorize 'initech' --conn-id shop"):
        operator.execute({})


def test_it_can_be_made_everywhere() -> None:
    operator = FeedAmpAuthorizeSellerOperator(task_id="authorize", seller="{{ params.seller }}")

    assert set(operator.template_fields) == {"redirect_url", "feedamp_conn_id", "seller"}
