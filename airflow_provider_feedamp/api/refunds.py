"""The refund endpoints of the FeedAMP Order Source API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from airflow_provider_feedamp.api.http import an_object
from airflow_provider_feedamp.api.lists import (
    LARGEST_PAGE,
    calls_for,
    instant_filter,
    listed,
    listed_of_order,
    page_size_filter,
)
from airflow_provider_feedamp.api.reporting import mark_complete, report_errors
from airflow_provider_feedamp.api.types import Refund, RefundStatus
from airflow_provider_feedamp.api.unverified import Unverified, segments
from airflow_provider_feedamp.exceptions import InputError

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from airflow_provider_feedamp.api.http import Transport

_REFUND_KEY = ("mp_order_number", "feedamp_refund_id")


class RefundsApi:
    """Refunds that the seller asks for: the marketplace pays them and marks them complete, or reports errors.

    :param transport: Sends the calls.
    :param unverified: What is not documented, guessed.
    """

    def __init__(self, transport: Transport, unverified: Unverified | None = None) -> None:
        self._transport = transport
        self._unverified = unverified or Unverified()

    def list(
        self,
        *,
        mp_order_numbers: Sequence[str] | None = None,
        refund_status: Sequence[str] | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        page_size: int = LARGEST_PAGE,
    ) -> Iterator[Refund]:
        """Return the refunds that match all filters, each once, page by page as they are asked for.

        To find work, ask for ``[RefundStatus.CREATED]`` without an instant: a refund that was paused and
        resolved keeps the instant of its creation.

        :param mp_order_numbers: Only refunds of these orders; an empty list finds none.
        :param refund_status: Only refunds in one of these states, see :class:`RefundStatus`.
        :param created_after: Only refunds that were created at or after this instant (with a zone).
        :param created_before: Only refunds that were created at or before this instant (with a zone).
        :param page_size: Refunds per call, 10 to 50.
        :raises InputError: A filter cannot be sent; raised at once, not when the first refund is taken.
        """
        params = {"page_size": page_size_filter(page_size)}
        if created_after is not None:
            params["created_after"] = instant_filter("created_after", created_after)
        if created_before is not None:
            params["created_before"] = instant_filter("created_before", created_before, latest=True)
        chosen = {"mp_order_numbers": mp_order_numbers, "refund_status": refund_status}
        found = listed(self._transport, "refunds", calls_for(params, chosen), key=_REFUND_KEY)
        return cast("Iterator[Refund]", found)

    def of_order(self, mp_order_number: str) -> builtins.list[Refund]:
        """Return all refunds of one order.

        :param mp_order_number: The marketplace's order number.
        :raises NotFoundError: The seller's account has no such order.
        """
        found = listed_of_order(self._transport, mp_order_number, "refunds", key=_REFUND_KEY)
        return [cast("Refund", refund) for refund in found]

    def get(self, mp_order_number: str, feedamp_refund_id: int | str) -> Refund:
        """Return one refund.

        :param mp_order_number: The marketplace's order number.
        :param feedamp_refund_id: FeedAMP's id of the refund, as a number or its digits.
        :raises NotFoundError: The order has no such refund.
        """
        path = _refund_path(mp_order_number, feedamp_refund_id)
        what = f"reading {_refund_named(mp_order_number, feedamp_refund_id)}"
        return cast("Refund", an_object(self._transport.request("GET", path, what=what), what))

    def complete(self, mp_order_number: str, feedamp_refund_id: int | str) -> None:
        """Say that the marketplace has processed a refund.

        When nobody knows whether the call has arrived, the refund is read: unless it is ``COMPLETE``, the
        call is sent once more.

        :param mp_order_number: The marketplace's order number.
        :param feedamp_refund_id: FeedAMP's id of the refund, as a number or its digits.
        :raises NotFoundError: The order has no such refund, or the path of this call is another one: it is
            not documented, see :class:`Unverified`.
        """
        tail = segments(self._unverified.refund_complete_path)
        mark_complete(
            self._transport,
            [*_refund_path(mp_order_number, feedamp_refund_id), *tail],
            of=_refund_named(mp_order_number, feedamp_refund_id),
            read=lambda: self.get(mp_order_number, feedamp_refund_id),
            complete=RefundStatus.COMPLETE,
        )

    def report_errors(
        self, mp_order_number: str, feedamp_refund_id: int | str, errors: Sequence[Mapping[str, Any]]
    ) -> None:
        """Report why the marketplace cannot process a refund; FeedAMP pauses it until the seller acts.

        When nobody knows whether the call has arrived, the refund is read, and what does not stand there is
        sent once more.

        :param mp_order_number: The marketplace's order number.
        :param feedamp_refund_id: FeedAMP's id of the refund, as a number or its digits.
        :param errors: At least one :class:`ReportedError`, each with ``code`` and ``message``.
        """
        report_errors(
            self._transport,
            _refund_path(mp_order_number, feedamp_refund_id),
            errors,
            of=_refund_named(mp_order_number, feedamp_refund_id),
            read=lambda: self.get(mp_order_number, feedamp_refund_id),
        )


def _refund_path(mp_order_number: str, feedamp_refund_id: int | str) -> builtins.list[str]:
    """Return a refund's path; its id is a number in answers and a text in paths."""
    digits = feedamp_refund_id if isinstance(feedamp_refund_id, str) else ""
    if type(feedamp_refund_id) is int:
        digits = str(feedamp_refund_id)
    if digits.isascii() and digits.isdigit():
        return ["orders", mp_order_number, "refunds", digits]
    raise InputError(
        f"feedamp_refund_id of a refund of order {mp_order_number!r} must be a whole number or its digits."
    )


def _refund_named(mp_order_number: str, feedamp_refund_id: int | str) -> str:
    return f"refund {feedamp_refund_id} of order {mp_order_number!r}"
