from __future__ import annotations

import io
import logging
import ssl
import time
from email.utils import formatdate
from typing import TYPE_CHECKING

import pytest
import requests

from airflow_provider_feedamp.api.auth import BearerAuth
from airflow_provider_feedamp.api.gate import BACKOFF_CAP
from airflow_provider_feedamp.api.retry import LONGEST_WAIT
from airflow_provider_feedamp.api.session import FeedAmpSession
from airflow_provider_feedamp.retry_after import seconds_asked
from tests.api.edge import Edge, Reply, Tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

NOON = 1_714_564_800  # 2024-05-01T12:00:00Z


def an_answer(status: int, **headers: str) -> requests.Response:
    answer = requests.Response()
    answer.status_code = status
    answer.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return answer


@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524])
def test_a_call_that_changes_nothing_twice_is_repeated(
    edge: Edge, session: FeedAmpSession, slept: list[float], method: str, status: int
) -> None:
    edge.will_reply(Reply(status), Reply(200))
    assert session.request(method, "orders/A1").status_code == 200
    assert slept == [1.0]


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 521, 522, 523, 524])
def test_a_call_that_may_not_be_repeated_is_sent_once(
    edge: Edge, session: FeedAmpSession, slept: list[float], method: str, status: int
) -> None:
    edge.will_reply(Reply(status, headers={"Retry-After": "1"}))
    assert session.request(method, "orders/A1/errors").status_code == status
    assert (len(edge.received), slept) == (1, [])


@pytest.mark.parametrize("status", [400, 404, 409, 413, 421, 423, 501, 525])
def test_an_answer_that_will_not_change_is_returned(
    edge: Edge, session: FeedAmpSession, slept: list[float], status: int
) -> None:
    edge.will_reply(Reply(status, headers={"Retry-After": "1"}))
    assert session.get("orders").status_code == status
    assert slept == []


@pytest.mark.parametrize("cut", ["before the answer", "in the body"])
def test_a_connection_that_is_cut_is_tried_again(
    edge: Edge, session: FeedAmpSession, slept: list[float], cut: str
) -> None:
    edge.will_reply(Reply(200, b"half", cut=cut), Reply(200, {"ok": True}))  # type: ignore[arg-type]
    answer = session.put("orders/A1", data=b'{"price": 1.10}')
    assert answer.json() == {"ok": True}
    assert [request.body for request in edge.received] == [b'{"price": 1.10}'] * 2
    assert slept == [1.0]


@pytest.mark.parametrize("cut", ["before the answer", "in the body"])
def test_a_post_is_not_repeated_when_its_connection_is_cut(
    edge: Edge, session: FeedAmpSession, cut: str
) -> None:
    edge.will_reply(Reply(200, b"half", cut=cut))  # type: ignore[arg-type]
    with pytest.raises(requests.RequestException):
        session.post("orders/A1/errors", json=[])
    assert len(edge.received) == 1


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize("status", [408, 425, 429])
def test_a_call_that_was_not_processed_is_repeated_whatever_it_is(
    edge: Edge, session: FeedAmpSession, slept: list[float], method: str, status: int
) -> None:
    edge.will_reply(Reply(status), Reply(201))
    assert session.request(method, "orders/A1/errors", data=b"[]").status_code == 201
    assert slept == [1.0]
    assert [request.body for request in edge.received] == [b"[]", b"[]"]


def test_a_post_is_repeated_when_nobody_listens_as_nobody_has_received_it(
    tokens: Tokens, slept: list[float]
) -> None:
    base_url = "http://127.0.0.1:1"
    auth = BearerAuth(tokens, base_url)
    with FeedAmpSession(base_url, auth, retries=2, sleep=slept.append, jitter=lambda: 1.0) as session:
        with pytest.raises(requests.ConnectionError):
            session.post("orders/A1/errors", json=[])
    assert slept == [1, 2]


def test_waits_double_up_to_a_cap_and_the_last_error_comes_through(
    tokens: Tokens, slept: list[float]
) -> None:
    base_url = "http://127.0.0.1:1"
    auth = BearerAuth(tokens, base_url)
    with FeedAmpSession(base_url, auth, retries=7, sleep=slept.append, jitter=lambda: 1.0) as session:
        with pytest.raises(requests.ConnectionError):
            session.get("orders")
    assert slept == [1, 2, 4, 8, 16, BACKOFF_CAP, BACKOFF_CAP]


@pytest.mark.parametrize(("jitter", "wait"), [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_jitter_shortens_a_wait_by_up_to_half(
    edge: Edge, tokens: Tokens, slept: list[float], jitter: float, wait: float
) -> None:
    edge.will_reply(Reply(500), Reply(200))
    auth = BearerAuth(tokens, edge.base_url)
    with FeedAmpSession(edge.base_url, auth, sleep=slept.append, jitter=lambda: jitter) as session:
        session.get("orders")
    assert slept == [wait]


def test_the_last_answer_is_returned_when_the_retries_are_used_up(
    edge: Edge, session: FeedAmpSession, slept: list[float]
) -> None:
    edge.otherwise = Reply(503, {"message": "down"})
    answer = session.get("orders")
    assert (answer.status_code, answer.json()) == (503, {"message": "down"})
    assert len(edge.received) == 1 + 3
    assert slept == [1, 2, 4]


def test_without_retries_a_call_is_sent_once(edge: Edge, tokens: Tokens) -> None:
    edge.otherwise = Reply(503)
    with FeedAmpSession(edge.base_url, BearerAuth(tokens, edge.base_url), retries=0) as session:
        assert session.get("orders").status_code == 503
    assert len(edge.received) == 1


def test_a_server_is_waited_for_as_long_as_it_asks(
    edge: Edge, session: FeedAmpSession, slept: list[float]
) -> None:
    edge.will_reply(Reply(429, headers={"Retry-After": "17"}), Reply(200))
    session.get("orders")
    assert slept == [17.0]


def test_a_server_that_asks_for_too_long_a_wait_is_not_tried_again(
    edge: Edge, session: FeedAmpSession, slept: list[float]
) -> None:
    edge.will_reply(Reply(429, headers={"Retry-After": str(LONGEST_WAIT + 1)}))
    assert session.get("orders").status_code == 429
    assert (len(edge.received), slept) == (1, [])


def test_a_wait_of_nothing_is_not_believed(edge: Edge, session: FeedAmpSession, slept: list[float]) -> None:
    edge.will_reply(Reply(429, headers={"Retry-After": "0"}), Reply(200))
    session.get("orders")
    assert slept == [1.0]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "5"}, 5),
        ({"Retry-After": " 2.5 "}, 2.5),
        ({"Retry-After": "-3"}, 0),
        ({"Retry-After": formatdate(NOON + 30, usegmt=True)}, 30),
        ({"Retry-After": formatdate(NOON - 30, usegmt=True)}, 0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": ""}, None),
        ({"X-Rate-Limit-Reset": str(NOON + 12)}, 12),
        ({"X-Rate-Limit-Reset": str((NOON + 12) * 1000)}, 12),
        ({"X-Rate-Limit-Reset": "2024-05-01T12:00:12Z"}, 12),
        ({"X-Rate-Limit-Reset": "2024-05-01T12:00:12"}, 12),
        ({"X-Rate-Limit-Reset": "8"}, 8),
        ({"X-Rate-Limit-Reset": "later"}, None),
        ({"Retry-After": "5", "X-Rate-Limit-Reset": "8"}, 5),
        ({"Retry-After": "soon", "X-Rate-Limit-Reset": "8"}, 8),
        ({}, None),
    ],
)
def test_what_a_429_asks_for_is_understood(headers: dict[str, str], seconds: float | None) -> None:
    answer = an_answer(429, Date=formatdate(NOON, usegmt=True))
    answer.headers.update(headers)
    assert seconds_asked(answer) == seconds


def test_an_instant_without_a_date_to_compare_is_compared_to_our_clock() -> None:
    asked = seconds_asked(an_answer(429, Retry_After=formatdate(time.time() + 100, usegmt=True)))
    assert asked is not None
    assert 90 < asked <= 100


def test_the_reset_of_a_rate_limit_says_nothing_about_a_failing_server() -> None:
    assert seconds_asked(an_answer(503, X_Rate_Limit_Reset="50")) is None


def test_a_wait_shows_in_the_log_with_its_seconds_and_without_the_query(
    edge: Edge, session: FeedAmpSession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    edge.will_reply(Reply(503, headers={"Retry-After": "17"}), Reply(200))
    session.get("orders?mp_order_numbers=A1")
    [record] = [record for record in caplog.records if record.name.endswith("api.retry")]
    assert record.levelno == logging.INFO
    expected = "FeedAMP answered 503 to GET /api/v1/orders; trying again in 17.0 s (retry 1 of 3)"
    assert record.getMessage() == expected


def test_a_file_is_sent_whole_with_each_retry(edge: Edge, session: FeedAmpSession) -> None:
    edge.will_reply(Reply(503), Reply(200))
    session.put("orders/A1", data=io.BytesIO(b"whole"))
    assert [request.body for request in edge.received] == [b"whole", b"whole"]


def test_a_body_that_cannot_be_read_twice_gets_no_retry(edge: Edge, session: FeedAmpSession) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"once"

    edge.otherwise = Reply(503, headers={"Connection": "close"})
    assert session.put("orders/A1", data=pieces()).status_code == 503
    assert len(edge.received) == 1


def test_a_tls_fault_is_not_tried_again(edge: Edge, tokens: Tokens, slept: list[float]) -> None:
    base_url = edge.base_url.replace("http:", "https:")
    with FeedAmpSession(base_url, BearerAuth(tokens, base_url), sleep=slept.append) as session:
        with pytest.raises(requests.exceptions.SSLError) as caught:
            session.get("orders")
    assert slept == []
    assert isinstance(caught.value.args[0].reason.args[0], ssl.SSLError)


def test_a_retry_after_a_renewed_token_carries_the_new_one(edge: Edge, session: FeedAmpSession) -> None:
    edge.will_reply(Reply(401), Reply(503), Reply(200))
    assert session.get("orders").status_code == 200
    assert [request.bearer for request in edge.received] == [
        "Bearer first-token",
        "Bearer second-token",
        "Bearer second-token",
    ]


def test_a_streamed_answer_is_left_to_be_read(edge: Edge, session: FeedAmpSession) -> None:
    edge.will_reply(Reply(200, b"x" * 100))
    with session.get("orders", stream=True) as answer:
        assert answer.raw.read(10) == b"x" * 10
