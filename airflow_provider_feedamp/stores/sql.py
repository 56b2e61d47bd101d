"""Token records in a SQL database: for many sellers and strict guarantees.

The lease is a pair of columns, taken by one UPDATE that matches only while the lease is free or has run out.
Of two such statements a database lets one match, and the clock that decides is the database's own, so neither
the number of workers nor their clocks matter. A record is replaced by one UPDATE that names the revision it
replaces. Every statement is a transaction of its own: none is open while FeedAMP is asked.

A lease that its owner outlives could be taken by another worker; its owner plans with what is left of it,
measured on its own monotonic clock from before the UPDATE was sent, so it sees the end earlier than the
database does. A *record* write that comes late all the same meets a newer revision, and changes nothing.
"""

from __future__ import annotations

import json
import logging
import random
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, null, or_, select, update
from sqlalchemy.exc import IntegrityError

from airflow_provider_feedamp.exceptions import (
    ConfigurationError,
    TokenBusyError,
    TokenConflictError,
    TokenStoreError,
)
from airflow_provider_feedamp.stores.base import Lease
from airflow_provider_feedamp.stores.crypto import Sealer
from airflow_provider_feedamp.stores.sql_database import TOKENS, DatabaseClock, SqlDatabase
from airflow_provider_feedamp.tokens.models import TokenKey, TokenRecord

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

    from sqlalchemy.sql.elements import ColumnElement

log = logging.getLogger(__name__)

#: Seconds after which an unreleased lease is void; holds two POSTs, the pause between them and the writes.
TTL = 60.0
#: Seconds between two tries to take a lease that somebody else holds, from and to.
_POLL = (0.2, 0.4)

_ROW = TOKENS.c


class SqlStore:
    """Keeps each record in a row of the table ``feedamp_tokens``, encrypted with Airflow's Fernet key.

    :param conn_id: The Airflow connection to the database: PostgreSQL, MySQL, MariaDB, or SQLite when all
        workers are on one machine.
    :param ttl: Seconds after which an unreleased lease is void.
    """

    guarantee = (
        "Lock and conditional write hold between all workers that use the same database: each is one "
        "conditional UPDATE, and leases end by the database's clock."
    )

    def __init__(self, conn_id: str | None = None, *, ttl: float = TTL) -> None:
        if not conn_id:
            raise ConfigurationError(
                "The token store 'sql' needs a database: set [feedamp] token_store_conn_id to the id "
                "of a PostgreSQL, MySQL or SQLite connection."
            )
        self._database = SqlDatabase(conn_id)
        self._ttl = ttl
        self._sealer = Sealer.configured()

    def read(self, key: TokenKey) -> TokenRecord | None:
        """Return the record, or None."""
        query = select(_ROW.record, _ROW.revision).where(_is(key), _ROW.record.is_not(None))
        with self._database.connect(f"read {_of(key)}") as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        text, sealed_with = self._sealer.open(row.record, key)
        record = TokenRecord.from_json(text, key)
        return record.changed(revision=int(row.revision), sealed_with=sealed_with)

    def write(self, record: TokenRecord, *, expected: int | None) -> TokenRecord:
        """Replace the record by one UPDATE that matches the expected revision only."""
        key = record.key
        written = record.changed(revision=(expected or 0) + 1)
        values = {"record": self._sealer.seal(written.to_json()), "revision": written.revision}
        condition: ColumnElement[bool]
        if expected is None:
            self._insert_row(key)
            condition = _ROW.record.is_(None)
        else:
            condition = _ROW.record.is_not(None) & (_ROW.revision == expected)
        if not self._update(f"write {_of(key)}", key, condition, updated_at=DatabaseClock(), **values):
            raise TokenConflictError(f"The token record of seller {key.seller!r} has changed meanwhile.")
        return written

    @contextmanager
    def lock(self, key: TokenKey, *, wait: float, stop: threading.Event) -> Iterator[Lease]:
        """Hold the key's lease."""
        lease = self._take(key, wait, stop)
        try:
            yield lease
        finally:
            self._release(key, lease)

    def delete(self, key: TokenKey) -> None:
        """Forget the record; the row itself stays for as long as somebody holds its lease."""
        what = f"delete {_of(key)}"
        with self._database.connect(what) as connection:
            connection.execute(delete(TOKENS).where(_is(key), _is_free()))
        self._update(what, key, record=null(), revision=0, updated_at=DatabaseClock())

    def keys(self, token_url: str, client_id: str) -> list[TokenKey]:
        """Return the keys of all records of a client."""
        query = select(_ROW.token_url, _ROW.client_id, _ROW.seller).where(
            _ROW.token_url == _shown(token_url), _ROW.client_id == _shown(client_id), _ROW.record.is_not(None)
        )
        with self._database.connect(f"list the sellers of client {client_id!r}") as connection:
            rows = connection.execute(query).all()
        keys = [TokenKey(_read_back(row[0]), _read_back(row[1]), _read_back(row[2])) for row in rows]
        # Databases differ in what they call equal, such as texts that differ in trailing blanks only.
        return [key for key in keys if (key.token_url, key.client_id) == (token_url, client_id)]

    def _take(self, key: TokenKey, wait: float, stop: threading.Event) -> Lease:
        deadline = time.monotonic() + wait
        while True:
            # From before the UPDATE is sent, so that the lease never seems longer here than it is there.
            lease = Lease(self._ttl)
            if self._try(key, lease) or (self._insert_row(key) and self._try(key, lease)):
                return lease
            left = deadline - time.monotonic()
            pause = random.uniform(*_POLL)  # noqa: S311 - spreads load, hides nothing
            if left <= 0 or stop.wait(min(pause, left)):
                raise TokenBusyError(
                    f"Another worker renews the token of seller {key.seller!r}. Waited {wait:.0f} s; nothing "
                    "was spent. Try again."
                )

    def _try(self, key: TokenKey, lease: Lease) -> bool:
        until = DatabaseClock() + self._ttl
        what = f"take the lease for seller {key.seller!r}"
        return self._update(what, key, _is_free(), lease_owner=lease.nonce, lease_until=until)

    def _release(self, key: TokenKey, lease: Lease) -> None:
        """End the lease if it is still ours; whatever was done under it must not fail for that."""
        what = f"release the lease for seller {key.seller!r}"
        try:
            self._update(what, key, _ROW.lease_owner == lease.nonce, lease_owner=None, lease_until=0.0)
        except TokenStoreError as error:
            log.warning("%s The lease ends by itself in %.0f s.", error, max(lease.left(), 0.0))

    def _insert_row(self, key: TokenKey) -> bool:
        """Make sure that the key has a row, and say whether this call made it."""
        row: dict[str, Any] = {
            "key_digest": key.digest,
            "token_url": _shown(key.token_url),
            "client_id": _shown(key.client_id),
            "seller": _shown(key.seller),
            "revision": 0,
            "lease_until": 0.0,
            "updated_at": DatabaseClock(),
        }
        with self._database.connect(f"insert {_of(key)}") as connection:
            if connection.execute(select(_ROW.key_digest).where(_is(key))).first() is not None:
                return False
            try:
                connection.execute(insert(TOKENS).values(row))
            except IntegrityError:
                # Another worker was quicker by a moment.
                return False
        return True

    def _update(self, what: str, key: TokenKey, *conditions: ColumnElement[bool], **values: Any) -> bool:
        """Run one UPDATE of the key's row and say whether it matched; this decides who wins."""
        with self._database.connect(what) as connection:
            result = connection.execute(update(TOKENS).where(_is(key), *conditions).values(values))
        return bool(result.rowcount == 1)


def _is(key: TokenKey) -> ColumnElement[bool]:
    return _ROW.key_digest == key.digest


def _is_free() -> ColumnElement[bool]:
    return or_(_ROW.lease_owner.is_(None), _ROW.lease_until <= DatabaseClock())


def _of(key: TokenKey) -> str:
    return f"the token record of seller {key.seller!r}"


def _shown(text: str) -> str:
    """Return the text with JSON's escapes for what a database may refuse: NUL, and half surrogates."""
    return json.dumps(text, ensure_ascii=False)[1:-1].encode(errors="backslashreplace").decode()


def _read_back(shown: str) -> str:
    return str(json.loads(f'"{shown}"'))
