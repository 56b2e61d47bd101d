"""What one process knows about access tokens, shared by all its hooks, threads and triggers.

Refresh tokens are never kept here, save one: that of a record which the store did not take
(``CachedToken.unsaved``).
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow_provider_feedamp.exceptions import FeedAmpError
    from airflow_provider_feedamp.tokens.records import AccessToken, TokenKey, TokenRecord


@dataclass(frozen=True, slots=True)
class Unsaved:
    """A renewed record that exists in this process alone.

    :param record: It.
    :param spent: The refresh token that it replaces.
    :param replaces: The family of tokens that it replaces whatever has become of them: a person has
        authorised the seller anew.
    """

    record: TokenRecord
    spent: str = field(repr=False)
    replaces: str | None = None


@dataclass(slots=True)
class CachedToken:
    """What this process holds for one key.

    :param token: The newest access token that this process has seen.
    :param seeds: Fingerprints of the connection tokens that the token's record had taken in.
    :param lock: Held by the one thread that renews this key's token.
    :param retry_at: Monotonic time before which no renewal ahead of time is tried again after a failure.
    :param replaced: The access token that was obtained because FeedAMP refused the one before, until FeedAMP
        has accepted it.
    :param unsaved: A renewed record that the store has not taken yet.
    :param save_at: Monotonic time before which storing it is not tried again.
    :param failure: How the last renewal failed, and when (monotonic): who waited for it shares it.
    """

    token: AccessToken | None = None
    seeds: frozenset[str] = frozenset()
    lock: threading.Lock = field(default_factory=threading.Lock)
    retry_at: float = 0.0
    replaced: str | None = field(default=None, repr=False)
    unsaved: Unsaved | None = field(default=None, repr=False)
    save_at: float = 0.0
    failure: tuple[float, FeedAmpError] | None = None

    def take(self, record: TokenRecord) -> None:
        """Hold the access token of a record that is safely stored."""
        self.token, self.seeds = record.token(), frozenset(record.seeds)


class TokenCache:
    """One :class:`CachedToken` for each key, made when first asked for.

    Attributes are shared by all sellers of a client: ``refused`` holds how FeedAMP last refused a client, or
    the kind of request, and when (monotonic), by what it was asked with. ``bare`` holds when a seller's
    refresh token was last refused without an OAuth code (monotonic), by client and seller.
    """

    def __init__(self) -> None:
        self._slots: dict[TokenKey, CachedToken] = {}
        self.refused: dict[tuple[str, ...], tuple[float, FeedAmpError]] = {}
        self.bare: dict[tuple[str, str], dict[str, float]] = {}
        self._guard = threading.Lock()

    def slot(self, key: TokenKey) -> CachedToken:
        """Return the key's slot."""
        slot = self._slots.get(key)  # reading a dict needs no lock
        if slot is None:
            with self._guard:
                slot = self._slots.setdefault(key, CachedToken())
        return slot

    def clear(self) -> None:
        """Forget everything, as a new process would."""
        with self._guard:
            for slot in self._slots.values():
                slot.token = None  # for custodians that have it at hand
            self._slots.clear()
            self.refused.clear()
            self.bare.clear()

    def after_fork(self) -> None:
        """Make the child's locks anew: a lock that another thread of the parent held would never be released.

        Access tokens stay good in the child. A record that is not saved yet stays the parent's to save.
        """
        self._guard = threading.Lock()
        for slot in list(self._slots.values()):
            slot.lock = threading.Lock()
            slot.unsaved = None


#: The process-wide cache.
CACHE = TokenCache()
os.register_at_fork(after_in_child=CACHE.after_fork)


class Freshness(Enum):
    """What may be done with an access token."""

    FRESH = auto()  #: use it; no lock, no store
    ADVISORY = auto()  #: use it; one caller renews it meanwhile
    MANDATORY = auto()  #: renew first


@dataclass(frozen=True, slots=True)
class Windows:
    """The three windows of a token's life, in seconds before its end.

    :param advisory: From here on one caller renews the token while the others go on with it.
    :param jitter: Spread of ``advisory`` over sellers, so that thousands do not renew in the same minute.
    :param mandatory: From here on nobody uses the token any more.
    """

    advisory: float = 600.0
    jitter: float = 120.0
    mandatory: float = 120.0

    def judge(
        self, token: AccessToken | None, key: TokenKey, now: float, min_ttl: timedelta | None = None
    ) -> Freshness:
        """Say what may be done with a token.

        :param token: The token, or None.
        :param key: Whose it is; decides where the seller lies within ``jitter``.
        :param now: Epoch seconds.
        :param min_ttl: Widens the mandatory window for this call.
        """
        if token is None:
            return Freshness.MANDATORY
        left = token.expires_at.timestamp() - now
        mandatory, advisory = self._of(token, key)
        if min_ttl is not None:
            mandatory = max(mandatory, min_ttl.total_seconds())
        if left <= mandatory:
            return Freshness.MANDATORY
        return Freshness.ADVISORY if left <= advisory else Freshness.FRESH

    def fresh_until(self, token: AccessToken, key: TokenKey) -> float:
        """Return when a token that is fresh stops being so, epoch seconds; no ``min_ttl`` is looked at."""
        return token.expires_at.timestamp() - max(self._of(token, key))

    def _of(self, token: AccessToken, key: TokenKey) -> tuple[float, float]:
        """Return the mandatory and the advisory window of a token."""
        # The key's own place between 0 and 1, the same on every machine.
        place = int(key.digest[:8], 16) / 0xFFFFFFFF
        # A server with short-lived tokens would otherwise be asked for a new one on every call.
        mandatory = min(self.mandatory, token.lifetime / 10)
        return mandatory, min(self.advisory + self.jitter * place, token.lifetime / 2)
