"""The POSTs that must not be repeated blindly: reports of errors, and what marks something as complete."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.api.checks import LONGEST_NUMBER
from airflow_provider_feedamp.exceptions import (
    ApiError,
    InputError,
    ServerError,
    UnreachableError,
    UnreadableError,
)

if TYPE_CHECKING:
    from airflow_provider_feedamp.api.http import Transport

log = logging.getLogger(__name__)

Read = Callable[[], Mapping[str, Any]]


def report_errors(
    transport: Transport, path: Sequence[str], errors: Sequence[Mapping[str, Any]], *, of: str, read: Read
) -> None:
    """Report errors of an order, a refund or a return.

    FeedAMP may append what it gets twice. When nobody knows whether a report has arrived, the resource is
    read: what stands there is not sent again, and what does not stand there is sent once more.

    :param path: Its path below the base URL.
    :param errors: At least one, each with ``code`` and ``message``.
    :param of: It in words for errors, such as ``order '600A'``.
    :param read: Reads it.
    :raises InputError: The errors cannot be sent as they are; nothing was sent.
    """
    reported = _checked(errors, of)
    _post(
        transport,
        [*path, "errors"],
        what=f"reporting errors of {of}",
        json=reported,
        stands=lambda: _stand(reported, read().get("errors")),
    )


def mark_complete(transport: Transport, path: Sequence[str], *, of: str, read: Read, complete: str) -> None:
    """Mark a refund or a return as complete.

    :param path: The path of the call below the base URL.
    :param of: It in words for errors, such as ``refund 1001 of order '600A'``.
    :param read: Reads it, when nobody knows whether the call has arrived.
    :param complete: The status that says that it has.
    """
    _post(
        transport,
        path,
        what=f"marking {of} as complete",
        json=None,
        stands=lambda: read().get("status") == complete,
    )


def _post(
    transport: Transport,
    path: Sequence[str],
    *,
    what: str,
    json: Any,
    stands: Callable[[], bool | None],
) -> None:
    """Send a POST, and once more if a look at the resource shows that the first did not arrive.

    :param stands: Whether the resource shows what was sent; None when it does not tell.
    """
    sends = 2
    for send in range(1, sends + 1):
        try:
            transport.request("POST", path, json=json, what=what)
        except (UnreachableError, ServerError, UnreadableError) as error:
            unclear = error
        else:
            return
        log.info("Nobody knows whether %s has worked; looking", what)
        try:
            shown = stands()
        except ApiError:
            # The first failure says what was being done, and the look says nothing.
            raise unclear from unclear.__cause__
        if shown:
            log.info("It has: %s is done", what)
            return
        if shown is None or send == sends:
            raise unclear from unclear.__cause__
        log.info("It has not: %s once more", what)


def not_held(reported: Sequence[Mapping[str, Any]], held: object) -> list[Mapping[str, Any]]:
    """Return the errors that FeedAMP does not hold already, unresolved.

    :param reported: The errors to report.
    :param held: The ``errors`` of the order, refund or return, as it was read.
    """
    left = [error for error in held if isinstance(error, Mapping)] if isinstance(held, list) else []
    missing = []
    for error in reported:
        same = next((each for each in left if _same(error, each)), None)
        if same is None:
            missing.append(error)
        else:
            left.remove(same)
    return missing


def _stand(reported: Sequence[Mapping[str, Any]], held: object) -> bool | None:
    # Without a list nothing is told: that an order has one is not documented.
    return not not_held(reported, held) if isinstance(held, list) else None


def _same(reported: Mapping[str, Any], held: Mapping[str, Any]) -> bool:
    # Whether FeedAMP gives the line number back is not documented.
    return all(held.get(name) == reported[name] for name in ("code", "message")) and (
        held.get("mp_line_number") in (None, reported.get("mp_line_number"))
    )


def _checked(errors: Sequence[Mapping[str, Any]], of: str) -> list[dict[str, Any]]:
    wrong = "" if isinstance(errors, list | tuple) else "they are not a list"
    if not wrong and not errors:
        wrong = "there is none"
    for index, error in enumerate(errors if not wrong else ()):
        wrong = _problem(error) or wrong
        if wrong:
            wrong = f"[{index}]{wrong}"
            break
    if wrong:
        raise InputError(f"The errors to report for {of} cannot be sent: {wrong}.")
    return [dict(error) for error in errors]


def _problem(error: object) -> str:
    if not isinstance(error, Mapping):
        return " is not an object"
    for name in ("code", "message"):
        value = error.get(name)
        if not isinstance(value, str) or not value.strip():
            return f".{name} must be text that is not blank"
    line = error.get("mp_line_number")
    if line is not None and not (isinstance(line, str) and 0 < len(line) <= LONGEST_NUMBER):
        return f".mp_line_number must be text of 1 to {LONGEST_NUMBER} characters"
    return ""
