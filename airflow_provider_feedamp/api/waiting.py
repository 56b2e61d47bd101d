"""What all conditions share: how they are asked, what they say in the log, and how their data is checked."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from airflow_provider_feedamp.exceptions import InputError

if TYPE_CHECKING:
    from airflow_provider_feedamp.api.client import FeedAmpClient

log = logging.getLogger(__name__)

#: How many identifiers a message or a line of the log names.
NAMED: Final = 10


class Condition(Protocol):
    """Something to wait for."""

    def met(self, client: FeedAmpClient) -> list[Any] | None:
        """Ask FeedAMP.

        :return: The identifiers of what was waited for, or None: not yet.
        """


@dataclass(slots=True)
class Notes:
    """What a condition has said already: it is asked every minute, and nobody wants to read that."""

    said: set[str] = field(default_factory=set)

    def say(self, level: int, text: str) -> None:
        """Log a line, unless it was logged before."""
        if text not in self.said:
            self.said.add(text)
            log.log(level, text)


def plain(condition: Any) -> dict[str, Any]:
    """Return the arguments that make the same condition again, as JSON has them."""
    arguments = {each.name: getattr(condition, each.name) for each in fields(condition) if each.init}
    told: dict[str, Any] = json.loads(json.dumps(arguments))
    return told


def named(values: Sequence[str]) -> str:
    """Return the first of some identifiers, and how many more there are."""
    shown = ", ".join(values[:NAMED])
    return shown if len(values) <= NAMED else f"{shown} and {len(values) - NAMED} more"


def is_list(values: object) -> bool:
    """Say whether something is a list; a text is none."""
    return isinstance(values, Sequence) and not isinstance(values, str | bytes)


def check_texts(name: str, values: Sequence[Any]) -> None:
    """Refuse what is not a list of identifiers."""
    if not is_list(values) or not all(isinstance(value, str) and value.strip() for value in values):
        raise InputError(f"{name} must be a list of texts that are not blank.")


def instant_of(name: str, text: str) -> datetime:
    """Return an instant from ISO 8601; one without an offset would mean New York's time to FeedAMP."""
    try:
        instant = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        instant = None
    if instant is None or instant.utcoffset() is None:
        raise InputError(
            f"{name} must be an instant in ISO 8601 with an offset, as 2026-01-31T12:00:00Z, not {text!r}."
        )
    return instant
