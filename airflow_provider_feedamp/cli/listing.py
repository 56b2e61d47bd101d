"""Shows sellers and the state of their tokens, without a token: as a table or as JSON."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_provider_feedamp.bulk.progress import duration
from airflow_provider_feedamp.cli.group import one_line
from airflow_provider_feedamp.tokens.records import RecordState, TokenRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_DAY = 86400.0
#: Days that FeedAMP's refresh tokens live.
YEAR = 365
_HEADINGS = ("SELLER", "STATE", "GENERATION", "ACCESS TOKEN UNTIL", "REFRESH TOKEN", "KEY", "LAST OUTCOME")


@dataclass(frozen=True, slots=True)
class SellerRow:
    """One seller's line; the field names are those of the JSON.

    :param state: The record's state; ``new`` without a record, ``unreadable`` for one that cannot be read.
    :param access_token_expires_at: ISO 8601 in UTC, or None.
    :param refresh_token_since: When the refresh token reached this deployment, ISO 8601 in UTC, or None.
    :param refresh_token_days_left: To the end of its year; negative after that.
    :param key: The name of the key that the record is encrypted with; None when Airflow alone encrypts it.
    :param outcome: How the last renewal ended, or what a person has to do.
    """

    seller: str
    state: str
    generation: int | None = None
    access_token_expires_at: str | None = None
    refresh_token_since: str | None = None
    refresh_token_age_days: int | None = None
    refresh_token_days_left: int | None = None
    key: str | None = None
    outcome: str = ""

    def cells(self, now: float) -> tuple[str, ...]:
        """Return the row as the table shows it."""
        until = self.access_token_expires_at
        age = self.refresh_token_age_days
        return (
            self.seller,
            self.state,
            "-" if self.generation is None else str(self.generation),
            "-" if until is None else f"{until} ({_distance(until, now)})",
            "-" if age is None else f"{age} d old, {self.refresh_token_days_left} d left",
            self.key or "-",
            self.outcome,
        )


def seller_row(seller: str, found: TokenRecord | Exception | None, now: float) -> SellerRow:
    """Return a seller's row.

    :param found: The record, why it cannot be read, or None when there is none.
    :param now: Epoch seconds.
    """
    if found is None:
        return SellerRow(seller, "new", outcome="the connection's refresh token was not used yet")
    if not isinstance(found, TokenRecord):
        return SellerRow(seller, "unreadable", outcome=one_line(str(found)))
    since = found.issued_at if found.refresh_token else 0.0
    age = max(0.0, now - since) / _DAY
    return SellerRow(
        seller=seller,
        state=found.state.value,
        generation=found.generation,
        access_token_expires_at=iso(found.expires_at) if found.access_token else None,
        refresh_token_since=iso(since) if since else None,
        refresh_token_age_days=int(age) if since else None,
        refresh_token_days_left=math.floor(YEAR - age) if since else None,
        key=found.sealed_with or None,
        outcome=one_line(_outcome(found)),
    )


def table(rows: Sequence[SellerRow], now: float) -> Iterable[str]:
    """Yield the lines of the table."""
    cells = [_HEADINGS, *(tuple(one_line(cell) for cell in row.cells(now)) for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = [cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        yield "  ".join(padded).rstrip()


def iso(instant: float) -> str:
    """Return epoch seconds as ISO 8601 in UTC."""
    return f"{datetime.fromtimestamp(int(instant), UTC):%Y-%m-%dT%H:%M:%SZ}"


def span(seconds: float) -> str:
    """Say a number of seconds in days, from two days on, or in smaller units."""
    return f"{seconds / _DAY:.0f} d" if seconds >= 2 * _DAY else duration(seconds)


def _outcome(record: TokenRecord) -> str:
    if record.refused_seed and record.state is RecordState.ACTIVE:
        return "the connection's new refresh token was refused; the former one is in use"
    if record.state is RecordState.REFRESHING:
        begun = f" at {iso(record.attempt.started_at)}" if record.attempt else ""
        return f"a renewal was begun{begun} and has not ended"
    if record.state is not RecordState.ACTIVE:
        return record.reason
    if not record.access_token:
        return "not renewed yet"
    return f"renewed at {iso(record.expires_at - record.lifetime)}"


def _distance(until: str, now: float) -> str:
    seconds = datetime.fromisoformat(until).timestamp() - now
    if seconds <= 0:
        return "ended"
    return f"{seconds / 3600:.0f} h" if seconds >= 2 * 3600 else f"{seconds / 60:.0f} min"


def _width(text: str) -> int:
    return sum(1 + (unicodedata.east_asian_width(each) in "WF") for each in text)
