"""What becomes of the refresh token that was sent, by status, code and headers of the answer."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_feedamp.exceptions import (
    AnswerLostError,
    ClientRefusedError,
    ConfigurationError,
    FeedAmpError,
    NotProcessedError,
    TokenNotRenewedError,
)
from airflow_provider_feedamp.tokens.endpoint import GrantRefusedError, TokenEndpoint
from tests.tokens.edge import TokenServer, answers
from tests.tokens.secrets import REFRESH_TOKEN, secrets_in, told

HTML = b"<html><body><h1>Bad Gateway</h1></body></html>"
REFUSED, CLIENT_BAD, CONFIG = GrantRefusedError, ClientRefusedError, ConfigurationError
LOST, NOT_DONE = AnswerLostError, NotProcessedError


def failure(endpoint: TokenEndpoint) -> FeedAmpError:
    """Return the error that a refresh ends with, after a look at all that it tells."""
    with pytest.raises(FeedAmpError) as caught:
        endpoint.refresh(REFRESH_TOKEN)
    assert secrets_in(told(caught.value)) == []
    return caught.value


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"error": "invalid_grant"}, REFUSED),
        (400, {"error": "INVALID_GRANT", "error_description": "gone"}, REFUSED),
        (400, [{"code": "invalid_grant", "message": "gone"}], REFUSED),
        (401, {"error": "invalid_grant"}, REFUSED),
        (400, {"error": {"code": "invalid_grant", "message": "gone"}}, REFUSED),
        (400, {"errors": [{"code": " Invalid_Grant "}]}, REFUSED),
        (400, [{"code": "missing_required_field"}, {"code": "invalid_grant"}], REFUSED),
        (422, {"error": {"errors": [{"error": "invalid_grant"}]}}, REFUSED),
        (401, b"", REFUSED),
        (401, HTML, REFUSED),
        (401, {"message": "Unauthorized"}, REFUSED),
        (401, [{"code": "unauthorized", "message": "no"}], REFUSED),
        (403, HTML, REFUSED),
        (403, {"error": "access_denied"}, REFUSED),
        (200, {"error": "invalid_grant"}, REFUSED),
        (500, {"error": "invalid_grant"}, REFUSED),
        (400, {"error": "invalid_client"}, CLIENT_BAD),
        (401, {"error": "invalid_client"}, CLIENT_BAD),
        (401, [{"code": "invalid_client", "message": "no"}], CLIENT_BAD),
        (403, {"error": "unauthorized_client"}, CLIENT_BAD),
        (200, {"error": "invalid_client"}, CLIENT_BAD),
        (401, {"error": {"code": "INVALID_CLIENT"}}, CLIENT_BAD),
        (401, {"errors": [{"code": "invalid_grant"}, {"code": "invalid_client"}]}, CLIENT_BAD),
        (400, {"error": "invalid_request"}, CONFIG),
        (400, {"error": "unsupported_grant_type"}, CONFIG),
        (400, [{"code": "missing_required_field", "message": "client_id"}], CONFIG),
        (400, b"", CONFIG),
        (400, HTML, CONFIG),
        (404, HTML, CONFIG),
        (405, b"", CONFIG),
        (415, b"", CONFIG),
        (422, {"detail": [{"loc": ["body"], "msg": "no"}]}, CONFIG),
        (408, b"", NOT_DONE),
        (425, b"", NOT_DONE),
        (429, b"", NOT_DONE),
        (429, {"error": "rate_limit_exceeded"}, NOT_DONE),
        (500, b"", LOST),
        (500, HTML, LOST),
        (500, {"error": "server_error"}, LOST),
        (502, HTML, LOST),
        (503, HTML, LOST),
        (503, {"error": "temporarily_unavailable"}, LOST),
        (504, b"", LOST),
        (599, b"", LOST),
        (200, b"", LOST),
        (204, b"", LOST),
        (200, HTML, LOST),
        (200, b"ok", LOST),
        (200, b"null", LOST),
        (200, b"[]", LOST),
        (200, b"[[]]", LOST),
        (200, b'["at"]', LOST),
        (200, b"7", LOST),
        (200, {}, LOST),
        (200, {"error": "server_error"}, LOST),
        (200, {"error": "something else"}, LOST),
        (200, {"access_token": "", "refresh_token": None}, LOST),
        (200, b'{"access_token": "at", "refresh_tok', LOST),
        (200, b'{"access_token": "at"} and more', LOST),
        (200, b"\xff\xfe\x00\x01", LOST),
        (200, b"[" * 100_000, LOST),
    ],
    ids=lambda value: value[:40].decode("latin-1") if isinstance(value, bytes) else None,
)
def test_every_answer_says_what_became_of_the_refresh_token(
    server: TokenServer, endpoint: TokenEndpoint, status: int, body: Any, kind: type[FeedAmpError]
) -> None:
    server.will(answers(status, body))

    error = failure(endpoint)

    assert type(error) is kind
    assert error.status == status
    assert str(status) in str(error)
    assert server.url in str(error)
    assert error.retryable is issubclass(kind, TokenNotRenewedError)
    assert len(server.received) == 1


@pytest.mark.parametrize("status", [*range(400, 408), *range(409, 425), *range(426, 429), *range(430, 500)])
def test_without_a_code_only_a_401_and_a_403_refuse_a_token_and_no_other_4xx_does(
    server: TokenServer, endpoint: TokenEndpoint, status: int
) -> None:
    server.will(answers(status, HTML))

    assert type(failure(endpoint)) is (REFUSED if status in (401, 403) else CONFIG)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    ("body", "bare"),
    [
        (b"", True),
        (HTML, True),
        ({"message": "invalid_grant"}, True),
        ({"error": {"details": {"code": "invalid_grant"}}}, True),
        ([{"code": "unauthorized", "message": "no"}], True),
        ({"error": "access_denied"}, True),
        (b'{"error": ' * 500 + b'"invalid_grant"' + b"}" * 500, True),
        ({"error": "invalid_grant"}, False),
        ({"error": {"code": "Invalid_Grant"}}, False),
        ({"errors": [{"code": "invalid_grant"}]}, False),
        ([{"code": "other"}, {"code": "invalid_grant"}], False),
    ],
    ids=lambda value: value[:20].decode() if isinstance(value, bytes) else None,
)
def test_a_refusal_is_bare_when_no_code_says_that_the_grant_is_bad(
    server: TokenServer, endpoint: TokenEndpoint, status: int, body: Any, bare: bool
) -> None:
    server.will(answers(status, body))

    error = failure(endpoint)

    assert isinstance(error, GrantRefusedError)
    assert error.bare is bare


@pytest.mark.parametrize("status", [*range(500, 512), 520, 522, 524, 598])
def test_after_any_5xx_nobody_knows_whether_the_token_was_spent(
    server: TokenServer, endpoint: TokenEndpoint, status: int
) -> None:
    server.will(answers(status, HTML))

    assert type(failure(endpoint)) is LOST


@pytest.mark.parametrize("status", [408, 425, 429, 503])
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("0", 0.0),
        ("soon", None),
        ("inf", None),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2026 07:27:00 GMT", 0.0),
    ],
)
def test_an_answer_that_asks_to_come_back_has_not_spent_the_token(
    server: TokenServer, endpoint: TokenEndpoint, status: int, header: str, seconds: float | None
) -> None:
    # The server's clock is years away from ours: a date is compared with its own.
    now = "Wed, 21 Oct 2026 07:28:00 GMT"
    server.will(answers(status, b"", {"Retry-After": header, "Date": now}))

    error = failure(endpoint)

    assert type(error) is NOT_DONE
    assert error.retry_after == seconds


@pytest.mark.parametrize("status", [500, 502, 504])
def test_retry_after_on_another_5xx_does_not_prove_that_the_token_was_not_spent(
    server: TokenServer, endpoint: TokenEndpoint, status: int
) -> None:
    server.will(answers(status, b"", {"Retry-After": "7"}))

    assert type(failure(endpoint)) is LOST


def test_a_stray_byte_in_a_message_does_not_hide_the_code_beside_it(
    server: TokenServer, endpoint: TokenEndpoint
) -> None:
    server.will(answers(401, b'{"error": "invalid_client", "error_description": "g\xfcltig"}'))

    assert type(failure(endpoint)) is ClientRefusedError


@pytest.mark.parametrize("code", ["invalid_grant", "invalid_client", "server_error"])
def test_a_pair_that_was_granted_is_kept_whatever_else_the_answer_says(
    server: TokenServer, endpoint: TokenEndpoint, code: str
) -> None:
    server.will(answers(200, {"access_token": "granted", "refresh_token": "next", "error": code}))
    grant = endpoint.refresh(REFRESH_TOKEN)
    assert (grant.access_token, grant.refresh_token) == ("granted", "next")
