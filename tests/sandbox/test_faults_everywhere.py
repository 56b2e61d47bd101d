"""Every data call of the API can meet every fault, by its own name and by its resource's."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import pytest
import requests

from airflow_provider_feedamp.sandbox.endpoints import OPERATIONS
from tests.sandbox.test_facts_lists import CALLS, body_of, fill

if TYPE_CHECKING:
    from tests.sandbox.caller import Caller

RESOURCES = {each.name: each.tags[0] for each in OPERATIONS}


def ask(caller: Caller, operation: str, **details: float) -> requests.Response:
    method, path = CALLS[operation]
    return caller.call(method, path, json=body_of(operation), **details)


@pytest.mark.parametrize("operation", list(CALLS))
def test_an_operation_meets_faults_by_its_name_and_by_its_resource(hooli: Caller, operation: str) -> None:
    fill(hooli)
    for on in (operation, RESOURCES[operation], "data"):
        hooli.control.fault("http_error", on=on, status=429, wait=1)
        assert (ask(hooli, operation).status_code, ask(hooli, operation).status_code) == (429, 200)
    assert hooli.control.counters()["calls"][operation] == 6 + (operation in ("place_order", "create_return"))


@pytest.mark.parametrize(
    ("resource", "other"), [("refunds", "get_order"), ("returns", "get_refund"), ("orders", "get_return")]
)
def test_a_fault_of_one_resource_leaves_the_others_alone(hooli: Caller, resource: str, other: str) -> None:
    fill(hooli)
    hooli.control.fault("http_error", on=resource, times=None)
    assert ask(hooli, other).status_code == 200


@pytest.mark.parametrize("operation", ["list_orders", "complete_refund", "create_return", "complete_return"])
@pytest.mark.parametrize("style", ["seconds", "date", "reset"])
def test_a_429_asks_for_a_wait_in_every_style(hooli: Caller, operation: str, style: str) -> None:
    fill(hooli)
    hooli.control.fault("http_error", on=operation, status=429, wait=60, wait_style=style)
    headers = ask(hooli, operation).headers
    now = datetime.now(UTC).timestamp()
    if style == "reset":
        assert headers["X-Rate-Limit-Remaining"] == "0"
        wait = float(headers["X-Rate-Limit-Reset"]) - now
    elif style == "date":
        wait = parsedate_to_datetime(headers["Retry-After"]).timestamp() - now
    else:
        wait = float(headers["Retry-After"])
    assert 50 < wait <= 60


@pytest.mark.parametrize("operation", ["report_refund_errors", "report_return_errors"])
@pytest.mark.parametrize(
    ("kind", "kept"),
    [("drop", 0), ("lose_answer", 1), ("slow", 1), ("http_error", 0), ("processed", 1), ("odd_body", 1)],
)
def test_an_error_is_kept_when_its_report_was_processed(
    hooli: Caller, operation: str, kind: str, kept: int
) -> None:
    fill(hooli)
    if kind == "processed":
        hooli.control.fault("http_error", on=operation, status=502, processed=True)
    else:
        hooli.control.fault(kind, on=operation, body="html", seconds=2 if kind == "slow" else 0)
    try:
        answer = ask(hooli, operation, timeout=0.5)
    except (requests.ConnectionError, requests.Timeout):
        assert kind in ("drop", "lose_answer", "slow")
    else:
        assert answer.status_code == {"http_error": 503, "processed": 502, "odd_body": 200}[kind]
    resource = "get_refund" if operation == "report_refund_errors" else "get_return"
    assert len(ask(hooli, resource).json()["errors"]) == kept


def test_single_fields_of_an_answer_can_be_odd(hooli: Caller) -> None:
    fill(hooli)
    hooli.control.fault("odd_body", on="get_return_refunds", replace={"status": "REJECTED"}, remove=["rma"])
    answer = ask(hooli, "get_return_refunds").json()
    assert (answer["status"], "rma" in answer) == ("REJECTED", False)


@pytest.mark.parametrize(
    ("status", "expected"), [("by_effect", [201, 200, 200]), ("200", [200] * 3), ("204", [204] * 3)]
)
def test_the_settings_of_writes_hold_for_all_of_them(hooli: Caller, status: str, expected: list[int]) -> None:
    hooli.place()
    hooli.control.create_refund("hooli", "600A")
    hooli.control.change(write_status=status, write_body="empty")
    answers = [ask(hooli, each) for each in ("create_return", "complete_return", "complete_refund")]
    assert [each.status_code for each in answers] == expected
    assert [each.content for each in answers] == [b""] * 3
