"""What the errors of the token endpoint tell: enough to act on, and never what was sent or granted."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.exceptions import ClientRefusedError, ConfigurationError, FeedAmpError
from airflow_provider_feedamp.tokens.endpoint import GrantRefusedError, TokenEndpoint
from tests.tokens.conftest import endpoint_at
from tests.tokens.edge import TokenServer, answers, hangs_up, plain, sends
from tests.tokens.secrets import (
    ACCESS_TOKEN,
    CODE,
    NEW_ACCESS_TOKEN,
    NEW_REFRESH_TOKEN,
    REFRESH_TOKEN,
    SECRETS,
    secrets_in,
    told,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

ECHO = " ".join(SECRETS)
PAIR = {"access_token": NEW_ACCESS_TOKEN, "refresh_token": NEW_REFRESH_TOKEN, "expires_in": 3600}


def failure(endpoint: TokenEndpoint) -> FeedAmpError:
    with pytest.raises(FeedAmpError) as caught:
        endpoint.refresh(REFRESH_TOKEN)
    return caught.value


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"error": "invalid_grant"}, "invalid_grant"),
        ({"error": "Invalid_Client"}, "invalid_client"),
        ({"error": "invalid_request", "error_description": ECHO}, "invalid_request"),
        ([{"code": "field_invalid_value", "message": ECHO}], "field_invalid_value"),
        ({"code": "invalid_payload"}, "invalid_payload"),
        ({"error": {"code": "invalid_grant", "message": ECHO}}, "invalid_grant"),
        ({"errors": [{"code": REFRESH_TOKEN}, {"code": "invalid_scope"}]}, "invalid_scope"),
    ],
)
def test_a_known_code_is_shown(server: TokenServer, endpoint: TokenEndpoint, body: Any, code: str) -> None:
    server.will(answers(400, body))

    error = failure(endpoint)

    assert error.codes == (code,)
    assert f"({code})" in str(error)
    assert secrets_in(told(error)) == []


@pytest.mark.parametrize("status", [200, 302, 400, 401, 404, 429, 500, 503])
@pytest.mark.parametrize(
    "body",
    [
        {"error": REFRESH_TOKEN},
        {"error": {"code": REFRESH_TOKEN}},
        {"error": f"invalid_grant: {REFRESH_TOKEN}"},
        {"code": ECHO, "message": ECHO},
        [{"code": ECHO, "message": ECHO}],
        [ECHO],
        ECHO,
        {"detail": [{"input": {"refresh_token": REFRESH_TOKEN}}]},
    ],
    ids=lambda body: type(body).__name__ + "-" + "-".join(body if isinstance(body, dict) else "")[:20],
)
def test_an_unknown_code_or_an_echo_of_what_was_sent_is_never_shown(
    server: TokenServer, endpoint: TokenEndpoint, status: int, body: Any
) -> None:
    server.will(answers(status, body))

    error = failure(endpoint)

    assert error.codes == ()
    assert secrets_in(told(error)) == []


def test_the_server_s_request_id_comes_with_the_error(server: TokenServer, endpoint: TokenEndpoint) -> None:
    server.will(answers(401, b"", {"X-Request-Id": "req-17"}))

    assert failure(endpoint).request_id == "req-17"


def test_a_refused_client_names_the_client_and_the_connection(
    server: TokenServer, endpoint: TokenEndpoint
) -> None:
    server.will(answers(401, {"error": "invalid_client"}))

    error = failure(endpoint)

    assert isinstance(error, ClientRefusedError)
    assert "'client-1'" in str(error)
    assert "connection 'shop'" in str(error)


def test_a_refused_request_names_what_to_look_at_in_the_connection(
    server: TokenServer, endpoint: TokenEndpoint
) -> None:
    server.will(answers(404, b"<html>"))

    error = failure(endpoint)

    assert "connection 'shop'" in str(error)
    assert "request_encoding" in str(error)
    assert "token_request_encoding" not in str(error)


def test_a_refused_code_is_a_refused_grant(server: TokenServer, endpoint: TokenEndpoint) -> None:
    server.will(answers(400, {"error": "invalid_grant", "error_description": CODE}))

    with pytest.raises(GrantRefusedError) as refused:
        endpoint.exchange_code(CODE)

    assert secrets_in(told(refused.value)) == []
    assert refused.value.answer_lost is False


@pytest.fixture
def elsewhere() -> Iterator[TokenServer]:
    running = TokenServer()
    running.otherwise = answers(200, PAIR)
    yield running
    running.close()


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_told_without_its_target(
    server: TokenServer, endpoint: TokenEndpoint, elsewhere: TokenServer, status: int
) -> None:
    server.will(answers(status, b"", {"Location": f"{elsewhere.url}?token={REFRESH_TOKEN}"}))

    error = failure(endpoint)

    assert isinstance(error, ConfigurationError)
    assert error.status == status
    assert "redirect" in str(error)
    assert secrets_in(told(error)) == []
    assert elsewhere.received == []
    assert len(server.received) == 1


def test_a_redirect_to_itself_is_not_followed_either(server: TokenServer, endpoint: TokenEndpoint) -> None:
    server.otherwise = answers(307, b"", {"Location": "/api/v1/access_token"})

    failure(endpoint)

    assert len(server.received) == 1


@pytest.mark.parametrize("encoding", ["json", "form"])
@pytest.mark.parametrize(
    "act",
    [
        answers(200, PAIR),
        answers(200, {"access_token": ACCESS_TOKEN, "expires_in": ECHO}),
        answers(401, {"error": "invalid_grant", "error_description": ECHO}),
        answers(401, {"error": "invalid_client", "error_description": ECHO}),
        answers(400, ECHO.encode()),
        answers(302, b"", {"Location": f"http://127.0.0.1:9/?{REFRESH_TOKEN}"}),
        answers(429, ECHO.encode(), {"Retry-After": REFRESH_TOKEN}),
        answers(500, f"Traceback: {ECHO}".encode()),
        sends(plain(200, PAIR)[:-20]),
        sends(ECHO.encode()),
        sends(f"HTTP/1.1 {ECHO}\r\n\r\n".encode()),
        hangs_up,
    ],
)
def test_nothing_secret_is_logged_even_at_debug(
    server: TokenServer, caplog: pytest.LogCaptureFixture, act: Any, encoding: str
) -> None:
    caplog.set_level(logging.DEBUG)
    server.will(act)

    try:
        shown = repr(endpoint_at(server.url, encoding=encoding).refresh(REFRESH_TOKEN))
    except FeedAmpError as error:
        shown = told(error)
        logging.getLogger("task").exception("The task failed")

    records = " ".join(json.dumps(vars(record), default=repr) for record in caplog.records)
    assert secrets_in(caplog.text + records + shown) == []
    assert "access_token" in caplog.text  # the transport's own DEBUG lines were seen
