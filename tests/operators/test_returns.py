from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.api.client import ReturnsApi
from airflow_provider_feedamp.exceptions import InputError, TooManyFailuresError
from airflow_provider_feedamp.operators.returns import (
    FeedAmpCompleteReturnsOperator,
    FeedAmpCreateReturnsOperator,
    FeedAmpListReturnsOperator,
    FeedAmpReadReturnRefundsOperator,
    FeedAmpReportReturnErrorsOperator,
)
from tests.operators.support import calls, for_good, place, return_

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox

pytestmark = pytest.mark.once

EXCESS = {"code": "EXCESS_REFUND", "message": "3 of 2"}


def create(*returns: Any, **arguments: Any) -> Any:
    return FeedAmpCreateReturnsOperator(task_id="create", returns=list(returns), **arguments).execute({})


def read(*returns: Any, **arguments: Any) -> Any:
    return FeedAmpReadReturnRefundsOperator(task_id="read", returns=list(returns), **arguments).execute({})


def complete(*returns: Any, **arguments: Any) -> Any:
    return FeedAmpCompleteReturnsOperator(task_id="complete", returns=list(returns), **arguments).execute({})


def report(*errors: Any, **arguments: Any) -> Any:
    return FeedAmpReportReturnErrorsOperator(task_id="report", errors=list(errors), **arguments).execute({})


def named(number: str, order_number: str = "A", **more: Any) -> dict[str, Any]:
    return {"mp_order_number": order_number, "mp_return_number": number, **more}


def statuses(sandbox: RunningSandbox) -> dict[str, str]:
    return {each["mp_return_number"]: each["status"] for each in sandbox.control.returns("hooli")}


def enter_amounts(sandbox: RunningSandbox, number: str) -> None:
    """Let the seller authorise a return and enter what was asked for."""
    sandbox.control.authorize_return("hooli", "A", number, rma="RMA-1")
    sandbox.control.enter_return_amounts("hooli", "A", number)


@pytest.fixture(autouse=True)
def _an_order(feedamp: RunningSandbox) -> None:
    place("A")


def listed(**arguments: Any) -> list[str]:
    returns = FeedAmpListReturnsOperator(task_id="list", **arguments).execute({})
    return [each["mp_return_number"] for each in returns]


class TestList:
    def test_it_returns_what_is_to_be_paid_and_nothing_of_a_person(self, feedamp: RunningSandbox) -> None:
        create(return_("R1", request_date="2026-01-01", respond_date="2026-02-01"), return_("R2"))
        enter_amounts(feedamp, "R1")

        [found] = FeedAmpListReturnsOperator(task_id="list").execute({})

        dates = {"request_date": "2026-01-01", "respond_date": "2026-02-01"}
        assert found == named("R1") | {"status": "REFUNDED"} | dates
        assert complete(found)["completed"] == 1

    def test_states_orders_and_instants_narrow_it(self, feedamp: RunningSandbox) -> None:
        place("B")
        create(return_("R1"), return_("R2", "B"))
        enter_amounts(feedamp, "R1")

        assert sorted(listed(return_status=None)) == ["R1", "R2"]
        assert listed(return_status='["AWAITING_AUTHORIZATION"]') == ["R2"]
        assert listed(return_status="None", mp_order_numbers=["B"]) == ["R2"]
        assert listed(mp_order_numbers=[]) == []
        assert listed(requested_after="2099-01-01T00:00:00+00:00") == []

    def test_a_server_that_ignores_the_filters_brings_no_return_that_was_not_asked_for(
        self, feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place("B")
        create(return_("R1"), return_("R2", "B"), return_("R3"))
        enter_amounts(feedamp, "R1")
        asked: list[Any] = []

        def ignoring(self: ReturnsApi, **filters: Any) -> Any:
            asked.append(filters)
            return every(self)

        every = ReturnsApi.list
        monkeypatch.setattr(ReturnsApi, "list", ignoring)

        assert listed() == ["R1"]
        assert listed(return_status=None, mp_order_numbers=["B"]) == ["R2"]
        assert [each["return_status"] for each in asked] == [["REFUNDED"], None]

    @pytest.mark.parametrize(
        ("arguments", "wrong"),
        [
            ({"return_status": "REFUNDED"}, "return_status is a text that is not a JSON array"),
            ({"requested_after": "yesterday"}, "requested_after must be a datetime"),
            ({"mp_order_numbers": [""]}, r"mp_order_numbers\[0\] must be text"),
        ],
    )
    def test_a_filter_that_cannot_be_sent_fails_for_good(self, arguments: dict[str, Any], wrong: str) -> None:
        with for_good(InputError, match=wrong):
            listed(**arguments)


class TestCreate:
    def test_returns_are_placed(self, feedamp: RunningSandbox) -> None:
        told = create(return_("R/1"), return_("R2"))

        assert told == {"created": 2, "unchanged": 0, "skipped": {}, "failed": {}}
        sent = json.loads(feedamp.control.returns("hooli")[0]["raw"])
        expected = return_("R/1")
        assert sent == {name: value for name, value in expected.items() if name != "mp_return_number"}

    def test_run_again_it_leaves_what_is_there(self, feedamp: RunningSandbox) -> None:
        create(return_("R1"))
        enter_amounts(feedamp, "R1")

        told = create(return_("R1", customer_email="other@example.com"), return_("R2"))

        assert (told["created"], told["unchanged"]) == (1, 1)
        assert calls(feedamp)["create_return"] == 2
        assert statuses(feedamp)["R1"] == "REFUNDED"

    def test_a_return_that_is_wrong_or_of_an_unknown_order_does_not_stop_the_others(
        self, feedamp: RunningSandbox
    ) -> None:
        with for_good(TooManyFailuresError, match=r"2 returns failed.*created 1") as caught:
            create(return_("R1", return_lines=[]), return_("R2", "B"), return_("R3"))

        assert "A/R1: Return 'R1' of order 'A' was not sent: return_lines" in str(caught.value)
        assert "B/R2: FeedAMP does not know it (HTTP 404" in str(caught.value)
        assert "jane@" not in str(caught.value)
        assert list(statuses(feedamp)) == ["R3"]

    def test_a_price_in_a_json_text_keeps_its_digits(self, feedamp: RunningSandbox) -> None:
        lines = return_("R1")["return_lines"]
        lines[0] |= {"unit_price": 0.1, "tax": 59.99}
        text = json.dumps([return_("R1", return_lines=lines)])

        FeedAmpCreateReturnsOperator(task_id="create", returns=text).execute({})

        raw = feedamp.control.returns("hooli")[0]["raw"]
        [line] = json.loads(raw, parse_float=Decimal)["return_lines"]
        assert (line["unit_price"], line["tax"]) == (Decimal("0.1"), Decimal("59.99"))

    def test_a_price_that_json_would_not_keep_is_refused(self) -> None:
        text = json.dumps([return_("R1")]).replace("1.5", "1.50000000000000000001")

        with pytest.raises(TooManyFailuresError, match="more digits than a JSON number keeps"):
            FeedAmpCreateReturnsOperator(task_id="create", returns=text).execute({})


class TestRead:
    def test_the_amounts_are_read(self, feedamp: RunningSandbox) -> None:
        create(return_("R1"), return_("R2"))
        enter_amounts(feedamp, "R1")

        refunded, waiting = read(named("R1", status="stale", more=1), named("R2"))

        assert refunded == {
            "mp_order_number": "A",
            "mp_return_number": "R1",
            "status": "REFUNDED",
            "rma": "RMA-1",
            "merchant_refund_lines": refunded["merchant_refund_lines"],
            "errors": [],
        }
        [line] = refunded["merchant_refund_lines"]
        assert (line["mp_return_line_number"], line["principal_refund_amount"]) == ("R1-1", 1.5)
        assert waiting["status"] == "AWAITING_AUTHORIZATION"

    def test_a_return_that_is_not_there_can_be_left_out(self) -> None:
        create(return_("R1"))

        with pytest.raises(TooManyFailuresError, match="A/R0: FeedAMP does not know it"):
            read(named("R0"), named("R1"))
        assert [each["mp_return_number"] for each in read(named("R0"), named("R1"), max_failures=1)] == ["R1"]


class TestComplete:
    def test_returns_whose_amounts_are_entered_become_complete(self, feedamp: RunningSandbox) -> None:
        create(return_("R1"), return_("R2"), return_("R3"))
        enter_amounts(feedamp, "R1")
        feedamp.control.authorize_return("hooli", "A", "R2")

        told = complete(named("R1"), named("R2"), named("R3"))

        assert told == {
            "completed": 1,
            "unchanged": 0,
            "skipped": {
                "A/R2": "it is AUTHORIZED: the seller has not entered the amounts",
                "A/R3": "it is AWAITING_AUTHORIZATION: the seller has not entered the amounts",
            },
            "failed": {},
        }
        assert statuses(feedamp) == {"R1": "COMPLETED", "R2": "AUTHORIZED", "R3": "AWAITING_AUTHORIZATION"}

    def test_run_again_it_completes_nothing(self, feedamp: RunningSandbox) -> None:
        create(return_("R1"))
        enter_amounts(feedamp, "R1")
        complete(named("R1"))

        assert complete(named("R1"))["unchanged"] == 1
        assert calls(feedamp)["complete_return"] == 1


class TestReport:
    def test_the_errors_of_a_return_are_reported_in_one_call(self, feedamp: RunningSandbox) -> None:
        create(return_("R1"))
        read_whole = calls(feedamp)["get_return"]

        told = report(named("R1", **EXCESS), named("R1", code="OTHER", message="m"))

        assert told == {"reported": 1, "unchanged": 0, "skipped": {}, "failed": {}}
        assert calls(feedamp)["report_return_errors"] == 1
        assert calls(feedamp)["get_return"] == read_whole  # with what is known of the customer
        assert read(named("R1"))[0]["errors"] == [EXCESS, {"code": "OTHER", "message": "m"}]

    def test_run_again_it_reports_nothing_until_the_seller_has_resolved_it(
        self, feedamp: RunningSandbox
    ) -> None:
        create(return_("R1"))
        report(named("R1", **EXCESS))

        assert report(named("R1", **EXCESS))["unchanged"] == 1
        enter_amounts(feedamp, "R1")
        assert report(named("R1", **EXCESS))["reported"] == 1

    def test_a_return_that_is_complete_is_left_alone(self, feedamp: RunningSandbox) -> None:
        create(return_("R1"))
        enter_amounts(feedamp, "R1")
        complete(named("R1"))

        assert report(named("R1", **EXCESS))["skipped"] == {"A/R1": "it is COMPLETED already"}


@pytest.mark.parametrize("field", ["mp_order_number", "mp_return_number"])
@pytest.mark.parametrize("wrong", [None, "", 17])
@pytest.mark.parametrize("task", [create, read, complete])
def test_a_return_without_its_numbers_is_named_before_anything_is_sent(
    feedamp: RunningSandbox, task: Any, field: str, wrong: Any
) -> None:
    before = calls(feedamp)

    with pytest.raises(InputError, match=rf"returns\[1\].{field} must be text"):
        task(return_("R1"), return_("R2") | {field: wrong})
    assert calls(feedamp) == before
