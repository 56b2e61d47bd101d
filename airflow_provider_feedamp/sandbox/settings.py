"""What the sandbox can be told to do differently: one switch for each thing that no FeedAMP page says."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

Rotation = Literal["static", "rotate", "revoke_family", "grace"]
TokenEncoding = Literal["both", "json", "form"]
Approval = Literal["page", "auto", "deny"]
ErrorBody = Literal["list", "object", "oauth", "text", "html", "empty"]
CursorEnd = Literal["null", "missing", "empty"]
WriteStatus = Literal["by_effect", "200", "201", "204"]
WriteBody = Literal["resource", "empty"]

#: The words that each setting with a closed vocabulary accepts.
CHOICES: dict[str, tuple[str, ...]] = {
    "rotation": get_args(Rotation),
    "token_encoding": get_args(TokenEncoding),
    "approval": get_args(Approval),
    "error_body": get_args(ErrorBody),
    "token_error_body": get_args(ErrorBody),
    "cursor_end": get_args(CursorEnd),
    "write_status": get_args(WriteStatus),
    "write_body": get_args(WriteBody),
}

#: Settings that are one segment of a path.
PATH_TAILS = frozenset({"refund_complete_path", "return_complete_path"})

#: What only the start of a sandbox decides, because tokens and accounts are made from it.
FIXED_AT_START = frozenset({"sellers", "seed"})

_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")
YEAR_SECONDS = 365 * 24 * 3600
MOST_SECONDS = 10**9


@dataclass(slots=True)
class SandboxSettings:
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
    """

    client_id: str = "demo-client"
    client_secret: str = field(default="demo-secret", repr=False)
    sellers: tuple[str, ...] = ("acme", "globex")
    seed: str = "sandbox"
    access_token_ttl: int = 3600
    refresh_token_ttl: int = YEAR_SECONDS
    code_ttl: int = 600
    rotation: Rotation = "rotate"
    grace_seconds: float = 30.0
    revoke_old_access_token: bool = False
    token_encoding: TokenEncoding = "both"  # noqa: S105
    token_error_status: int = 401
    token_error_body: ErrorBody = "oauth"  # noqa: S105
    approval: Approval = "page"
    error_body: ErrorBody = "list"
    cursor_end: CursorEnd = "null"
    write_status: WriteStatus = "by_effect"
    write_body: WriteBody = "resource"
    refund_complete_path: str = "complete"
    return_complete_path: str = "complete"
    seller_on_v2: bool = True
    strict_transitions: bool = False
    strict_fields: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.sellers, list):
            self.sellers = tuple(self.sellers)
        for spec in dataclasses.fields(self):
            problem = _problem(spec.name, getattr(self, spec.name), spec.default)
            if problem:
                raise ValueError(f"Sandbox setting {spec.name} {problem}")

    def update(self, changes: Mapping[str, Any]) -> None:
        """Change several settings at once, all or none.

        :param changes: New values by name.
        :raises ValueError: for an unknown name, a value that does not fit, or a setting fixed at the start.
        """
        known = {spec.name for spec in dataclasses.fields(self)}
        for name in changes:
            if name not in known:
                raise ValueError(
                    f"The sandbox has no setting {name!r}: choose from {', '.join(sorted(known))}"
                )
            if name in FIXED_AT_START:
                raise ValueError(f"Sandbox setting {name} is fixed when the sandbox starts")
        changed = dataclasses.replace(self, **changes)
        for name in changes:
            setattr(self, name, getattr(changed, name))

    def public(self) -> dict[str, Any]:
        """Return all settings but the client's secret."""
        values = dataclasses.asdict(self)
        del values["client_secret"]
        return values


def _problem(name: str, value: object, default: object) -> str | None:
    if name == "sellers":
        return _sellers_problem(value)
    if name in CHOICES:
        return None if value in CHOICES[name] else f"is {value!r}: choose one of {', '.join(CHOICES[name])}"
    if name in PATH_TAILS:
        return _tail_problem(value)
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "must be true or false"
    if isinstance(default, str):
        return None if isinstance(value, str) and value else "must be a text that is not empty"
    if name == "token_error_status":
        return None if value in (400, 401) else "must be 400 or 401"
    kinds = (int, float) if isinstance(default, float) else (int,)
    fits = isinstance(value, kinds) and not isinstance(value, bool) and 0 <= value <= MOST_SECONDS
    return None if fits else f"must be a number from 0 to {MOST_SECONDS}, whole unless it is grace_seconds"


def _tail_problem(value: object) -> str | None:
    fits = isinstance(value, str) and _SEGMENT.fullmatch(value) and value != "errors"
    return None if fits else "must be letters, digits, - and _, and not errors, which is a path already"


def _sellers_problem(value: object) -> str | None:
    names = list(value) if isinstance(value, tuple) else [None]
    if all(isinstance(name, str) and name for name in names) and len(set(names)) == len(names):
        return None
    return "must be a list of different names, none of them empty"
