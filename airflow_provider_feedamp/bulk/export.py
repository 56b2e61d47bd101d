"""What can be exported of a seller's account, with which filters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from airflow_provider_feedamp.api.types import FulfillmentFilter
from airflow_provider_feedamp.exceptions import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_feedamp.api.client import FeedAmpClient

_OF_ORDERS = (
    "mp_order_numbers",
    "fulfillment_status",
    "imported_after",
    "seller_updated_after",
    "has_errors",
)

#: The filters of each resource.
FILTERS: Final[dict[str, tuple[str, ...]]] = {
    "orders": _OF_ORDERS,
    "fulfillments": _OF_ORDERS,
    "refunds": ("mp_order_numbers", "refund_status", "created_after", "created_before"),
    "returns": ("mp_order_numbers", "return_status", "requested_after", "requested_before"),
}
#: The orders on which a seller has shipped or cancelled something, whether they are closed or not.
_WITH_ACTIVITY = (FulfillmentFilter.PARTIALLY_FULFILLED, FulfillmentFilter.COMPLETE)


def check_filters(resource: str, filters: Mapping[str, Any]) -> None:
    """Refuse a resource that there is not, and a filter that it does not have.

    :raises InputError: It names the filter and those that there are.
    """
    if resource not in FILTERS:
        raise InputError(f"resource must be one of {', '.join(FILTERS)}, not {resource!r}.")
    foreign = [name for name in filters if name not in FILTERS[resource]]
    if foreign:
        raise InputError(
            f"{resource} have no filter {', '.join(foreign)}; they have: {', '.join(FILTERS[resource])}."
        )


def exported(client: FeedAmpClient, resource: str, filters: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Return the entries of a resource, each once, as they are read from FeedAMP.

    Fulfilments are one entry per order: its number, and what endpoint 6 says of it (one call per order).
    Without order numbers or a ``fulfillment_status``, they are those of the orders with any activity.

    :param resource: One of :data:`FILTERS`.
    :param filters: As the client's list takes them, only those that are set.
    :raises InputError: A filter cannot be sent; raised at once.
    """
    check_filters(resource, filters)
    if resource == "orders":
        return client.orders.list(**filters)
    if resource == "refunds":
        return client.refunds.list(**filters)
    if resource == "returns":
        return _returns(client, filters)
    if not {"mp_order_numbers", "fulfillment_status"} & filters.keys():
        filters = {**filters, "fulfillment_status": _WITH_ACTIVITY}
    numbers = (str(order["mp_order_number"]) for order in client.orders.list(**filters))
    return ({"mp_order_number": number} | client.orders.fulfillments(number) for number in numbers)


def _returns(client: FeedAmpClient, filters: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Return the returns that match; the names of their filters are guesses, which a server may ignore."""
    numbers, statuses = filters.get("mp_order_numbers"), filters.get("return_status")
    return (
        found
        for found in client.returns.list(**filters)
        if (numbers is None or found.get("mp_order_number") in numbers)
        and (statuses is None or found.get("status") in statuses)
    )
