"""Two sellers never share a key or a fingerprint, whatever their names are."""

from __future__ import annotations

import unicodedata

from hypothesis import assume, example, given
from hypothesis import strategies as st

from airflow_provider_feedamp.tokens.records import TokenKey
from tests.tokens.secrets import REFRESH_TOKEN, SECRETS, secrets_in

URL = "https://feedamp.test/api/v1/access_token"
#: Any text that Python can hold, halves of surrogate pairs included.
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=500)


def key_of(seller: str) -> TokenKey:
    return TokenKey(URL, "client-1", seller)


KEY = key_of("acme")


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


def test_ten_thousand_names_share_no_key_and_no_fingerprint() -> None:
    shapes = ("{0}", "seller-{0}", "seller/{0}", "seller__{0}", "\u00fc{0}", "u\u0308{0}", "{0} ", " {0}")
    names = [shape.format(number) for number in range(1250) for shape in shapes]
    keys = [key_of(name) for name in names]

    assert len(names) == 10_000
    assert len({key.digest for key in keys}) == 10_000
    assert len({key.fingerprint(REFRESH_TOKEN) for key in keys}) == 10_000


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
