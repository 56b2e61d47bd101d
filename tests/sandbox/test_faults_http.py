"""The faults of token-custody.md section 6 and those of the order endpoints, as a client meets them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from tests.sandbox.caller import Caller


def test_a_lost_token_answer_was_processed_all_the_same(hooli: Caller) -> None:
    hooli.control.fault("lose_answer")
    with pytest.raises(requests.ConnectionError, match="without response"):
        hooli.refresh()
    assert hooli.refresh().json()["error_description"] == "the refresh token was used before"
    assert hooli.control.counters()["tokens"]["refresh_token"] == {"issued": 2, "invalid_grant": 1}


def test_a_lost_answer_can_be_replayed_in_grace(hooli: Caller) -> None:
    hooli.control.change(rotation="grace")
    hooli.control.fault("lose_answer")
    with pytest.raises(requests.ConnectionError):
        hooli.refresh()
    assert hooli.refresh().json()["refresh_token"] == hooli.control.refresh_tokens("hooli")[-1]


def test_a_dropped_token_call_was_not_processed(hooli: Caller) -> None:
    hooli.control.fault("drop")
    with pytest.raises(requests.ConnectionError, match="without response"):
        hooli.refresh()
    assert hooli.refresh().status_code == 200


def test_a_slow_answer_is_processed_before_the_caller_gives_up(hooli: Caller) -> None:
    hooli.control.fault("slow", seconds=30)
    with pytest.raises(requests.Timeout):
        hooli.call("POST", "/access_token", json=hooli.token_fields(), timeout=0.2)
    assert hooli.refresh_token not in hooli.control.refresh_tokens("hooli")


@pytest.mark.parametrize(("processed", "then"), [(False, 200), (True, 401)])
def test_an_injected_token_error_spends_the_refresh_token_only_when_processed(
    hooli: Caller, processed: bool, then: int
) -> None:
    hooli.control.fault("http_error", status=502, body="html", processed=processed)
    answer = hooli.refresh()
    assert (answer.status_code, answer.headers["Content-Type"]) == (502, "text/html; charset=utf-8")
    assert hooli.refresh().status_code == then


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("html", lambda answer: answer.text.startswith("<!DOCTYPE html>")),
        ("empty", lambda answer: answer.content == b""),
        ("truncated", lambda answer: answer.text.startswith('{"access_token"') and answer.text[-1] != "}"),
        ("error", lambda answer: answer.json()["error"] == "server_error"),
        ("list", lambda answer: isinstance(answer.json(), list)),
    ],
)
def test_an_odd_body_comes_with_200(hooli: Caller, body: str, shape: Any) -> None:
    hooli.control.fault("odd_body", body=body)
    answer = hooli.refresh()
    assert answer.status_code == 200
    assert shape(answer)


@pytest.mark.parametrize(
    ("details", "name", "value"),
    [
        ({"remove": ["access_token"]}, "access_token", None),
        ({"remove": ["refresh_token"]}, "refresh_token", None),
        ({"remove": ["expires_in"]}, "expires_in", None),
        ({"replace": {"expires_in": "3600"}}, "expires_in", "3600"),
        ({"replace": {"expires_in": 10**30}}, "expires_in", 10**30),
        ({"replace": {"expires_in": -1}}, "expires_in", -1),
        ({"replace": {"expires_in": {}}}, "expires_in", {}),
        ({"replace": {"token_type": "bearer"}}, "token_type", "bearer"),
    ],
)
def test_single_fields_of_a_token_answer_can_be_odd(
    hooli: Caller, details: dict[str, Any], name: str, value: object
) -> None:
    hooli.control.fault("odd_body", **details)
    body = hooli.refresh().json()
    assert body.get(name) == value
    assert {"access_token", "token_type", "refresh_token", "expires_in"} - set(body) <= {name}


def test_all_order_calls_can_be_refused_until_the_faults_are_cleared(hooli: Caller) -> None:
    hooli.control.fault("http_error", on="data", status=401, times=None)
    assert [hooli.find().status_code, hooli.place().status_code] == [401, 401]
    hooli.log_in()
    assert hooli.find().status_code == 401
    hooli.control.clear_faults()
    assert hooli.find().status_code == 200
    assert hooli.control.orders("hooli") == []


def test_a_fault_can_be_meant_for_one_seller_and_one_operation(hooli: Caller, globex: Caller) -> None:
    hooli.control.fault("http_error", on="place_order", seller="hooli", times=None)
    assert [hooli.find().status_code, hooli.place().status_code, globex.place().status_code] == [
        200,
        503,
        201,
    ]


def test_every_third_call_can_meet_a_fault(hooli: Caller) -> None:
    hooli.control.fault("http_error", on="data", every=3, times=2)
    assert [hooli.find().status_code for _ in range(9)] == [200, 200, 503, 200, 200, 503, 200, 200, 200]


def test_faults_are_met_in_the_order_in_which_they_were_set(hooli: Caller) -> None:
    hooli.control.fault("http_error", on="data", status=500, times=2)
    hooli.control.fault("http_error", on="orders", status=502)
    assert [hooli.find().status_code for _ in range(4)] == [500, 500, 502, 200]


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "explode"},
        {"kind": "slow", "body": "odd"},
        {"kind": "http_error", "status": 200},
        {"kind": "slow", "times": 0},
        {"kind": "slow", "on": "refund"},
        {"kind": "slow", "on": "data", "seller": "nobody"},
    ],
)
def test_a_fault_that_could_never_happen_is_refused(sandbox: RunningSandbox, fault: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="POST /faults with 4"):
        sandbox.control.fault(**fault)
