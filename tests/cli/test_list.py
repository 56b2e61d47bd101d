from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.cli.sellers import table
from airflow_provider_feedamp.exceptions import TokenRecordError
from airflow_provider_feedamp.hooks import feedamp
from airflow_provider_feedamp.hooks.sellers import SellerRow, seller_row
from airflow_provider_feedamp.tokens.records import Attempt, RecordState, TokenKey, TokenRecord
from tests.cli.support import KeptStore, listed, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.support import Shop

DAY = 86400.0
NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
KEY = TokenKey("https://feedamp.test/api/v1/access_token", "client-1", "hooli")


def record(**fields: Any) -> TokenRecord:
    values = {
        "key": KEY,
        "refresh_token": "refresh-secret",
        "access_token": "access-secret",
        "expires_at": NOW + 1800,
        "lifetime": 3600.0,
        "issued_at": NOW - 30.5 * DAY,
        "generation": 7,
    }
    return TokenRecord(**{**values, **fields})


def test_a_row_tells_all_that_may_be_known_of_a_record() -> None:
    assert seller_row("hooli", record(), NOW) == SellerRow(
        seller="hooli",
        state="active",
        generation=7,
        access_token_expires_at="2027-01-15T08:30:00Z",
        refresh_token_since="2026-12-15T20:00:00Z",
        refresh_token_age_days=30,
        refresh_token_days_left=334,
        outcome="renewed at 2027-01-15T07:30:00Z",
    )


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"access_token": None}, "not renewed yet"),
        (
            {"refused_seed": "0123"},
            "the connection's new refresh token was refused; the former one is in use",
        ),
        (
            {"state": RecordState.REFRESHING, "attempt": Attempt("a", "f", NOW)},
            "a renewal was begun at 2027-01-15T08:00:00Z and has not ended",
        ),
        ({"state": RecordState.UNCERTAIN, "reason": "the answer was lost"}, "the answer was lost"),
        ({"state": RecordState.REAUTH_REQUIRED, "reason": "it was\nrefused"}, "it was refused"),
    ],
)
def test_the_outcome_says_how_the_last_renewal_ended(fields: dict[str, Any], outcome: str) -> None:
    row = seller_row("hooli", record(**fields), NOW)

    assert (row.outcome, row.state) == (outcome, fields.get("state", "active"))


@pytest.mark.parametrize(("age", "left"), [(0.0, 365), (0.5, 364), (364.5, 0), (365.0, 0), (366.0, -1)])
def test_the_days_to_the_end_of_the_refresh_tokens_year(age: float, left: int) -> None:
    assert seller_row("hooli", record(issued_at=NOW - age * DAY), NOW).refresh_token_days_left == left


def test_a_record_without_tokens_has_no_dates() -> None:
    row = seller_row("hooli", record(refresh_token="", access_token=None), NOW)

    assert (row.access_token_expires_at, row.refresh_token_since, row.refresh_token_days_left) == (None,) * 3


@pytest.mark.parametrize(("left", "shown"), [(-1, "ended"), (59 * 60, "59 min"), (5 * 3600, "5 h")])
def test_the_table_says_how_long_the_access_token_lives(left: int, shown: str) -> None:
    heading, line = table([seller_row("hooli", record(expires_at=NOW + left), NOW)], NOW)

    assert f"Z ({shown})" in line
    assert heading.index("STATE") == line.index("active")


def test_the_table_cannot_be_used_to_steer_a_terminal() -> None:
    lines = "\n".join(table([seller_row("a\x1b[2J\nb", TokenRecordError("bad \x07 text"), NOW)], NOW))

    assert "a\\x1b[2J b" in lines
    assert lines.isprintable() is False  # for the line break alone
    assert all(line.isprintable() for line in lines.split("\n"))


def test_columns_stay_in_line_under_wide_letters() -> None:
    rows = [seller_row("店", None, NOW), seller_row("ab", None, NOW)]

    _, wide, narrow = table(rows, NOW)

    assert wide.index("new") + 1 == narrow.index("new")


def test_every_seller_of_the_client_is_listed_and_no_other(shop: Shop) -> None:
    shop.put("zeta", generation=3)
    shop.put("beta", state=RecordState.REAUTH_REQUIRED, reason="FeedAMP refused its refresh token")
    other = TokenKey(shop.key("zeta").token_url, "another-client", "eta")
    shop.store.write(TokenRecord(key=other, refresh_token="r"), expected=None)

    rows = listed()

    assert list(rows) == ["beta", "hooli", "zeta"]
    assert [row["state"] for row in rows.values()] == ["reauth_required", "new", "active"]
    assert rows["zeta"]["generation"] == 3


def test_an_unreadable_record_does_not_hide_the_others(shop: Shop) -> None:
    for seller in ("beta", "gamma", "zeta"):
        shop.put(seller, generation=3)
    shop.store.damaged.add("gamma")

    rows = listed()

    assert list(rows) == ["beta", "gamma", "hooli", "zeta"]
    assert rows["gamma"]["state"] == "unreadable"
    assert "damaged" in rows["gamma"]["outcome"]
    assert rows["zeta"]["generation"] == 3


def test_the_table_has_a_line_for_each_seller_and_no_token_and_spends_nothing(shop: Shop) -> None:
    shop.put("zeta", access_token="access-of-zeta", expires_at=NOW)

    result = run("sellers", "list", code=0)

    assert [line.split()[0] for line in result.stdout.splitlines()] == ["SELLER", "hooli", "zeta"]
    assert "-of-zeta" not in result.output
    assert shop.sandbox.control.counters()["token_posts"] == 0


def test_a_client_without_sellers_is_told_how_to_get_one(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = shop.sandbox.connection("hooli", refresh_token=None)
    monkeypatch.setenv("AIRFLOW_CONN_FEEDAMP_DEFAULT", json.dumps(connection))

    assert "feedamp sellers authorize SELLER" in run("sellers", "list").stdout
    assert json.loads(run("sellers", "list", "--json").stdout) == []


def test_what_others_print_does_not_get_into_the_json(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def talkative(self: KeptStore, token_url: str, client_id: str) -> list[TokenKey]:
        sys.stdout.write("Loading...\n")
        return []

    monkeypatch.setattr(KeptStore, "keys", talkative)

    result = run("sellers", "list", "--json")

    assert [row["seller"] for row in json.loads(result.stdout)] == ["hooli"]
    assert "Loading..." in result.stderr


def test_the_name_of_the_key_is_shown(shop: Shop) -> None:
    heading, with_key, without = table(
        [
            seller_row("hooli", record(sealed_with="encryption_key 2"), NOW),
            seller_row("zeta", record(sealed_with=""), NOW),
        ],
        NOW,
    )
    column = heading.index("KEY")

    assert with_key[column:].startswith("encryption_key 2  renewed")
    assert without[column:].startswith("- ")
    assert seller_row("zeta", record(sealed_with=""), NOW).key is None


def test_a_store_that_lists_in_one_go_is_asked_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        shop.put(f"seller-{number:02}", generation=3)
    asked: list[str] = []
    reads: list[str] = []
    masked: list[str] = []
    read_one = KeptStore.read

    def records(self: KeptStore, token_url: str, client_id: str) -> Iterator[tuple[TokenKey, TokenRecord]]:
        asked.append(client_id)
        yield from list(self._records.items())

    def read(self: KeptStore, key: TokenKey) -> TokenRecord | None:
        reads.append(key.seller)
        return read_one(self, key)

    monkeypatch.setattr(KeptStore, "records", records, raising=False)
    monkeypatch.setattr(KeptStore, "read", read)
    monkeypatch.setattr(feedamp, "mask_secret", masked.append)

    rows = listed()

    assert len(rows) == 21
    # Of the one that has no record yet it has to be proved.
    assert (asked, reads) == (["demo-client"], ["hooli"])
    # Airflow's masker takes ever longer with each secret: those of the connection, and no listed token.
    assert len(masked) <= 2


def test_one_that_is_forgotten_while_it_is_listed_is_left_out(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.put("zeta")
    monkeypatch.setattr(KeptStore, "keys", lambda *_: [shop.key("gone"), shop.key("zeta")])

    assert list(listed()) == ["hooli", "zeta"]


def test_thousands_of_sellers_are_listed(shop: Shop) -> None:
    for number in range(3000):
        shop.put(f"seller-{number:04}")

    assert len(listed()) == 3001
