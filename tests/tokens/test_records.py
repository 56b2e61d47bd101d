"""Two sellers never share a key or a fingerprint, whatever their names are."""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from airflow_provider_feedamp.exceptions import TokenRecordError, TokenStoreError
from airflow_provider_feedamp.tokens.records import (
    FORMAT,
    AccessToken,
    Attempt,
    RecordState,
    TokenKey,
    TokenRecord,
    seeded,
)
from tests.tokens.secrets import ACCESS_TOKEN, NEW_REFRESH_TOKEN, REFRESH_TOKEN, SECRETS, secrets_in, told

URL = "https://feedamp.test/api/v1/access_token"
TEXT = st.text(max_size=60)


def key_of(seller: str) -> TokenKey:
    return TokenKey(URL, "client-1", seller)


KEY = key_of("hooli")


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


@pytest.mark.parametrize("renewed", [True, False])
def test_a_record_hands_out_its_access_token_with_all_that_a_caller_may_know(renewed: bool) -> None:
    token = record().token(renewed=True) if renewed else record().token()

    assert token is not None
    assert token.value == ACCESS_TOKEN
    assert (token.seller, token.lifetime, token.generation, token.renewed) == ("hooli", 3600.0, 7, renewed)
    assert token.expires_at == datetime.fromtimestamp(1_800_003_600.5, UTC)
    assert token.expires_at.utcoffset() == timedelta(0)


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
        *("", " ", REFRESH_TOKEN, f"'{REFRESH_TOKEN}'", "null", "7", "true", "[]", "{}", "[" * 100_000),
        *(json.dumps(REFRESH_TOKEN), json.dumps([REFRESH_TOKEN]), f"<html>{REFRESH_TOKEN}</html>"),
        json.dumps({"refresh_token": REFRESH_TOKEN}),
        json.dumps({"format": FORMAT}),
        json.dumps({"format": FORMAT, "refresh_token": REFRESH_TOKEN}),
    ],
    ids=lambda text: text[:40],
)
def test_what_is_no_record_is_refused(text: str) -> None:
    error = refused(text)

    assert "damaged" in str(error)
    assert isinstance(error, TokenStoreError)
    assert error.retryable is False  # no retry mends it


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("key", ...), ("refresh_token", ...), ("state", ...), ("attempt", ...), ("seeds", ...)),
        *(("state", REFRESH_TOKEN), ("state", None), ("key", None), ("key", [URL, "client-1", "hooli"])),
        ("key", {"token_url": URL, "client_id": "client-1"}),
        *(("attempt", {"id": "1"}), ("attempt", REFRESH_TOKEN)),
        *(("seeds", None), ("seeds", 7), ("seeds", [7]), ("field_of_tomorrow", REFRESH_TOKEN)),
        *(("refresh_token", None), ("refresh_token", 7), ("access_token", ["at"]), ("superseded", 7)),
        *(("expires_at", "soon"), ("lifetime", None), ("issued_at", []), ("revision", "19")),
        *(("generation", None), ("bare_since", None), ("probes", "1"), ("probed_at", [])),
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
    ("stored", "asked"),
    [
        (KEY, TokenKey(URL, "client-1", "globex")),
        (KEY, TokenKey(URL, "client-2", "hooli")),
        (KEY, TokenKey("https://other.test/api/v1/access_token", "client-1", "hooli")),
        (key_of("\U0001f600"), key_of("\ud83d\ude00")),  # two halves of a character are not the character
    ],
)
def test_another_key_s_record_is_refused(stored: TokenKey, asked: TokenKey) -> None:
    assert "another seller, client or endpoint" in str(refused(record(key=stored).to_json(), asked))


#: Any text that Python can hold, halves of surrogate pairs included.
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=500)


@example("a/b", "a__b")
@example("a", "A")
@example("a", "a ")
@example("", " ")
@example("caf\u00e9", "cafe\u0301")
@example("x" * 500, "x" * 499 + "y")
@example("\ud800", "\ud801")
@example("\ud83d\ude00", "\U0001f600")
@example("\\ud800", "\ud800")
@example('a", "b', 'a\\", \\"b')
@given(ANY_TEXT, ANY_TEXT)
def test_two_sellers_never_share_a_digest_or_a_fingerprint(one: str, other: str) -> None:
    assume(one != other)

    assert key_of(one).digest != key_of(other).digest
    assert key_of(one).fingerprint("secret") != key_of(other).fingerprint("secret")


@example(("a", "bc", "d"), ("ab", "c", "d"))
@example(("a", "bc", "d"), ("a", "b", "cd"))
@example(("a", "b,c", ""), ("a,b", "c", ""))
@example(("a", 'b", "c', "d"), ("a", "b", 'c", "d'))
@example(("a", "b", "c"), ("a", "c", "b"))
@given(st.tuples(ANY_TEXT, ANY_TEXT, ANY_TEXT), st.tuples(ANY_TEXT, ANY_TEXT, ANY_TEXT))
def test_no_two_triples_of_endpoint_client_and_seller_share_a_digest(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    assume(one != other)

    assert TokenKey(*one).digest != TokenKey(*other).digest


@given(ANY_TEXT)
def test_a_name_in_another_unicode_normalisation_is_another_seller(name: str) -> None:
    names = {name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD", "NFKC", "NFKD"))}

    assert len({key_of(each).digest for each in names}) == len(names)


@given(ANY_TEXT)
def test_a_digest_is_the_same_every_time_and_fit_for_any_store_s_names(name: str) -> None:
    digest = key_of(name).digest

    assert digest == TokenKey(URL, "client-1", name).digest
    assert len(digest) == 64
    assert set(digest) <= set("0123456789abcdef")


@given(ANY_TEXT, ANY_TEXT)
def test_two_secrets_of_a_seller_have_two_short_fingerprints(one: str, other: str) -> None:
    assume(one != other)

    assert KEY.fingerprint(one) != KEY.fingerprint(other)
    assert len(KEY.fingerprint(one)) == 16


def test_a_fingerprint_shows_nothing_of_its_secret() -> None:
    assert secrets_in("".join(KEY.fingerprint(secret) for secret in SECRETS)) == []


SECRET = KEY.fingerprint("client secret")
FIRST, ROTATED, REPLACED = "rt-first", "rt-rotated", "rt-replaced"


def rotated() -> TokenRecord:
    """Return a record that began with the connection's token and has been renewed since."""
    return seeded(KEY, FIRST, now=1000.0).changed(
        refresh_token=ROTATED,
        access_token="at",
        expires_at=4600.0,
        generation=3,
        revision=5,
        state=RecordState.UNCERTAIN,
        attempt=Attempt("1", KEY.fingerprint(ROTATED), 1000.0),
        reason="the answer was lost",
    )


def test_a_seller_s_first_record_is_made_of_the_connection_s_token() -> None:
    first = seeded(KEY, FIRST, now=1000.0)

    known = KEY.fingerprint(FIRST)
    assert first == TokenRecord(key=KEY, refresh_token=FIRST, issued_at=1000.0, seeds=(known,), family=known)
    assert first.token() is None
    assert first.revision == 0


@pytest.mark.parametrize("seed", [None, "", FIRST])
@pytest.mark.parametrize("changes", [{}, {"state": RecordState.REAUTH_REQUIRED, "reason": "refused"}])
def test_a_connection_without_a_new_token_changes_nothing(seed: str | None, changes: dict[str, Any]) -> None:
    """Nor does it undo the rotation, or free a condemned record."""
    record = rotated().changed(**changes)

    assert record.with_seed(seed, SECRET) == record


def test_the_stored_token_put_into_the_connection_changes_nothing_then_or_after_a_later_rotation() -> None:
    known = rotated().with_seed(ROTATED, SECRET)
    later = known.changed(refresh_token="rt-later")

    assert known == rotated().changed(seeds=known.seeds)
    assert later.with_seed(ROTATED, SECRET) == later


def test_a_person_s_new_token_wins_over_the_stored_one_and_ends_the_use_of_the_old_access_token() -> None:
    replaced = rotated().with_seed(REPLACED, SECRET)

    assert (replaced.refresh_token, replaced.superseded, replaced.token()) == (REPLACED, ROTATED, None)
    assert (replaced.state, replaced.attempt, replaced.reason) == (RecordState.ACTIVE, None, "")
    assert replaced.seeds == (KEY.fingerprint(FIRST), KEY.fingerprint(REPLACED))
    assert (replaced.generation, replaced.revision) == (3, 5)


@pytest.mark.parametrize("seed", [REPLACED, FIRST])
def test_a_new_token_is_taken_in_once_and_one_that_was_in_use_long_ago_is_not_new(seed: str) -> None:
    for changes in ({}, {"refresh_token": "rt-after", "superseded": None}):
        renewed = rotated().with_seed(REPLACED, SECRET).changed(**changes)

        assert renewed.with_seed(seed, SECRET) == renewed


def test_a_new_token_lifts_a_condemned_record_and_keeps_nothing_of_it_to_go_back_to() -> None:
    condemned = rotated().changed(state=RecordState.REAUTH_REQUIRED, reason="refused")

    replaced = condemned.with_seed(REPLACED, SECRET)

    assert (replaced.state, replaced.reason, replaced.superseded) == (RecordState.ACTIVE, "", None)


def test_a_new_token_that_was_refused_is_tried_again_under_another_client_secret_only() -> None:
    refused = rotated().changed(refused_seed=KEY.fingerprint(REPLACED), refused_secret=SECRET)
    other = KEY.fingerprint("another client secret")

    assert refused.refuses(REPLACED, SECRET)
    assert refused.with_seed(REPLACED, SECRET) == refused
    assert not refused.refuses(REPLACED, other)
    assert refused.with_seed(REPLACED, other).refresh_token == REPLACED
    assert not any(refused.refuses(seed, SECRET) for seed in (None, "", FIRST))


def test_the_newest_sixteen_tokens_are_remembered() -> None:
    record = rotated()
    for number in range(40):
        record = record.with_seed(f"rt-{number}", SECRET)

    assert record.seeds == tuple(KEY.fingerprint(f"rt-{number}") for number in range(24, 40))
