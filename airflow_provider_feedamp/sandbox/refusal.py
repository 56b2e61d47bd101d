"""How the sandbox says no: a status and the problems, in the code/message form that FeedAMP uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

INCORRECT_TYPE = "FIELD_INCORRECT_DATA_TYPE"
INVALID_VALUE = "FIELD_INVALID_VALUE"
INVALID_PAYLOAD = "INVALID_PAYLOAD"
INVALID_QUERY = "INVALID_QUERY_PARAM"
MISSING_FIELD = "MISSING_REQUIRED_FIELD"
UNKNOWN_FIELD = "UNKNOWN_FIELD_PRESENT"
# The next two are guesses: FeedAMP's pages show no error body for 401 and 404.
UNAUTHORIZED = "UNAUTHORIZED"
NOT_FOUND = "NOT_FOUND"

Problem = dict[str, str]


def problem(code: str, message: str) -> Problem:
    """Return one entry of an error body."""
    return {"code": code, "message": message}


class Refusal(Exception):
    """An answer other than success.

    :param status: HTTP status.
    :param problems: What is wrong, as ``{"code", "message"}``; never the content of an order.
    """

    def __init__(self, status: int, problems: Sequence[Problem]) -> None:
        super().__init__(f"{status}: {[each['code'] for each in problems]}")
        self.status = status
        self.problems = list(problems)


def bad_request(code: str, message: str) -> Refusal:
    """Return a 400 with one problem."""
    return Refusal(400, [problem(code, message)])


def not_found(what: str) -> Refusal:
    """Return a 404 that says what there is none of."""
    return Refusal(404, [problem(NOT_FOUND, f"{what} not found")])
