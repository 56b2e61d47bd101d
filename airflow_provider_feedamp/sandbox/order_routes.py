"""The five order endpoints (feedamp-api.md A4)."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from fastapi import APIRouter

from airflow_provider_feedamp.sandbox.answers import Answer
from airflow_provider_feedamp.sandbox.gateway import API_PREFIX, Call, Gateway, written
from airflow_provider_feedamp.sandbox.order_queries import PARAMETERS, order_query, query_parameters
from airflow_provider_feedamp.sandbox.paging import DEFAULT_PAGE_SIZE, Page, cursor_field, page_size

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
            endpoint = self._gateway.endpoint("orders", operation, handler)
            router.add_api_route(path, endpoint, methods=[method], name=operation, response_model=None)
        return router

    def list_orders(self, call: Call) -> Answer:
        """Answer Get Orders: one page, and the cursor of the next one."""
        parameters = query_parameters(call.query, PARAMETERS, strict=call.settings.strict_fields)
        size = page_size(parameters.get("page_size"))
        cursors, seller, book = self._state.cursors, call.account.seller, call.account.orders
        if "cursor" in parameters:
            page = cursors.open(parameters["cursor"], seller, "orders")
        else:
            page = Page(order_query(parameters), 0, DEFAULT_PAGE_SIZE)
        size = size or page.size
        numbers = page.query.numbers
        candidates = (
            book.since(page.position) if numbers is None else iter(book.named(numbers, page.position))
        )
        # One more than the page holds shows whether there is a next page.
        found = list(islice(filter(page.query.matches, candidates), size + 1))
        following = None
        if len(found) > size:
            following = cursors.issue(seller, "orders", Page(page.query, found[size].sequence, size))
        orders = [order.resource() for order in found[:size]]
        return Answer(200, {"orders": orders, **cursor_field(following, call.settings.cursor_end)})

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
