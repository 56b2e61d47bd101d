"""When the connection's refresh token wins over the stored one, and when it does not."""

from __future__ import annotations

import pytest

from airflow_provider_feedamp.tokens.records import Attempt, RecordState, TokenKey, TokenRecord, seeded

KEY = TokenKey("https://feedamp.test/api/v1/access_token", "client-1", "acme")
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


@pytest.mark.parametrize("seed", [None, ""])
def test_a_connection_without_token_leaves_the_record_as_it_is(seed: str | None) -> None:
    assert rotated().with_seed(seed, SECRET) == rotated()


def test_the_token_that_seeded_the_record_does_not_undo_the_rotation() -> None:
    assert rotated().with_seed(FIRST, SECRET) == rotated()


def test_the_stored_token_put_into_the_connection_changes_nothing() -> None:
    known = rotated().with_seed(ROTATED, SECRET)

    assert known == rotated().changed(seeds=known.seeds)


def test_the_stored_token_put_into_the_connection_does_not_undo_a_later_rotation() -> None:
    later = rotated().with_seed(ROTATED, SECRET).changed(refresh_token="rt-later")

    assert later.with_seed(ROTATED, SECRET) == later


def test_a_person_s_new_token_wins_over_the_stored_one() -> None:
    replaced = rotated().with_seed(REPLACED, SECRET)

    assert replaced.refresh_token == REPLACED
    assert replaced.superseded == ROTATED
    assert (replaced.state, replaced.attempt, replaced.reason) == (RecordState.ACTIVE, None, "")
    assert replaced.seeds == (KEY.fingerprint(FIRST), KEY.fingerprint(REPLACED))
    assert (replaced.generation, replaced.revision) == (3, 5)


def test_a_person_s_new_token_ends_the_use_of_the_old_access_token() -> None:
    assert rotated().with_seed(REPLACED, SECRET).token() is None


def test_a_new_token_is_taken_in_once() -> None:
    renewed = rotated().with_seed(REPLACED, SECRET).changed(refresh_token="rt-after", superseded=None)

    assert renewed.with_seed(REPLACED, SECRET) == renewed


def test_a_token_that_was_in_use_long_ago_is_not_new() -> None:
    renewed = rotated().with_seed(REPLACED, SECRET)

    assert renewed.with_seed(FIRST, SECRET) == renewed


def test_a_new_token_lifts_a_condemned_record_and_keeps_nothing_of_it_to_go_back_to() -> None:
    condemned = rotated().changed(state=RecordState.REAUTH_REQUIRED, reason="refused")

    replaced = condemned.with_seed(REPLACED, SECRET)

    assert (replaced.state, replaced.reason, replaced.superseded) == (RecordState.ACTIVE, "", None)


def test_a_condemned_record_stays_condemned_while_the_connection_is_unchanged() -> None:
    condemned = rotated().changed(state=RecordState.REAUTH_REQUIRED, reason="refused")

    assert condemned.with_seed(FIRST, SECRET) == condemned


def test_a_new_token_that_was_refused_is_not_tried_again() -> None:
    refused = rotated().changed(refused_seed=KEY.fingerprint(REPLACED), refused_secret=SECRET)

    assert refused.refuses(REPLACED, SECRET)
    assert refused.with_seed(REPLACED, SECRET) == refused


def test_a_refused_token_is_tried_again_with_another_client_secret() -> None:
    refused = rotated().changed(refused_seed=KEY.fingerprint(REPLACED), refused_secret=SECRET)
    other = KEY.fingerprint("another client secret")

    assert not refused.refuses(REPLACED, other)
    assert refused.with_seed(REPLACED, other).refresh_token == REPLACED


@pytest.mark.parametrize("seed", [None, "", FIRST])
def test_a_record_refuses_only_what_was_refused(seed: str | None) -> None:
    refused = rotated().changed(refused_seed=KEY.fingerprint(REPLACED), refused_secret=SECRET)

    assert not refused.refuses(seed, SECRET)


def test_the_newest_sixteen_tokens_are_remembered() -> None:
    record = rotated()
    for number in range(40):
        record = record.with_seed(f"rt-{number}", SECRET)

    assert record.seeds == tuple(KEY.fingerprint(f"rt-{number}") for number in range(24, 40))
