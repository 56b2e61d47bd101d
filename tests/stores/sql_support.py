"""What the tests of the SQL store share: databases, keys, records, and a worker process."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import event, text

from airflow_provider_feedamp.exceptions import FeedAmpError
from airflow_provider_feedamp.tokens import sql_store
from airflow_provider_feedamp.tokens.records import TokenKey, TokenRecord
from airflow_provider_feedamp.tokens.sql_store import SqlDatabase, SqlStore
from tests.tokens.custody import at_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.synchronize import Barrier, Lock
    from pathlib import Path

    from tests.databases import DatabaseServer

CONN_ID = "tokens"
VARIABLE = f"AIRFLOW_CONN_{CONN_ID.upper()}"
KEY = TokenKey("https://feedamp.test/oauth/token", "client-1", "hooli")
REFRESH = "refresh-token-in-clear"
ACCESS = "access-token-in-clear"


def record(key: TokenKey = KEY, **fields: Any) -> TokenRecord:
    """Return a record with both tokens."""
    return TokenRecord(key=key, refresh_token=REFRESH, access_token=ACCESS).changed(**fields)


def sqlite(folder: Path) -> str:
    """Return an Airflow connection to a new SQLite file."""
    return json.dumps({"conn_type": "sqlite", "host": str(folder / "tokens.db")})


def execute(statement: str, **values: Any) -> list[Any]:
    """Run a statement of a person who looks into, or meddles with, the database."""
    with SqlDatabase(CONN_ID).connect("meddle") as connection:
        result = connection.execute(text(statement), values)
        return list(result) if result.returns_rows else []


@contextmanager
def held(store: SqlStore, key: TokenKey = KEY, wait: float = 0) -> Iterator[None]:
    """Hold a key's lease."""
    with store.lock(key, wait=wait, stop=threading.Event()):
        yield


def all_at_once(work: Callable[[], object], threads: int = 8) -> list[object]:
    """Run the work in threads that begin together; an error of ours is a result."""

    def run() -> object:
        try:
            return work()
        except FeedAmpError as error:
            return error

    return at_once(threads, run)


@contextmanager
def statements_of(store: SqlStore) -> Iterator[list[str]]:
    """Collect the statements that a store sends from now on."""
    store.read(KEY)
    sent: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
        sent.append(statement)

    engine = store._database._engine()
    event.listen(engine, "before_cursor_execute", note)
    yield sent
    event.remove(engine, "before_cursor_execute", note)


def on_update(server: DatabaseServer, body: dict[str, str]) -> None:
    """Have a server do something before each UPDATE of our table; it goes with the table."""
    SqlStore(CONN_ID).read(KEY)
    execute("DROP SEQUENCE IF EXISTS updates")
    execute("CREATE SEQUENCE updates")
    if server.conn_type == "postgres":
        code = f"$$ BEGIN {body['postgres']} RETURN NEW; END $$"
        execute(f"CREATE OR REPLACE FUNCTION before_update() RETURNS trigger LANGUAGE plpgsql AS {code}")
        action = "EXECUTE FUNCTION before_update()"
    else:
        action = f"BEGIN {body['mysql']} END"
    execute(f"CREATE TRIGGER before_update BEFORE UPDATE ON feedamp_tokens FOR EACH ROW {action}")


@dataclass(frozen=True)
class Watch:
    """What the worker processes of one test share.

    :param inside: How many are in the section now, and the most that ever were.
    """

    start: Barrier
    guard: Lock
    inside: Any

    def enter(self) -> None:
        """Count one in."""
        with self.guard:
            self.inside[0] += 1
            self.inside[1] = max(self.inside[0], self.inside[1])

    def leave(self) -> None:
        """Count one out."""
        with self.guard:
            self.inside[0] -= 1


def contend(watch: Watch, entries: int) -> None:
    """Be one worker: enter the section many times, and count up the record's generation inside."""
    sql_store._POLL = (0.0, 0.003)  # so that the worker's tries often meet the other's
    store = SqlStore(CONN_ID)
    store.read(KEY)
    watch.start.wait()
    for _ in range(entries):
        with held(store, wait=60):
            watch.enter()
            present = store.read(KEY)
            generation = present.generation if present else 0
            revision = present.revision if present else None
            store.write(record(generation=generation + 1), expected=revision)
            watch.leave()
