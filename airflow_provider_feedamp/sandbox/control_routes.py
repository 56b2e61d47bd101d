"""The control surface under ``/_sandbox``, plainly not FeedAMP's: seller, faults, clock and counters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from airflow_provider_feedamp.sandbox.answers import AsciiJSON
from airflow_provider_feedamp.sandbox.faults import Fault  # noqa: TC001 - FastAPI reads the annotation
from airflow_provider_feedamp.sandbox.gateway import Gateway, unescape
from airflow_provider_feedamp.sandbox.refusal import INVALID_VALUE, bad_request

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.orders import StoredOrder
    from airflow_provider_feedamp.sandbox.state import SandboxState

CONTROL_PREFIX = "/_sandbox"

Json = dict[str, Any]


class ControlBody(BaseModel):
    """A body of the control surface, without fields that it does not know."""

    model_config = ConfigDict(extra="forbid")


class NewSeller(ControlBody):
    """Body of ``POST /_sandbox/sellers``."""

    seller: str = Field(min_length=1)


class ClockMove(ControlBody):
    """Body of ``POST /_sandbox/clock``."""

    advance_seconds: float = Field(ge=0, le=1e9)


class OrderName(ControlBody):
    """Body of the seller's actions that concern a whole order; numbers are too odd for a path."""

    mp_order_number: str


class Shipment(OrderName):
    """Body of ``…/ship``: one line, or everything that is pending."""

    mp_line_number: str | None = None
    quantity: int | None = Field(default=None, ge=1)
    carrier: str = "UPS"
    tracking_number: str | None = None
    tracking_url: str | None = None
    shipped_date: str | None = None


class Cancellation(OrderName):
    """Body of ``…/cancel``: one line, or everything that is pending."""

    mp_line_number: str | None = None
    quantity: int | None = Field(default=None, ge=1)
    reason: str = "out_of_stock"


def control_router(path: str = "") -> APIRouter:
    """Return an empty router of the control surface.

    :param path: What its paths begin with.
    """
    refused: dict[int | str, dict[str, Any]] = {
        400: {"description": "It cannot be done"},
        404: {"description": "There is no such seller, order, refund or return"},
    }
    return APIRouter(
        prefix=CONTROL_PREFIX + path,
        tags=["control surface"],
        responses=refused,
        default_response_class=AsciiJSON,
    )


class ControlRoutes:
    """Answer the control surface.

    :param state: The sandbox.
    :param gateway: Knows what faults can be meant for.
    """

    def __init__(self, state: SandboxState, gateway: Gateway) -> None:
        self._state = state
        self._gateway = gateway

    def router(self) -> APIRouter:
        """Return the routes."""
        router = control_router()
        seller = "/sellers/{seller}"
        for method, path, handler in (
            ("GET", "/counters", self.counters),
            ("POST", "/reset", self.reset),
            ("GET", "/settings", self.settings),
            ("PATCH", "/settings", self.change_settings),
            ("GET", "/faults", self.faults),
            ("POST", "/faults", self.add_fault),
            ("DELETE", "/faults", self.clear_faults),
            ("GET", "/clock", self.clock),
            ("POST", "/clock", self.advance),
            ("GET", "/sellers", self.sellers),
            ("POST", "/sellers", self.add_seller),
            ("GET", seller + "/tokens", self.tokens),
            ("POST", seller + "/authorize", self.authorize),
            ("POST", seller + "/expire", self.expire),
            ("POST", seller + "/revoke", self.revoke),
            ("GET", seller + "/orders", self.orders),
            ("POST", seller + "/acknowledge", self.acknowledge),
            ("POST", seller + "/ship", self.ship),
            ("POST", seller + "/cancel", self.cancel),
            ("POST", seller + "/resolve-errors", self.resolve_errors),
        ):
            router.add_api_route(path, handler, methods=[method], response_model=None)
        return router

    async def counters(self) -> Json:
        """Return what was asked and how it was answered."""
        return self._state.counters.to_dict()

    async def reset(self) -> Json:
        """Begin again as the sandbox was started."""
        self._state.reset()
        return {}

    async def settings(self) -> Json:
        """Return the switches."""
        return self._state.settings.public()

    async def change_settings(self, changes: Json) -> Json:
        """Change some switches, all or none."""
        try:
            self._state.settings.update(changes)
        except ValueError as error:
            raise bad_request(INVALID_VALUE, str(error)) from error
        return self._state.settings.public()

    async def faults(self) -> list[Json]:
        """Return the faults that wait for their calls."""
        return self._state.faults.waiting()

    async def add_fault(self, fault: Fault) -> list[Json]:
        """Put one fault at the end of the queue."""
        if fault.on not in self._gateway.fault_names:
            names = ", ".join(sorted(self._gateway.fault_names))
            raise bad_request(INVALID_VALUE, f"'on' must be one of {names}")
        if fault.seller is not None:
            self._state.account(fault.seller)
        self._state.faults.add(fault)
        return self._state.faults.waiting()

    async def clear_faults(self) -> Json:
        """Take all faults back."""
        self._state.faults.clear()
        return {}

    async def clock(self) -> Json:
        """Return the sandbox's time."""
        return {"now": self._state.clock.now().isoformat()}

    async def advance(self, move: ClockMove) -> Json:
        """Move the clock forward."""
        return {"now": self._state.clock.advance(move.advance_seconds).isoformat()}

    async def sellers(self) -> Json:
        """Return the names of all sellers and how many orders each has."""
        return {"sellers": {name: len(account.orders) for name, account in self._state.accounts.items()}}

    async def add_seller(self, body: NewSeller) -> Json:
        """Return a refresh token of a new authorisation; an unknown seller is created."""
        return {"seller": body.seller, "refresh_token": self._state.connect(body.seller)}

    async def tokens(self, seller: str) -> Json:
        """Return the seller's usable tokens, oldest first."""
        return self._state.tokens.live(self._name(seller))

    async def authorize(self, seller: str) -> Json:
        """Return an authorisation code, as if the seller had clicked through the browser step."""
        return {"code": self._state.tokens.authorize(self._name(seller))}

    async def expire(self, seller: str) -> Json:
        """End the seller's live access tokens."""
        return {"expired": self._state.tokens.expire(self._name(seller))}

    async def revoke(self, seller: str) -> Json:
        """End the seller's live refresh tokens."""
        return {"revoked": self._state.tokens.revoke(self._name(seller))}

    async def orders(self, seller: str) -> Json:
        """Return all orders of the seller with what the API does not show."""
        return {
            "orders": [_shown(order) for order in self._state.account(self._name(seller)).orders.since(0)]
        }

    async def acknowledge(self, seller: str, body: OrderName) -> Json:
        """Let the seller confirm an order."""
        return _shown(self._state.account(self._name(seller)).actions.acknowledge(body.mp_order_number))

    async def ship(self, seller: str, body: Shipment) -> Json:
        """Let the seller ship one line or all that is pending."""
        actions = self._state.account(self._name(seller)).actions
        order = actions.ship(
            body.mp_order_number,
            body.mp_line_number,
            body.quantity,
            carrier=body.carrier,
            tracking_number=body.tracking_number,
            tracking_url=body.tracking_url,
            shipped_date=body.shipped_date,
        )
        return _shown(order)

    async def cancel(self, seller: str, body: Cancellation) -> Json:
        """Let the seller cancel one line or all that is pending."""
        actions = self._state.account(self._name(seller)).actions
        order = actions.cancel(body.mp_order_number, body.mp_line_number, body.quantity, reason=body.reason)
        return _shown(order)

    async def resolve_errors(self, seller: str, body: OrderName) -> Json:
        """Let the seller resolve an order's errors."""
        return _shown(self._state.account(self._name(seller)).actions.resolve_errors(body.mp_order_number))

    def _name(self, escaped: str) -> str:
        return self._state.account(unescape(escaped)).seller


def _shown(order: StoredOrder) -> Json:
    """Return an order with FeedAMP's hidden times and the body exactly as it was last sent."""
    updated = order.seller_updated_at
    return {
        **order.resource(),
        "imported_at": order.imported_at.isoformat(),
        "seller_updated_at": updated.isoformat() if updated else None,
        "raw": order.raw.decode("utf-8"),
    }
