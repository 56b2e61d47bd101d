"""What an answer must hold before it is passed on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.exceptions import ApiError

if TYPE_CHECKING:
    from airflow_provider_feedamp.api.transport import Answer


def an_object(answer: Answer, what: str) -> dict[str, Any]:
    """Return the JSON object of an answer.

    :param what: The call in words, for the error.
    :raises ApiError: The answer holds something else.
    """
    if isinstance(answer.body, dict):
        return answer.body
    raise ApiError(
        f"FeedAMP answered {what} with HTTP {answer.status} and no JSON object.", status=answer.status
    )


def objects_under(name: str, answer: Answer, what: str) -> list[dict[str, Any]]:
    """Return the list of JSON objects that an answer holds under a name.

    :param what: The call in words, for the error.
    :raises ApiError: The answer holds something else.
    """
    found = answer.body.get(name) if isinstance(answer.body, dict) else None
    if isinstance(found, list) and all(isinstance(entry, dict) for entry in found):
        return found
    raise ApiError(
        f"FeedAMP answered {what} with HTTP {answer.status} and no list of {name}.", status=answer.status
    )
