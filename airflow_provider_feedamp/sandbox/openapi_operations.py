"""What FastAPI is told of FeedAMP's 19 endpoints, so that the sandbox can describe itself (OpenAPI)."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from airflow_provider_feedamp.sandbox.openapi_schemas import NUMBER, Json, answer, ref
from airflow_provider_feedamp.sandbox.operations import OPERATIONS, Operation

_TAGS = {"D": "documented by FeedAMP", "I": "inferred", "U": "unknown, a guess"}
_ERRORS = {
    "400": "What was sent does not fit",
    "401": "No live access token",
    "404": "There is no such thing in this seller's account",
}
_BY_NAME = {operation.name: operation for operation in OPERATIONS}


def described(name: str) -> dict[str, Any]:
    """Return what FastAPI is to be told of an operation when its route is added.

    :param name: Name of the operation, ``place_order`` for example.
    """
    operation = _BY_NAME[name]
    extra: Json = {"parameters": list(_parameters(operation)), "responses": _responses(operation)}
    if operation.body is not None:
        content: Json = {"application/json": {"schema": operation.body}}
        if operation.tag == "oauth":
            content["application/x-www-form-urlencoded"] = {"schema": operation.body}
        extra["requestBody"] = {"required": True, "content": content}
    if operation.tag != "oauth":
        extra["security"] = [{"bearer": []}]
    tags = " ".join(f"[{letter}] {_TAGS[letter]}." for letter in operation.confidence)
    return {
        "name": name,
        "operation_id": name,
        "summary": f"{operation.number}. {operation.summary}",
        "description": f"{operation.text} {tags}",
        "tags": [operation.tag],
        "response_class": Response,
        "response_model": None,
        "openapi_extra": extra,
    }


def _parameters(operation: Operation) -> list[Json]:
    paths = [{"name": name, "in": "path", "required": True, "schema": NUMBER} for name in operation.path]
    queries: list[Json] = []
    for name, schema in operation.query.items():
        one: Json = {"name": name, "in": "query", "required": name in operation.required, "schema": schema}
        if schema.get("type") == "array":
            one |= {"style": "form", "explode": False}
        queries.append(one)
    return paths + queries


def _responses(operation: Operation) -> Json:
    if operation.tag == "oauth":
        return {**operation.answers, **_oauth_errors(operation.name)}
    codes = ["400", "401", *(["404"] if operation.path else [])]
    return {**operation.answers, **{code: answer(_ERRORS[code], ref("Problems")) for code in codes}}


def _oauth_errors(name: str) -> Json:
    if name == "authorize":
        return {"400": answer("What was sent does not fit", ref("Problems"))}
    return {code: answer("Refused (setting token_error_body)", ref("TokenError")) for code in ("400", "401")}
