"""When an access token is used as it is, renewed ahead of time, or renewed first."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from airflow_provider_feedamp.exceptions import InputError

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow_provider_feedamp.tokens.models import AccessToken, TokenKey


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

    @staticmethod
    def check(token: AccessToken, min_ttl: timedelta | None) -> None:
        """Refuse a ``min_ttl`` that FeedAMP's tokens never have.

        :param token: One that was obtained just now: how long an earlier one lived says nothing.
        :raises InputError: if not even this one lives as long.
        """
        if min_ttl is not None and min_ttl.total_seconds() >= token.lifetime:
            raise InputError(
                f"min_ttl of {min_ttl.total_seconds():.0f} s cannot be met for seller {token.seller!r}: the "
                f"access token that FeedAMP gave just now lives {token.lifetime:.0f} s. Ask for less."
            )

    def fresh_until(self, token: AccessToken, key: TokenKey) -> float:
        """Return when a token that is fresh stops being so, epoch seconds; no ``min_ttl`` is looked at."""
        return token.expires_at.timestamp() - max(self._of(token, key))

    def _of(self, token: AccessToken, key: TokenKey) -> tuple[float, float]:
        """Return the mandatory and the advisory window of a token."""
        # A server with short-lived tokens would otherwise be asked for a new one on every call.
        mandatory = min(self.mandatory, token.lifetime / 10)
        return mandatory, min(self.advisory + self.jitter * _share(key), token.lifetime / 2)


def _share(key: TokenKey) -> float:
    """Return this key's own place between 0 and 1, the same on every machine."""
    return int(key.digest[:8], 16) / 0xFFFFFFFF
