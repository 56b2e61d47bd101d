"""What is sent to the token endpoint, what its answers mean for the token sent, and what errors tell."""

from __future__ import annotations

import json
import logging
from operator import methodcaller
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp import __version__
from airflow_provider_feedamp.exceptions import (
    AnswerLostError,
    ClientRefusedError,
    ConfigurationError,
    FeedAmpError,
    NotProcessedError,
    TokenNotRenewedError,
)
from airflow_provider_feedamp.tokens.endpoint import (
    DEFAULT_LIFETIME,
    MAX_LIFETIME,
    GrantRefusedError,
    TokenEndpoint,
    TokenGrant,
)
from tests.tokens.conftest import endpoint_at, failure
from tests.tokens.edge import TokenServer, answers, hangs_up, plain, sends
from tests.tokens.secrets import (
    ACCESS_TOKEN,
    CLIENT_SECRET,
    CODE,
    NEW_ACCESS_TOKEN,
    NEW_REFRESH_TOKEN,
    PAIR,
    REFRESH_TOKEN,
    SECRETS,
    secrets_in,
    told,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


CLIENT = {"client_id": "client-1", "client_secret": CLIENT_SECRET}


# The request


URL = "https://shop.test/back?a=b&c=d"
CODE_FIELDS = {"grant_type": "authorization_code", "code": CODE}


@pytest.mark.parametrize(
    ("encoding", "kind"), [("json", "application/json"), ("form", "application/x-www-form-urlencoded")]
)
@pytest.mark.parametrize(
    ("call", "sent"),
    [
        (
            methodcaller("refresh", REFRESH_TOKEN),
            {"grant_type": "refresh_token", "refresh_token": REFRESH_TOKEN},
        ),
        (methodcaller("exchange_code", CODE), CODE_FIELDS),
        (methodcaller("exchange_code", CODE, URL), {**CODE_FIELDS, "redirect_url": URL}),
    ],
    ids=["a refresh token", "a code", "a code with a redirect URL"],
)
def test_a_token_call_is_one_post_in_the_configured_encoding(
    server: TokenServer, encoding: str, kind: str, call: Any, sent: dict[str, str]
) -> None:
    server.will(answers(200, PAIR))

    grant = call(endpoint_at(server.url, encoding=encoding))

    (request,) = server.received
    assert (request.json if encoding == "json" else request.form) == {**sent, **CLIENT}
    assert (request.method, request.target) == ("POST", "/api/v1/access_token")
    assert request.headers["content-type"] == kind
    assert request.headers["accept"] == "application/json"
    assert request.headers["user-agent"] == f"airflow-provider-feedamp/{__version__}"
    assert grant.refresh_token == NEW_REFRESH_TOKEN


@pytest.mark.parametrize("encoding", ["json", "form"])
@pytest.mark.parametrize(
    "token", ["a+b/c==&d=e %41", "caf\u00e9 \U0001f600", "half \ud800", "line\nbreak\"'"]
)
def test_a_token_of_any_characters_arrives_as_it_is(server: TokenServer, encoding: str, token: str) -> None:
    server.will(answers(200, PAIR))

    endpoint_at(server.url, encoding=encoding).refresh(token)

    (request,) = server.received
    if encoding == "json":
        assert request.json["refresh_token"] == token
    else:
        assert (
            request.form["refresh_token"].encode()
            == token.encode(errors="surrogatepass").decode(errors="replace").encode()
        )


def test_neither_the_url_nor_a_header_carries_a_secret_or_a_cookie(server: TokenServer) -> None:
    server.otherwise = answers(200, PAIR, {"Set-Cookie": "session=1; Path=/"})

    for _ in range(2):
        endpoint_at(server.url).refresh(REFRESH_TOKEN)

    for request in server.received:
        assert not {"authorization", "cookie"} & request.headers.keys()
        assert secrets_in(f"{request.target} {request.headers}") == []
    assert len(server.received) == 2


# Grants


BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    "body",
    [
        PAIR,
        PAIR | {"token_type": "bearer"},
        PAIR | {"token_type": "BEARER"},
        {name: value for name, value in PAIR.items() if name != "token_type"},
        PAIR | {"scope": "orders", "error": None, "code": "", "field_of_tomorrow": {"a": [1]}},
        PAIR | {"access_token": f" {NEW_ACCESS_TOKEN}\n"},
        [PAIR],
        # A pair that was granted is kept whatever else the answer says.
        *(PAIR | {"error": code} for code in ("invalid_grant", "invalid_client", "server_error")),
    ],
)
@pytest.mark.parametrize("status", [200, 201])
def test_an_answer_in_any_dress_is_the_same_grant_without_oddities(
    server: TokenServer, endpoint: TokenEndpoint, status: int, body: Any
) -> None:
    server.will(answers(status, body))

    assert endpoint.refresh(REFRESH_TOKEN) == TokenGrant(NEW_ACCESS_TOKEN, NEW_REFRESH_TOKEN, 3600.0)


@pytest.mark.parametrize(
    ("kind", "mark"),
    [
        *(("text/html", b""), ("text/plain", b""), ("", b""), ("application/json; charset=utf-16", b"")),
        *(("application/json", BOM), ("application/json; charset=utf-8", BOM)),
    ],
)
def test_neither_the_content_type_of_a_grant_nor_a_byte_order_mark_costs_it(
    server: TokenServer, endpoint: TokenEndpoint, kind: str, mark: bytes
) -> None:
    server.will(answers(200, mark + json.dumps(PAIR).encode(), {"Content-Type": kind}))

    assert endpoint.refresh(REFRESH_TOKEN).refresh_token == NEW_REFRESH_TOKEN


@pytest.mark.parametrize(
    ("expires_in", "lifetime"),
    [
        *((3600, 3600), (1, 1), (0.5, 0.5), (59.9, 59.9), ("3600", 3600), (" 1800 ", 1800), ("1e3", 1000)),
        *((86400, MAX_LIFETIME), (86401, MAX_LIFETIME), (10**30, MAX_LIFETIME)),
        *(("99999999999", MAX_LIFETIME), (1e300, MAX_LIFETIME)),
    ],
)
def test_expires_in_is_read_as_a_number_and_capped(
    server: TokenServer, endpoint: TokenEndpoint, expires_in: object, lifetime: float
) -> None:
    server.will(answers(200, PAIR | {"expires_in": expires_in}))

    grant = endpoint.refresh(REFRESH_TOKEN)

    assert (grant.lifetime, grant.oddities) == (lifetime, ())


@pytest.mark.parametrize(
    "raw",
    [
        *("null", "0", "-1", "-1e9", '""', '"soon"', '"1 hour"', '"-5"', '"nan"', '"inf"', "NaN", "Infinity"),
        *("1e999", "true", "false", "[3600]", '{"seconds": 3600}', "1" + "0" * 400, "1" + "0" * 5000, None),
    ],
    ids=lambda raw: str(raw)[:20],
)
def test_an_odd_or_missing_expires_in_is_taken_for_an_hour_and_told(
    server: TokenServer, endpoint: TokenEndpoint, raw: str | None
) -> None:
    given = f'"expires_in": {raw}' if raw else '"x": 1'
    server.will(answers(200, json.dumps(PAIR).replace('"expires_in": 3600', given).encode()))

    grant = endpoint.refresh(REFRESH_TOKEN)

    assert (grant.access_token, grant.refresh_token) == (NEW_ACCESS_TOKEN, NEW_REFRESH_TOKEN)
    assert grant.lifetime == DEFAULT_LIFETIME
    assert [oddity.split()[0] for oddity in grant.oddities] == ["expires_in"]


@pytest.mark.parametrize(
    ("name", "value", "granted", "odd"),
    [
        *(("refresh_token", none, (NEW_ACCESS_TOKEN, None), True) for none in (None, "", "  ", 7, ["rt"])),
        *(
            ("access_token", none, (None, NEW_REFRESH_TOKEN), False)
            for none in (None, "", "  ", 7, False, {"value": "at"})
        ),
    ],
)
def test_an_answer_with_one_token_only_grants_that_one(
    server: TokenServer,
    endpoint: TokenEndpoint,
    name: str,
    value: object,
    granted: tuple[Any, Any],
    odd: bool,
) -> None:
    """Without a refresh token the present one stays in force; without an access token nothing is lost."""
    server.will(answers(200, PAIR | {name: value}))

    grant = endpoint.refresh(REFRESH_TOKEN)

    assert (grant.access_token, grant.refresh_token) == granted
    assert [oddity.split()[0] for oddity in grant.oddities] == [name] * odd


def test_a_grant_and_an_endpoint_show_no_secret(server: TokenServer, endpoint: TokenEndpoint) -> None:
    server.will(answers(200, PAIR))

    assert secrets_in(f"{endpoint.refresh(REFRESH_TOKEN)!r} {endpoint!r} {endpoint}") == []


HTML = b"<html><body><h1>Bad Gateway</h1></body></html>"

REFUSED, CLIENT_BAD, CONFIG = GrantRefusedError, ClientRefusedError, ConfigurationError

LOST, NOT_DONE = AnswerLostError, NotProcessedError


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
        (401, b'{"error": "invalid_client", "error_description": "g\xfcltig"}', CLIENT_BAD),  # a stray byte
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


@pytest.mark.parametrize(
    "status",
    [
        *(*range(400, 408), *range(409, 425), *range(426, 429), *range(430, 500)),
        *(*range(500, 512), 520, 522, 524, 598),
    ],
)
def test_without_a_code_a_401_and_a_403_refuse_a_token_another_4xx_the_request_and_a_5xx_says_nothing(
    server: TokenServer, endpoint: TokenEndpoint, status: int
) -> None:
    server.will(answers(status, HTML))

    refused = REFUSED if status in (401, 403) else CONFIG
    assert type(failure(endpoint)) is (refused if status < 500 else LOST)


@pytest.mark.parametrize("status", [500, 502, 504])
def test_retry_after_on_another_5xx_does_not_prove_that_the_token_was_not_spent(
    server: TokenServer, endpoint: TokenEndpoint, status: int
) -> None:
    server.will(answers(status, b"", {"Retry-After": "7"}))

    assert type(failure(endpoint)) is LOST


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


# What errors tell: enough to act on, and never what was sent or granted

ECHO = " ".join(SECRETS)


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


@pytest.mark.parametrize(
    ("status", "body", "kind", "named"),
    [
        (401, {"error": "invalid_client"}, ClientRefusedError, ["'client-1'"]),
        (404, b"<html>", ConfigurationError, [" request_encoding"]),
    ],
)
def test_an_error_names_what_to_look_at_in_the_connection_and_the_server_s_request_id(
    server: TokenServer, endpoint: TokenEndpoint, status: int, body: Any, kind: type, named: list[str]
) -> None:
    server.will(answers(status, body, {"X-Request-Id": "req-17"}))

    error = failure(endpoint)

    assert isinstance(error, kind)
    assert all(each in str(error) for each in ("connection 'shop'", *named))
    assert error.request_id == "req-17"


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
    for location in (f"{elsewhere.url}?token={REFRESH_TOKEN}", "/api/v1/access_token"):
        server.received.clear()
        server.will(answers(status, b"", {"Location": location}))

        error = failure(endpoint)

        assert isinstance(error, ConfigurationError)
        assert error.status == status
        assert "redirect" in str(error)
        assert elsewhere.received == []
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
