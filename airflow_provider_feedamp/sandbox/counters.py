"""What the sandbox was asked and how it answered, in total and per seller."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any


class _Tally:
    """The counts of one seller, or of all together."""

    def __init__(self) -> None:
        self.token_posts = 0
        self.tokens: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.calls: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as plain values."""
        return {
            "token_posts": self.token_posts,
            "tokens": {grant: dict(outcomes) for grant, outcomes in self.tokens.items()},
            "calls": dict(self.calls),
            "refused": dict(self.refused),
        }


class Counters:
    """Count token posts by grant and outcome, calls by operation and refusals by status."""

    def __init__(self) -> None:
        self._total = _Tally()
        self._sellers: defaultdict[str, _Tally] = defaultdict(_Tally)
        self._faults: Counter[str] = Counter()
        self._in_flight = 0
        self._in_flight_max = 0

    def token_post_begins(self) -> None:
        """Count a token post that has arrived; it is in flight until it is answered or cut off."""
        self._total.token_posts += 1
        self._in_flight += 1
        self._in_flight_max = max(self._in_flight, self._in_flight_max)

    def token_post_ends(self) -> None:
        """Note that a token post is no longer in flight."""
        self._in_flight = max(self._in_flight - 1, 0)

    def token_outcome(self, grant: str, outcome: str, seller: str | None) -> None:
        """Count what a token post came to: ``issued`` or the error code."""
        self._total.tokens[grant][outcome] += 1
        if seller is not None:
            self._sellers[seller].token_posts += 1
            self._sellers[seller].tokens[grant][outcome] += 1

    def call(self, operation: str, seller: str | None) -> None:
        """Count one call of a data endpoint; without a seller when its bearer was refused."""
        self._total.calls[operation] += 1
        if seller is not None:
            self._sellers[seller].calls[operation] += 1

    def refusal(self, status: int, seller: str | None) -> None:
        """Count one call of a data endpoint that was answered with an error."""
        self._total.refused[str(status)] += 1
        if seller is not None:
            self._sellers[seller].refused[str(status)] += 1

    def fault(self, kind: str) -> None:
        """Count one injected fault."""
        self._faults[kind] += 1

    def to_dict(self) -> dict[str, Any]:
        """Return all counts as plain values."""
        return {
            **self._total.to_dict(),
            "token_posts_in_flight_max": self._in_flight_max,
            "faults": dict(self._faults),
            "sellers": {name: tally.to_dict() for name, tally in self._sellers.items()},
        }
