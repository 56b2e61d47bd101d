"""Place orders one after another and account for each: placed, or rejected with its reason."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from airflow_provider_feedamp.bulk.rejects import RejectsFile, order_number
from airflow_provider_feedamp.exceptions import (
    ApiError,
    BadRequestError,
    FeedAmpError,
    InputError,
    NotFoundError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_feedamp.api.orders import OrdersApi
    from airflow_provider_feedamp.api.types import PlacedOrder
    from airflow_provider_feedamp.bulk.parse import SourceOrder

log = logging.getLogger(__name__)

#: Refusals of one order. Any other 4xx (403, 405, 415, …) would meet each order alike, so it ends the run.
_ABOUT_THE_ORDER = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.CONFLICT,
        HTTPStatus.GONE,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.REQUEST_URI_TOO_LONG,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)
_LOGGED_REJECTS = 20


@dataclass(slots=True)
class PlaceCounts:
    """What became of the orders: each one read is placed or rejected.

    ``inserted`` and ``updated`` are what FeedAMP said of the placed ones; it may have said neither.
    """

    read: int = 0
    placed: int = 0
    inserted: int = 0
    updated: int = 0
    rejected: int = 0

    def __str__(self) -> str:
        return (
            f"read {self.read}, placed {self.placed} (inserted {self.inserted}, updated {self.updated}), "
            f"rejected {self.rejected}"
        )


def place_orders(orders: Iterable[SourceOrder], api: OrdersApi, rejects: RejectsFile) -> PlaceCounts:
    """Place each order, in the order of the source; a bad or refused one is kept as a reject.

    :raises FeedAmpError: What is not about one order (token, network, 429, 5xx, a source that is cut off, a
        rejects file that cannot be written) ends the run; the log has the counts until then. Sending the
        orders again is safe, as FeedAMP keys them by their number.
    """
    counts = PlaceCounts()
    try:
        for order in orders:
            answer = _answer(order, api)
            if isinstance(answer, FeedAmpError):
                rejects.add(order, str(answer), answer.codes)
                _log_reject(order, answer, rejects)
            _count(counts, answer)
    except BaseException:
        log.warning("Stopped before the end; until then: %s", counts)
        raise
    if rejects.count > _LOGGED_REJECTS:
        log.warning("%d more orders were rejected", rejects.count - _LOGGED_REJECTS)
    return counts


def _answer(order: SourceOrder, api: OrdersApi) -> PlacedOrder | FeedAmpError:
    """Return FeedAMP's answer to one order, or why that order is a reject."""
    if order.problem is not None:
        return InputError(order.problem)
    try:
        return api.place(order.order or {}, body=order.body)
    except InputError as error:
        return error
    except (BadRequestError, NotFoundError) as error:
        if error.status not in _ABOUT_THE_ORDER:
            raise
        return error


def _count(counts: PlaceCounts, answer: PlacedOrder | FeedAmpError) -> None:
    counts.read += 1
    if isinstance(answer, FeedAmpError):
        counts.rejected += 1
        return
    counts.placed += 1
    counts.inserted += answer.inserted is True
    counts.updated += answer.inserted is False


def _log_reject(order: SourceOrder, error: FeedAmpError, rejects: RejectsFile) -> None:
    """Log one reject. FeedAMP's own words may quote the order, so only the rejects file has them."""
    if rejects.count > _LOGGED_REJECTS:
        return
    reason = str(error)
    if isinstance(error, ApiError):
        codes = ", ".join(error.codes) or "no code"
        reason = f"order {order_number(order)!r} was refused by FeedAMP (HTTP {error.status}, {codes})"
    log.warning("Rejected line %d: %s", order.line, reason)
