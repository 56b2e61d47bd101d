"""Errors to report, put together by what they are about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_feedamp.operators.given import Check, given_objects, text

CODE_AND_MESSAGE: Mapping[str, Check] = {"code": text, "message": text}


def grouped(
    value: object, about: Mapping[str, Check], *, more: Sequence[str] = ()
) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    """Return the errors as they are sent, by what they are about.

    :param value: What the task was given as ``errors``.
    :param about: The fields that name what an error is about, with their checks.
    :param more: Fields to send beside code and message. No other field is sent.
    :raises InputError: Names the position and the field that is missing or wrong.
    """
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for entry in given_objects("errors", value, {**about, **CODE_AND_MESSAGE}):
        sent = {name: entry[name] for name in (*CODE_AND_MESSAGE, *more) if entry.get(name) is not None}
        groups.setdefault(tuple(str(entry[name]) for name in about), []).append(sent)
    return groups
