from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_feedamp.exceptions import TokenRecordError, TokenStoreError
from airflow_provider_feedamp.tokens.records import (
    FORMAT,
    AccessToken,
    Attempt,
    RecordState,
    TokenKey,
    TokenRecord,
)
from tests.tokens.secrets import ACCESS_TOKEN, NEW_REFRESH_TOKEN, REFRESH_TOKEN, secrets_in, told

URL = "https://feedamp.test/api/v1/access_token"
TEXT = st.text(max_size=60)


def key_of(seller: str) -> TokenKey:
    return TokenKey(URL, "client-1", seller)


KEY = key_of("acme")


def record(**fields: Any) -> TokenRecord:
    """Return a record with every field set to something."""
    whole = TokenRecord(
        key=KEY,
        refresh_token=REFRESH_TOKEN,
        access_token=ACCESS_TOKEN,
        expires_at=1_800_003_600.5,
        lifetime=3600.0,
        issued_at=1_800_000_000.5,
        generation=7,
        revision=19,
        state=RecordState.UNCERTAIN,
        attempt=Attempt("attempt-1", KEY.fingerprint(REFRESH_TOKEN), 1_800_000_000.25),
        reason="the answer was lost",
        seeds=("0123456789abcdef", KEY.fingerprint(REFRESH_TOKEN)),
        superseded=NEW_REFRESH_TOKEN,
        refused_seed="fedcba9876543210",
        refused_secret="00112233445566aa",
        released="nonce-1",
    )
    return whole.changed(**fields)


# Access tokens


def test_a_record_hands_out_its_access_token_with_all_that_a_caller_may_know() -> None:
    token = record().token(renewed=True)

    assert token is not None
    assert token.value == ACCESS_TOKEN
    assert (token.seller, token.lifetime, token.generation, token.renewed) == ("acme", 3600.0, 7, True)
    assert token.expires_at == datetime.fromtimestamp(1_800_003_600.5, UTC)
    assert token.expires_at.utcoffset() == timedelta(0)


def test_an_access_token_is_not_called_renewed_by_whoever_only_found_it() -> None:
    token = record().token()

    assert token is not None
    assert token.renewed is False


@pytest.mark.parametrize("none", [None, ""])
def test_a_record_without_access_token_hands_out_none(none: str | None) -> None:
    assert record(access_token=none).token() is None


def test_neither_a_record_nor_a_token_shows_a_secret_in_its_repr() -> None:
    token = record().token()

    assert isinstance(token, AccessToken)
    assert secrets_in(f"{record()!r} {record()} {token!r} {token} {[token, record()]}") == []


# Stored form


@given(
    st.builds(
        TokenRecord,
        key=st.builds(TokenKey, TEXT, TEXT, TEXT),
        refresh_token=TEXT,
        access_token=st.none() | TEXT,
        expires_at=st.floats(0, 1e11),
        lifetime=st.floats(0, 86400),
        issued_at=st.floats(0, 1e11),
        generation=st.integers(0),
        revision=st.integers(0),
        state=st.sampled_from(RecordState),
        attempt=st.none() | st.builds(Attempt, TEXT, TEXT, st.floats(0, 1e11)),
        reason=TEXT,
        seeds=st.lists(TEXT, max_size=4).map(tuple),
        superseded=st.none() | TEXT,
        refused_seed=TEXT,
        refused_secret=TEXT,
        released=TEXT,
    )
)
def test_a_record_is_read_back_as_it_was_stored(stored: TokenRecord) -> None:
    assert TokenRecord.from_json(stored.to_json(), stored.key) == stored


@example("\ud800")
@example("x" * 500)
@given(st.text(max_size=500))
def test_a_record_is_read_back_whatever_its_seller_is_called(seller: str) -> None:
    stored = record(key=key_of(seller))

    assert TokenRecord.from_json(stored.to_json(), key_of(seller)) == stored


def test_the_stored_form_survives_any_store_that_keeps_plain_ascii() -> None:
    assert record(key=key_of("caf\u00e9 \U0001f600 \ud800")).to_json().isascii()


def test_the_stored_form_says_its_format_and_keeps_the_whole_record() -> None:
    data = json.loads(record().to_json())

    assert data["format"] == FORMAT
    assert data["refresh_token"] == REFRESH_TOKEN
    assert set(data) == {"format", *TokenRecord.__dataclass_fields__} - {"sealed_with"}


def refused(text: str, key: TokenKey = KEY) -> TokenRecordError:
    """Return the error that reading this text ends with, after a look at all that it tells."""
    with pytest.raises(TokenRecordError) as caught:
        TokenRecord.from_json(text, key)
    assert secrets_in(told(caught.value)) == []
    assert repr(key.seller) in str(caught.value)
    return caught.value


def stored_with(**changes: Any) -> str:
    data = json.loads(record().to_json()) | changes
    return json.dumps({name: value for name, value in data.items() if value is not ...})


@pytest.mark.parametrize("cut", range(0, len(record().to_json()), 7))
def test_a_truncated_record_is_refused(cut: int) -> None:
    assert "damaged" in str(refused(record().to_json()[:cut]))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        REFRESH_TOKEN,
        f"'{REFRESH_TOKEN}'",
        json.dumps(REFRESH_TOKEN),
        json.dumps([REFRESH_TOKEN]),
        json.dumps({"refresh_token": REFRESH_TOKEN}),
        json.dumps({"format": FORMAT}),
        json.dumps({"format": FORMAT, "refresh_token": REFRESH_TOKEN}),
        "null",
        "7",
        "true",
        "[]",
        "{}",
        f"<html>{REFRESH_TOKEN}</html>",
        "[" * 100_000,
    ],
    ids=lambda text: text[:40],
)
def test_what_is_no_record_is_refused(text: str) -> None:
    assert "damaged" in str(refused(text))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("key", ...),
        ("refresh_token", ...),
        ("state", ...),
        ("attempt", ...),
        ("seeds", ...),
        ("state", REFRESH_TOKEN),
        ("state", None),
        ("key", None),
        ("key", [URL, "client-1", "acme"]),
        ("key", {"token_url": URL, "client_id": "client-1"}),
        ("attempt", {"id": "1"}),
        ("attempt", REFRESH_TOKEN),
        ("seeds", None),
        ("seeds", 7),
        ("seeds", [7]),
        ("field_of_tomorrow", REFRESH_TOKEN),
        ("refresh_token", None),
        ("refresh_token", 7),
        ("access_token", ["at"]),
        ("superseded", 7),
        ("expires_at", "soon"),
        ("lifetime", None),
        ("issued_at", []),
        ("revision", "19"),
        ("generation", None),
    ],
)
def test_a_record_with_a_part_missing_or_of_the_wrong_kind_is_refused(name: str, value: object) -> None:
    assert "damaged" in str(refused(stored_with(**{name: value})))


@pytest.mark.parametrize("newer", [FORMAT + 1, 99, "2", None])
def test_a_record_of_another_format_is_refused_and_not_guessed_at(newer: object) -> None:
    error = refused(stored_with(format=newer, field_of_tomorrow=REFRESH_TOKEN))

    assert f"format {newer!r}" in str(error)
    assert "Upgrade" in str(error)


@pytest.mark.parametrize(
    "asked",
    [
        TokenKey(URL, "client-1", "globex"),
        TokenKey(URL, "client-2", "acme"),
        TokenKey("https://other.test/api/v1/access_token", "client-1", "acme"),
    ],
)
def test_another_key_s_record_is_refused(asked: TokenKey) -> None:
    assert "another seller, client or endpoint" in str(refused(record().to_json(), asked))


def test_two_halves_of_a_character_never_get_the_whole_character_s_record() -> None:
    assert "another seller" in str(
        refused(record(key=key_of("\U0001f600")).to_json(), key_of("\ud83d\ude00"))
    )


def test_a_record_that_cannot_be_read_is_a_store_error_that_no_retry_mends() -> None:
    error = refused("")

    assert isinstance(error, TokenStoreError)
    assert error.retryable is False
