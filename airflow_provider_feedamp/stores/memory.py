"""Token records in this process's memory: for notebooks and unit tests."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_provider_feedamp.exceptions import TokenBusyError, TokenConflictError
from airflow_provider_feedamp.stores.base import Lease

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_feedamp.tokens.models import TokenKey, TokenRecord

#: Seconds that a lease claims; a lock of this process needs no end, its holder only plans with it.
_LEASE_SECONDS = 60.0


#: Seconds between two looks at whether the waiting was called off.
_SLICE = 0.01


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
        self,
        key: TokenKey,
        *,
        wait: float,
        stop: threading.Event,
        enough: Callable[[TokenRecord | None], bool] | None = None,
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
