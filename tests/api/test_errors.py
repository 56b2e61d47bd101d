"""An answer that is an error becomes an exception with its codes, and without a customer's words."""

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
    from collections.abc import Callable

    from airflow_provider_feedamp.api.http import Http

WHAT = "reading order '600A'"


@pytest.fixture
def refused(http: Http, edge: Edge) -> Callable[..., Any]:
    """Let FeedAMP refuse a POST, the call that is hardly ever repeated, and return the error."""

    def refused(body: Any = b"", status: int = 400, **headers: str) -> ApiError:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        edge.otherwise = Reply(status, body, names)
        with pytest.raises(ApiError) as caught:
            http.request("POST", ("orders", "600A"), what=WHAT)
        return caught.value

    return refused


@pytest.mark.parametrize(
    ("statuses", "kind", "retryable"),
    [
        ((400, 407, 409, 413, 422), BadRequestError, False),
        ((403,), AuthenticationError, False),
        ((404,), NotFoundError, False),
        ((429,), RateLimitError, True),
        ((500, 501, 503, 520, 408, 425), ServerError, True),
        ((304,), ApiError, False),
    ],
)
def test_each_status_has_its_error(
    refused: Callable[..., Any], statuses: tuple[int, ...], kind: type[ApiError], retryable: bool
) -> None:
    for status in statuses:
        error = refused(status=status)
        assert type(error) is kind
        assert (error.status, error.retryable) == (status, retryable)
        assert WHAT in str(error)
        assert f"HTTP {status}" in str(error)


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (407, "A proxy asks for its own login"),
        (403, "a new token cannot help"),
        (401, "A fresh access token was refused as well"),
        (404, "It is not in this seller's account"),
        (429, "It asks for fewer requests"),
        (500, "The fault is FeedAMP's"),
    ],
)
def test_the_text_says_what_can_be_done(refused: Callable[..., Any], status: int, hint: str) -> None:
    error = refused(status=status)
    assert hint in str(error)
    assert (type(error) is AuthenticationError) is (status in {401, 403})


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
        ({"code": "A", "message": "'sku'\n is\r\nodd"}, ["A"], "A: 'sku' is odd"),  # no line breaks
        ([{"code": f"C{n}"} for n in range(1000)], [f"C{n}" for n in range(20)], "…"),  # many are cut
        ([{"code": "LONG", "message": "x" * 5000}], ["LONG"], "LONG: " + "x" * 994 + "…"),
    ],
)
def test_codes_stand_in_the_text_and_the_words_beside_it(
    refused: Callable[..., Any], body: Any, codes: list[str], words: str
) -> None:
    error = refused(body)
    assert list(error.codes) == codes
    assert error.server_message.endswith(words)
    said = ", ".join(codes) or f"a body of {len(json.dumps(body))} bytes without a code"
    assert str(error) == f"FeedAMP refused {WHAT} (HTTP 400): {said}"


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
        ({"order": {"customer": {"full_name": "Jane Smith"}}, "trace": "at line 1"}, "without a code"),
        (b'{"order": {"full_name": "Jane Smith"}, "trace": "at line 1"}!', "without a code"),
    ],
)
def test_a_body_without_codes_is_described_and_never_shown(
    refused: Callable[..., Any], body: Any, described: str
) -> None:
    error = refused(body)
    assert (error.codes, error.server_message) == ((), "")
    assert described in str(error)
    assert "Jane" not in str(error)
    assert "trace" not in str(error)


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
        ({"errors": {f"f{n}": "x" for n in range(1000)}}, "f18, f19)", "…"),  # many are cut
    ],
)
def test_the_names_of_fields_stand_in_the_text(
    refused: Callable[..., Any], body: Any, fields: str, words: str
) -> None:
    error = refused(body)
    assert fields in str(error)
    assert error.server_message.endswith(words)
    assert "Jane" not in str(error)


@pytest.mark.parametrize("name", ["Jane Smith", "jane@example.com", "x\n", "f" * 65, "", 7, None, ["sku"]])
def test_what_cannot_be_the_name_of_a_field_is_not_shown(refused: Callable[..., Any], name: Any) -> None:
    places: list[Any] = [[{"field": name}], {"errors": {str(name) + " ": "x"}}]
    for body in places if name == 7 else [*places, [{"loc": [name]}]]:
        assert "fields" not in str(refused(body))


def test_the_words_of_the_server_are_in_nothing_that_is_printed_or_kept(
    refused: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    error = refused([{"code": "A", "message": "'Jane Smith' at 1 Elm Street"}])
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    logging.getLogger("a task").error("it failed", exc_info=error)
    texts = [str(error), repr(error), repr(error.args), repr(failed(error)), repr(vars(again)), caplog.text]
    assert not any(word in shown for shown in texts for word in ("Smith", "Elm"))
    assert "Smith" in error.server_message
    assert (type(again), str(again), again.codes, again.status) == (BadRequestError, str(error), ("A",), 400)
    assert again.server_message == ""


def test_what_comes_instead_of_an_answer_is_not_quoted(http: Http, edge: Edge) -> None:
    edge.otherwise = Reply(wire=[b"Jane Smith, 1 Elm Street\r\n\r\n"])
    with pytest.raises(UnreachableError, match=r"\(ProtocolError\)") as caught:
        http.request("POST", ("orders", "600A"), what=WHAT)
    assert "Smith" not in "".join(traceback.format_exception(caught.value))


def test_a_token_that_the_server_quotes_is_not_shown(refused: Callable[..., Any], edge: Edge) -> None:
    edge.will_reply(Reply(401))
    error = refused([{"code": "second-token", "message": "'second-token' is refused"}], 401)
    assert "second-token" not in str(error)
    assert (error.server_message, error.codes) == ("'***' is refused", ())


ODD = "id[31m <b>'Jane'\xa0" + "9" * 200


@pytest.mark.parametrize(
    ("header", "sent", "kept"),
    [
        *[(name, "req-17", "req-17") for name in ("X_Request_Id", "x_correlation_id", "CF_Ray")],
        ("X_Amzn_RequestId", "req-17", "req-17"),
        ("X_Request_Id", ODD, ("id31mbJane" + "9" * 200)[:128]),
        ("X_Request_Id", "<>", None),
    ],
)
def test_the_id_of_the_request_is_kept_of_harmless_characters(
    refused: Callable[..., Any], header: str, sent: str, kept: str | None
) -> None:
    error = refused(**{header: sent})
    assert error.request_id == kept
    assert ("request id" in str(error)) is (kept is not None)
    assert kept is None or f"request id {kept})" in str(error)
