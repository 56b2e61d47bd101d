"""The seven return endpoints (feedamp-api.md A7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter

from airflow_provider_feedamp.sandbox.answers import Answer
from airflow_provider_feedamp.sandbox.gateway import API_PREFIX, Call, Gateway, tail, written
from airflow_provider_feedamp.sandbox.listing import list_answer
from airflow_provider_feedamp.sandbox.return_queries import PARAMETERS, return_query

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.state import SandboxState

_OF_ORDER = API_PREFIX + "/orders/{mp_order_number}/returns"
_RETURN = _OF_ORDER + "/{mp_return_number}"


class ReturnRoutes:
    """Answer the return endpoints from the caller's own account.

    :param state: The sandbox.
    :param gateway: Makes endpoints of the methods.
    """

    def __init__(self, state: SandboxState, gateway: Gateway) -> None:
        self._state = state
        self._gateway = gateway

    def router(self) -> APIRouter:
        """Return the routes; the tail of ``complete`` comes last, for it could be any word."""
        router = APIRouter()
        for method, path, operation, handler in (
            ("GET", API_PREFIX + "/returns", "list_returns", self.list_returns),
            ("GET", _OF_ORDER, "get_order_returns", self.get_order_returns),
            ("GET", _RETURN, "get_return", self.get_return),
            ("PUT", _RETURN, "create_return", self.create_return),
            ("GET", _RETURN + "/refunds", "get_return_refunds", self.get_return_refunds),
            ("POST", _RETURN + "/errors", "report_return_errors", self.report_return_errors),
            ("POST", _RETURN + tail("return_complete_path"), "complete_return", self.complete_return),
        ):
            self._gateway.add(router, method, path, "returns", operation, handler)
        return router

    def list_returns(self, call: Call) -> Answer:
        """Answer Get returns."""
        book = call.account.returns
        return list_answer(call, self._state.cursors, "returns", book, return_query, PARAMETERS)

    def get_order_returns(self, call: Call) -> Answer:
        """Answer with all returns of an order, not paged."""
        number = call.account.orders.get(call.path["mp_order_number"]).number
        return Answer(200, {"returns": [each.resource() for each in call.account.returns.of_order(number)]})

    def get_return(self, call: Call) -> Answer:
        """Answer with one return, not wrapped."""
        return Answer(200, call.account.returns.get(*_names(call)).resource())

    def create_return(self, call: Call) -> Answer:
        """Answer Create a return."""
        order = call.account.orders.get(call.path["mp_order_number"])
        placed, created = call.account.returns.place(order, call.path["mp_return_number"], call.body)
        return written(call.settings, placed.resource(), created=created)

    def get_return_refunds(self, call: Call) -> Answer:
        """Answer with the amounts that the seller entered, and the status."""
        return Answer(200, call.account.returns.get(*_names(call)).refunds())

    def complete_return(self, call: Call) -> Answer:
        """Answer Mark the return as complete; a body is not looked at."""
        call.account.returns.complete(*_names(call))
        return written(call.settings, {}, created=False)

    def report_return_errors(self, call: Call) -> Answer:
        """Answer Report return errors."""
        call.account.returns.report_errors(*_names(call), call.body)
        return written(call.settings, {}, created=False)


def _names(call: Call) -> tuple[str, str]:
    return call.path["mp_order_number"], call.path["mp_return_number"]
