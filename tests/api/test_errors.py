from __future__ import annotations

import json
import logging
import pickle
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.exceptions import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    RateLimitError,
    ServerError,
    UnreachableError,
)
from airflow_provider_feedamp.triggers.polling import failed
from tests.api.edge import Edge, Reply

if TYPE_CHECKING:
    from airflow_provider_feedamp.api.http import Http

WHAT = "reading order '600A'"


def refused(http: Http, edge: Edge, reply: Reply) -> ApiError:
    """Let FeedAMP refuse a POST, the call that is hardly ever repeated, and return the error."""
    edge.otherwise = reply
    with pytest.raises(ApiError) as caught:
        http.request("POST", ("orders", "600A"), what=WHAT)
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
        (520, ServerError, True),
        (408, ServerError, True),
        (425, ServerError, True),
        (304, ApiError, False),
    ],
)
def test_each_status_has_its_error(
    http: Http, edge: Edge, status: int, kind: type[ApiError], retryable: bool
) -> None:
    error = refused(http, edge, Reply(status))
    assert type(error) is kind
    assert (error.status, error.retryable) == (status, retryable)
    assert WHAT in str(error)
    assert f"HTTP {status}" in str(error)


@pytest.mark.parametrize(
    ("body", "codes", "words"),
    [
        ([{"code": "UNKNOWN_FIELD_PRESENT", "message": "'x'"}], ["UNKNOWN_FIELD_PRESENT"], "'x'"),
        ([{"code": "A", "message": "one"}, {"code": "B", "message": "two"}], ["A", "B"], "A: one; B: two"),
        ([{"code": "A", "message": "one"}, {"code": "A", "message": "one"}], ["A"], "A: one"),
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
    ],
)
def test_codes_stand_in_the_text_and_the_words_beside_it(
    http: Http, edge: Edge, body: Any, codes: list[str], words: str
) -> None:
    error = refused(http, edge, Reply(400, body))
    assert list(error.codes) == codes
    assert error.server_message.endswith(words)
    told = ", ".join(codes) or f"a body of {len(json.dumps(body))} bytes without a code"
    assert str(error) == f"FeedAMP refused {WHAT} (HTTP 400): {told}"


@pytest.mark.parametrize(
    ("body", "described"),
    [
        ({"message": {"odd": 1}, "code": None}, "a body of 37 bytes without a code"),
        ({"errors": [{"errors": [[{"code": "DEEP", "message": "x"}]]}]}, "without a code"),
        (["text", 1, None], "without a code"),
        (b"plain text", "a body of 10 bytes"),
        (b"", "an empty body"),
        (b"<html><body>Bad gateway</body></html>", "an HTML page of 37 bytes"),
        (b"\xff\xfe\x00broken", "a body of 9 bytes"),
        (b"[" * 100_000, "a body of 100000 bytes"),
    ],
)
def test_a_body_without_codes_is_described(http: Http, edge: Edge, body: Any, described: str) -> None:
    error = refused(http, edge, Reply(400, body))
    assert (error.codes, error.server_message) == ((), "")
    assert described in str(error)


@pytest.mark.parametrize(
    ("body", "fields", "words"),
    [
        ([{"code": "A", "field": "customer.email", "message": "Jane"}], "A (fields: customer.email)", "Jane"),
        ({"code": "A", "errors": [{"field": "sku"}, {"field": "sku"}]}, "A (fields: sku)", "A; sku"),
        (
            {"errors": {"sku": ["is Jane's"], "lines[0].q": "is odd"}},
            "fields: sku, lines[0].q",
            "sku: is Jane's; lines[0].q: is odd",
        ),
        ({"errors": {"sku": [{"code": "B", "message": "Jane"}]}}, "B (fields: sku)", "sku; B: Jane"),
        (
            {"detail": [{"loc": ["body", "order_lines", 0, "sku"], "msg": "Jane?", "type": "x"}]},
            "fields: body.order_lines.0.sku",
            "Jane?",
        ),
    ],
)
def test_the_names_of_fields_stand_in_the_text(
    http: Http, edge: Edge, body: Any, fields: str, words: str
) -> None:
    error = refused(http, edge, Reply(400, body))
    assert fields in str(error)
    assert error.server_message.endswith(words)
    assert "Jane" not in str(error)


@pytest.mark.parametrize("name", ["Jane Smith", "jane@example.com", "x\n", "f" * 65, "", 7, None, ["sku"]])
def test_what_cannot_be_the_name_of_a_field_is_not_shown(http: Http, edge: Edge, name: Any) -> None:
    for body in (
        [{"field": name}],
        [{"loc": [name]}] if name != 7 else [],
        {"errors": {str(name) + " ": "x"}},
    ):
        assert "fields" not in str(refused(http, edge, Reply(400, body)))


def test_many_fields_are_cut(http: Http, edge: Edge) -> None:
    text = str(refused(http, edge, Reply(400, {"errors": {f"f{n}": "x" for n in range(1000)}})))
    assert text.endswith("f18, f19)")


def test_the_words_of_the_server_are_in_nothing_that_is_printed_or_kept(
    http: Http, edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    error = refused(http, edge, Reply(400, [{"code": "A", "message": "'Jane Smith' at 1 Elm Street"}]))
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    logging.getLogger("a task").error("it failed", exc_info=error)
    for shown in (
        str(error),
        repr(error),
        repr(error.args),
        repr(failed(error)),
        repr(vars(again)),
        caplog.text,
    ):
        assert "Smith" not in shown
        assert "Elm" not in shown
    assert "Smith" in error.server_message
    assert (type(again), str(again), again.codes, again.status) == (BadRequestError, str(error), ("A",), 400)
    assert again.server_message == ""


def test_what_comes_instead_of_an_answer_is_not_quoted(http: Http, edge: Edge) -> None:
    edge.otherwise = Reply(wire=[b"Jane Smith, 1 Elm Street\r\n\r\n"])
    with pytest.raises(UnreachableError, match=r"\(ProtocolError\)") as caught:
        http.request("POST", ("orders", "600A"), what=WHAT)
    assert "Smith" not in "".join(traceback.format_exception(caught.value))


def test_a_body_without_codes_is_never_shown(http: Http, edge: Edge) -> None:
    body = {"order": {"customer": {"full_name": "Jane Smith"}}, "trace": "at line 1"}
    for reply in (Reply(400, body), Reply(400, json.dumps(body).encode() + b"!")):
        error = refused(http, edge, reply)
        for text in (str(error), error.server_message):
            assert "Jane" not in text
            assert "trace" not in text


def test_long_words_are_cut(http: Http, edge: Edge) -> None:
    error = refused(http, edge, Reply(400, [{"code": "LONG", "message": "x" * 5000}]))
    assert error.server_message.startswith("LONG: xxx")
    assert len(error.server_message) == 1001


def test_many_codes_are_cut(http: Http, edge: Edge) -> None:
    error = refused(http, edge, Reply(400, [{"code": f"C{n}", "message": "x"} for n in range(1000)]))
    assert error.codes == tuple(f"C{n}" for n in range(20))


def test_words_come_without_line_breaks(http: Http, edge: Edge) -> None:
    error = refused(http, edge, Reply(400, {"code": "A", "message": "'sku'\n is\r\nodd"}))
    assert error.server_message == "A: 'sku' is odd"


def test_a_token_that_the_server_quotes_is_not_shown(http: Http, edge: Edge) -> None:
    edge.will_reply(Reply(401))
    body = [{"code": "second-token", "message": "'second-token' is refused"}]
    error = refused(http, edge, Reply(401, body))
    assert "second-token" not in str(error)
    assert error.server_message == "'***' is refused"
    assert error.codes == ()


def test_a_401_to_a_fresh_token_says_so_and_what_was_asked(http: Http, edge: Edge) -> None:
    edge.will_reply(Reply(401))
    error = refused(http, edge, Reply(401))
    assert type(error) is AuthenticationError
    assert WHAT in str(error)
    assert "A fresh access token was refused as well" in str(error)


def test_a_407_names_the_proxy(http: Http, edge: Edge) -> None:
    assert "A proxy asks for its own login" in str(refused(http, edge, Reply(407)))


def test_a_403_does_not_blame_the_token(http: Http, edge: Edge) -> None:
    assert "a new token cannot help" in str(refused(http, edge, Reply(403)))


@pytest.mark.parametrize("header", ["X-Request-Id", "x-correlation-id", "X-Amzn-RequestId", "CF-Ray"])
def test_the_id_of_the_request_is_kept(http: Http, edge: Edge, header: str) -> None:
    error = refused(http, edge, Reply(400, headers={header: "req-17"}))
    assert error.request_id == "req-17"
    assert "request id req-17" in str(error)


def test_the_id_of_the_request_is_of_harmless_characters(http: Http, edge: Edge) -> None:
    odd = "id[31m <b>'Jane'\xa0" + "9" * 200
    error = refused(http, edge, Reply(400, headers={"X-Request-Id": odd}))
    assert error.request_id == ("id31mbJane" + "9" * 200)[:128]
    assert f"request id {error.request_id})" in str(error)


def test_an_id_of_nothing_harmless_is_none(http: Http, edge: Edge) -> None:
    error = refused(http, edge, Reply(400, headers={"X-Request-Id": "<>"}))
    assert error.request_id is None
    assert "request id" not in str(error)


def test_a_redirect_is_not_followed_and_is_an_error(http: Http, edge: Edge) -> None:
    edge.will_reply(Reply(302, headers={"Location": "/api/v1/login"}))
    with pytest.raises(ApiError, match="redirects the call") as caught:
        http.request("PUT", ("orders", "600A"), body=b"{}", what=WHAT)
    assert caught.value.status == 302
    assert len(edge.received) == 1
