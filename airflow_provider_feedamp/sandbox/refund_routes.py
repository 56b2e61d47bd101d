"""The five refund endpoints (feedamp-api.md A6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter

from airflow_provider_feedamp.sandbox.answers import Answer
from airflow_provider_feedamp.sandbox.gateway import API_PREFIX, Call, Gateway, tail, written
from airflow_provider_feedamp.sandbox.listing import list_answer
from airflow_provider_feedamp.sandbox.refunds import PARAMETERS, refund_query

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.state import SandboxState

_OF_ORDER = API_PREFIX + "/orders/{mp_order_number}/refunds"
_REFUND = _OF_ORDER + "/{feedamp_refund_id}"


class RefundRoutes:
    """Answer the refund endpoints from the caller's own account.

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
            ("GET", API_PREFIX + "/refunds", "list_refunds", self.list_refunds),
            ("GET", _OF_ORDER, "get_order_refunds", self.get_order_refunds),
            ("GET", _REFUND, "get_refund", self.get_refund),
            ("POST", _REFUND + "/errors", "report_refund_errors", self.report_refund_errors),
            ("POST", _REFUND + tail("refund_complete_path"), "complete_refund", self.complete_refund),
        ):
            self._gateway.add(router, method, path, "refunds", operation, handler)
        return router

    def list_refunds(self, call: Call) -> Answer:
        """Answer Get Seller Initiated Refunds."""
        book = call.account.refunds
        return list_answer(call, self._state.cursors, "refunds", book, refund_query, PARAMETERS)

    def get_order_refunds(self, call: Call) -> Answer:
        """Answer with all refunds of an order, not paged."""
        number = call.account.orders.get(call.path["mp_order_number"]).number
        refunds = call.account.refunds.of_order(number)
        return Answer(200, {"refunds": [refund.resource() for refund in refunds]})

    def get_refund(self, call: Call) -> Answer:
        """Answer with one refund, not wrapped."""
        return Answer(200, call.account.refunds.get(*_names(call)).resource())

    def complete_refund(self, call: Call) -> Answer:
        """Answer Mark the refund as complete; a body is not looked at."""
        call.account.refunds.complete(*_names(call))
        return written(call.settings, {}, created=False)

    def report_refund_errors(self, call: Call) -> Answer:
        """Answer Report refund errors."""
        call.account.refunds.report_errors(*_names(call), call.body)
        return written(call.settings, {}, created=False)


def _names(call: Call) -> tuple[str, str]:
    return call.path["mp_order_number"], call.path["feedamp_refund_id"]
