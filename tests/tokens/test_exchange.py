"""What is sent to the token endpoint, and what each of its answers means for the token that was sent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_feedamp import __version__
from airflow_provider_feedamp.tokens.endpoint import DEFAULT_LIFETIME, MAX_LIFETIME, TokenEndpoint, TokenGrant
from tests.tokens.conftest import endpoint_at
from tests.tokens.edge import TokenServer, answers
from tests.tokens.secrets import (
    CLIENT_SECRET,
    CODE,
    NEW_ACCESS_TOKEN,
    NEW_REFRESH_TOKEN,
    REFRESH_TOKEN,
    secrets_in,
)

PAIR = {
    "access_token": NEW_ACCESS_TOKEN,
    "token_type": "Bearer",
    "refresh_token": NEW_REFRESH_TOKEN,
    "expires_in": 3600,
}
CLIENT = {"client_id": "client-1", "client_secret": CLIENT_SECRET}


# The request


@pytest.mark.parametrize(
    ("encoding", "kind"), [("json", "application/json"), ("form", "application/x-www-form-urlencoded")]
)
def test_a_refresh_is_one_post_in_the_configured_encoding(
    server: TokenServer, encoding: str, kind: str
) -> None:
    server.will(answers(200, PAIR))

    endpoint_at(server.url, encoding=encoding).refresh(REFRESH_TOKEN)

    (request,) = server.received
    fields = request.json if encoding == "json" else request.form
    assert fields == {"grant_type": "refresh_token", "refresh_token": REFRESH_TOKEN, **CLIENT}
    assert (request.method, request.target) == ("POST", "/api/v1/access_token")
    assert request.headers["content-type"] == kind
    assert request.headers["accept"] == "application/json"
    assert request.headers["user-agent"] == f"airflow-provider-feedamp/{__version__}"


@pytest.mark.parametrize("encoding", ["json", "form"])
def test_a_code_is_exchanged_in_the_configured_encoding(server: TokenServer, encoding: str) -> None:
    server.will(answers(200, PAIR))

    grant = endpoint_at(server.url, encoding=encoding).exchange_code(CODE)

    (request,) = server.received
    fields = request.json if encoding == "json" else request.form
    assert fields == {"grant_type": "authorization_code", "code": CODE, **CLIENT}
    assert grant.refresh_token == NEW_REFRESH_TOKEN


@pytest.mark.parametrize("encoding", ["json", "form"])
def test_the_redirect_url_goes_with_a_code_only_when_it_is_given(server: TokenServer, encoding: str) -> None:
    server.will(answers(200, PAIR))
    url = "https://shop.test/back?a=b&c=d"

    endpoint_at(server.url, encoding=encoding).exchange_code(CODE, url)

    (request,) = server.received
    fields = request.json if encoding == "json" else request.form
    assert fields == {"grant_type": "authorization_code", "code": CODE, "redirect_url": url, **CLIENT}


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


def test_neither_the_url_nor_a_header_carries_a_secret(server: TokenServer) -> None:
    server.will(answers(200, PAIR))

    endpoint_at(server.url).refresh(REFRESH_TOKEN)

    (request,) = server.received
    assert "authorization" not in request.headers
    assert "cookie" not in request.headers
    assert secrets_in(f"{request.target} {request.headers}") == []


def test_a_cookie_of_one_answer_is_not_sent_with_the_next_request(server: TokenServer) -> None:
    server.otherwise = answers(200, PAIR, {"Set-Cookie": "session=1; Path=/"})

    for _ in range(2):
        endpoint_at(server.url).refresh(REFRESH_TOKEN)

    assert ["cookie" in request.headers for request in server.received] == [False, False]


# Grants


def test_a_whole_answer_is_a_grant_without_oddities(server: TokenServer, endpoint: TokenEndpoint) -> None:
    server.will(answers(200, PAIR))

    assert endpoint.refresh(REFRESH_TOKEN) == TokenGrant(NEW_ACCESS_TOKEN, NEW_REFRESH_TOKEN, 3600.0)


@pytest.mark.parametrize(
    "body",
    [
        PAIR | {"token_type": "bearer"},
        PAIR | {"token_type": "BEARER"},
        {name: value for name, value in PAIR.items() if name != "token_type"},
        PAIR | {"scope": "orders", "error": None, "code": "", "field_of_tomorrow": {"a": [1]}},
        PAIR | {"access_token": f" {NEW_ACCESS_TOKEN}\n"},
        [PAIR],
    ],
)
@pytest.mark.parametrize("status", [200, 201])
def test_an_answer_in_other_dress_is_the_same_grant(
    server: TokenServer, endpoint: TokenEndpoint, status: int, body: Any
) -> None:
    server.will(answers(status, body))

    assert endpoint.refresh(REFRESH_TOKEN) == TokenGrant(NEW_ACCESS_TOKEN, NEW_REFRESH_TOKEN, 3600.0)


@pytest.mark.parametrize("kind", ["text/html", "text/plain", "", "application/json; charset=utf-16"])
def test_the_content_type_of_a_grant_does_not_matter(
    server: TokenServer, endpoint: TokenEndpoint, kind: str
) -> None:
    server.will(answers(200, PAIR, {"Content-Type": kind}))

    assert endpoint.refresh(REFRESH_TOKEN).access_token == NEW_ACCESS_TOKEN


@pytest.mark.parametrize(
    ("expires_in", "lifetime"),
    [
        (3600, 3600),
        (1, 1),
        (0.5, 0.5),
        (59.9, 59.9),
        ("3600", 3600),
        (" 1800 ", 1800),
        ("1e3", 1000),
        (86400, MAX_LIFETIME),
        (86401, MAX_LIFETIME),
        (10**30, MAX_LIFETIME),
        ("99999999999", MAX_LIFETIME),
        (1e300, MAX_LIFETIME),
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
        "null",
        "0",
        "-1",
        "-1e9",
        '""',
        '"soon"',
        '"1 hour"',
        '"-5"',
        '"nan"',
        '"inf"',
        "NaN",
        "Infinity",
        "1e999",
        "true",
        "false",
        "[3600]",
        '{"seconds": 3600}',
        "1" + "0" * 400,
        "1" + "0" * 5000,
    ],
)
def test_an_odd_expires_in_is_taken_for_an_hour_and_told(
    server: TokenServer, endpoint: TokenEndpoint, raw: str
) -> None:
    body = json.dumps(PAIR).replace("3600", raw)
    server.will(answers(200, body.encode()))

    grant = endpoint.refresh(REFRESH_TOKEN)

    assert (grant.access_token, grant.refresh_token) == (NEW_ACCESS_TOKEN, NEW_REFRESH_TOKEN)
    assert grant.lifetime == DEFAULT_LIFETIME
    assert [oddity.split()[0] for oddity in grant.oddities] == ["expires_in"]


def test_a_missing_expires_in_is_taken_for_an_hour_and_told(
    server: TokenServer, endpoint: TokenEndpoint
) -> None:
    server.will(answers(200, {"access_token": NEW_ACCESS_TOKEN, "refresh_token": NEW_REFRESH_TOKEN}))

    grant = endpoint.refresh(REFRESH_TOKEN)

    assert grant.lifetime == DEFAULT_LIFETIME
    assert len(grant.oddities) == 1


@pytest.mark.parametrize("refresh_token", [None, "", "  ", 7, ["rt"]])
def test_an_answer_without_refresh_token_leaves_the_present_one_in_force(
    server: TokenServer, endpoint: TokenEndpoint, refresh_token: object
) -> None:
    server.will(answers(200, PAIR | {"refresh_token": refresh_token}))

    grant = endpoint.refresh(REFRESH_TOKEN)

    assert (grant.access_token, grant.refresh_token) == (NEW_ACCESS_TOKEN, None)
    assert [oddity.split()[0] for oddity in grant.oddities] == ["refresh_token"]


@pytest.mark.parametrize("access_token", [None, "", "  ", 7, False, {"value": "at"}])
def test_an_answer_with_a_refresh_token_only_is_not_lost(
    server: TokenServer, endpoint: TokenEndpoint, access_token: object
) -> None:
    server.will(answers(200, PAIR | {"access_token": access_token}))

    grant = endpoint.refresh(REFRESH_TOKEN)

    assert (grant.access_token, grant.refresh_token) == (None, NEW_REFRESH_TOKEN)


def test_a_grant_and_an_endpoint_show_no_secret(server: TokenServer, endpoint: TokenEndpoint) -> None:
    server.will(answers(200, PAIR))

    assert secrets_in(f"{endpoint.refresh(REFRESH_TOKEN)!r} {endpoint!r} {endpoint}") == []


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8"])
def test_a_byte_order_mark_does_not_cost_the_grant(
    server: TokenServer, endpoint: TokenEndpoint, kind: str
) -> None:
    server.will(answers(200, b"\xef\xbb\xbf" + json.dumps(PAIR).encode(), {"Content-Type": kind}))

    assert endpoint.refresh(REFRESH_TOKEN).refresh_token == NEW_REFRESH_TOKEN
