from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from airflow_provider_feedamp.api.client import FeedAmpClient
from airflow_provider_feedamp.exceptions import (
    BadRequestError,
    FeedAmpError,
    InputError,
    NotFoundError,
    RateLimitError,
    ServerError,
    UnreachableError,
    UnreadableError,
)
from tests.api.edge import Edge, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_feedamp.api.http import Http

pytestmark = pytest.mark.once

ERROR = {"code": "EXCESS_REFUND", "message": "more than was paid"}
OTHER = {"code": "OTHER", "message": "something else"}
CUT = Reply(cut="before the answer")
OK = Reply(200, {})


class Report(NamedTuple):
    """One of the three calls that report errors."""

    path: str
    send: Callable[[FeedAmpClient, Any], None]


class Completion(NamedTuple):
    """One of the two calls that mark something as complete."""

    path: str
    done: str
    send: Callable[[FeedAmpClient], None]


REPORTS = [
    Report("/api/v1/orders/A%2F1", lambda client, errors: client.orders.report_errors("A/1", errors)),
    Report(
        "/api/v1/orders/A%2F1/refunds/7",
        lambda client, errors: client.refunds.report_errors("A/1", 7, errors),
    ),
    Report(
        "/api/v1/orders/A%2F1/returns/R%201",
        lambda client, errors: client.returns.report_errors("A/1", "R 1", errors),
    ),
]
COMPLETIONS = [
    Completion(
        "/api/v1/orders/A%2F1/refunds/7", "COMPLETE", lambda client: client.refunds.complete("A/1", 7)
    ),
    Completion(
        "/api/v1/orders/A%2F1/returns/R%201",
        "COMPLETED",
        lambda client: client.returns.complete("A/1", "R 1"),
    ),
]
each_report = pytest.mark.parametrize("report", REPORTS, ids=["order", "refund", "return"])
each_completion = pytest.mark.parametrize("completion", COMPLETIONS, ids=["refund", "return"])
each_unclear_failure = pytest.mark.parametrize(
    ("failure", "error"),
    [
        (CUT, UnreachableError),
        (Reply(500), ServerError),
        (Reply(503), ServerError),
        (Reply(504), ServerError),
        (Reply(522), ServerError),
        (Reply(200, b"<html>a proxy's page"), UnreadableError),
    ],
    ids=["cut", "500", "503", "504", "522", "a web page"],
)


@pytest.fixture
def client(http: Http) -> FeedAmpClient:
    return FeedAmpClient(http)


def sent(edge: Edge) -> list[str]:
    return [request.method for request in edge.received]


# What is sent


@each_report
def test_errors_are_reported_as_a_list(client: FeedAmpClient, edge: Edge, report: Report) -> None:
    report.send(client, [ERROR, OTHER])
    [post] = edge.received
    assert (post.method, post.target) == ("POST", f"{report.path}/errors")
    assert json.loads(post.body) == [ERROR, OTHER]


def test_an_error_of_an_order_may_name_a_line_and_carry_more(client: FeedAmpClient, edge: Edge) -> None:
    errors = [ERROR | {"mp_line_number": "1", "debug": [{"a": 1}]}]
    client.orders.report_errors("A", errors)
    assert json.loads(edge.received[0].body) == errors


@each_completion
def test_marking_as_complete_sends_no_body(client: FeedAmpClient, edge: Edge, completion: Completion) -> None:
    completion.send(client)
    [post] = edge.received
    assert (post.method, post.target, post.body) == ("POST", f"{completion.path}/complete", b"")


@each_report
@pytest.mark.parametrize(
    ("errors", "named"),
    [
        ([], "there is none"),
        (ERROR, "not a list"),
        ("text", "not a list"),
        (["text"], r"\[0\] is not an object"),
        ([{"code": "A"}], r"\[0\]\.message"),
        ([{"code": "A", "message": "b"}, {"code": " ", "message": "b"}], r"\[1\]\.code"),
        ([{"code": 1, "message": "b"}], r"\[0\]\.code"),
        ([{"code": "A", "message": "b", "mp_line_number": "x" * 129}], r"\[0\]\.mp_line_number"),
        ([{"code": "A", "message": "b", "mp_line_number": 1}], r"\[0\]\.mp_line_number"),
    ],
)
def test_a_report_with_something_wrong_is_refused_unsent(
    client: FeedAmpClient, edge: Edge, report: Report, errors: Any, named: str
) -> None:
    with pytest.raises(InputError, match=f"of order 'A/1' cannot be sent: .*{named}|order 'A/1'.*{named}"):
        report.send(client, errors)
    assert edge.received == []


# A clear failure: nothing is repeated and nothing is read


@each_report
@pytest.mark.parametrize(
    ("status", "error"), [(400, BadRequestError), (404, NotFoundError), (429, RateLimitError)]
)
def test_a_refused_report_is_not_sent_again(
    client: FeedAmpClient, edge: Edge, report: Report, status: int, error: type[FeedAmpError]
) -> None:
    edge.otherwise = Reply(status)
    with pytest.raises(error):
        report.send(client, [ERROR])
    assert "GET" not in sent(edge)


@each_completion
def test_a_refused_completion_is_not_sent_again(
    client: FeedAmpClient, edge: Edge, completion: Completion
) -> None:
    edge.will_reply(Reply(400, [{"code": "INVALID_PAYLOAD", "message": "paused"}]))
    with pytest.raises(BadRequestError):
        completion.send(client)
    assert sent(edge) == ["POST"]


# An unclear failure: somebody looks first


@each_report
@each_unclear_failure
def test_a_report_that_arrived_is_not_sent_again(
    client: FeedAmpClient, edge: Edge, report: Report, failure: Reply, error: type[FeedAmpError]
) -> None:
    edge.will_reply(failure, Reply(200, {"errors": [OTHER, ERROR]}))
    report.send(client, [ERROR])
    assert sent(edge) == ["POST", "GET"]
    assert edge.received[1].target == report.path


@each_report
@each_unclear_failure
def test_a_report_that_did_not_arrive_is_sent_once_more(
    client: FeedAmpClient, edge: Edge, report: Report, failure: Reply, error: type[FeedAmpError]
) -> None:
    edge.will_reply(failure, Reply(200, {"errors": [OTHER]}), OK)
    report.send(client, [ERROR])
    assert sent(edge) == ["POST", "GET", "POST"]
    assert edge.received[2].body == edge.received[0].body


@each_report
def test_a_report_that_stands_there_in_part_is_sent_once_more(
    client: FeedAmpClient, edge: Edge, report: Report
) -> None:
    edge.will_reply(CUT, Reply(200, {"errors": [ERROR]}), OK)
    report.send(client, [ERROR, ERROR])
    assert sent(edge) == ["POST", "GET", "POST"]


@each_report
@each_unclear_failure
def test_a_report_is_sent_twice_at_most(
    client: FeedAmpClient, edge: Edge, report: Report, failure: Reply, error: type[FeedAmpError]
) -> None:
    held = Reply(200, {"errors": []})
    edge.will_reply(failure, held, failure, held)
    with pytest.raises(error, match="reporting errors of"):
        report.send(client, [ERROR])
    assert sent(edge) == ["POST", "GET", "POST", "GET"]


@each_report
def test_the_second_report_is_looked_for_as_well(client: FeedAmpClient, edge: Edge, report: Report) -> None:
    edge.will_reply(CUT, Reply(200, {"errors": []}), CUT, Reply(200, {"errors": [ERROR]}))
    report.send(client, [ERROR])
    assert sent(edge) == ["POST", "GET", "POST", "GET"]


@each_report
@pytest.mark.parametrize("held", [{}, {"errors": None}, {"errors": "many"}])
def test_a_report_is_not_sent_again_when_the_look_tells_nothing(
    client: FeedAmpClient, edge: Edge, report: Report, held: dict[str, Any]
) -> None:
    edge.will_reply(CUT, Reply(200, held))
    with pytest.raises(UnreachableError, match="reporting errors of"):
        report.send(client, [ERROR])
    assert sent(edge) == ["POST", "GET"]


@each_report
@pytest.mark.parametrize("look", [Reply(404), Reply(200, [ERROR])])
def test_a_report_is_not_sent_again_when_nobody_can_look(
    client: FeedAmpClient, edge: Edge, report: Report, look: Reply
) -> None:
    edge.will_reply(CUT, look)
    with pytest.raises(UnreachableError, match="reporting errors of"):
        report.send(client, [ERROR])
    assert sent(edge) == ["POST", "GET"]


def test_the_look_is_repeated_like_any_read(client: FeedAmpClient, edge: Edge) -> None:
    edge.will_reply(Reply(503), Reply(503), CUT, Reply(200, {"errors": [ERROR]}))
    client.orders.report_errors("A", [ERROR])
    assert sent(edge) == ["POST", "GET", "GET", "GET"]


@pytest.mark.parametrize(
    ("held", "again"),
    [
        (ERROR | {"mp_line_number": "1"}, False),
        (ERROR, False),  # whether FeedAMP gives the line back is not documented
        (ERROR | {"mp_line_number": "1", "reported_at": "2024-05-01"}, False),
        (ERROR | {"mp_line_number": "2"}, True),
        (ERROR | {"message": "another"}, True),
        ("text", True),
    ],
)
def test_an_error_that_stands_there_is_known_by_code_message_and_line(
    client: FeedAmpClient, edge: Edge, held: Any, again: bool
) -> None:
    edge.will_reply(CUT, Reply(200, {"errors": [held]}), OK)
    client.orders.report_errors("A", [ERROR | {"mp_line_number": "1"}])
    assert sent(edge) == ["POST", "GET", *(["POST"] if again else [])]


@each_completion
@each_unclear_failure
def test_a_completion_that_arrived_is_not_sent_again(
    client: FeedAmpClient, edge: Edge, completion: Completion, failure: Reply, error: type[FeedAmpError]
) -> None:
    edge.will_reply(failure, Reply(200, {"status": completion.done}))
    completion.send(client)
    assert sent(edge) == ["POST", "GET"]
    assert edge.received[1].target == completion.path


@each_completion
@pytest.mark.parametrize("status", ["CREATED", "REFUNDED", "SOMETHING_NEW", None])
def test_a_completion_that_did_not_arrive_is_sent_once_more(
    client: FeedAmpClient, edge: Edge, completion: Completion, status: str | None
) -> None:
    edge.will_reply(CUT, Reply(200, {"status": status}), OK)
    completion.send(client)
    assert sent(edge) == ["POST", "GET", "POST"]


@each_completion
@each_unclear_failure
def test_a_completion_is_sent_twice_at_most(
    client: FeedAmpClient, edge: Edge, completion: Completion, failure: Reply, error: type[FeedAmpError]
) -> None:
    held = Reply(200, {"status": "CREATED"})
    edge.will_reply(failure, held, failure, held)
    with pytest.raises(error, match=r"marking .* as complete"):
        completion.send(client)
    assert sent(edge) == ["POST", "GET", "POST", "GET"]


def test_what_is_reported_never_reaches_the_log(
    client: FeedAmpClient, edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    edge.will_reply(CUT, Reply(200, {"errors": []}), OK)
    client.orders.report_errors("A", [{"code": "A", "message": "Jane Smith is not known"}])
    assert "Jane" not in caplog.text
