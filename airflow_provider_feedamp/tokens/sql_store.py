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

import copy
import json
import logging
import os
import random
import secrets
import socket
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook
from sqlalchemy import event
from sqlalchemy.dialects.mysql import MEDIUMTEXT
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from airflow_provider_feedamp.exceptions import (
    ConfigurationError,
    ContentionError,
    FeedAmpError,
    TokenBusyError,
    TokenConflictError,
    TokenStoreError,
)
from airflow_provider_feedamp.tokens.crypto import Sealer
from airflow_provider_feedamp.tokens.records import TokenKey, TokenRecord
from airflow_provider_feedamp.tokens.shield import Shield
from airflow_provider_feedamp.tokens.store import SUPERVISOR, Lease

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine import Connection, Engine
    from sqlalchemy.sql.elements import ColumnElement

    from airflow_provider_feedamp.tokens.store import Enough

log = logging.getLogger(__name__)

#: Seconds after which an unreleased lease is void; holds two POSTs, the pause between them and the writes.
TTL = 60.0
#: Seconds between two tries to take a lease that somebody else holds, from and to.
_POLL = (0.2, 0.4)
#: How often a statement is sent while the database lets others go first, and seconds between, at the most.
_TRIES, _TRY_PAUSE = 6, 0.1

#: How long each driver waits for a database that does not answer: seconds, save tcp_user_timeout.
_POSTGRESQL_OPTIONS: dict[str, Any] = {"connect_timeout": 10, "tcp_user_timeout": 20_000}
_MYSQL_OPTIONS: dict[str, Any] = {"connect_timeout": 10, "read_timeout": 20, "write_timeout": 20}
_DRIVER_OPTIONS: dict[str, dict[str, Any]] = {
    "psycopg2": _POSTGRESQL_OPTIONS,
    # A statement prepared in one session is unknown in the next one that a pooler such as pgbouncer lends.
    "psycopg": {**_POSTGRESQL_OPTIONS, "prepare_threshold": None},
    "mysqldb": _MYSQL_OPTIONS,
    "pymysql": _MYSQL_OPTIONS,
    "mysqlconnector": {"connection_timeout": 10},
}

#: How MySqlHook puts its arguments together for each driver.
_MYSQL_ARGUMENTS = {
    "mysqldb": "_get_conn_config_mysql_client",
    "pymysql": "_get_conn_config_mysql_client",
    "mysqlconnector": "_get_conn_config_mysql_connector_python",
}

#: A server's own default may be stricter, and then of two workers one would get an error instead of its turn.
_READ_COMMITTED = {
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "mysql": "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
}

#: What databases say when another statement was quicker and this one changed nothing: serialization failures
#: and deadlocks, and MySQL's words for a record that changed and a lock that was waited for too long.
_CONTENTION = frozenset({"40001", "40P01", 1213, 1020, 1205})

_LONG_TEXT = sa.Text().with_variant(MEDIUMTEXT(), "mysql")

#: One row for each key. Instants are seconds since 1970 on the database's clock.
TOKENS = sa.Table(
    "feedamp_tokens",
    sa.MetaData(),
    sa.Column("key_digest", sa.CHAR(64), primary_key=True),
    # For people and for listing; JSON's escapes stand for what a database does not take.
    sa.Column("token_url", _LONG_TEXT, nullable=False),
    sa.Column("client_id", _LONG_TEXT, nullable=False),
    sa.Column("seller", _LONG_TEXT, nullable=False),
    # Encrypted; null when only the lease is of use.
    sa.Column("record", _LONG_TEXT),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("lease_owner", sa.String(64)),
    sa.Column("lease_until", sa.Float(53), nullable=False),
    sa.Column("updated_at", sa.Float(53), nullable=False),
    mysql_engine="InnoDB",
    mysql_charset="utf8mb4",
    mysql_collate="utf8mb4_bin",
)

#: The seconds since 1970 in each dialect: whatever the session's time zone is, and as the statement runs.
_CLOCKS = {
    "postgresql": "extract(epoch FROM clock_timestamp())",
    "mysql": "(timestampdiff(MICROSECOND, '1970-01-01', utc_timestamp(6)) / 1000000.0)",
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
}


class DatabaseClock(FunctionElement):  # type: ignore[type-arg] # SQLAlchemy 1.4 takes no argument
    """What the database's own clock says; the clocks of the workers do not matter."""

    type = sa.Float(53)
    inherit_cache = True


@compiles(DatabaseClock)
def _compile_clock(element: DatabaseClock, compiler: Any, **options: Any) -> str:
    return _CLOCKS[compiler.dialect.name]


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
        query = sa.select(_ROW.record, _ROW.revision).where(_is(key))
        row = self._run(f"read {_of(key)}", lambda connection: connection.execute(query).first())
        return self._opened(key, row)

    def records(
        self, token_url: str, client_id: str
    ) -> Iterator[tuple[TokenKey, TokenRecord | TokenStoreError]]:
        """Yield the keys of all records of a client with the records, as ``records_of`` describes it."""
        for key, row in self._rows(token_url, client_id, _ROW.record, _ROW.revision):
            try:
                record: Any = self._opened(key, row)
            except TokenStoreError as error:
                record = error
            yield key, record

    def write(self, record: TokenRecord, *, expected: int | None) -> TokenRecord:
        """Replace the record by one UPDATE that matches the expected revision only."""
        key = record.key
        written = record.changed(revision=(expected or 0) + 1)
        values: dict[str, Any] = {
            "record": self._sealer.seal(written.to_json()),
            "revision": written.revision,
            "updated_at": DatabaseClock(),
        }
        condition: ColumnElement[bool] = _ROW.record.is_not(None) & (_ROW.revision == expected)
        if expected is None:
            self._insert_row(key)
            condition = _ROW.record.is_(None)
        if not self._update(f"write {_of(key)}", key, condition, **values):
            raise TokenConflictError(f"The token record of seller {key.seller!r} has changed meanwhile.")
        return written

    @contextmanager
    def lock(
        self, key: TokenKey, *, wait: float, stop: threading.Event, enough: Enough | None = None
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
        what, unused = f"delete {_of(key)}", sa.delete(TOKENS).where(_is(key), _is_free())
        self._run(what, lambda connection: connection.execute(unused))
        self._update(what, key, record=sa.null(), revision=0, updated_at=DatabaseClock())

    def keys(self, token_url: str, client_id: str) -> list[TokenKey]:
        """Return the keys of all records of a client."""
        return [key for key, _ in self._rows(token_url, client_id)]

    def _rows(self, token_url: str, client_id: str, *columns: Any) -> list[tuple[TokenKey, Any]]:
        query = sa.select(_ROW.token_url, _ROW.client_id, _ROW.seller, *columns).where(
            _ROW.token_url == _escaped(token_url),
            _ROW.client_id == _escaped(client_id),
            _ROW.record.is_not(None),
        )
        what = f"list the sellers of client {client_id!r}"
        rows = self._run(what, lambda connection: connection.execute(query).all())
        keyed = [(TokenKey(*(json.loads(f'"{each}"') for each in row[:3])), row) for row in rows]
        # Databases differ in what they call equal, such as texts that differ in trailing blanks only.
        return [each for each in keyed if (each[0].token_url, each[0].client_id) == (token_url, client_id)]

    def _opened(self, key: TokenKey, row: Any) -> TokenRecord | None:
        if row is None or row.record is None:
            return None
        text, sealed_with = self._sealer.open(row.record, key)
        record = TokenRecord.from_json(text, key)
        return record.changed(revision=int(row.revision), sealed_with=sealed_with)

    def _take(
        self, key: TokenKey, nonce: str, wait: float, stop: threading.Event, enough: Enough | None
    ) -> Lease:
        deadline = time.monotonic() + wait
        # The key's row with the owner of its live lease.
        owner = sa.case((_is_free(), sa.null()), else_=_ROW.lease_owner).label("owner")
        query = sa.select(_ROW.record, _ROW.revision, owner).where(_is(key))
        what = f"look at the lease for seller {key.seller!r}"
        # Nobody else is the usual case; everybody else looks before sending another UPDATE.
        lease, announced = self._try(key, nonce), False
        while lease is None:
            look = self._run(what, lambda connection: connection.execute(query).first())
            if enough is not None and enough(self._opened(key, look)):
                raise TokenBusyError(f"Another worker has renewed the token of seller {key.seller!r}.")
            if look is None:
                self._insert_row(key)
            if look is None or look.owner is None:
                lease = self._try(key, nonce)
            elif wait and not announced:
                announced = True
                renewing = look.owner.partition(" ")[2]
                log.info("Seller %r: %s renews the token. Waiting for it.", key.seller, renewing)
            if lease is not None:
                break
            left = deadline - time.monotonic()
            pause = random.uniform(*_POLL)  # noqa: S311 - spreads load, hides nothing
            if left <= 0 or stop.wait(min(pause, left)):
                raise TokenBusyError(
                    f"Another worker renews the token of seller {key.seller!r}. Waited {wait:.0f} s; nothing "
                    "was spent. Try again."
                )
        return lease

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
        owner = sa.case((_ROW.lease_owner == _owner(lease.nonce), sa.null()), else_=_ROW.lease_owner)
        try:
            self._update(what, key, lease_owner=owner)
        except TokenStoreError as error:
            log.warning("%s The lease ends by itself in %.0f s.", error, max(lease.left(), 0.0))

    def _insert_row(self, key: TokenKey) -> None:
        row: dict[str, Any] = {
            "key_digest": key.digest,
            "token_url": _escaped(key.token_url),
            "client_id": _escaped(key.client_id),
            "seller": _escaped(key.seller),
            "revision": 0,
            "lease_until": 0.0,
            "updated_at": DatabaseClock(),
        }

        def insert_row(connection: Connection) -> None:
            if connection.execute(sa.select(_ROW.key_digest).where(_is(key))).first() is None:
                # Another worker may have been quicker by a moment.
                with suppress(IntegrityError):
                    connection.execute(sa.insert(TOKENS).values(row))

        self._run(f"insert {_of(key)}", insert_row)

    def _update(
        self, what: str, key: TokenKey, *conditions: ColumnElement[bool], tries: int = _TRIES, **values: Any
    ) -> bool:
        """Run one UPDATE of the key's row and say whether it matched; this decides who wins."""
        statement = sa.update(TOKENS).where(_is(key), *conditions).values(values)
        return bool(self._run(what, lambda connection: connection.execute(statement).rowcount, tries) == 1)

    def _run(self, what: str, statement: Callable[[Connection], Any], tries: int = _TRIES) -> Any:
        """Run a statement, and again when the database has let others go first: it changed nothing then."""
        while True:
            tries -= 1
            try:
                # A signal waits for the end of the statement: its exception in the middle of SQLAlchemy's
                # own steps would be swallowed there, or leave as another error.
                with Shield(), self._database.connect(what) as connection:
                    return statement(connection)
            except ContentionError:
                if not tries:
                    raise
                time.sleep(random.uniform(0, _TRY_PAUSE))  # noqa: S311 - spreads load, hides nothing


def _is(key: TokenKey) -> ColumnElement[bool]:
    return _ROW.key_digest == key.digest


def _is_free() -> ColumnElement[bool]:
    return sa.or_(_ROW.lease_owner.is_(None), _ROW.lease_until <= DatabaseClock())


def _owner(nonce: str) -> str:
    """Return what names a lease and its owner within the column's 64 characters."""
    room = 64 - len(f"{nonce} :{os.getpid()}")
    return f"{nonce} {socket.gethostname()[-room:]}:{os.getpid()}"


def _of(key: TokenKey) -> str:
    return f"the token record of seller {key.seller!r}"


def _escaped(text: str) -> str:
    """Return the text with JSON's escapes for what a database may refuse: NUL, and half surrogates."""
    return json.dumps(text, ensure_ascii=False)[1:-1].encode(errors="backslashreplace").decode()


class _UnreachableError(SQLAlchemyError):
    """No connection could be opened; the text is the class and code of the driver's or the hook's error."""


class SqlDatabase:
    """Lends connections on which every statement is a transaction of its own.

    The engine is made when it is first used, from Airflow's hook of the connection. Each process has its own;
    a child neither uses nor frees the sockets that it inherited from its parent.

    :param conn_id: An Airflow connection to a PostgreSQL, MySQL, MariaDB or SQLite database.
    """

    def __init__(self, conn_id: str) -> None:
        self.conn_id = conn_id
        self._engines: dict[int, Engine] = {}
        self._prepared: set[int] = set()

    @contextmanager
    def connect(self, what: str) -> Iterator[Connection]:
        """Lend a connection; an error of the database becomes ours.

        A connection that met an error is closed, and all idle ones with it: they may lead to a server that is
        read-only by now, while new ones would reach the next primary.

        :param what: What is being done, for the error: "read the token record of seller 'x'".
        :raises ContentionError: if the database let another statement go first.
        :raises TokenStoreError: if the database fails.
        :raises ConfigurationError: if the connection cannot be used as a token store.
        """
        engine: Any = self._engine()
        try:
            if os.getpid() not in self._prepared:
                _create_table(engine)
                self._prepared.add(os.getpid())
            with engine.connect() as connection:
                try:
                    yield connection
                except BaseException:
                    # Also for a signal's exception: it may have cut a statement short.
                    connection.invalidate()
                    raise
        except (SQLAlchemyError, engine.dialect.dbapi.Error) as error:
            code = _code(error)
            if code in _CONTENTION:
                raise ContentionError(
                    f"The database behind the Airflow connection {self.conn_id!r} let other statements go "
                    f"first (code {code}) and did not {what}. Nothing was changed. Try again."
                ) from None
            engine.dispose()
            # The database's own text may quote values; its error code says as much.
            raise TokenStoreError(
                f"The database behind the Airflow connection {self.conn_id!r} failed to {what} "
                f"({_names(error)}). Is it up, do the connection's host, password and TLS settings fit it, "
                f"and may its user create, read and write the table {TOKENS.name}?"
            ) from None

    def _engine(self) -> Engine:
        # By process: the engine of the parent stays referenced in the child, and is left alone.
        engine = self._engines.get(os.getpid())
        if engine is None:
            with SUPERVISOR.lock:
                engine = self._engines.get(os.getpid())
                if engine is None:
                    engine = self._engines[os.getpid()] = _open(self.conn_id)
        return engine


def _code(error: Exception) -> int | str | None:
    """Return the database's or the driver's code for an error."""
    cause = getattr(error, "orig", None) or error
    # MySQL's own numbers tell more than the SQLSTATE beside them.
    number: int | None = next((each for each in cause.args if isinstance(each, int)), None)
    return number or getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)


def _names(error: Exception) -> str:
    """Return the error's class and the database's code for it."""
    if isinstance(error, _UnreachableError):
        return str(error)
    code = _code(error)
    return type(error).__name__ + (f", code {code}" if code else "")


def _open(conn_id: str) -> Engine:
    hook = _hook(conn_id)
    if not hasattr(hook, "get_sqlalchemy_engine"):
        raise ConfigurationError(
            f"The Airflow connection {conn_id!r} (token_store_conn_id) is no SQL connection. The token store "
            "'sql' needs one to PostgreSQL, MySQL, MariaDB or SQLite."
        )
    options = {"hide_parameters": True, "pool_pre_ping": True, "isolation_level": "AUTOCOMMIT"}
    try:
        engine: Engine = hook.get_sqlalchemy_engine(engine_kwargs=options)
        if engine.dialect.name in _READ_COMMITTED:
            _limit(hook, engine.dialect)
    except Exception as error:  # noqa: BLE001 - the hooks of all SQL providers, and the import of a driver
        raise ConfigurationError(
            f"No database engine can be made of the Airflow connection {conn_id!r} ({type(error).__name__}). "
            "Are its fields right, and is the database's driver installed (psycopg2-binary or psycopg for "
            "PostgreSQL, mysqlclient for MySQL and MariaDB)?"
        ) from None
    if engine.dialect.name not in _CLOCKS:
        raise ConfigurationError(
            f"The token store 'sql' works with PostgreSQL, MySQL, MariaDB and SQLite; the Airflow connection "
            f"{conn_id!r} leads to {engine.dialect.name!r}."
        )
    if engine.dialect.name in _READ_COMMITTED:
        event.listen(engine, "do_connect", _connects(hook))
        statement = _READ_COMMITTED[engine.dialect.name]
        event.listen(engine, "connect", lambda connection, record: _execute(connection, statement))
    return engine


def _hook(conn_id: str) -> Any:
    try:
        connection: Any = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        raise ConfigurationError(
            f"There is no Airflow connection {conn_id!r} (token_store_conn_id): the token store 'sql' keeps "
            "its records behind it."
        ) from None
    except Exception as error:  # noqa: BLE001 - whatever the metadata database or the API server raises
        raise TokenStoreError(
            f"The Airflow connection {conn_id!r} cannot be read now ({type(error).__name__}). Try again."
        ) from None
    try:
        return connection.get_hook()
    except Exception as error:  # noqa: BLE001 - an unknown type, a provider or driver that fails to load
        raise ConfigurationError(
            f"The Airflow connection {conn_id!r} (token_store_conn_id) has the type {connection.conn_type!r} "
            f"and no hook can be loaded for it ({type(error).__name__}). Is its provider installed: "
            "apache-airflow-providers-postgres, -mysql or -sqlite?"
        ) from None


def _limit(hook: Any, dialect: Any) -> None:
    """Have the hook set what its driver would otherwise leave open; the user's own value wins."""
    ours, own = _DRIVER_OPTIONS.get(dialect.driver, {}), hook.connection.extra_dejson
    if dialect.name == "postgresql":
        # All of the extras become arguments. Our statements need rows as SQLAlchemy knows them.
        extra = {**ours, **(own.get("sqlalchemy_query") or {}), **own}
        extra.pop("cursor", None)
        hook.connection.extra = json.dumps(extra)
        return
    name = _MYSQL_ARGUMENTS[dialect.driver]
    arguments = getattr(hook, name)
    limits = {option: int(own.get(option, value)) for option, value in ours.items()}

    def limited(connection: Any) -> dict[str, Any]:
        given = {option: value for option, value in arguments(connection).items() if option != "cursorclass"}
        # Sellers' names are any Unicode; the driver's own default may be latin1.
        return {**limits, **given, "charset": "utf8mb4"}

    setattr(hook, name, limited)


def _connects(hook: Any) -> Any:
    """Return what opens a connection as Airflow's hook does, with all that the extras say of TLS and more."""

    def connect(dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> Any:
        # A copy: the hook remembers its newest connection, and another thread may open one meanwhile.
        mine = copy.copy(hook)
        try:
            if dialect.driver == "pymysql":
                # The hook knows this driver when it makes a URL, and not when it connects.
                opened = dialect.dbapi.connect(**mine._get_conn_config_mysql_client(mine.connection))
            else:
                opened = mine.get_conn()
            if dialect.name == "mysql":
                _require_tls(opened, mine.connection.extra_dejson)
            return opened
        except Exception as error:  # noqa: BLE001 - what drivers and hooks raise here is of any class
            # Neither the text nor the cause: they may quote the connection's fields.
            raise _UnreachableError(_names(error)) from None

    return connect


def _require_tls(opened: Any, extra: dict[str, Any]) -> None:
    """Refuse a session in clear: mysqlclient and PyMySQL open one when the server offers no TLS."""
    named = any(extra.get(name) for name in ("ssl", "ssl_ca", "ssl_verify_cert", "ssl_verify_identity"))
    asked = named or str(extra.get("ssl_mode")).upper() in ("REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY")
    if asked and not _execute(opened, "SHOW SESSION STATUS LIKE 'Ssl_cipher'", answers=True)[1]:
        opened.close()
        raise _UnreachableError("the connection asks for TLS, and the server offers none")


def _execute(connection: Any, statement: str, *, answers: bool = False) -> Any:
    cursor = connection.cursor()
    cursor.execute(statement)
    row = cursor.fetchone() if answers else None
    cursor.close()
    return row


def _create_table(engine: Engine) -> None:
    if sa.inspect(engine).has_table(TOKENS.name):
        return
    try:
        TOKENS.create(engine)
    except SQLAlchemyError:
        # Another worker may have been quicker by a moment.
        if not sa.inspect(engine).has_table(TOKENS.name):
            raise
