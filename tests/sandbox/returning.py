"""A marketplace and its seller at work on one return: RET-1 of order 600A."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.sandbox.caller import return_

if TYPE_CHECKING:
    from tests.sandbox.caller import Caller

RETURN = "/orders/600A/returns/RET-1"
ERROR = {"code": "EXCESS_REFUND", "message": "asked 9, allowed 8"}


def create(caller: Caller, *lines: dict[str, Any], number: str = "RET-1", **changes: Any) -> int:
    path = f"/orders/600A/returns/{number}"
    return caller.call("PUT", path, json=return_(*lines, **changes)).status_code


def shown(caller: Caller) -> dict[str, Any]:
    answer: dict[str, Any] = caller.call("GET", RETURN).json()
    return answer


def status(caller: Caller) -> str:
    return str(shown(caller)["status"])


def play(caller: Caller, action: str, *more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = getattr(caller.control, action)("acme", "600A", "RET-1", *more)
    return answer


def bring_to(caller: Caller, wanted: str) -> None:
    if wanted != "AWAITING_AUTHORIZATION":
        play(caller, "authorize_return")
    if wanted in ("REFUNDED", "COMPLETED"):
        play(caller, "enter_return_amounts")
    if wanted == "COMPLETED":
        complete(caller)


def complete(caller: Caller) -> int:
    return caller.call("POST", RETURN + "/complete").status_code


def complain(caller: Caller, *errors: dict[str, Any]) -> int:
    return caller.call("POST", RETURN + "/errors", json=list(errors) or [ERROR]).status_code
