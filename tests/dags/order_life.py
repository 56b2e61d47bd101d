"""An order's whole life: what the marketplace does with our tasks, and what the seller does in between."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_feedamp.operators.access_token import FeedAmpAccessTokenOperator
from airflow_provider_feedamp.operators.changed_orders import FeedAmpChangedOrdersOperator
from airflow_provider_feedamp.operators.order_errors import FeedAmpReportOrderErrorsOperator
from airflow_provider_feedamp.operators.order_states import (
    FeedAmpCloseOrdersOperator,
    FeedAmpSetOrderStateOperator,
)
from airflow_provider_feedamp.operators.orders import FeedAmpPlaceOrdersOperator
from airflow_provider_feedamp.operators.refunds import (
    FeedAmpListRefundsOperator,
    FeedAmpProcessRefundsOperator,
    FeedAmpReportRefundErrorsOperator,
)
from airflow_provider_feedamp.operators.returns import (
    FeedAmpCompleteReturnsOperator,
    FeedAmpCreateReturnsOperator,
    FeedAmpReadReturnRefundsOperator,
    FeedAmpReportReturnErrorsOperator,
)
from airflow_provider_feedamp.sensors.orders import FeedAmpFulfillmentSensor
from airflow_provider_feedamp.sensors.refunds import FeedAmpRefundsSensor
from airflow_provider_feedamp.sensors.returns import FeedAmpReturnsSensor
from airflow_provider_feedamp.transfers.object_storage import FeedAmpToObjectStorageOperator

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.control import SandboxControl

N = "600/A ü"
RETURN = {"mp_order_number": N, "mp_return_number": "RET 1/ä"}
NUMBERS = [N]
# Seconds; a wait in the triggerer and one in the worker. The seller acts when asked for the second time.
DEFERRED: dict[str, Any] = {"deferrable": True, "poke_interval": 0.2, "timeout": 100}
POKED: dict[str, Any] = {"deferrable": False, "poke_interval": 0.2, "timeout": 100}


def seller_of(context: Any) -> SandboxControl:
    from airflow_provider_feedamp.sandbox.control import SandboxControl

    return SandboxControl(context["params"]["sandbox"])


@task
def the_seller(*actions: tuple[str, list[Any], dict[str, Any]], **context: Any) -> None:
    """Let the seller do something at once."""
    seller = seller_of(context)
    for name, arguments, details in actions:
        getattr(seller, name)("hooli", *arguments, **details)


@task
def the_seller_when_asked(asked: str, *actions: Any, **context: Any) -> None:
    """Let the seller do something when the sensor behind this task has asked in vain, and asks again."""
    seller = seller_of(context)

    def calls() -> int:
        return int(seller.counters()["calls"].get(asked, 0))

    before = calls()

    def act() -> None:
        while calls() < before + 2:
            time.sleep(0.02)  # a person has all the time in the world
        for name, arguments, details in actions:
            getattr(seller, name)("hooli", *arguments, **details)

    threading.Thread(target=act, daemon=True).start()


@task
def the_seller_cannot_ship_yet(**context: Any) -> str:
    """Try to ship an order that is held."""
    try:
        seller_of(context).ship("hooli", N)
    except ValueError as error:
        return str(error)
    return "shipped"


@task
def unresolved(**context: Any) -> dict[str, int]:
    """Count what stands paused because the marketplace reported errors."""
    from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

    client = FeedAmpHook().client
    return {
        "orders": len(list(client.orders.list(has_errors=True))),
        "refunds": len(list(client.refunds.list(refund_status=["PAUSED"]))),
        "returns": len(client.returns.refunds(N, RETURN["mp_return_number"])["errors"])
        if client.returns.of_order(N)
        else 0,
    }


def pay(refund: dict[str, Any]) -> None:
    """Pay a refund that is within its bounds, and nothing else."""
    from airflow_provider_feedamp.api.types import refund_total

    amounts = {currency: str(amount) for currency, amount in refund_total(refund).items()}
    assert amounts == {"USD": "59.99"}


with DAG(
    dag_id="feedamp_order_life",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    params={"sandbox": "", "order": {}, "return": {}, "folder": ""},
) as dag:
    # The order is placed, held, and released.
    steps: list[Any] = [
        FeedAmpAccessTokenOperator(task_id="token"),
        FeedAmpPlaceOrdersOperator(task_id="place", orders="{{ [params.order] | tojson }}"),
        the_seller_cannot_ship_yet.override(task_id="held")(),
        FeedAmpSetOrderStateOperator(task_id="release", mp_order_numbers=NUMBERS, state="AWAITING_SHIPMENT"),
        # The seller ships a part; the marketplace cannot process the parcel, and the seller mends that.
        the_seller_when_asked.override(task_id="seller_ships_part")(
            "get_order",
            ("acknowledge", [N], {}),
            ("ship", [N], {"mp_line_number": "L1", "quantity": 3, "tracking_number": ""}),
        ),
        FeedAmpFulfillmentSensor(task_id="begun", mp_order_numbers=NUMBERS, until="started", **DEFERRED),
        FeedAmpReportOrderErrorsOperator(
            task_id="report_parcel",
            errors=[
                {
                    "mp_order_number": N,
                    "mp_line_number": "L1",
                    "code": "INVALID_TRACKING_NUMBER",
                    "message": "The parcel has no tracking number.",
                }
            ],
        ),
        unresolved.override(task_id="order_has_errors")(),
        the_seller.override(task_id="seller_mends_parcel")(("resolve_errors", [N], {})),
        FeedAmpChangedOrdersOperator(task_id="changed", start="2026-01-01T00:00:00Z"),
        # What cannot be shipped is cancelled, and the order closed.
        FeedAmpCloseOrdersOperator(task_id="close_too_early", mp_order_numbers=NUMBERS),
        the_seller_when_asked.override(task_id="seller_cancels_rest")("get_order", ("cancel", [N], {})),
        FeedAmpFulfillmentSensor(task_id="fulfilled", mp_order_numbers=NUMBERS, **POKED),
        FeedAmpCloseOrdersOperator(task_id="close", mp_order_numbers=NUMBERS),
    ]

    # The seller refunds too much, is told so, and thinks better of it.
    new = FeedAmpListRefundsOperator(task_id="new_refunds", mp_order_numbers=NUMBERS)

    @task
    def too_much(refunds: Any) -> list[dict[str, Any]]:
        """Say what is wrong with each refund."""
        names = ("mp_order_number", "feedamp_refund_id")
        told = {"code": "EXCESS_ITEM_REFUND", "message": "More than the buyer paid."}
        return [{name: refund[name] for name in names} | told for refund in refunds]

    steps += [
        the_seller_when_asked.override(task_id="seller_refunds")(
            "list_refunds",
            (
                "create_refund",
                [N, [{"mp_line_number": "L1", "refund_quantity": 1, "item_refund": 59.99}]],
                {},
            ),
        ),
        FeedAmpRefundsSensor(task_id="refund_asked_for", mp_order_numbers=NUMBERS, **DEFERRED),
        new,
        FeedAmpReportRefundErrorsOperator(task_id="report_refund", errors=too_much(new.output)),
        unresolved.override(task_id="refund_has_errors")(),
    ]

    @task
    def seller_resolves_refund(refunds: Any, **context: Any) -> None:
        """Let the seller explain the refund, which makes it ready to be paid again."""
        for refund in refunds:
            seller_of(context).resolve_refund_errors("hooli", refund["feedamp_refund_id"])

    steps += [
        seller_resolves_refund(new.output),
        FeedAmpProcessRefundsOperator(task_id="pay_refunds", process=pay),
        # The buyer sends a piece back.
        FeedAmpCreateReturnsOperator(task_id="create_return", returns="{{ [params['return']] | tojson }}"),
        the_seller_when_asked.override(task_id="seller_authorises")(
            "get_return_refunds", ("authorize_return", [N, RETURN["mp_return_number"]], {})
        ),
        FeedAmpReturnsSensor(task_id="authorised", returns=[RETURN], status="AUTHORIZED", **POKED),
        the_seller_when_asked.override(task_id="seller_enters_amounts")(
            "get_return_refunds", ("enter_return_amounts", [N, RETURN["mp_return_number"]], {})
        ),
        FeedAmpReturnsSensor(task_id="amounts_entered", returns=[RETURN], status="REFUNDED", **DEFERRED),
        FeedAmpReportReturnErrorsOperator(
            task_id="report_return",
            errors=[RETURN | {"code": "INVALID_AMOUNT", "message": "A piece was missing."}],
        ),
        unresolved.override(task_id="return_has_errors")(),
        the_seller.override(task_id="seller_corrects_amounts")(
            (
                "enter_return_amounts",
                [
                    N,
                    RETURN["mp_return_number"],
                    [{"mp_return_line_number": "R1", "principal_refund_amount": 40.10}],
                ],
                {},
            )
        ),
        FeedAmpReadReturnRefundsOperator(task_id="read_amounts", returns=[RETURN]),
        FeedAmpCompleteReturnsOperator(task_id="complete_return", returns=[RETURN]),
        # All of it goes to the warehouse.
        FeedAmpToObjectStorageOperator.partial(task_id="export").expand_kwargs(
            [
                {"resource": each, "destination": f"{{{{ params.folder }}}}/{each}.ndjson.gz"}
                for each in ("orders", "fulfillments", "refunds", "returns")
            ]
        ),
    ]
    for before, after in pairwise(steps):
        before >> after
