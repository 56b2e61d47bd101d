"""Reading request bodies as strict JSON."""

from __future__ import annotations

import json
import math

from airflow_provider_feedamp.sandbox.refusal import INVALID_PAYLOAD, bad_request


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number does not fit")
    return number


# One decoder for all requests: json.loads would build another for each call with an argument of its own.
_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)


def read_json(raw: bytes) -> object:
    """Return the value of a request body.

    :raises Refusal: 400 when it is not one JSON value in UTF-8.
    """
    try:
        return _DECODER.decode(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise bad_request(INVALID_PAYLOAD, "the body is not JSON") from error
