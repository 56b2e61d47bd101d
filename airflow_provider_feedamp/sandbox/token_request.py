"""Reading the body of a token call, in either of the two encodings that FeedAMP's pages show."""

from __future__ import annotations

from urllib.parse import parse_qsl

from airflow_provider_feedamp.sandbox.json_body import read_json
from airflow_provider_feedamp.sandbox.refusal import Refusal
from airflow_provider_feedamp.sandbox.tokens import INVALID_REQUEST, GrantRefused

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
_ENCODINGS = {"both": (JSON, FORM), "json": (JSON,), "form": (FORM,)}


def token_fields(body: bytes, content_type: str, encoding: str) -> dict[str, str]:
    """Return the fields of a token request.

    :param body: The body as it came.
    :param content_type: Its Content-Type header.
    :param encoding: The ``token_encoding`` setting.
    :raises GrantRefused: ``invalid_request``.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in _ENCODINGS[encoding]:
        raise GrantRefused(INVALID_REQUEST, f"send {' or '.join(_ENCODINGS[encoding])}")
    fields = _json_fields(body) if kind == JSON else _form_fields(body)
    for name, value in fields.items():
        if not isinstance(value, str):
            raise GrantRefused(INVALID_REQUEST, f"{name} must be a string")
    return {name: str(value) for name, value in fields.items()}


def required(fields: dict[str, str], name: str) -> str:
    """Return a field that must be there and not empty.

    :raises GrantRefused: ``invalid_request``.
    """
    if not fields.get(name):
        raise GrantRefused(INVALID_REQUEST, f"{name} is required")
    return fields[name]


def _json_fields(body: bytes) -> dict[str, object]:
    try:
        value = read_json(body)
    except Refusal as refusal:
        raise GrantRefused(INVALID_REQUEST, refusal.problems[0]["message"]) from refusal
    if not isinstance(value, dict):
        raise GrantRefused(INVALID_REQUEST, "the body must be an object")
    return value


def _form_fields(body: bytes) -> dict[str, object]:
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise GrantRefused(INVALID_REQUEST, "the body is not a form") from error
    if len(dict(pairs)) != len(pairs):
        raise GrantRefused(INVALID_REQUEST, "a field is given twice")
    return dict(pairs)
