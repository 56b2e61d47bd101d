"""Errors to report, put together by what they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.exceptions import InputError
from airflow_provider_feedamp.operators.given import Check, given_objects, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CODE_AND_MESSAGE: Mapping[str, Check] = {"code": text, "message": text}


def grouped(
    value: object, about: Mapping[str, Check], *, more: Sequence[str] = ()
) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    """Return the errors as they are sent, by what they are about.

    :param value: What the task was given as ``errors``.
    :param about: The fields that name what an error is about, with their checks.
    :param more: Fields to send beside code and message.
    :raises InputError: Names the position and the field that is missing, wrong or unknown: under another name
        a line number would be lost.
    """
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    known = [*about, *CODE_AND_MESSAGE, *more]
    for position, entry in enumerate(given_objects("errors", value, {**about, **CODE_AND_MESSAGE})):
        if unknown := [str(name) for name in entry if name not in known]:
            message = (
                f"errors[{position}].{unknown[0]} is no field of an error; there are {', '.join(known)}."
            )
            raise InputError(message)
        sent = {name: entry[name] for name in (*CODE_AND_MESSAGE, *more) if entry.get(name) is not None}
        groups.setdefault(tuple(str(entry[name]) for name in about), []).append(sent)
    return groups
