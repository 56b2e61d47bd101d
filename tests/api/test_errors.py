from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.exceptions import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    RateLimitError,
    ServerError,
)
from tests.api.edge import Edge, Reply

if TYPE_CHECKING:
    from airflow_provider_feedamp.api.transport import Transport

WHAT = "reading order '600A'"


def refused(transport: Transport, edge: Edge, reply: Reply) -> ApiError:
    """Let FeedAMP refuse a POST, the call that is hardly ever repeated, and return the error."""
    edge.otherwise = reply
    with pytest.raises(ApiError) as caught:
        transport.request("POST", ("orders", "600A"), what=WHAT)
    return caught.value


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (400, BadRequestError, False),
        (403, AuthenticationError, False),
        (404, NotFoundError, False),
        (409, BadRequestError, False),
        (413, BadRequestError, False),
        (422, BadRequestError, False),
        (429, RateLimitError, True),
        (500, ServerError, True),
        (501, ServerError, True),
        (503, ServerError, True),
        (304, ApiError, False),
    ],
)
def test_each_status_has_its_error(
    transport: Transport, edge: Edge, status: int, kind: type[ApiError], retryable: bool
) -> None:
    error = refused(transport, edge, Reply(status))
    assert type(error) is kind
    assert (error.status, error.retryable) == (status, retryable)
    assert WHAT in str(error)
    assert f"HTTP {status}" in str(error)


@pytest.mark.parametrize(
    ("body", "codes", "said"),
    [
        (
            [{"code": "UNKNOWN_FIELD_PRESENT", "message": "'x' is not known"}],
            ["UNKNOWN_FIELD_PRESENT"],
            "'x' is",
        ),
        ([{"code": "A", "message": "one"}, {"code": "B", "message": "two"}], ["A", "B"], "A: one; B: two"),
        ([{"code": "A", "message": "one"}, {"code": "A", "message": "one"}], ["A"], "A: one. "),
        ({"code": "A", "message": "one"}, ["A"], "A: one"),
        ({"message": "only words"}, [], "only words"),
        ({"code": 17, "message": "a number"}, ["17"], "17: a number"),
        ({"error": "invalid_request", "error_description": "no body"}, ["invalid_request"], "no body"),
        ({"error": "Something went wrong"}, [], "Something went wrong"),
        ({"error": {"code": "A", "message": "nested"}}, ["A"], "A: nested"),
        ({"errors": [{"code": "A", "message": "in a list"}]}, ["A"], "A: in a list"),
        ({"errors": {"code": "A", "message": "alone"}}, ["A"], "A: alone"),
        ({"status": "fail", "message": "Please wait -5- seconds"}, [], "Please wait -5- seconds"),
        ({"detail": "Not Found"}, [], "Not Found"),
        ({"message": {"odd": 1}, "code": None}, [], "without a code or message"),
        ({"errors": [{"errors": [[{"code": "DEEP", "message": "x"}]]}]}, [], "without a code or message"),
        (["text", 1, None], [], "without a code or message"),
        (b"plain text", [], "a body of 10 bytes"),
        (b"", [], "an empty body"),
        (b"<html><body>Bad gateway</body></html>", [], "an HTML page of 37 bytes"),
        (b"\xff\xfe\x00broken", [], "a body of 9 bytes"),
        (b"[" * 100_000, [], "a body of 100000 bytes"),
    ],
)
def test_what_an_error_body_says_is_found(
    transport: Transport, edge: Edge, body: Any, codes: list[str], said: str
) -> None:
    error = refused(transport, edge, Reply(400, body))
    assert list(error.codes) == codes
    assert said in str(error) + ". "


def test_a_body_without_codes_is_never_shown(transport: Transport, edge: Edge) -> None:
    body = {"order": {"customer": {"full_name": "Jane Smith"}}, "trace": "at line 1"}
    for reply in (Reply(400, body), Reply(400, json.dumps(body).encode() + b"!")):
        text = str(refused(transport, edge, reply))
        assert "Jane" not in text
        assert "trace" not in text


def test_long_messages_are_cut(transport: Transport, edge: Edge) -> None:
    error = refused(transport, edge, Reply(400, [{"code": "LONG", "message": "x" * 5000}]))
    assert "LONG: xxx" in str(error)
    assert len(str(error)) < 450


def test_many_codes_are_cut(transport: Transport, edge: Edge) -> None:
    error = refused(transport, edge, Reply(400, [{"code": f"C{n}", "message": "x"} for n in range(1000)]))
    assert error.codes == tuple(f"C{n}" for n in range(20))


def test_messages_come_without_line_breaks_and_mail_addresses(transport: Transport, edge: Edge) -> None:
    message = "'customer.email'\n is\r\n'jane@example.com'"
    text = str(refused(transport, edge, Reply(400, {"code": "A", "message": message})))
    assert "A: 'customer.email' is '***'" in text


def test_a_token_that_the_server_quotes_is_not_shown(transport: Transport, edge: Edge) -> None:
    edge.will_reply(Reply(401))
    body = [{"code": "second-token", "message": "'second-token' is refused"}]
    error = refused(transport, edge, Reply(401, body))
    assert "second-token" not in str(error)
    assert "'***' is refused" in str(error)
    assert error.codes == ()


def test_a_401_to_a_fresh_token_says_so_and_what_was_asked(transport: Transport, edge: Edge) -> None:
    edge.will_reply(Reply(401))
    error = refused(transport, edge, Reply(401))
    assert type(error) is AuthenticationError
    assert WHAT in str(error)
    assert "A fresh access token was refused as well" in str(error)


def test_a_403_does_not_blame_the_token(transport: Transport, edge: Edge) -> None:
    assert "a new token cannot help" in str(refused(transport, edge, Reply(403)))


@pytest.mark.parametrize("header", ["X-Request-Id", "x-correlation-id", "X-Amzn-RequestId", "CF-Ray"])
def test_the_id_of_the_request_is_kept(transport: Transport, edge: Edge, header: str) -> None:
    error = refused(transport, edge, Reply(400, headers={header: "req-17"}))
    assert error.request_id == "req-17"
    assert "request id req-17" in str(error)


def test_a_redirect_is_not_followed_and_is_an_error(transport: Transport, edge: Edge) -> None:
    edge.will_reply(Reply(302, headers={"Location": "/api/v1/login"}))
    with pytest.raises(ApiError, match="redirects the call") as caught:
        transport.request("PUT", ("orders", "600A"), body=b"{}", what=WHAT)
    assert caught.value.status == 302
    assert len(edge.received) == 1
