"""The five order endpoints (feedamp-api.md A4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter

from airflow_provider_feedamp.sandbox.answers import Answer
from airflow_provider_feedamp.sandbox.gateway import API_PREFIX, Call, Gateway, written
from airflow_provider_feedamp.sandbox.listing import list_answer
from airflow_provider_feedamp.sandbox.order_queries import PARAMETERS, order_query

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.state import SandboxState

_ORDER = API_PREFIX + "/orders/{mp_order_number}"


class OrderRoutes:
    """Answer the order endpoints from the caller's own account.

    :param state: The sandbox.
    :param gateway: Makes endpoints of the methods.
    """

    def __init__(self, state: SandboxState, gateway: Gateway) -> None:
        self._state = state
        self._gateway = gateway

    def router(self) -> APIRouter:
        """Return the routes."""
        router = APIRouter()
        for method, path, operation, handler in (
            ("GET", API_PREFIX + "/orders", "list_orders", self.list_orders),
            ("GET", _ORDER, "get_order", self.get_order),
            ("PUT", _ORDER, "place_order", self.place_order),
            ("GET", _ORDER + "/fulfillments", "get_fulfillments", self.get_fulfillments),
            ("POST", _ORDER + "/errors", "report_order_errors", self.report_order_errors),
        ):
            self._gateway.add(router, method, path, "orders", operation, handler)
        return router

    def list_orders(self, call: Call) -> Answer:
        """Answer Get Orders."""
        return list_answer(call, self._state.cursors, "orders", call.account.orders, order_query, PARAMETERS)

    def get_order(self, call: Call) -> Answer:
        """Answer Get Order: not wrapped."""
        return Answer(200, call.account.orders.get(call.path["mp_order_number"]).resource())

    def place_order(self, call: Call) -> Answer:
        """Answer Place Order: insert or update."""
        order, inserted = call.account.orders.place(call.path["mp_order_number"], call.body)
        return written(call.settings, order.resource(), created=inserted)

    def get_fulfillments(self, call: Call) -> Answer:
        """Answer Get Fulfillments."""
        return Answer(200, call.account.orders.get(call.path["mp_order_number"]).fulfillments())

    def report_order_errors(self, call: Call) -> Answer:
        """Answer Report Errors."""
        call.account.orders.report_errors(call.path["mp_order_number"], call.body)
        return written(call.settings, {}, created=False)
