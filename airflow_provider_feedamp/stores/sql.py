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
import os
import random
import secrets
import socket
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy import case, delete, insert, null, or_, select, update
from sqlalchemy.exc import IntegrityError

from airflow_provider_feedamp.exceptions import (
    ConfigurationError,
    ContentionError,
    FeedAmpError,
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
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine import Connection
    from sqlalchemy.sql.elements import ColumnElement

log = logging.getLogger(__name__)

#: Seconds after which an unreleased lease is void; holds two POSTs, the pause between them and the writes.
TTL = 60.0
#: Seconds between two tries to take a lease that somebody else holds, from and to.
_POLL = (0.2, 0.4)
#: How often a statement is sent while the database lets others go first, and seconds between, at the most.
_TRIES, _TRY_PAUSE = 6, 0.1

_ROW = TOKENS.c


class SqlStore:
    """Keeps each record in a row of the table ``feedamp_tokens``, encrypted.

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
                "The token store 'sql' needs a database: set [feedamp] token_store_conn_id "
                "(AIRFLOW__FEEDAMP__TOKEN_STORE_CONN_ID) to the id of an Airflow connection to PostgreSQL, "
                "MySQL, MariaDB or SQLite."
            )
        self._database = SqlDatabase(conn_id)
        self._ttl = ttl
        self._sealer = Sealer.configured()

    def read(self, key: TokenKey) -> TokenRecord | None:
        """Return the record, or None."""
        query = select(_ROW.record, _ROW.revision).where(_is(key))
        row = self._run(f"read {_of(key)}", lambda connection: connection.execute(query).first())
        return self._opened(key, row)

    def records(
        self, token_url: str, client_id: str
    ) -> Iterator[tuple[TokenKey, TokenRecord | TokenStoreError]]:
        """Yield the key and record of each seller of a client, out of one query.

        A record that cannot be read is yielded as the error that says why.

        :raises TokenStoreError: if the database fails.
        """
        for key, row in self._rows(token_url, client_id, _ROW.record, _ROW.revision):
            try:
                record = self._opened(key, row)
            except TokenStoreError as error:
                yield key, error
                continue
            if record is not None:
                yield key, record

    def write(self, record: TokenRecord, *, expected: int | None) -> TokenRecord:
        """Replace the record by one UPDATE that matches the expected revision only."""
        key = record.key
        written = record.changed(revision=(expected or 0) + 1)
        values: dict[str, Any] = {
            "record": self._sealer.seal(written.to_json()),
            "revision": written.revision,
        }
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
    def lock(
        self,
        key: TokenKey,
        *,
        wait: float,
        stop: threading.Event,
        enough: Callable[[TokenRecord | None], bool] | None = None,
    ) -> Iterator[Lease]:
        """Hold the key's lease."""
        nonce = secrets.token_hex(8)
        try:
            lease = self._take(key, nonce, wait, stop, enough)
        except FeedAmpError:
            raise
        except BaseException:
            # A signal's exception can come after the database has granted the lease.
            self._release(key, Lease(self._ttl, nonce=nonce))
            raise
        try:
            yield lease
        finally:
            self._release(key, lease)

    def delete(self, key: TokenKey) -> None:
        """Forget the record; the row itself stays for as long as somebody holds its lease."""
        what, unused = f"delete {_of(key)}", delete(TOKENS).where(_is(key), _is_free())
        self._run(what, lambda connection: connection.execute(unused))
        self._update(what, key, record=null(), revision=0, updated_at=DatabaseClock())

    def keys(self, token_url: str, client_id: str) -> list[TokenKey]:
        """Return the keys of all records of a client."""
        return [key for key, _ in self._rows(token_url, client_id)]

    def _rows(self, token_url: str, client_id: str, *columns: Any) -> list[tuple[TokenKey, Any]]:
        query = select(_ROW.token_url, _ROW.client_id, _ROW.seller, *columns).where(
            _ROW.token_url == _shown(token_url), _ROW.client_id == _shown(client_id), _ROW.record.is_not(None)
        )
        what = f"list the sellers of client {client_id!r}"
        rows = self._run(what, lambda connection: connection.execute(query).all())
        keyed = [(TokenKey(*(_read_back(each) for each in row[:3])), row) for row in rows]
        # Databases differ in what they call equal, such as texts that differ in trailing blanks only.
        return [each for each in keyed if (each[0].token_url, each[0].client_id) == (token_url, client_id)]

    def _opened(self, key: TokenKey, row: Any) -> TokenRecord | None:
        if row is None or row.record is None:
            return None
        text, sealed_with = self._sealer.open(row.record, key)
        record = TokenRecord.from_json(text, key)
        return record.changed(revision=int(row.revision), sealed_with=sealed_with)

    def _take(
        self,
        key: TokenKey,
        nonce: str,
        wait: float,
        stop: threading.Event,
        enough: Callable[[TokenRecord | None], bool] | None,
    ) -> Lease:
        deadline = time.monotonic() + wait
        # Nobody else is the usual case; everybody else looks before sending another UPDATE.
        lease, told = self._try(key, nonce), False
        while lease is None:
            look = self._look(key)
            if enough is not None and enough(self._opened(key, look)):
                raise TokenBusyError(f"Another worker has renewed the token of seller {key.seller!r}.")
            if look is None:
                self._insert_row(key)
            if look is None or look.owner is None:
                lease = self._try(key, nonce)
            elif wait and not told:
                told = True
                owner = look.owner.partition(" ")[2]
                log.info("Seller %r: %s renews the token. Waiting for it.", key.seller, owner)
            if lease is None:
                _pause(key, deadline, wait, stop)
        return lease

    def _look(self, key: TokenKey) -> Any:
        """Return the key's row with the owner of its live lease, or None when there is no row."""
        owner = case((_is_free(), null()), else_=_ROW.lease_owner).label("owner")
        query = select(_ROW.record, _ROW.revision, owner).where(_is(key))
        what = f"look at the lease for seller {key.seller!r}"
        return self._run(what, lambda connection: connection.execute(query).first())

    def _try(self, key: TokenKey, nonce: str) -> Lease | None:
        """Take the lease by one UPDATE, or return None when somebody else has it."""
        # From before the UPDATE is sent, so that the lease never seems longer here than it is there.
        lease = Lease(self._ttl, nonce=nonce)
        taken: dict[str, Any] = {"lease_owner": _owner(nonce), "lease_until": DatabaseClock() + self._ttl}
        what = f"take the lease for seller {key.seller!r}"
        try:
            return lease if self._update(what, key, _is_free(), tries=1, **taken) else None
        except ContentionError:
            return None

    def _release(self, key: TokenKey, lease: Lease) -> None:
        """End the lease if it is still ours; whatever was done under it must not fail for that."""
        what = f"release the lease for seller {key.seller!r}"
        # Matches the row, whoever owns the lease: so it waits for an UPDATE of ours that is still under way.
        owner = case((_ROW.lease_owner == _owner(lease.nonce), null()), else_=_ROW.lease_owner)
        try:
            self._update(what, key, lease_owner=owner)
        except TokenStoreError as error:
            log.warning("%s The lease ends by itself in %.0f s.", error, max(lease.left(), 0.0))

    def _insert_row(self, key: TokenKey) -> None:
        """Ensure that the key has a row."""
        row: dict[str, Any] = {
            "key_digest": key.digest,
            "token_url": _shown(key.token_url),
            "client_id": _shown(key.client_id),
            "seller": _shown(key.seller),
            "revision": 0,
            "lease_until": 0.0,
            "updated_at": DatabaseClock(),
        }

        def insert_row(connection: Connection) -> None:
            if connection.execute(select(_ROW.key_digest).where(_is(key))).first() is None:
                # Another worker may have been quicker by a moment.
                with suppress(IntegrityError):
                    connection.execute(insert(TOKENS).values(row))

        self._run(f"insert {_of(key)}", insert_row)

    def _update(
        self, what: str, key: TokenKey, *conditions: ColumnElement[bool], tries: int = _TRIES, **values: Any
    ) -> bool:
        """Run one UPDATE of the key's row and say whether it matched; this decides who wins."""
        statement = update(TOKENS).where(_is(key), *conditions).values(values)
        return bool(self._run(what, lambda connection: connection.execute(statement).rowcount, tries) == 1)

    def _run(self, what: str, statement: Callable[[Connection], Any], tries: int = _TRIES) -> Any:
        """Run a statement, and again when the database has let others go first: it changed nothing then."""
        while True:
            tries -= 1
            try:
                with self._database.connect(what) as connection:
                    return statement(connection)
            except ContentionError:
                if not tries:
                    raise
                time.sleep(random.uniform(0, _TRY_PAUSE))  # noqa: S311 - spreads load, hides nothing


def _is(key: TokenKey) -> ColumnElement[bool]:
    return _ROW.key_digest == key.digest


def _is_free() -> ColumnElement[bool]:
    return or_(_ROW.lease_owner.is_(None), _ROW.lease_until <= DatabaseClock())


def _owner(nonce: str) -> str:
    """Return what names a lease and its owner within the column's 64 characters."""
    room = 64 - len(f"{nonce} :{os.getpid()}")
    return f"{nonce} {socket.gethostname()[-room:]}:{os.getpid()}"


def _pause(key: TokenKey, deadline: float, wait: float, stop: threading.Event) -> None:
    """Wait until the next look, or end the waiting."""
    left = deadline - time.monotonic()
    pause = random.uniform(*_POLL)  # noqa: S311 - spreads load, hides nothing
    if left <= 0 or stop.wait(min(pause, left)):
        raise TokenBusyError(
            f"Another worker renews the token of seller {key.seller!r}. Waited {wait:.0f} s; nothing was "
            "spent. Try again."
        )


def _of(key: TokenKey) -> str:
    return f"the token record of seller {key.seller!r}"


def _shown(text: str) -> str:
    """Return the text with JSON's escapes for what a database may refuse: NUL, and half surrogates."""
    return json.dumps(text, ensure_ascii=False)[1:-1].encode(errors="backslashreplace").decode()


def _read_back(shown: str) -> str:
    return str(json.loads(f'"{shown}"'))
