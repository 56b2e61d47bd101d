"""What FeedAMP checks in the bodies of the three Report Errors calls (feedamp-api.md A4.7, A6.5, A7.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_feedamp.sandbox.fields import (
    Check,
    any_text,
    field_problems,
    number,
    text,
    unknown_problems,
)
from airflow_provider_feedamp.sandbox.json_body import read_json
from airflow_provider_feedamp.sandbox.refusal import (
    INCORRECT_TYPE,
    INVALID_PAYLOAD,
    INVALID_VALUE,
    Problem,
    Refusal,
    problem,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_REQUIRED: Mapping[str, Check] = {"code": text, "message": any_text}
_LINE: Mapping[str, Check] = {"mp_line_number": number}


def reported_errors(
    raw: bytes, line_numbers: Collection[str] | None, *, strict_fields: bool
) -> list[dict[str, object]]:
    """Return the errors that a marketplace reports.

    :param raw: The body as it came.
    :param line_numbers: The order's lines; None for refunds and returns, whose errors name no line.
    :param strict_fields: Whether unknown fields are refused.
    :raises Refusal: 400 with all problems.
    """
    body = read_json(raw)
    problems = error_problems(body, line_numbers, strict_fields=strict_fields)
    if problems or not isinstance(body, list):
        raise Refusal(400, problems)
    return body


def error_problems(
    body: object, line_numbers: Collection[str] | None, *, strict_fields: bool
) -> list[Problem]:
    """Return all that is wrong with the body of a Report Errors call.

    :param body: The parsed body.
    :param line_numbers: The order's lines; None for refunds and returns, whose errors name no line.
    :param strict_fields: Whether unknown fields are refused.
    """
    if not isinstance(body, list) or not body:
        return [problem(INVALID_PAYLOAD, "the body must be a list with at least one error")]
    found: list[Problem] = []
    known = {"code", "message"} if line_numbers is None else {"code", "message", "mp_line_number", "debug"}
    for index, entry in enumerate(body):
        where = f"[{index}]"
        if not isinstance(entry, dict):
            found.append(problem(INCORRECT_TYPE, f"'{where}' must be an object"))
            continue
        found.extend(field_problems(entry, _REQUIRED, {}, where + "."))
        if line_numbers is not None:
            found.extend(_line_and_debug(entry, line_numbers, where))
        if strict_fields:
            found.extend(unknown_problems(entry, known, where + "."))
    return found


def _line_and_debug(entry: Mapping[str, object], line_numbers: Collection[str], where: str) -> list[Problem]:
    found = list(field_problems(entry, {}, _LINE, where + "."))
    line = entry.get("mp_line_number")
    if isinstance(line, str) and line not in line_numbers:
        found.append(problem(INVALID_VALUE, f"'{where}.mp_line_number' is not a line of the order"))
    debug = entry.get("debug")
    if debug is not None and not (isinstance(debug, list) and all(isinstance(each, dict) for each in debug)):
        found.append(problem(INCORRECT_TYPE, f"'{where}.debug' must be a list of objects"))
    return found
