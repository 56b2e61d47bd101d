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

_YEAR = 365 * 24 * 3600


def _tail(value: str) -> str:
    if not re.fullmatch("[A-Za-z0-9_-]+", value) or value == "errors":
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
    """The switches of one sandbox, each described in ``docs/sandbox.md``; all lives are in seconds.

    The defaults are the documented behaviour or the likeliest guess.

    :raises pydantic.ValidationError: when a value does not fit; it is a :class:`ValueError`.
    """

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    client_id: Filled = "demo-client"
    client_secret: Filled = Field(default="demo-secret", repr=False)
    sellers: Annotated[tuple[Filled, ...], Field(strict=False), AfterValidator(_different)] = (
        "hooli",
        "globex",
    )
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

    @classmethod
    def checked(cls, values: Json) -> SandboxSettings:
        """Return settings with these values by name, and the defaults for all others.

        :raises ValueError: in one line, when a value does not fit.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            found = [f"{each['loc'][0]} {in_words(each)[1]}" for each in error.errors(include_url=False)]
            raise ValueError(f"Sandbox setting {'; '.join(found)}") from None

    def update(self, changes: Json) -> None:
        """Change several settings at once, all or none.

        :raises ValueError: for an unknown name, a value that does not fit, or a setting fixed at the start;
            the message is one line and names the setting.
        """
        known = type(self).model_fields
        for name in changes:
            if name not in known:
                names = ", ".join(sorted(known))
                raise ValueError(f"The sandbox has no setting {name!r}: choose from {names}")
            if name in FIXED_AT_START:
                raise ValueError(f"Sandbox setting {name} is fixed when the sandbox starts")
        changed = self.checked({**self.model_dump(), **changes})
        for name in changes:
            setattr(self, name, getattr(changed, name))

    def public(self) -> Json:
        """Return all settings but the client's secret."""
        return self.model_dump(exclude={"client_secret"})


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
