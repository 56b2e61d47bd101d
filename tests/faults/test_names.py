"""Fault 11: 10,000 sellers with awkward names, and no two of them share a key, a lock or a record."""

from __future__ import annotations

import itertools
import random
import unicodedata
from typing import TYPE_CHECKING

import pytest

from airflow_provider_feedamp.tokens.cache import TokenCache
from airflow_provider_feedamp.tokens.records import TokenKey, TokenRecord
from airflow_provider_feedamp.tokens.store import MemoryStore
from airflow_provider_feedamp.tokens.variable_store import VariableStore
from tests.stores.virtual import KeptVariables

if TYPE_CHECKING:
    from airflow_provider_feedamp.tokens.store import TokenStore

pytestmark = pytest.mark.faults

COUNT = 10_000
#: What stores, paths and databases like to treat as alike, to cut off or to escape.
PIECES = (
    *("a", "A", "\uff41", "ä", "a\u0308", "ß", "ss", "İ", "i", "\u0131", "0", "\u0966", "商", "😀", "\ud83d"),
    *("/", "\\", "_", "__", "-", ".", "..", ":", "|", "%", "%2F", "%25", "#", "?", "&", "=", "+", "*", '"'),
    *(" ", "\u00a0", "\t", "\n", "\0", "\u200b", "\ufeff", "'", "`", ",", ";", "{", "}", "$", "\\u0061"),
)
LONG = "long " * 100


def names() -> list[str]:
    """Return 10,000 different names, many of them alike but for case, blanks, escapes or composition."""
    rng = random.Random(11)
    found = dict.fromkeys("".join(each) for size in (1, 2) for each in itertools.product(PIECES, repeat=size))
    while len(found) < COUNT:
        name = "".join(rng.choices(PIECES, k=rng.randint(3, 9)))
        kin = (name, name.upper(), name.lower(), f"{name} ", f" {name}", LONG + name, name + LONG)
        for each in (*kin, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD", "NFKC", "NFKD"))):
            found[each] = None
    return list(found)[:COUNT]


class Shelf(KeptVariables):
    """Variables under names as narrow as a database's: without case or last blanks."""

    def get(self, name: str) -> str | None:
        return super().get(name.casefold().rstrip())

    def set(self, name: str, value: str, description: str) -> None:
        assert len(name) <= 250  # what the column holds
        assert name.isascii()
        super().set(name.casefold().rstrip(), value, description)


@pytest.fixture(scope="module")
def keys() -> list[TokenKey]:
    return [TokenKey("https://feedamp.test/access_token", "client-1", name) for name in names()]


@pytest.mark.parametrize("kind", ["memory", "variable"])
def test_10_000_sellers_each_find_their_own_record(kind: str, keys: list[TokenKey]) -> None:
    shelf = Shelf()
    store: TokenStore = MemoryStore() if kind == "memory" else VariableStore(variables=shelf)
    for number, key in enumerate(keys):
        store.write(TokenRecord(key=key, refresh_token=f"token {number}"), expected=None)

    assert set(store.keys(keys[0].token_url, keys[0].client_id)) == set(keys)
    found = [store.read(key) for key in keys]

    assert [record and record.refresh_token for record in found] == [f"token {i}" for i in range(COUNT)]
    assert kind == "memory" or len(shelf.texts) == COUNT


def test_10_000_sellers_have_digests_and_locks_of_their_own(keys: list[TokenKey]) -> None:
    cache = TokenCache()

    assert len({key.digest for key in keys}) == COUNT
    assert len({id(cache.slot(key).lock) for key in keys}) == COUNT
    assert all(cache.slot(key).lock.acquire(blocking=False) for key in keys)
