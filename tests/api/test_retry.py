from __future__ import annotations

import io
import json
import logging
import ssl
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Literal

import pytest
import requests
from urllib3.exceptions import NewConnectionError, ProtocolError, SSLError

from airflow_provider_feedamp.api.http import BACKOFF_CAP, LONGEST_WAIT, Http
from airflow_provider_feedamp.retry_after import seconds_asked
from tests.api.edge import Edge, Reply, Tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_feedamp.api.session import FeedAmpSession
    from tests.tokens.conftest import Certificate

NOON = 1_714_564_800  # 2024-05-01T12:00:00Z


def an_answer(status: int, **headers: str) -> requests.Response:
    answer = requests.Response()
    answer.status_code = status
    answer.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return answer


@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524])
def test_a_call_that_changes_nothing_twice_is_repeated(
    edge: Edge, http: Http, slept: list[float], method: str, status: int
) -> None:
    edge.will_reply(Reply(status), Reply(200))
    assert http.call(method, "orders/A1").status_code == 200
    assert slept == [1.0]


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 521, 522, 523, 524])
def test_a_call_that_may_not_be_repeated_is_sent_once(
    edge: Edge, http: Http, slept: list[float], method: str, status: int
) -> None:
    edge.will_reply(Reply(status, headers={"Retry-After": "1"}))
    assert http.call(method, "orders/A1/errors").status_code == status
    assert (len(edge.received), slept) == (1, [])


@pytest.mark.parametrize("status", [400, 404, 409, 413, 421, 423, 501, 525])
def test_an_answer_that_will_not_change_is_returned(
    edge: Edge, http: Http, slept: list[float], status: int
) -> None:
    edge.will_reply(Reply(status, headers={"Retry-After": "1"}))
    assert http.call("GET", "orders").status_code == status
    assert slept == []


@pytest.mark.parametrize("cut", ["before the answer", "in the body"])
def test_a_connection_that_is_cut_is_tried_again(
    edge: Edge, http: Http, slept: list[float], cut: str
) -> None:
    edge.will_reply(Reply(200, b"half", cut=cut), Reply(200, {"ok": True}))  # type: ignore[arg-type]
    answer = http.call("PUT", "orders/A1", b'{"price": 1.10}')
    assert json.loads(answer.content) == {"ok": True}
    assert [request.body for request in edge.received] == [b'{"price": 1.10}'] * 2
    assert slept == [1.0]


@pytest.mark.parametrize("cut", ["before the answer", "in the body"])
def test_a_post_is_not_repeated_when_its_connection_is_cut(edge: Edge, http: Http, cut: str) -> None:
    edge.will_reply(Reply(200, b"half", cut=cut))  # type: ignore[arg-type]
    with pytest.raises(ProtocolError):
        http.call("POST", "orders/A1/errors", b"[]")
    assert len(edge.received) == 1


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize("status", [408, 425, 429])
def test_a_call_that_was_not_processed_is_repeated_whatever_it_is(
    edge: Edge, http: Http, slept: list[float], method: str, status: int
) -> None:
    edge.will_reply(Reply(status), Reply(201))
    assert http.call(method, "orders/A1/errors", b"[]").status_code == 201
    assert slept == [1.0]
    assert [request.body for request in edge.received] == [b"[]", b"[]"]


def test_a_post_is_repeated_when_nobody_listens_as_nobody_has_received_it(
    tokens: Tokens, slept: list[float]
) -> None:
    base_url = "http://127.0.0.1:1"
    http = Http(base_url, tokens, retries=2, sleep=slept.append, jitter=lambda: 1.0)
    with pytest.raises(NewConnectionError):
        http.call("POST", "orders/A1/errors", b"[]")
    assert slept == [1, 2]


def test_waits_double_up_to_a_cap_and_the_last_error_comes_through(
    tokens: Tokens, slept: list[float]
) -> None:
    base_url = "http://127.0.0.1:1"
    http = Http(base_url, tokens, retries=7, sleep=slept.append, jitter=lambda: 1.0)
    with pytest.raises(NewConnectionError):
        http.call("GET", "orders")
    assert slept == [1, 2, 4, 8, 16, BACKOFF_CAP, BACKOFF_CAP]


@pytest.mark.parametrize(("jitter", "wait"), [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_jitter_shortens_a_wait_by_up_to_half(
    edge: Edge, tokens: Tokens, slept: list[float], jitter: float, wait: float
) -> None:
    edge.will_reply(Reply(500), Reply(200))
    http = Http(edge.base_url, tokens, sleep=slept.append, jitter=lambda: jitter)
    http.call("GET", "orders")
    assert slept == [wait]


def test_the_last_answer_is_returned_when_the_retries_are_used_up(
    edge: Edge, http: Http, slept: list[float]
) -> None:
    edge.otherwise = Reply(503, {"message": "down"})
    answer = http.call("GET", "orders")
    assert (answer.status_code, json.loads(answer.content)) == (503, {"message": "down"})
    assert len(edge.received) == 1 + 3
    assert slept == [1, 2, 4]


def test_without_retries_a_call_is_sent_once(edge: Edge, tokens: Tokens) -> None:
    edge.otherwise = Reply(503)
    http = Http(edge.base_url, tokens, retries=0)
    assert http.call("GET", "orders").status_code == 503
    assert len(edge.received) == 1


def test_a_server_is_waited_for_as_long_as_it_asks(edge: Edge, http: Http, slept: list[float]) -> None:
    edge.will_reply(Reply(429, headers={"Retry-After": "17"}), Reply(200))
    http.call("GET", "orders")
    assert slept == [17.0]


def test_a_server_that_asks_for_too_long_a_wait_is_not_tried_again(
    edge: Edge, http: Http, slept: list[float]
) -> None:
    edge.will_reply(Reply(429, headers={"Retry-After": str(LONGEST_WAIT + 1)}))
    assert http.call("GET", "orders").status_code == 429
    assert (len(edge.received), slept) == (1, [])


def test_a_wait_of_nothing_is_not_believed(edge: Edge, http: Http, slept: list[float]) -> None:
    edge.will_reply(Reply(429, headers={"Retry-After": "0"}), Reply(200))
    http.call("GET", "orders")
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
    edge: Edge, http: Http, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    edge.will_reply(Reply(503, headers={"Retry-After": "17"}), Reply(200))
    http.call("GET", "orders?mp_order_numbers=A1")
    [record] = [record for record in caplog.records if record.name.endswith("api.http")]
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
    http = Http(base_url, tokens, sleep=slept.append)
    with pytest.raises(SSLError) as caught:
        http.call("GET", "orders")
    assert slept == []
    assert isinstance(caught.value.args[0], ssl.SSLError)


def test_a_retry_after_a_renewed_token_carries_the_new_one(edge: Edge, http: Http) -> None:
    edge.will_reply(Reply(401), Reply(503), Reply(200))
    assert http.call("GET", "orders").status_code == 200
    assert [request.bearer for request in edge.received] == [
        "Bearer first-token",
        "Bearer second-token",
        "Bearer second-token",
    ]


def test_a_streamed_answer_is_left_to_be_read(edge: Edge, session: FeedAmpSession) -> None:
    edge.will_reply(Reply(200, b"x" * 100))
    with session.get("orders", stream=True) as answer:
        assert answer.raw.read(10) == b"x" * 10


CLOSED = Reply(cut="before the answer")


@pytest.mark.parametrize("cut", ["before the answer", "by a reset"])
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_used_connection_that_the_server_closes_unanswered_is_replaced_at_once(
    edge: Edge, http: Http, slept: list[float], method: str, cut: Literal["before the answer", "by a reset"]
) -> None:
    edge.will_reply(Reply(), Reply(cut=cut), Reply())
    assert [http.call(method, "orders/A1").status_code for _ in range(2)] == [200, 200]
    first, closed, new = edge.ports
    assert first == closed != new
    assert slept == []


def test_each_connection_is_replaced_at_once_only_once(
    edge: Edge, http: Http, slept: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    edge.will_reply(Reply(), CLOSED, CLOSED, Reply())
    assert [http.call("GET", "orders").status_code for _ in range(2)] == [200, 200]
    assert slept == [1.0]
    assert [record.getMessage() for record in caplog.records if record.name.endswith("api.http")] == [
        "FeedAMP gave no answer (it closed a kept connection) to GET /api/v1/orders; trying again at once",
        "FeedAMP gave no answer (ProtocolError) to GET /api/v1/orders; trying again in 1.0 s (retry 1 of 3)",
    ]


def test_a_used_connection_that_is_closed_within_the_answer_is_waited_for(
    edge: Edge, http: Http, slept: list[float]
) -> None:
    edge.will_reply(Reply(), Reply(wire=[b"HTTP/1.1 100 Continue\r\n\r\n"]), Reply())
    assert [http.call("GET", "orders").status_code for _ in range(2)] == [200, 200]
    assert slept == [1.0]


def test_a_post_on_a_used_connection_that_the_server_closes_is_not_repeated(edge: Edge, http: Http) -> None:
    edge.will_reply(Reply(), CLOSED)
    http.call("GET", "orders")
    with pytest.raises(ProtocolError):
        http.call("POST", "orders/A1/errors", b"[]")
    assert len(edge.received) == 2


@pytest.mark.parametrize("secure", [False, True])
def test_a_connection_that_ended_unnoticed_is_replaced_at_once(
    tokens: Tokens,
    slept: list[float],
    certificate: Certificate,
    monkeypatch: pytest.MonkeyPatch,
    secure: bool,
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.path))
    # As when the end arrives after the wire has looked for it.
    monkeypatch.setattr("airflow_provider_feedamp.api.wire._Connection.idle", lambda _: True)
    edge = Edge(certificate.context if secure else None)
    edge.ends_idle = True
    http = Http(edge.base_url, tokens, sleep=slept.append)
    for _ in range(5):
        assert http.call("PUT", "orders/A1", b"x" * 100_000).status_code == 200
        edge.ended.acquire(timeout=5)
    edge.close()
    assert slept == []


def test_tls_that_breaks_within_an_answer_is_a_cut_connection(
    tokens: Tokens, slept: list[float], certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.path))
    edge = Edge(certificate.context)
    edge.will_reply(Reply(200, b"half", cut="by a bad record"), Reply(200))
    http = Http(edge.base_url, tokens, sleep=slept.append, jitter=lambda: 1.0)
    assert http.call("GET", "orders").status_code == 200
    edge.close()
    assert slept == [1.0]


@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520, 524])
def test_a_users_own_request_is_repeated_by_the_same_rules(
    edge: Edge, session: FeedAmpSession, slept: list[float], method: str, status: int
) -> None:
    edge.will_reply(Reply(status), Reply(status, headers={"Retry-After": "17"}), Reply(200, {"ok": True}))
    assert session.request(method, "orders/A1", data=b"{}").json() == {"ok": True}
    assert [request.body for request in edge.received] == [b"{}"] * 3
    assert slept == [1.0, 17.0]


@pytest.mark.parametrize(("status", "sent"), [(503, 1), (429, 2), (408, 2)])
def test_a_users_own_post_is_repeated_only_where_it_was_not_processed(
    edge: Edge, session: FeedAmpSession, status: int, sent: int
) -> None:
    edge.will_reply(Reply(status, headers={"Retry-After": "1"}), Reply(201))
    assert session.post("orders/A1/errors", json=[]).status_code == (201 if sent == 2 else status)
    assert len(edge.received) == sent


@pytest.mark.parametrize(("method", "sent"), [("GET", 2), ("POST", 1)])
def test_a_users_own_request_whose_connection_is_cut_is_repeated_unless_it_is_a_post(
    edge: Edge, session: FeedAmpSession, method: str, sent: int
) -> None:
    edge.will_reply(CLOSED, Reply(200))
    if sent == 2:
        assert session.request(method, "orders").status_code == 200
    else:
        with pytest.raises(requests.ConnectionError):
            session.request(method, "orders")
    assert len(edge.received) == sent


def test_a_users_own_request_gets_the_last_answer_when_the_retries_are_used_up(
    edge: Edge, session: FeedAmpSession, slept: list[float]
) -> None:
    edge.otherwise = Reply(503, {"message": "down"})
    answer = session.get("orders")
    assert (answer.status_code, answer.json()) == (503, {"message": "down"})
    assert slept == [1, 2, 4]


@pytest.mark.parametrize(
    "asked",
    [str(LONGEST_WAIT + 1), formatdate(time.time() + 3600, usegmt=True)],
    ids=["seconds", "a date"],  # a name with the time in it would differ between two workers
)
def test_a_users_own_request_does_not_wait_for_longer_than_two_minutes(
    edge: Edge, session: FeedAmpSession, slept: list[float], asked: str
) -> None:
    edge.will_reply(Reply(429, headers={"Retry-After": asked}))
    assert session.get("orders").status_code == 429
    assert (len(edge.received), slept) == (1, [])


def test_a_users_own_request_is_not_repeated_after_a_tls_fault(
    edge: Edge, tokens: Tokens, session: FeedAmpSession, slept: list[float]
) -> None:
    with pytest.raises(requests.exceptions.SSLError):
        session.get(edge.base_url.replace("http:", "https:"), auth=lambda request: request)
    assert slept == []


def test_an_answer_that_is_repeated_anyway_is_not_read_to_its_end(
    edge: Edge, session: FeedAmpSession
) -> None:
    read: list[int] = []

    def endless() -> Iterator[bytes]:
        yield b"HTTP/1.1 503 Away\r\n\r\n"
        for _ in range(2000):
            read.append(1)
            yield bytes(100_000)

    edge.will_reply(Reply(wire=endless()), Reply(200))
    assert session.get("orders").status_code == 200
    assert len(read) < 1000
