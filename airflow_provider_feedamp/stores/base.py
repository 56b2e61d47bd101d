"""What a token store must do; every store passes the same contract."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from airflow_provider_feedamp.exceptions import TokenStoreError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from airflow_provider_feedamp.tokens.models import TokenKey, TokenRecord


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
        self,
        key: TokenKey,
        *,
        wait: float,
        stop: threading.Event,
        enough: Callable[[TokenRecord | None], bool] | None = None,
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
