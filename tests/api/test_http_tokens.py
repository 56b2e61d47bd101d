"""The client's own calls and their access tokens: replaced once, waited for together, and never shown."""

from __future__ import annotations

import threading

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_feedamp.api.http import Http
from airflow_provider_feedamp.exceptions import (
    AuthenticationError,
    ReauthorizationRequiredError,
    TokenError,
)
from airflow_provider_feedamp.hooks.feedamp import task_errors
from tests.api.edge import Edge, Reply, Tokens


def bearers(edge: Edge) -> list[str | None]:
    return [request.bearer for request in edge.received]


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_refused_token_is_replaced_and_the_same_call_sent_again_at_once(
    edge: Edge, http: Http, tokens: Tokens, slept: list[float], method: str
) -> None:
    edge.will_reply(Reply(401, {"message": "expired"}), Reply(201))
    assert http.call(method, "orders/A1?x=1", b'{"price": 1.10}').status_code == 201
    first, second = edge.received
    assert (first.method, first.target, first.body) == (second.method, second.target, second.body)
    assert bearers(edge) == ["Bearer first-token", "Bearer second-token"]
    assert (tokens.refused, slept) == (["first-token"], [])


def test_each_call_may_replace_a_token(edge: Edge, http: Http, tokens: Tokens) -> None:
    tokens.tokens = ["one", "two", "three"]
    edge.will_reply(Reply(401), Reply(200), Reply(401), Reply(200))
    assert [http.call("GET", "orders").status_code for _ in range(2)] == [200, 200]
    assert tokens.refused == ["one", "two"]


@pytest.mark.parametrize(("refusals", "waits"), [(1, [1.0]), (2, [1.0, 3.0])])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_fresh_token_that_is_refused_is_waited_for_and_tried_again(
    edge: Edge, http: Http, tokens: Tokens, slept: list[float], method: str, refusals: int, waits: list[float]
) -> None:
    edge.will_reply(Reply(401), *[Reply(401)] * refusals, Reply(200))
    assert http.call(method, "orders").status_code == 200
    assert bearers(edge) == ["Bearer first-token"] + ["Bearer second-token"] * (refusals + 1)
    assert (tokens.refused, tokens.noted) == (["first-token"], ["second-token"])
    assert slept == waits


def test_a_fresh_token_that_stays_refused_is_an_error_that_a_later_try_cannot_heal(
    edge: Edge, http: Http, tokens: Tokens, slept: list[float]
) -> None:
    edge.otherwise = Reply(401, {"message": "no"})
    with pytest.raises(AuthenticationError, match="fresh access token was refused") as caught, task_errors():
        http.request("GET", ("orders",), what="x")
    assert caught.value.retryable is False
    assert isinstance(caught.value, AirflowFailException)
    assert bearers(edge) == ["Bearer first-token"] + ["Bearer second-token"] * 3
    assert (tokens.refused, tokens.noted, slept) == (["first-token"], [], [1.0, 3.0])


@pytest.mark.parametrize(("earlier", "retryable"), [(200, True), (404, False)])
def test_a_client_that_had_a_success_before_may_have_one_later(
    edge: Edge, http: Http, earlier: int, retryable: bool
) -> None:
    edge.will_reply(Reply(earlier, {}))
    http.call("GET", "orders")
    edge.otherwise = Reply(401)
    with pytest.raises(AuthenticationError) as caught, task_errors():
        http.request("PUT", ("orders", "A"), what="x")
    assert caught.value.retryable is retryable
    assert isinstance(caught.value, AirflowFailException) is not retryable


def test_a_403_stays_final_whatever_was_before(edge: Edge, http: Http) -> None:
    edge.will_reply(Reply(200, {}), Reply(403))
    http.request("GET", ("orders",), what="x")
    with pytest.raises(AuthenticationError) as caught:
        http.request("GET", ("orders",), what="x")
    assert caught.value.retryable is False


def test_all_calls_wait_for_a_fresh_token_together_and_the_log_says_so_once(
    edge: Edge, tokens: Tokens, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    released = threading.Event()
    sleeping = threading.Semaphore(0)

    def sleep(seconds: float) -> None:
        sleeping.release()
        released.wait(10)

    edge.will_reply(Reply(401), Reply(401))
    http = Http(edge.base_url, tokens, sleep=sleep, jitter=lambda: 0.0)
    threads = [threading.Thread(target=http.call, args=("PUT", "orders/A")) for _ in range(6)]
    threads[0].start()
    assert sleeping.acquire(timeout=10)
    for thread in threads[1:]:
        thread.start()
    for _ in threads[1:]:
        assert sleeping.acquire(timeout=10)
    assert len(edge.received) == 2  # nobody else has sent anything
    released.set()
    for thread in threads:
        thread.join()
    assert bearers(edge)[2:] == ["Bearer second-token"] * 6
    assert [record.getMessage() for record in caplog.records if record.name.endswith("api.http")] == [
        "FeedAMP answered 401 with a fresh token to PUT /api/v1/orders/A; all calls wait for 1.0 s "
        "(pause 1 of 8 in a row)"
    ]


def test_the_source_is_told_once_of_each_token_that_works(edge: Edge, http: Http, tokens: Tokens) -> None:
    edge.will_reply(Reply(), Reply(404), Reply(401), Reply())
    for _ in range(3):
        http.call("GET", "orders")
    assert tokens.noted == ["first-token", "second-token"]


def test_what_the_source_raises_comes_through(edge: Edge) -> None:
    class Ended(Tokens):
        def replace(self, refused: str) -> str:
            raise ReauthorizationRequiredError("the seller must authorise again")

    edge.otherwise = Reply(401)
    with pytest.raises(ReauthorizationRequiredError):
        Http(edge.base_url, Ended("old")).call("GET", "orders")
    assert len(edge.received) == 1


@pytest.mark.parametrize("token", ["", "secret\nX-Other: 1", "secret token", "sécret", "secret\x00"])
def test_a_token_that_no_header_can_carry_is_refused_without_being_shown(edge: Edge, token: str) -> None:
    with pytest.raises(TokenError) as caught:
        Http(edge.base_url, Tokens(token)).call("GET", "orders")
    assert "cret" not in str(caught.value)
    assert edge.received == []


def test_neither_an_answer_nor_a_call_shows_its_token(edge: Edge, http: Http) -> None:
    edge.will_reply(Reply(200, {"customer": "Jane Smith"}))
    shown = repr(http.call("GET", "orders"))
    assert "first-token" not in shown
    assert "Jane" not in shown
