from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.exceptions import InputError, TooManyFailuresError
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
from airflow_provider_feedamp.operators.order_errors import FeedAmpReportOrderErrorsOperator
from tests.operators.support import calls, place, without_retries

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox

pytestmark = pytest.mark.once


def error(number: str, message: str = "no such parcel", **more: Any) -> dict[str, Any]:
    return {"mp_order_number": number, "code": "INVALID_TRACKING_NUMBER", "message": message, **more}


def report(*errors: dict[str, Any], **arguments: Any) -> Any:
    task = FeedAmpReportOrderErrorsOperator(task_id="report", errors=list(errors), **arguments)
    return task.execute({})


def held(number: str) -> list[Any]:
    return FeedAmpHook().client.orders.get(number)["errors"]


def test_the_errors_of_an_order_are_reported_in_one_call(feedamp: RunningSandbox) -> None:
    place("A", "B")

    told = report(
        error("A", mp_line_number="1"),
        error("B", "lost", debug=[{"carrier": "UPS"}]),
        error("A", "a second one", mp_line_number=None),
    )

    assert told == {"reported": 2, "unchanged": 0, "skipped": {}, "failed": {}}
    assert calls(feedamp)["report_order_errors"] == 2
    code = "INVALID_TRACKING_NUMBER"
    assert held("A") == [
        {"code": code, "message": "no such parcel", "mp_line_number": "1"},
        {"code": code, "message": "a second one"},
    ]
    assert held("B") == [{"code": code, "message": "lost", "debug": [{"carrier": "UPS"}]}]


def test_run_again_it_reports_only_what_does_not_stand_there(feedamp: RunningSandbox) -> None:
    place("A", "B")
    report(error("A", "first"), error("A", "first"))

    told = report(error("A", "first"), error("A", "first"), error("B"))

    assert told == {"reported": 1, "unchanged": 1, "skipped": {}, "failed": {}}
    assert len(held("A")) == 2

    assert report(error("A", "first"), error("A", "second"))["reported"] == 1
    assert [each["message"] for each in held("A")] == ["first", "first", "second"]


def test_the_same_error_twice_of_which_one_stands_there_is_reported_once(feedamp: RunningSandbox) -> None:
    place("A")
    report(error("A"))

    assert report(error("A"), error("A"))["reported"] == 1
    assert len(held("A")) == 2


@pytest.mark.parametrize("other", [{"message": "other"}, {"code": "OTHER"}, {"mp_line_number": "2"}])
def test_an_error_that_differs_is_another_one(feedamp: RunningSandbox, other: dict[str, str]) -> None:
    place("A")
    report(error("A", mp_line_number="1"))

    assert report({**error("A", mp_line_number="1"), **other})["reported"] == 1
    assert len(held("A")) == 2


def test_an_error_that_the_seller_resolved_can_be_reported_again(feedamp: RunningSandbox) -> None:
    place("A")
    report(error("A"))
    feedamp.control.resolve_errors("hooli", "A")

    assert report(error("A"))["reported"] == 1


def test_a_report_whose_answer_is_lost_is_not_made_twice(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    place("A")
    without_retries(monkeypatch)
    feedamp.control.fault("lose_answer", on="report_order_errors")

    assert report(error("A"))["reported"] == 1
    assert len(held("A")) == 1


def test_an_order_that_refuses_its_errors_does_not_stop_the_others(feedamp: RunningSandbox) -> None:
    place("A", "C")

    with pytest.raises(TooManyFailuresError, match=r"2 orders failed.*reported 1") as caught:
        report(error("A", mp_line_number="99"), error("B"), error("C"))

    assert "A: FeedAMP refused it (HTTP 400" in str(caught.value)
    assert "B: FeedAMP does not know it (HTTP 404" in str(caught.value)
    assert len(held("C")) == 1


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"mp_order_number": None}, r"errors\[1\].mp_order_number must be text"),
        ({"mp_order_number": 17}, r"errors\[1\].mp_order_number must be text"),
        ({"code": " "}, r"errors\[1\].code must be text"),
        ({"message": ""}, r"errors\[1\].message must be text"),
        ({"line": "1"}, r"errors\[1\].line is no field of an error; there are .*mp_line_number"),
    ],
)
def test_a_wrong_error_is_named_before_anything_is_sent(
    feedamp: RunningSandbox, changes: dict[str, Any], wrong: str
) -> None:
    with pytest.raises(InputError, match=wrong):
        report(error("A"), {**error("B"), **changes})
    assert calls(feedamp) == {}
