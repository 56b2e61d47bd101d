"""What a token store must do; every store passes the same contract."""

from __future__ import annotations

import inspect
import os
import secrets
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from airflow_provider_feedamp.exceptions import (
    ConfigurationError,
    TokenBusyError,
    TokenConflictError,
    TokenStoreError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from airflow_provider_feedamp.tokens.records import TokenKey, TokenRecord

    #: Says of a record that was read whether it is what the caller wanted the lock for.
    Enough = Callable[[TokenRecord | None], bool]

#: The stores that come with this package, by the name that the configuration uses.
STORES = {
    "memory": "airflow_provider_feedamp.tokens.store.MemoryStore",
    "sql": "airflow_provider_feedamp.tokens.sql_store.SqlStore",
    "variable": "airflow_provider_feedamp.tokens.variable_store.VariableStore",
}
#: Seconds that a lease of the memory store claims; its lock needs no end, its holder only plans with it.
_LEASE_SECONDS = 60.0
#: Seconds between two looks of the memory store at whether the waiting was called off.
_SLICE = 0.01


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to spend one key's refresh token, for a time.

    :param seconds: How long it holds, from ``since``.
    :param since: Reading of the monotonic clock when it began.
    :param nonce: Names this lease; the record's last write under it carries it as ``released``.
    :param clock: The monotonic clock.
    """

    seconds: float
    since: float = field(default_factory=time.monotonic)
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))
    clock: Callable[[], float] = time.monotonic

    def left(self) -> float:
        """Return the seconds that remain."""
        return self.since + self.seconds - self.clock()


class TokenStore(Protocol):
    """Keeps token records, and lets one worker at a time spend a key's refresh token.

    A store of your own is any class with these methods; name its dotted path in ``[feedamp] token_store``.
    It is built with the connection id of ``token_store_conn_id`` (or None) as its only argument.
    """

    #: One sentence that says between whom the lock and the conditional write hold.
    guarantee: str

    def read(self, key: TokenKey) -> TokenRecord | None:
        """Return the record as the last finished write left it, or None.

        :raises TokenStoreError: if the store cannot be reached.
        :raises TokenRecordError: if what is stored is not this key's record.
        """
        ...

    def write(self, record: TokenRecord, *, expected: int | None) -> TokenRecord:
        """Replace the record as one atomic write, and return it as stored, with its new ``revision``.

        Returns only when every worker's next read sees it.

        :param record: The new record; its ``revision`` is set by the store.
        :param expected: The revision that must be stored now, or None when there must be no record.
        :raises TokenConflictError: if another revision is stored; nothing was written.
        :raises TokenStoreError: if it is unsure that the record was written.
        """
        ...

    def lock(
        self, key: TokenKey, *, wait: float, stop: threading.Event, enough: Enough | None = None
    ) -> AbstractContextManager[Lease]:
        """Enter the section in which one worker alone may spend this key's refresh token.

        :param wait: Seconds to wait for it at the most; 0 tries once.
        :param stop: Ends the waiting early.
        :param enough: Asked with the record, as it is read at each look of a waiting worker; True ends the
            waiting at once, since the caller has what it wanted the lock for. A store may leave this
            parameter out: then the caller looks for itself.
        :raises TokenBusyError: if somebody else held it all that time, or ``stop`` or ``enough`` ended it.
        :raises TokenStoreError: if the store cannot be reached.
        """
        ...

    def delete(self, key: TokenKey) -> None:
        """Forget the record, if there is one. Only a person asks for this, never a failure."""
        ...

    def keys(self, token_url: str, client_id: str) -> list[TokenKey]:
        """Return the keys of all records of one client at one token endpoint, in any order.

        A record that cannot be read must not hide the others.

        :raises TokenStoreError: if the store cannot be reached, or cannot list from where this runs.
        """
        ...


def records_of(
    store: TokenStore, token_url: str, client_id: str
) -> Iterator[tuple[TokenKey, TokenRecord | TokenStoreError | None]]:
    """Yield the key of each record of a client, with the record or the reason why it cannot be read.

    A store that has a method ``records(token_url, client_id)`` of the same shape answers in one go; of any
    other one each record is read by itself.

    :raises TokenStoreError: if the store cannot be reached, or cannot list from where this runs.
    """
    at_once = getattr(store, "records", None)
    if at_once is not None:
        yield from at_once(token_url, client_id)
        return
    for key in store.keys(token_url, client_id):
        try:
            yield key, store.read(key)
        except TokenStoreError as error:
            yield key, error


class SupervisorCalls:
    """Keeps our calls of a task's supervisor apart: Airflow 3.0 and 3.1 reach it over one unlocked socket."""

    def __init__(self) -> None:
        self.renew()
        # A lock that another thread of the parent held would never be released in the child.
        os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        """Make the lock anew."""
        self.lock = threading.Lock()


#: The one of this process.
SUPERVISOR = SupervisorCalls()


class MemoryStore:
    """Keeps records for as long as this process lives; nothing is shared with other processes."""

    guarantee = "Lock and conditional write hold between the threads of one process that does not fork."

    def __init__(self, conn_id: str | None = None) -> None:
        self._records: dict[TokenKey, TokenRecord] = {}
        self._held: dict[str, Lease] = {}
        self._guard = threading.Lock()

    def read(self, key: TokenKey) -> TokenRecord | None:
        """Return the record, or None."""
        return self._records.get(key)

    def write(self, record: TokenRecord, *, expected: int | None) -> TokenRecord:
        """Replace the record if ``expected`` is the stored revision."""
        with self._guard:
            stored = self._records.get(record.key)
            if (stored.revision if stored else None) != expected:
                raise TokenConflictError(
                    f"The token record of seller {record.key.seller!r} has changed meanwhile."
                )
            written = record.changed(revision=(expected or 0) + 1)
            self._records[record.key] = written
            return written

    @contextmanager
    def lock(
        self, key: TokenKey, *, wait: float, stop: threading.Event, enough: Enough | None = None
    ) -> Iterator[Lease]:
        """Hold the key's lock within this process."""
        # Taken and given back without a call in between: a signal may raise after any call.
        name, held, lease = key.digest, self._held, Lease(_LEASE_SECONDS)
        deadline = time.monotonic() + wait
        try:
            while held.setdefault(name, lease) is not lease:
                over = stop.wait(_SLICE) or time.monotonic() >= deadline
                if over or (enough is not None and enough(self.read(key))):
                    raise TokenBusyError(
                        f"Another thread renews the token of seller {key.seller!r}. Waited {wait:.0f} s; try "
                        "again."
                    )
            yield lease
        finally:
            if name in held and held[name] is lease:
                del held[name]

    def delete(self, key: TokenKey) -> None:
        """Forget the record."""
        with self._guard:
            self._records.pop(key, None)

    def keys(self, token_url: str, client_id: str) -> list[TokenKey]:
        """Return the keys of all records of a client."""
        client = (token_url, client_id)
        return [key for key in list(self._records) if (key.token_url, key.client_id) == client]


@cache
def open_store(name: str, conn_id: str | None = None) -> TokenStore:
    """Return this process's store of that name; the same one each time.

    :param name: A name out of ``STORES``, or the dotted path of a class of your own, as ``[feedamp]
        token_store`` has it. It is imported: it must never come from a connection.
    :param conn_id: The Airflow connection that the store keeps its records behind, if it needs one.
    :raises ConfigurationError: if there is no such store, or it does not keep the protocol of
        ``tokens.store``; then nothing of it was called.
    """
    module, _, attribute = STORES.get(name, name).rpartition(".")
    try:
        kind = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        known = ", ".join(sorted(STORES))
        raise ConfigurationError(
            f"There is no token store {name!r} ([feedamp] token_store). Use one of {known}, or the dotted "
            "path of a class of your own."
        ) from error
    missing = _missing(kind)
    if missing:
        raise ConfigurationError(
            f"{name!r} ([feedamp] token_store) is no token store: it has no {missing} as in the protocol of "
            f"{TokenStore.__module__}. Nothing of it was called."
        )
    return cast("TokenStore", kind(conn_id))


def _missing(kind: object) -> str:
    """Return what a token store must have and this object has not, or an empty text."""
    if not inspect.isclass(kind):
        return "class"
    if not _takes(kind, ["conn_id"], []):
        return "constructor that takes a connection id"
    for name, method in inspect.getmembers(TokenStore, inspect.isfunction):
        if name.startswith("_"):
            continue
        parameters = inspect.signature(method).parameters.values()
        needed = [each for each in parameters if each.default is each.empty]  # others may be left out
        by_name = [each.name for each in needed if each.kind is each.KEYWORD_ONLY]
        by_place = [each.name for each in needed if each.kind is each.POSITIONAL_OR_KEYWORD]
        own = getattr(kind, name, None)
        if own is method or not _takes(own, by_place, by_name):
            return f"method {name}({', '.join(by_place + by_name)})"
    return ""


def _takes(function: Any, by_place: list[str], by_name: list[str]) -> bool:
    """Say whether a function can be called with these parameters, by place and by name."""
    try:
        inspect.signature(function).bind(*by_place, **dict.fromkeys(by_name))
    except (TypeError, ValueError):  # also of what cannot be called at all
        return False
    return True
