"""What all operators share, and those that do one thing to each of many."""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, BaseOperator, task

from airflow_provider_feedamp.exceptions import (
    AuthenticationError,
    BadRequestError,
    InputError,
    NotFoundError,
    ReauthorizationRequiredError,
    ServerError,
    TooManyFailuresError,
    UnreachableError,
)
from airflow_provider_feedamp.operators.access_token import FeedAmpAccessTokenOperator
from airflow_provider_feedamp.operators.base import (
    Account,
    Failed,
    ForEachOperator,
    Skipped,
    flag,
    limit,
    rate,
    whole_number,
)
from airflow_provider_feedamp.operators.changed_orders import FeedAmpChangedOrdersOperator
from airflow_provider_feedamp.operators.fulfillments import FeedAmpReadFulfillmentsOperator
from airflow_provider_feedamp.operators.order_errors import FeedAmpReportOrderErrorsOperator
from airflow_provider_feedamp.operators.order_states import (
    FeedAmpCloseOrdersOperator,
    FeedAmpSetOrderStateOperator,
)
from airflow_provider_feedamp.operators.orders import FeedAmpPlaceOrdersOperator
from airflow_provider_feedamp.operators.refunds import (
    FeedAmpCompleteRefundsOperator,
    FeedAmpListRefundsOperator,
    FeedAmpProcessRefundsOperator,
    FeedAmpReportRefundErrorsOperator,
)
from airflow_provider_feedamp.operators.returns import (
    FeedAmpCompleteReturnsOperator,
    FeedAmpCreateReturnsOperator,
    FeedAmpListReturnsOperator,
    FeedAmpReadReturnRefundsOperator,
    FeedAmpReportReturnErrorsOperator,
)
from tests.house import ROOT
from tests.operators.support import (
    CUSTOMER,
    calls,
    for_good,
    order,
    parameters_of,
    place,
    return_,
    states,
    to_be_retried,
    without_retries,
)

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox


REFUND = {"mp_order_number": "A", "feedamp_refund_id": 1}
RETURN = {"mp_order_number": "A", "mp_return_number": "R"}
ERROR = {"code": "X", "message": "m"}

#: Each operator with the list that it takes, one entry of it, and what else it needs.
TAKES: list[tuple[type[ForEachOperator], str, Any, dict[str, Any]]] = [
    (FeedAmpSetOrderStateOperator, "mp_order_numbers", "A", {"state": "CANCELLED"}),
    (FeedAmpCloseOrdersOperator, "mp_order_numbers", "A", {}),
    (FeedAmpReadFulfillmentsOperator, "mp_order_numbers", "A", {}),
    (FeedAmpReportOrderErrorsOperator, "errors", {"mp_order_number": "A"} | ERROR, {}),
    (FeedAmpCompleteRefundsOperator, "refunds", REFUND, {}),
    (FeedAmpReportRefundErrorsOperator, "errors", REFUND | ERROR, {}),
    (FeedAmpCreateReturnsOperator, "returns", return_("R"), {}),
    (FeedAmpReadReturnRefundsOperator, "returns", RETURN, {}),
    (FeedAmpCompleteReturnsOperator, "returns", RETURN, {}),
    (FeedAmpReportReturnErrorsOperator, "errors", RETURN | ERROR, {}),
]
#: An import of orders takes its list in the same way, save that no order at all is an error.
LISTS: list[tuple[type[BaseOperator], str, Any, dict[str, Any]]] = [
    *TAKES,
    (FeedAmpPlaceOrdersOperator, "orders", order("A", currency="?"), {}),
]
ALL: list[type[BaseOperator]] = [
    *(kind for kind, *_ in LISTS),
    FeedAmpAccessTokenOperator,
    FeedAmpChangedOrdersOperator,
    FeedAmpListRefundsOperator,
    FeedAmpListReturnsOperator,
    FeedAmpProcessRefundsOperator,
]
#: What is passed on as it is: a function has no template.
NOT_TEMPLATED = {"process"}


def a_dag(**arguments: Any) -> DAG:
    return DAG("a_dag", start_date=datetime(2026, 1, 1, tzinfo=UTC), schedule=None, **arguments)


takes_a_list = pytest.mark.parametrize("takes", LISTS, ids=lambda each: each[0].__name__)
for_each = pytest.mark.parametrize("takes", TAKES, ids=lambda each: each[0].__name__)


# The list that it is given


@for_each
def test_nothing_to_do_is_a_success_without_a_call(takes: Any) -> None:
    kind, name, _, more = takes
    more = more | {"feedamp_conn_id": "no_such_connection"}

    empties: list[Any] = [[], "[]", ()]
    for empty in empties:
        told = kind(task_id="each", **{name: empty}, **more).execute({})
        assert not any(told.values() if isinstance(told, dict) else told)


@for_each
@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        (None, r"must be a list, not None: did the task before return nothing\?"),
        ({"a": 1}, "must be a list, not dict"),
        (b"[]", "must be a list, not bytes"),
        (7, "must be a list, not int"),
        ("['A']", r"text that is not a JSON array.*tojson"),
        ("", r"text that is not a JSON array.*tojson"),
        ('{"a": 1}', "text that is not a JSON array"),
        ([None], r"\[0\] must be"),
        ([17], r"\[0\] must be"),
        ('[""]', r"\[0\] must be"),
    ],
)
def test_what_is_no_such_list_fails_for_good_before_the_connection_is_read(
    takes: Any, value: Any, wrong: str
) -> None:
    kind, name, _, more = takes
    more = more | {"feedamp_conn_id": "no_such_connection"}

    with for_good(InputError, match=f"^{name}.*{wrong}"):
        kind(task_id="each", **{name: value}, **more).execute({})


@takes_a_list
def test_a_list_a_text_and_any_other_sequence_are_the_same(feedamp: RunningSandbox, takes: Any) -> None:
    kind, name, entry, more = takes
    # The account is empty, so that FeedAMP knows none of them; an order would be placed, were it not wrong.
    wrong = "of 1 order was" if kind is FeedAmpPlaceOrdersOperator else r".*does not know it \(HTTP 404"

    for value in ([entry], json.dumps([entry]), (each for each in [entry])):
        with pytest.raises(TooManyFailuresError, match=f"^1 {wrong}"):
            kind(task_id="each", **{name: value}, **more).execute({})


@takes_a_list
@pytest.mark.parametrize("native", [True, False])
def test_a_template_may_give_the_list_itself_or_its_json(
    feedamp: RunningSandbox, takes: Any, native: bool
) -> None:
    kind, name, entry, more = takes
    with a_dag(render_template_as_native_obj=native):
        template = "{{ made }}" if native else "{{ made | tojson }}"
        operator = kind(task_id="each", **{name: template}, **more)
    context: Any = {"made": [entry]}
    operator.render_template_fields(context)

    assert isinstance(getattr(operator, name), list if native else str)
    with pytest.raises(TooManyFailuresError, match=r"^1 "):
        operator.execute({})


@takes_a_list
def test_the_output_of_a_task_is_the_list_and_comes_first(takes: Any) -> None:
    kind, name, _, more = takes
    with a_dag():

        @task
        def make() -> list[Any]:
            return []

        operator = kind(task_id="each", **{name: make()}, **more)

    assert operator.upstream_task_ids == {"make"}


@takes_a_list
def test_it_maps_over_sellers_and_lists(takes: Any) -> None:
    kind, name, entry, more = takes
    with a_dag() as dag:
        kind.partial(task_id="each", max_failures=None, **more).expand_kwargs(
            [{"seller": "hooli", name: [entry]}, {"seller": "globex", name: []}]
        )

    assert dag.get_task("each").task_type == kind.__name__


# What the user gives it


@pytest.mark.parametrize("kind", ALL)
def test_every_value_of_the_user_is_in_the_signature_and_rendered_and_each_list_is_shown_as_json(
    kind: type[BaseOperator],
) -> None:
    parameters = parameters_of(kind)
    own = set(parameters)
    counted = {"max_failures"} if issubclass(kind, ForEachOperator) else set()
    lists = {name for name in own if re.search(r"Sequence\[|list\[", str(parameters[name].annotation))}

    assert set(kind.template_fields) == own - NOT_TEMPLATED
    assert len(kind.template_fields) == len(own - NOT_TEMPLATED)
    assert own >= {"feedamp_conn_id", "seller"} | counted
    assert kind.template_fields_renderers == dict.fromkeys(lists - NOT_TEMPLATED, "json")


@pytest.mark.parametrize("kind", ALL)
def test_each_value_of_the_user_is_rendered(kind: type[BaseOperator]) -> None:
    values: dict[str, Any] = {name: f"{name}-{{{{ n }}}}" for name in kind.template_fields}
    operator = kind(task_id="each", **values, **needed(kind))

    context: Any = {"n": 7}
    operator.render_template_fields(context)

    assert {name: getattr(operator, name) for name in values} == {name: f"{name}-7" for name in values}


@pytest.mark.parametrize("kind", ALL)
def test_making_one_reads_no_connection_and_takes_the_defaults_of_the_dag(kind: type[BaseOperator]) -> None:
    own: dict[str, Any] = dict.fromkeys({*kind.template_fields} - {"seller", "feedamp_conn_id"}, "x")

    with a_dag(default_args={"feedamp_conn_id": "no_such_connection", "seller": "globex"}):
        operator: Any = kind(task_id="each", **own, **needed(kind))

    assert (operator.feedamp_conn_id, operator.seller) == ("no_such_connection", "globex")


def needed(kind: type[BaseOperator]) -> dict[str, Any]:
    return {"process": print} if kind is FeedAmpProcessRefundsOperator else {}


def test_the_seller_and_the_connection_decide_whose_account_it_is(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps(feedamp.connection("globex")))
    place("A")

    for whose in ({"feedamp_conn_id": "other"}, {"seller": "globex"}):  # the first one brings globex's tokens
        with pytest.raises(TooManyFailuresError, match="A: FeedAMP does not know it"):
            cancel("A", **whose)
    assert states(feedamp) == {"A": "AWAITING_SHIPMENT"}


@pytest.mark.parametrize("kind", ALL)
def test_the_registrys_file_names_it(kind: type[BaseOperator]) -> None:
    listed = (ROOT / ".airflow-registry.yaml").read_text(encoding="utf-8")

    assert f"  - module: {kind.__module__}.{kind.__qualname__}\n" in listed


# Failures


def cancel(*numbers: str, **arguments: Any) -> Any:
    operator = FeedAmpSetOrderStateOperator(
        task_id="each", state="CANCELLED", mp_order_numbers=list(numbers), **arguments
    )
    return operator.execute({})


@pytest.mark.parametrize("max_failures", [2, 3, "2", None, "None"])
def test_as_many_failures_as_are_allowed_are_a_success(feedamp: RunningSandbox, max_failures: Any) -> None:
    place("B")

    told = cancel("A", "B", "C", max_failures=max_failures)

    assert (told["set"], list(told["failed"])) == (1, ["A", "C"])


@pytest.mark.parametrize("max_failures", [0, 1, "1"])
def test_more_failures_fail_the_task_for_good_when_all_are_done(
    feedamp: RunningSandbox, max_failures: Any
) -> None:
    place("B")

    with for_good(
        TooManyFailuresError, match=f"^2 orders failed, and max_failures is {max_failures}"
    ) as caught:
        cancel("A", "C", "B", max_failures=max_failures)

    assert "(set 1, unchanged 0, skipped 0, failed 2)" in str(caught.value)
    assert states(feedamp) == {"B": "CANCELLED"}


@pytest.mark.parametrize("max_failures", [-1, "-1", "many", 1.5, True])
def test_an_odd_max_failures_is_refused_before_anything_is_sent(
    feedamp: RunningSandbox, max_failures: Any
) -> None:
    with pytest.raises(InputError, match="max_failures must be"):
        cancel("A", max_failures=max_failures)
    assert calls(feedamp) == {}


def test_an_error_names_the_first_failures_and_the_log_says_how_many_there_were(
    feedamp: RunningSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(TooManyFailuresError, match=r"; and 15 more\n"):
        cancel(*[f"N{number}" for number in range(25)])

    named = [record for record in caplog.records if record.getMessage().startswith("Failed N")]
    assert len(named) == 20
    assert "failed 25" in caplog.text


@pytest.mark.parametrize("status", [403, 405, 415, 503])
def test_what_would_meet_each_alike_ends_the_task_with_an_account(
    feedamp: RunningSandbox,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    place("A", "B", "C")
    without_retries(monkeypatch)
    caplog.set_level(logging.INFO)
    cancel("A")
    feedamp.control.fault("http_error", on="place_order", status=status, times=9)

    with pytest.raises((BadRequestError, AuthenticationError, ServerError)) as caught:
        cancel("A", "B", "C")

    assert caught.value.status == status
    assert isinstance(caught.value, AirflowFailException) is (status < 500)
    assert "Stopped before the end of the 3 orders; until then: set 0, unchanged 1" in caplog.text
    assert calls(feedamp)["get_order"] == 5


def test_a_feedamp_that_cannot_be_reached_is_left_to_airflows_retries(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    place("A")
    without_retries(monkeypatch)
    feedamp.control.fault("drop", on="get_order")

    with to_be_retried(UnreachableError):
        cancel("A")
    assert cancel("A")["set"] == 1


def test_a_seller_who_must_authorise_again_ends_the_task_for_good(feedamp: RunningSandbox) -> None:
    feedamp.control.revoke("hooli")

    with for_good(ReauthorizationRequiredError):
        cancel("A", "B", max_failures=None)


def test_the_words_of_feedamp_stand_in_no_result_and_no_log(
    feedamp: RunningSandbox, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    place("A")
    quoting = BadRequestError(f"refused: {CUSTOMER}", status=400, codes=["FIELD_INVALID_VALUE"])

    def refuse(*_: object) -> None:
        raise quoting

    monkeypatch.setattr("airflow_provider_feedamp.api.client.OrdersApi.set_state", refuse)

    told = cancel("A", max_failures=1)

    assert told["failed"] == {"A": "FeedAMP refused it (HTTP 400, FIELD_INVALID_VALUE)"}
    assert "Secretname" not in caplog.text


# The loop


def processed(items: dict[Any, Any], act: Any, *outcomes: str) -> Account:
    account = Account("things", dict.fromkeys(outcomes, 0))
    account.process(items, act)
    return account


def test_the_loop_keeps_the_order_and_adds_up() -> None:
    outcomes: dict[str, Any] = {"A": "done", "B": Skipped("why"), "C": Failed("what"), "D": "done"}

    account = processed(outcomes, lambda outcome: outcome, "done", "other")

    assert account.result() == {"done": 2, "other": 0, "skipped": {"B": "why"}, "failed": {"C": "what"}}
    assert str(account) == "done 2, other 0, skipped 1, failed 1"
    assert not account.retryable


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InputError("it is blank"), "it is blank"),
        (NotFoundError("x", status=404), "FeedAMP does not know it (HTTP 404)"),
        (BadRequestError("x", status=400, codes=["A", "B"]), "FeedAMP refused it (HTTP 400, A, B)"),
        (BadRequestError("x", status=409), "FeedAMP refused it (HTTP 409)"),
        (BadRequestError("x", status=422), "FeedAMP refused it (HTTP 422)"),
    ],
)
def test_what_is_about_one_is_kept_and_the_loop_goes_on(error: Exception, reason: str) -> None:
    def act(number: int) -> str:
        if number == 1:
            raise error
        return "done"

    account = processed({"A": 0, ("B", "1"): 1, "C": 2}, act, "done")

    assert account.result() == {"done": 2, "skipped": {}, "failed": {"B/1": reason}}


def test_any_other_error_is_raised_at_once() -> None:
    seen = []

    def act(number: int) -> str:
        seen.append(number)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        processed({"A": 1, "B": 2}, act, "done")
    assert len(seen) == 1


# How parameters are read as templates render them


@pytest.mark.once
@pytest.mark.parametrize(
    ("read", "values"),
    [
        (flag, [(True, True), ("True", True), (" false ", False), (False, False)]),
        (partial(whole_number, least=1, most=256), [(16, 16), ("16", 16), (" 1 ", 1), (256, 256)]),
        (limit, [(0, 0), ("7", 7), (None, None), ("None", None)]),
        (rate, [(2, 2.0), ("0.5", 0.5), (None, None), ("None", None), ("", None)]),
    ],
)
def test_a_parameter_is_read_as_what_it_is(read: Any, values: list[tuple[Any, Any]]) -> None:
    found = [read("x", value) for value, _ in values]

    assert [(each, type(each)) for each in found] == [(each, type(each)) for _, each in values]


@pytest.mark.once
@pytest.mark.parametrize(
    ("read", "value", "message"),
    [
        (flag, "perhaps", "x must be True or False, not 'perhaps'"),
        (partial(whole_number, least=1, most=9), 0, "x must be a whole number from 1 to 9"),
        (partial(whole_number, least=1, most=9), "10", "from 1 to 9, not '10'"),
        (partial(whole_number, least=1), True, "x must be a whole number from 1, not True"),
        (limit, -1, "x must be a whole number from 0 or None, not -1"),
        (rate, 0, "x must be a number above 0 or None, not 0"),
        (rate, "nan", "not 'nan'"),
        (rate, True, "not True"),
        (rate, [1], "not \\[1\\]"),
    ],
)
def test_what_it_is_not_is_refused_by_name(read: Any, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read("x", value)
