"""What is known of each seller of a connection, in rows without a secret: for command, page and DAGs.

The command's help shows without Airflow, pendulum and the like, so they are imported late.
"""

from __future__ import annotations

import math
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_provider_feedamp.exceptions import TokenRecordError, TokenStoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from airflow_provider_feedamp.tokens.custodian import TokenCustodian
    from airflow_provider_feedamp.tokens.records import TokenRecord

#: Days before the end of a refresh token's year from which task, page and DAGs warn.
WARN_DAYS = 30


@dataclass(frozen=True, slots=True)
class SellerRow:
    """One seller's line; the field names are those of the JSON.

    :param state: The record's state; ``new`` without a record, ``unreadable`` for one that cannot be read,
        ``unknown`` for a seller without tokens who was asked for by name.
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

    def problem(self, within_days: int = 0) -> str:
        """Return what a person has to do about this seller, one sentence; an empty text for nothing.

        :param within_days: A refresh token whose year ends within so many days is a problem, too. Default: 0.
        """
        if self.state == "reauth_required":
            return f"has to be authorised again: {self.outcome}"
        if self.state == "unknown":
            return f"has no tokens: {self.outcome}"
        if self.state == "unreadable":
            return f"has tokens that cannot be read: {self.outcome}"
        left = self.refresh_token_days_left
        if left is None or left > within_days:
            return ""
        if left < 0:
            return (
                f"has a refresh token whose year ended {-left} d ago: renew it, or have the seller authorise"
            )
        return (
            f"has a refresh token whose year ends in {left} d: renew it, or have the seller authorise again"
        )


def records_by_seller(own: TokenCustodian) -> dict[str, TokenRecord | TokenStoreError | None]:
    """Return every seller of a client with its record, or with the reason why it cannot be read.

    The seller that the connection holds a refresh token for is among them, without a record as well.

    :param own: The custodian of the connection's own seller.
    :raises TokenStoreError: if the store cannot be reached, or cannot list from where this runs.
    """
    from airflow_provider_feedamp.tokens.store import records_of

    rows: dict[str, TokenRecord | TokenStoreError | None] = {
        key.seller: found
        for key, found in records_of(own.store, own.key.token_url, own.key.client_id)
        if found is not None
    }
    if own.seed and own.key.seller not in rows:
        rows[own.key.seller] = _record_or_error(own)
    return dict(sorted(rows.items()))


def seller_rows(own: TokenCustodian, others: Iterable[TokenCustodian] | None = None) -> list[SellerRow]:
    """Return a row for each of :func:`records_by_seller`, or for each of the custodians that are given."""
    if others is None:
        return [seller_row(seller, found, own.now()) for seller, found in records_by_seller(own).items()]
    rows = []
    for each in others:
        found, name = _record_or_error(each), each.key.seller
        unknown = found is None and not each.seed
        none = SellerRow(name, "unknown", outcome="the token store and the connection have none")
        rows.append(none if unknown else seller_row(name, found, each.now()))
    return rows


def _record_or_error(custodian: TokenCustodian) -> TokenRecord | TokenStoreError | None:
    try:
        return custodian.record()
    except TokenStoreError as error:
        return error


def warning_text(rows: Sequence[SellerRow], conn_id: str, within_days: int, link: str) -> str:
    """Return which sellers need a person, why, and what to do; empty if none does.

    :param rows: The sellers.
    :param conn_id: Their connection.
    :param within_days: A refresh token whose year ends within so many days is named, too.
    :param link: Where the reader can go on, or an empty text.
    """
    lines = [f"- {row.seller!r} {problem}" for row in rows if (problem := row.problem(within_days))]
    if not lines:
        return ""
    head = f"{len(lines)} of {len(rows)} FeedAMP sellers of connection {conn_id!r} need a person:"
    mend = (
        f"To have a seller authorise: `feedamp sellers authorize SELLER --conn-id {conn_id}`, or a task with "
        "FeedAmpAuthorizeSellerOperator. To renew: `feedamp sellers refresh SELLER`."
    )
    return "\n".join([head, *lines, mend, *([link] if link else [])])


def seller_row(seller: str, found: TokenRecord | Exception | None, now: float) -> SellerRow:
    """Return a seller's row.

    :param found: The record, why it cannot be read, or None when there is none.
    :param now: Epoch seconds.
    """
    from airflow_provider_feedamp.tokens.records import YEAR

    if found is None:
        return SellerRow(seller, "new", outcome="the connection's refresh token was not used yet")
    if isinstance(found, Exception):
        return SellerRow(seller, "unreadable", outcome=one_line(str(found)))
    left = found.days_left(now)
    return SellerRow(
        seller=seller,
        state=found.state.value,
        generation=found.generation,
        access_token_expires_at=iso(found.expires_at) if found.access_token else None,
        refresh_token_since=None if left is None else iso(found.issued_at),
        refresh_token_age_days=None if left is None else int(YEAR - left),
        refresh_token_days_left=None if left is None else math.floor(left),
        key=found.sealed_with or None,
        outcome=one_line(_outcome(found)),
    )


def forget_seller(custodian: TokenCustodian, *, force: bool = False) -> bool:
    """Remove a seller's tokens and known order from the store.

    :param force: Remove the tokens also when they cannot be read from here; others may well read them.
    :return: Whether there were any.
    :raises TokenStoreError: if the store fails; nothing was removed.
    """
    from airflow_provider_feedamp.tokens.custodian import known_order_key

    store, key = custodian.store, custodian.key
    try:
        if store.read(key) is None:
            return False
        # A renewal under way would write its record after all.
        with locked(custodian):
            store.delete(key)
    except TokenStoreError as error:
        # A record that no worker can use is removed.
        if not force and not isinstance(error, TokenRecordError):
            raise
        store.delete(key)
    store.delete(known_order_key(key))
    return True


@contextmanager
def locked(custodian: TokenCustodian) -> Iterator[str]:
    """Hold the lock of a seller's record; the nonce goes into the record's last write under it."""
    lock = custodian.store.lock(custodian.key, wait=custodian.lock_wait, stop=threading.Event())
    with lock as lease:
        yield lease.nonce


def one_line(text: str) -> str:
    """Return the text on one line, without characters that steer a terminal."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in " ".join(text.split()))


def iso(instant: float) -> str:
    """Return epoch seconds as ISO 8601 in UTC."""
    return f"{datetime.fromtimestamp(int(instant), UTC):%Y-%m-%dT%H:%M:%SZ}"


def _outcome(record: TokenRecord) -> str:
    from airflow_provider_feedamp.tokens.records import RecordState

    if record.refused_seed and record.state is RecordState.ACTIVE:
        return "the connection's new refresh token was refused; the former one is in use"
    if record.state is RecordState.REFRESHING:
        begun = f" at {iso(record.attempt.started_at)}" if record.attempt else ""
        return f"a renewal was begun{begun} and has not ended"
    if record.state is not RecordState.ACTIVE:
        return record.reason
    return (
        f"renewed at {iso(record.expires_at - record.lifetime)}" if record.access_token else "not renewed yet"
    )
