"""The part of the control surface that plays the seller's half of refunds and returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from airflow_provider_feedamp.sandbox.control_routes import ControlBody, Json, OrderName, control_router
from airflow_provider_feedamp.sandbox.gateway import Gateway, unescape

if TYPE_CHECKING:
    from fastapi import APIRouter

    from airflow_provider_feedamp.sandbox.refunds import StoredRefund
    from airflow_provider_feedamp.sandbox.returns import StoredReturn
    from airflow_provider_feedamp.sandbox.state import Account, SandboxState


class RefundLine(BaseModel):
    """One line that a seller refunds; what is missing is filled from the order, other fields are kept."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    mp_line_number: str
    refund_quantity: int | None = Field(default=None, ge=0)
    item_refund: float | None = None


class AmountLine(BaseModel):
    """The amounts of one return line; what is missing is filled from the return, other fields are kept."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    mp_return_line_number: str
    principal_refund_amount: float | None = None
    shipping_refund_amount: float | None = None


class NewRefund(OrderName):
    """Body of ``…/create-refund``: some lines, or all of the first one."""

    lines: list[RefundLine] | None = None
    notes: str | None = None
    reason: str = "CUSTOMER_CANCELLED"


class RefundName(ControlBody):
    """Body of ``…/resolve-refund-errors``."""

    feedamp_refund_id: int


class Authorization(OrderName):
    """Body of ``…/authorize-return``."""

    mp_return_number: str
    rma: str | None = Field(default=None, min_length=1, max_length=128)


class Amounts(OrderName):
    """Body of ``…/enter-return-amounts``: some lines, or what was asked for."""

    mp_return_number: str
    lines: list[AmountLine] | None = None


class AfterSaleRoutes:
    """Answer the control surface of refunds and returns.

    :param state: The sandbox.
    :param _gateway: Not used: these calls meet no faults.
    """

    def __init__(self, state: SandboxState, _gateway: Gateway) -> None:
        self._state = state

    def router(self) -> APIRouter:
        """Return the routes."""
        router = control_router("/sellers/{seller}")
        for method, path, handler in (
            ("GET", "/refunds", self.refunds),
            ("POST", "/create-refund", self.create_refund),
            ("POST", "/resolve-refund-errors", self.resolve_refund_errors),
            ("GET", "/returns", self.returns),
            ("POST", "/authorize-return", self.authorize_return),
            ("POST", "/enter-return-amounts", self.enter_return_amounts),
        ):
            router.add_api_route(path, handler, methods=[method], response_model=None)
        return router

    async def refunds(self, seller: str) -> Json:
        """Return all refunds of the seller with what the API does not show."""
        return {"refunds": [_refund(each) for each in self._account(seller).refunds.candidates(None, 0)]}

    async def create_refund(self, seller: str, body: NewRefund) -> Json:
        """Let the seller refund lines of an order."""
        lines = None if body.lines is None else [_given(each) for each in body.lines]
        after_sale = self._account(seller).after_sale
        return _refund(
            after_sale.create_refund(body.mp_order_number, lines, notes=body.notes, reason=body.reason)
        )

    async def resolve_refund_errors(self, seller: str, body: RefundName) -> Json:
        """Let the seller resolve a refund's errors."""
        return _refund(self._account(seller).after_sale.resolve_refund_errors(str(body.feedamp_refund_id)))

    async def returns(self, seller: str) -> Json:
        """Return all returns of the seller with what the API does not show."""
        return {"returns": [_return(each) for each in self._account(seller).returns.candidates(None, 0)]}

    async def authorize_return(self, seller: str, body: Authorization) -> Json:
        """Let the seller authorise a return."""
        after_sale = self._account(seller).after_sale
        return _return(after_sale.authorize_return(body.mp_order_number, body.mp_return_number, body.rma))

    async def enter_return_amounts(self, seller: str, body: Amounts) -> Json:
        """Let the seller enter what is refunded."""
        lines = None if body.lines is None else [_given(each) for each in body.lines]
        after_sale = self._account(seller).after_sale
        return _return(after_sale.enter_return_amounts(body.mp_order_number, body.mp_return_number, lines))

    def _account(self, escaped: str) -> Account:
        return self._state.account(unescape(escaped))


def _given(line: BaseModel) -> dict[str, Any]:
    return line.model_dump(exclude_none=True)


def _refund(refund: StoredRefund) -> Json:
    """Return a refund with the instant of its creation."""
    return {**refund.resource(), "created_at": refund.created_at.isoformat()}


def _return(each: StoredReturn) -> Json:
    """Return a return with the instant of its first PUT and the body exactly as it was last sent."""
    return {**each.resource(), "placed_at": each.placed_at.isoformat(), "raw": each.raw.decode("utf-8")}
