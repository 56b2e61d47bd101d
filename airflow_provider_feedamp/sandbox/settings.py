"""The switches of the sandbox, one for each thing that no FeedAMP page says, and its clock."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from airflow_provider_feedamp.sandbox.models import INVALID_VALUE, Filled, Json, in_words

if TYPE_CHECKING:
    from collections.abc import Callable

ErrorBody = Literal["list", "object", "oauth", "text", "html", "empty"]

#: What only the start of a sandbox decides, because tokens and accounts are made from it.
FIXED_AT_START = frozenset({"sellers", "seed"})

_SELLERS = ("acme", "globex")
_YEAR = 365 * 24 * 3600
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")


def _tail(value: str) -> str:
    if not _SEGMENT.fullmatch(value) or value == "errors":
        raise PydanticCustomError(
            INVALID_VALUE, "must be letters, digits, - and _, and not errors, a path already"
        )
    return value


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) != len(names):
        raise PydanticCustomError(INVALID_VALUE, "must be a list of different names")
    return names


Seconds = Annotated[int, Field(ge=0, le=10**9)]
PathTail = Annotated[str, AfterValidator(_tail)]


class SandboxSettings(BaseModel):
    """The switches of one sandbox; the defaults are the documented behaviour or the likeliest guess.

    :param client_id: The marketplace's Client ID.
    :param client_secret: The password that goes with it.
    :param sellers: The sellers that exist from the start, each with one refresh token.
    :param seed: Tokens and codes are derived from this text, the seller's name and a count.
    :param access_token_ttl: Seconds that an access token lives.
    :param refresh_token_ttl: Seconds that a refresh token lives.
    :param code_ttl: Seconds that an authorisation code lives.
    :param rotation: What using a refresh token does to it: ``static`` keeps it, ``rotate`` replaces and
        revokes it, ``revoke_family`` also ends all its successors when it is used again, ``grace`` answers a
        replaced one for ``grace_seconds`` with the newest of its family.
    :param grace_seconds: Length of that grace.
    :param revoke_old_access_token: Whether a new access token ends the seller's earlier ones.
    :param token_encoding: Request bodies that the token endpoint reads.
    :param token_error_status: Status of a refused client, code or refresh token (401 documented, 400 OAuth).
    :param token_error_body: Form of the token endpoint's error bodies.
    :param approval: The browser step: a page to click, an immediate yes, or an immediate no.
    :param error_body: Form of all other error bodies.
    :param cursor_end: How a list says that there is no next page.
    :param write_status: Status of successful writes; ``by_effect`` is 201 for new things and 200 otherwise.
    :param write_body: Whether successful writes answer with the resource or with nothing.
    :param refund_complete_path: Last segment of the path that marks a refund as complete.
    :param return_complete_path: Last segment of the path that marks a return as complete.
    :param seller_on_v2: Whether sellers are on FeedAMP's V2: they take returns to a store (``IN_STORE``), and
        can refund several lines at once.
    :param strict_transitions: Refuse to take an order out of ``SHIPPED`` or ``CANCELLED``, to complete a
        paused refund or a return without amounts, to report errors of what is complete, and to change a
        return on which the seller has acted.
    :param strict_fields: Refuse unknown and read-only fields and unknown query parameters.
    :raises pydantic.ValidationError: when a value does not fit; it is a :class:`ValueError`.
    """

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    client_id: Filled = "demo-client"
    client_secret: Filled = Field(default="demo-secret", repr=False)
    sellers: Annotated[tuple[Filled, ...], Field(strict=False), AfterValidator(_different)] = _SELLERS
    seed: Filled = "sandbox"
    access_token_ttl: Seconds = 3600
    refresh_token_ttl: Seconds = _YEAR
    code_ttl: Seconds = 600
    rotation: Literal["static", "rotate", "revoke_family", "grace"] = "rotate"
    grace_seconds: float = Field(default=30.0, ge=0, le=1e9)
    revoke_old_access_token: bool = False
    token_encoding: Literal["both", "json", "form"] = "both"  # noqa: S105
    token_error_status: Literal[401, 400] = 401
    token_error_body: ErrorBody = "oauth"  # noqa: S105
    approval: Literal["page", "auto", "deny"] = "page"
    error_body: ErrorBody = "list"
    cursor_end: Literal["null", "missing", "empty"] = "null"
    write_status: Literal["by_effect", "200", "201", "204"] = "by_effect"
    write_body: Literal["resource", "empty"] = "resource"
    refund_complete_path: PathTail = "complete"
    return_complete_path: PathTail = "complete"
    seller_on_v2: bool = True
    strict_transitions: bool = False
    strict_fields: bool = False

    def update(self, changes: Json) -> None:
        """Change several settings at once, all or none.

        :param changes: New values by name.
        :raises ValueError: for an unknown name, a value that does not fit, or a setting fixed at the start;
            the message is one line and names the setting.
        """
        for name in changes:
            if name not in type(self).model_fields:
                known = ", ".join(sorted(type(self).model_fields))
                raise ValueError(f"The sandbox has no setting {name!r}: choose from {known}")
            if name in FIXED_AT_START:
                raise ValueError(f"Sandbox setting {name} is fixed when the sandbox starts")
        changed = checked_settings({**self.model_dump(), **changes})
        for name in changes:
            setattr(self, name, getattr(changed, name))

    def public(self) -> Json:
        """Return all settings but the client's secret."""
        return self.model_dump(exclude={"client_secret"})


def checked_settings(values: Json) -> SandboxSettings:
    """Return settings with these values.

    :param values: Values by name; the defaults hold for all others.
    :raises ValueError: in one line, when a value does not fit.
    """
    try:
        return SandboxSettings.model_validate(values)
    except ValidationError as error:
        found = [f"{each['loc'][0]} {in_words(each)[1]}" for each in error.errors(include_url=False)]
        raise ValueError(f"Sandbox setting {'; '.join(found)}") from None


class SandboxClock:
    """Tell the time of the sandbox, which can be moved forward.

    :param now: Where time comes from, as timezone-aware datetimes; real time when None.
    """

    def __init__(self, now: Callable[[], datetime] | None = None) -> None:
        self._now = now
        self._ahead = timedelta()

    def now(self) -> datetime:
        """Return the present instant in UTC."""
        present = self._now().astimezone(UTC) if self._now else datetime.now(UTC)
        return present + self._ahead

    def advance(self, seconds: Annotated[float, Field(ge=0, le=1e9)]) -> datetime:
        """Move the clock forward and return the new present instant.

        :param seconds: How far, 0 or more.
        """
        self._ahead += timedelta(seconds=seconds)
        return self.now()
