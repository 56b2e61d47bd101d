"""What the tests of token custody share: a real token endpoint, a store that can fail, and a clock."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.exceptions import TokenStoreError
from airflow_provider_feedamp.tokens.cache import CACHE, CachedToken
from airflow_provider_feedamp.tokens.custodian import TokenCustodian
from airflow_provider_feedamp.tokens.endpoint import TokenEndpoint
from airflow_provider_feedamp.tokens.records import RecordState, TokenKey, TokenRecord
from airflow_provider_feedamp.tokens.store import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_feedamp.sandbox.control import SandboxControl
    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from airflow_provider_feedamp.tokens.endpoint import TokenGrant
    from airflow_provider_feedamp.tokens.store import Lease

HOUR = 3600.0


class TroubledStore(MemoryStore):
    """A memory store that fails when told to, and tells others when something is about to happen."""

    def __init__(self) -> None:
        super().__init__()
        #: What was asked of it, in order.
        self.asked: list[str] = []
        #: What fails: "read", "write", or the state of records whose write fails.
        self.failing: set[str] = set()
        #: Called with each record before it is written.
        self.before_write: Callable[[TokenRecord], None] = lambda record: None
        #: Called after each entry of the lock.
        self.inside: Callable[[], None] = lambda: None
        #: Hands out this lease in place of the usual one.
        self.lease: Lease | None = None

    def read(self, key: TokenKey) -> TokenRecord | None:
        self._note("read", "read")
        return super().read(key)

    def write(self, record: TokenRecord, *, expected: int | None) -> TokenRecord:
        self._note(f"write {record.state}", "write", str(record.state))
        self.before_write(record)
        return super().write(record, expected=expected)

    @contextmanager
    def lock(
        self,
        key: TokenKey,
        *,
        wait: float,
        stop: threading.Event,
        enough: Callable[[TokenRecord | None], bool] | None = None,
    ) -> Iterator[Lease]:
        self._note("lock", "lock")
        with super().lock(key, wait=wait, stop=stop, enough=enough) as lease:
            self.inside()
            yield self.lease or lease

    def just_before(self, state: RecordState, act: Callable[[TokenRecord], object]) -> None:
        """Let something happen once, just before a record of this state is written."""

        def hook(record: TokenRecord) -> None:
            if record.state is state:
                self.before_write = lambda record: None
                act(record)

        self.before_write = hook

    @property
    def records(self) -> dict[TokenKey, TokenRecord]:
        """What is stored, past all faults."""
        return self._records

    def meddle(self, key: TokenKey, **changes: Any) -> TokenRecord:
        """Change the stored record as another worker would, past all faults."""
        record = self.stored(key)
        return super().write(record.changed(**changes), expected=record.revision)

    def stored(self, key: TokenKey) -> TokenRecord:
        """Return the record, past all faults."""
        record = super().read(key)
        assert record is not None
        return record

    def put(self, record: TokenRecord) -> None:
        """Store a key's first record, past all faults."""
        super().write(record, expected=None)

    def put_over(self, record: TokenRecord) -> None:
        """Store a record in place of the present one, past all faults."""
        super().write(record, expected=self.stored(record.key).revision)

    def _note(self, asked: str, *names: str) -> None:
        self.asked.append(asked)
        if self.failing.intersection(names):
            msg = "the store is down"
            raise TokenStoreError(msg)


@dataclass(frozen=True)
class BusyEndpoint(TokenEndpoint):
    """A token endpoint at which something happens just before each POST."""

    before: Callable[[], None] = lambda: None

    def refresh(self, refresh_token: str) -> TokenGrant:
        self.before()
        return super().refresh(refresh_token)


@dataclass
class Bench:
    """One sandbox, one store, one clock: all that a seller's custodian needs."""

    sandbox: RunningSandbox
    store: TroubledStore = field(default_factory=TroubledStore)
    #: Seconds that the custodian wanted to sleep; each moves the clocks instead.
    slept: list[float] = field(default_factory=list)
    ahead: float = 0.0

    @property
    def control(self) -> SandboxControl:
        return self.sandbox.control

    def now(self) -> float:
        return time.time() + self.ahead

    def later(self, seconds: float) -> None:
        """Let time pass, here and at FeedAMP."""
        self.ahead += seconds
        self.control.advance(seconds)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.later(seconds)

    def key(self, seller: str = "hooli") -> TokenKey:
        return TokenKey(f"{self.sandbox.base_url}/access_token", "demo-client", seller)

    def endpoint(self, **changes: Any) -> BusyEndpoint:
        url = f"{self.sandbox.base_url}/access_token"
        parts = {"url": url, "client_id": "demo-client", "client_secret": "demo-secret"}
        return BusyEndpoint(**{**parts, **changes})

    def custodian(self, seller: str = "hooli", **changes: Any) -> TokenCustodian:
        """Return a seller's custodian, without a refresh token of the connection unless `seed` is given."""
        parts = {
            "key": self.key(seller),
            "endpoint": self.endpoint(),
            "store": self.store,
            "now": self.now,
            "sleep": self.sleep,
        }
        return TokenCustodian(**{**parts, **changes})

    def seeded(self, seller: str = "hooli", **changes: Any) -> TokenCustodian:
        """Return a seller's custodian whose connection holds the seller's refresh token."""
        return self.custodian(seller, **{"seed": self.live(seller), **changes})

    def live(self, seller: str = "hooli") -> str:
        """Return the refresh token that FeedAMP accepts now."""
        return self.control.refresh_tokens(seller)[-1]

    def record(self, seller: str = "hooli") -> TokenRecord:
        return self.store.stored(self.key(seller))

    def slot(self, seller: str = "hooli") -> CachedToken:
        return CACHE.slot(self.key(seller))

    def posts(self) -> int:
        """Return how many token calls FeedAMP has seen."""
        return int(self.control.counters()["token_posts"])

    def whole(self, seller: str = "hooli") -> bool:
        """Say whether nothing is lost: the stored refresh token is the one that FeedAMP accepts."""
        return self.record(seller).refresh_token == self.live(seller)


class Doors:
    """A slot's lock that knows which threads have come to it."""

    def __init__(self) -> None:
        self.held, self.seen = threading.Lock(), set[int]()
        self.locked, self.release = self.held.locked, self.held.release

    def acquire(self, timeout: float) -> bool:
        self.seen.add(threading.get_ident())
        return self.held.acquire(timeout=timeout)


def holds_in_child(check: Callable[[], object]) -> bool:
    """Say whether a check holds in a forked child, which gets 100 seconds."""
    child = os.fork()
    if child == 0:
        status = 2
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(100)
            status = 0 if check() else 1
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def until(happened: Callable[[], object]) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def at_once(count: int, work: Callable[[], Any]) -> list[Any]:
    """Run the same work in many threads that start together, and return their results."""
    gate = threading.Barrier(count)

    def run(_: int) -> Any:
        gate.wait()
        return work()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))
