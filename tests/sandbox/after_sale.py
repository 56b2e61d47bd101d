"""One refund or one return of order 600A, as marketplace and seller work on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.sandbox.caller import return_
from tests.sandbox.test_facts_lists import REFUND, RETURN, fill

if TYPE_CHECKING:
    from tests.sandbox.caller import Caller

ERROR = {"code": "EXCESS_ITEM_REFUND", "message": "asked 9, allowed 8"}


def create(caller: Caller, *lines: dict[str, Any], number: str = "RET-1", **changes: Any) -> int:
    path = f"/orders/600A/returns/{number}"
    return caller.call("PUT", path, json=return_(*lines, **changes)).status_code


class Thing:
    """It has an order with one refund and one return, of which it is one."""

    def __init__(self, caller: Caller, kind: str) -> None:
        self.caller, self.kind, self.control, self.call = caller, kind, caller.control, caller.call
        self.path = REFUND if kind == "refunds" else RETURN
        fill(caller)

    def shown(self) -> dict[str, Any]:
        return dict(self.call("GET", self.path).json())

    @property
    def status(self) -> str:
        return str(self.shown()["status"])

    def post(self, tail: str, body: object = None) -> tuple[int, Any]:
        answer = self.call("POST", f"{self.path}/{tail}", json=body)
        return answer.status_code, answer.json()

    def play(self, action: str, *more: Any) -> dict[str, Any]:
        """Let the seller do something with the return."""
        return dict(getattr(self.control, action)("hooli", "600A", "RET-1", *more))

    def bring_to(self, status: str) -> None:
        if status == "PAUSED":
            self.post("errors", [ERROR])
        if self.kind == "returns" and status != "AWAITING_AUTHORIZATION":
            self.play("authorize_return")
            if status != "AUTHORIZED":
                self.play("enter_return_amounts")
        if status.startswith("COMPLETE"):
            self.post("complete")
        assert self.status == status
