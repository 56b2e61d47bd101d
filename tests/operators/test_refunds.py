from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.api.client import RefundsApi
from airflow_provider_feedamp.exceptions import (
    InputError,
    RefundsNotProcessedError,
    ServerError,
    TooManyFailuresError,
)
from airflow_provider_feedamp.operators.refunds import (
    FeedAmpCompleteRefundsOperator,
    FeedAmpListRefundsOperator,
    FeedAmpProcessRefundsOperator,
    FeedAmpReportRefundErrorsOperator,
)
from tests.operators.support import calls, for_good, place, to_be_retried, without_retries

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_feedamp.sandbox.server import RunningSandbox

pytestmark = pytest.mark.once

EXCESS = {"code": "EXCESS_ITEM_REFUND", "message": "3 of 2"}


def listed(**arguments: Any) -> list[tuple[str, str]]:
    refunds = FeedAmpListRefundsOperator(task_id="list", **arguments).execute({})
    return [(refund["mp_order_number"], refund["status"]) for refund in refunds]


def process(function: Callable[..., Any], **arguments: Any) -> Any:
    return FeedAmpProcessRefundsOperator(task_id="process", process=function, **arguments).execute({})


def complete(*refunds: Any, **arguments: Any) -> Any:
    return FeedAmpCompleteRefundsOperator(task_id="complete", refunds=list(refunds), **arguments).execute({})


def report(*errors: Any, **arguments: Any) -> Any:
    return FeedAmpReportRefundErrorsOperator(task_id="report", errors=list(errors), **arguments).execute({})


def made(sandbox: RunningSandbox, *numbers: str, **details: Any) -> list[int]:
    """Let the seller refund something of orders, which are placed first; return the ids."""
    place(*dict.fromkeys(numbers))
    return [sandbox.control.create_refund("hooli", each, **details)["feedamp_refund_id"] for each in numbers]


def statuses(sandbox: RunningSandbox) -> dict[int, str]:
    return {each["feedamp_refund_id"]: each["status"] for each in sandbox.control.refunds("hooli")}


def named(number: str, refund_id: int | str, **more: Any) -> dict[str, Any]:
    return {"mp_order_number": number, "feedamp_refund_id": refund_id, **more}


class TestList:
    def test_it_returns_what_is_to_be_paid(self, feedamp: RunningSandbox) -> None:
        done, paused, _ = made(feedamp, "A", "B", "C")
        complete(named("A", done))
        report(named("B", paused, **EXCESS))

        assert listed() == [("C", "CREATED")]
        assert listed(refund_status=["PAUSED", "COMPLETE"]) == [("A", "COMPLETE"), ("B", "PAUSED")]
        assert len(listed(refund_status=None)) == 3
        assert len(listed(refund_status='["CREATED", "PAUSED"]')) == 2

    def test_it_returns_the_refunds_as_feedamp_gives_them(self, feedamp: RunningSandbox) -> None:
        [number] = made(feedamp, "A", notes="sorry")

        [refund] = FeedAmpListRefundsOperator(task_id="list").execute({})

        assert (refund["feedamp_refund_id"], refund["notes"]) == (number, "sorry")
        assert refund["merchant_refund_lines"][0]["item_refund"] == 3.0
        assert json.loads(json.dumps(refund)) == refund

    def test_orders_and_instants_narrow_it(self, feedamp: RunningSandbox) -> None:
        made(feedamp, "A", "B")
        later = "2099-01-01T00:00:00+00:00"

        assert listed(mp_order_numbers=["B"]) == [("B", "CREATED")]
        assert listed(mp_order_numbers="None", created_after="None", created_before=later) == listed()
        assert listed(mp_order_numbers=[]) == []
        assert listed(created_after=later) == []

    @pytest.mark.parametrize(
        ("arguments", "wrong"),
        [
            ({"created_after": "yesterday"}, "created_after must be a datetime"),
            ({"created_before": "2026-01-01T00:00:00"}, "created_before must be a datetime with a time zone"),
            ({"mp_order_numbers": [""]}, r"mp_order_numbers\[0\] must be text"),
            ({"refund_status": "CREATED"}, "refund_status is a text that is not a JSON array"),
        ],
    )
    def test_a_filter_that_cannot_be_sent_fails_for_good(
        self, feedamp: RunningSandbox, arguments: dict[str, Any], wrong: str
    ) -> None:
        with for_good(InputError, match=wrong):
            listed(**arguments)
        assert calls(feedamp) == {}


class TestProcess:
    def test_what_is_no_function_fails_before_there_are_refunds(self, feedamp: RunningSandbox) -> None:
        task = FeedAmpProcessRefundsOperator(task_id="process", process="pay")  # type: ignore[arg-type]

        with pytest.raises(InputError, match="process must be a function that takes a refund, not str"):
            task.execute({})
        assert calls(feedamp) == {}

    @pytest.mark.parametrize("paid", [None, True])
    def test_refunds_that_are_paid_become_complete(self, feedamp: RunningSandbox, paid: bool | None) -> None:
        first, second = made(feedamp, "A", "A")
        seen: list[Any] = []

        def pay(refund: dict[str, Any]) -> bool | None:
            seen.append((refund["feedamp_refund_id"], refund["merchant_refund_lines"][0]["item_refund"]))
            return paid

        assert process(pay) == {"completed": 2, "reported": 0, "skipped": {}, "failed": {}}
        assert seen == [(first, 3.0), (second, 3.0)]
        assert statuses(feedamp) == {first: "COMPLETE", second: "COMPLETE"}

    def test_what_cannot_be_paid_is_reported_and_paused(self, feedamp: RunningSandbox) -> None:
        bad, good = made(feedamp, "A", "B")

        told = process(lambda refund: [EXCESS] if refund["mp_order_number"] == "A" else None)

        assert told == {"completed": 1, "reported": 1, "skipped": {}, "failed": {}}
        assert statuses(feedamp) == {bad: "PAUSED", good: "COMPLETE"}
        assert feedamp.control.refunds("hooli")[0]["errors"] == [EXCESS]

    def test_a_function_that_raises_leaves_that_refund_for_the_next_try(
        self, feedamp: RunningSandbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        first, second, third = made(feedamp, "A", "B", "C")
        caplog.set_level(logging.DEBUG)

        def pay(refund: dict[str, Any]) -> None:
            if refund["feedamp_refund_id"] == second:
                raise RuntimeError("no account of Jane Secretname")

        with to_be_retried(RefundsNotProcessedError, match=r"1 refund failed.*completed 2") as caught:
            process(pay)

        assert f"B/{second}: process raised RuntimeError" in str(caught.value)
        assert "test_refunds.py" in str(caught.value)
        assert "in pay" in str(caught.value)
        assert "Secretname" not in caplog.text + str(caught.value)
        assert statuses(feedamp) == {first: "COMPLETE", second: "CREATED", third: "COMPLETE"}

    def test_the_next_try_is_handed_only_what_is_left(self, feedamp: RunningSandbox) -> None:
        ids = made(feedamp, "A", "B", "C")
        seen: list[int] = []

        def pay(refund: dict[str, Any]) -> None:
            seen.append(refund["feedamp_refund_id"])
            if len(seen) == 2:
                raise ConnectionError

        with pytest.raises(RefundsNotProcessedError):
            process(pay)
        process(pay)

        assert seen == [*ids, ids[1]]

    def test_a_refund_that_is_not_to_be_paid_any_more_is_not_handed_over(
        self, feedamp: RunningSandbox
    ) -> None:
        made(feedamp, "A", "B")
        seen: list[str] = []

        def pay(refund: dict[str, Any]) -> None:
            seen.append(refund["mp_order_number"])
            other = feedamp.control.refunds("hooli")[1]["feedamp_refund_id"]
            report(named("B", other, **EXCESS))

        told = process(pay)

        assert seen == ["A"]
        assert list(told["skipped"].values()) == ["it is PAUSED now"]

    def test_a_task_that_dies_before_feedamp_has_noted_it_hands_the_refund_over_again(
        self, feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        [number] = made(feedamp, "A")
        without_retries(monkeypatch)
        seen: list[int] = []
        feedamp.control.fault("http_error", on="complete_refund", status=503, times=2)

        with to_be_retried(ServerError):
            process(lambda refund: seen.append(refund["feedamp_refund_id"]))
        process(lambda refund: seen.append(refund["feedamp_refund_id"]))

        assert seen == [number, number]
        assert statuses(feedamp) == {number: "COMPLETE"}

    @pytest.mark.parametrize("answer", [False, [], {}, "paid", 0])
    def test_an_answer_that_says_nothing_leaves_the_refund_and_fails_for_good(
        self, feedamp: RunningSandbox, answer: Any
    ) -> None:
        [number] = made(feedamp, "A")

        with for_good(TooManyFailuresError, match="process returned"):
            process(lambda _: answer)
        assert statuses(feedamp) == {number: "CREATED"}

    @pytest.mark.parametrize("errors", [[{"code": "X"}], ["EXCESS"], ({"message": "m"},)])
    def test_errors_that_cannot_be_sent_leave_the_refund(self, feedamp: RunningSandbox, errors: Any) -> None:
        [number] = made(feedamp, "A")

        with pytest.raises(TooManyFailuresError, match="cannot be sent"):
            process(lambda _: errors)
        assert statuses(feedamp) == {number: "CREATED"}

    def test_a_refund_that_feedamp_will_not_complete_is_told(self, feedamp: RunningSandbox) -> None:
        made(feedamp, "A", "B")
        feedamp.control.fault("http_error", on="complete_refund", status=400)

        with pytest.raises(TooManyFailuresError, match=r"completed 1.*A/.*FeedAMP refused it \(HTTP 400"):
            process(lambda _: None)

    def test_only_the_refunds_of_some_orders_are_handed_over(self, feedamp: RunningSandbox) -> None:
        made(feedamp, "A", "B")

        assert process(lambda _: None, mp_order_numbers=["B"])["completed"] == 1

    def test_nothing_to_pay_is_a_success(self, feedamp: RunningSandbox) -> None:
        assert process(lambda _: None) == {"completed": 0, "reported": 0, "skipped": {}, "failed": {}}

    def test_all_refunds_are_listed_before_the_first_is_paid(self, feedamp: RunningSandbox) -> None:
        made(feedamp, *["A"] * 51)
        pages: list[int] = []

        def pay(_: object) -> None:
            pages.append(calls(feedamp)["list_refunds"])

        assert process(pay)["completed"] == 51
        assert set(pages) == {2}


class TestComplete:
    def test_refunds_become_complete_whatever_else_is_told_of_them(self, feedamp: RunningSandbox) -> None:
        first, second = made(feedamp, "A/1", "B")

        told = complete(named("A/1", first, amount=3), named("B", str(second)))

        assert told == {"completed": 2, "unchanged": 0, "skipped": {}, "failed": {}}
        assert set(statuses(feedamp).values()) == {"COMPLETE"}

    def test_run_again_it_completes_only_what_is_left(self, feedamp: RunningSandbox) -> None:
        first, second = made(feedamp, "A", "B")
        complete(named("A", first))

        told = complete(named("A", first), named("B", second))

        assert (told["completed"], told["unchanged"]) == (1, 1)
        assert calls(feedamp)["complete_refund"] == 2

    @pytest.mark.parametrize("refund_id", [None, "", "x", 1.5, True, "1/../2", "\uff11"])
    def test_an_id_that_is_none_is_named_before_anything_is_sent(
        self, feedamp: RunningSandbox, refund_id: Any
    ) -> None:
        with pytest.raises(InputError, match=r"refunds\[0\].feedamp_refund_id must be a whole number"):
            complete(named("A", refund_id))
        assert calls(feedamp) == {}


class TestReport:
    def test_the_errors_of_a_refund_are_reported_in_one_call_and_pause_it(
        self, feedamp: RunningSandbox
    ) -> None:
        [number] = made(feedamp, "A")
        second = EXCESS | {"message": "and so on"}

        told = report(named("A", number, **EXCESS), named("A", str(number), **second))

        assert told == {"reported": 1, "unchanged": 0, "skipped": {}, "failed": {}}
        assert calls(feedamp)["report_refund_errors"] == 1
        assert feedamp.control.refunds("hooli")[0]["errors"] == [EXCESS, second]
        assert statuses(feedamp) == {number: "PAUSED"}

    def test_run_again_it_reports_nothing(self, feedamp: RunningSandbox) -> None:
        [number] = made(feedamp, "A")
        report(named("A", number, **EXCESS))

        assert report(named("A", number, **EXCESS))["unchanged"] == 1
        assert calls(feedamp)["report_refund_errors"] == 1

    def test_a_refund_that_is_complete_is_left_alone(self, feedamp: RunningSandbox) -> None:
        [number] = made(feedamp, "A")
        complete(named("A", number))

        told = report(named("A", number, **EXCESS))

        assert told["skipped"] == {f"A/{number}": "it is COMPLETE already"}
        assert statuses(feedamp) == {number: "COMPLETE"}


def test_a_refund_that_the_list_names_twice_is_paid_once(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(feedamp, "A")
    real = RefundsApi.list
    monkeypatch.setattr(RefundsApi, "list", lambda *a, **k: [*real(*a, **k), *real(*a, **k)])

    assert process(lambda _: None)["completed"] == 1
