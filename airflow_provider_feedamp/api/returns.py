"""The return endpoints of the FeedAMP Order Source API."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_feedamp.api.checks import check_return
from airflow_provider_feedamp.api.http import an_object
from airflow_provider_feedamp.api.lists import (
    LARGEST_PAGE,
    calls_for,
    check_text,
    instant_filter,
    listed,
    listed_of_order,
    page_size_filter,
)
from airflow_provider_feedamp.api.reporting import mark_complete, report_errors
from airflow_provider_feedamp.api.types import CreatedReturn, Return, ReturnRefunds, ReturnStatus
from airflow_provider_feedamp.api.unverified import Unverified, segments
from airflow_provider_feedamp.exceptions import InputError

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from airflow_provider_feedamp.api.http import Transport

#: A return's number may be unique only among the returns of its order.
_RETURN_KEY = ("mp_order_number", "mp_return_number")


class ReturnsApi:
    """Returns that customers ask for: the marketplace creates them, the seller authorises and sets amounts.

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
        return_status: Sequence[str] | None = None,
        requested_after: datetime | None = None,
        requested_before: datetime | None = None,
        page_size: int | None = LARGEST_PAGE,
        filters: Mapping[str, str] | None = None,
    ) -> Iterator[Return]:
        """Return the returns that match all filters, each once, page by page as they are asked for.

        The filters of this list are not documented: their names are guesses (see :class:`Unverified`), and a
        server that does not know one may ignore it. Look at what you get.

        :param mp_order_numbers: Only returns of these orders; an empty list finds none.
        :param return_status: Only returns in one of these states, see :class:`ReturnStatus`.
        :param requested_after: Only returns that were asked for at or after this instant (with a zone).
        :param requested_before: Only returns that were asked for at or before this instant (with a zone).
        :param page_size: Returns per call, 10 to 50, or None to leave it to FeedAMP.
        :param filters: Further query parameters, sent as they are.
        :raises InputError: A filter cannot be sent; raised at once, not when the first return is taken.
        """
        names = self._unverified
        params = {} if page_size is None else {"page_size": page_size_filter(page_size)}
        if requested_after is not None:
            params[names.returns_after] = instant_filter("requested_after", requested_after)
        if requested_before is not None:
            params[names.returns_before] = instant_filter("requested_before", requested_before, latest=True)
        chosen = {names.returns_by_order: mp_order_numbers, names.returns_by_status: return_status}
        params |= _passed_through(filters or {})
        calls = calls_for(params, chosen, numbers=names.returns_by_order)
        return cast("Iterator[Return]", listed(self._transport, "returns", calls, key=_RETURN_KEY))

    def of_order(self, mp_order_number: str) -> builtins.list[Return]:
        """Return all returns of one order.

        :param mp_order_number: The marketplace's order number.
        :raises NotFoundError: The seller's account has no such order.
        """
        found = listed_of_order(self._transport, mp_order_number, "returns", key=_RETURN_KEY)
        return [cast("Return", return_) for return_ in found]

    def get(self, mp_order_number: str, mp_return_number: str) -> Return:
        """Return one return.

        :param mp_order_number: The marketplace's order number.
        :param mp_return_number: The marketplace's return number.
        :raises NotFoundError: The order has no such return.
        """
        what = f"reading {_return_named(mp_order_number, mp_return_number)}"
        path = _return_path(mp_order_number, mp_return_number)
        return cast("Return", an_object(self._transport.request("GET", path, what=what), what))

    def create(
        self, mp_order_number: str, mp_return_number: str, return_: Mapping[str, Any]
    ) -> CreatedReturn:
        """Place a return into FeedAMP, for the seller to act on.

        What FeedAMP does with a number that it knows is not documented.

        :param mp_order_number: The marketplace's order number.
        :param mp_return_number: The marketplace's number for this return.
        :param return_: The return with its ``return_lines``; it is checked before it is sent. It may name the
            two numbers as well: that of the order is sent in any case, that of the return in the path alone.
        :raises InputError: The return cannot be created as it is; nothing was sent.
        :raises BadRequestError: FeedAMP refused the return.
        :raises NotFoundError: The seller's account has no such order.
        """
        check_return(mp_order_number, mp_return_number, return_)
        body = {name: value for name, value in return_.items() if name != "mp_return_number"}
        status, held = self._transport.request(
            "PUT",
            _return_path(mp_order_number, mp_return_number),
            json=body | {"mp_order_number": mp_order_number},
            what=f"creating {_return_named(mp_order_number, mp_return_number)}",
        )
        # The body of this answer is not documented; what is not a return is not passed on as one.
        known = isinstance(held, dict) and "return_lines" in held
        inserted = self._unverified.is_new(status)
        return CreatedReturn(
            mp_order_number, mp_return_number, inserted, cast("Return", held) if known else None
        )

    def refunds(self, mp_order_number: str, mp_return_number: str) -> ReturnRefunds:
        """Return how far the seller is with a return, and the amounts to refund.

        :param mp_order_number: The marketplace's order number.
        :param mp_return_number: The marketplace's return number.
        :raises NotFoundError: The order has no such return.
        """
        what = f"reading the amounts of {_return_named(mp_order_number, mp_return_number)}"
        path = [*_return_path(mp_order_number, mp_return_number), "refunds"]
        return cast("ReturnRefunds", an_object(self._transport.request("GET", path, what=what), what))

    def complete(self, mp_order_number: str, mp_return_number: str) -> None:
        """Say that the marketplace has refunded what the seller entered for a return.

        When nobody knows whether the call has arrived, the return is read: unless it is ``COMPLETED``, the
        call is sent once more.

        :param mp_order_number: The marketplace's order number.
        :param mp_return_number: The marketplace's return number.
        :raises NotFoundError: The order has no such return, or the path of this call is another one: it is
            not documented, see :class:`Unverified`.
        """
        tail = segments(self._unverified.return_complete_path)
        mark_complete(
            self._transport,
            [*_return_path(mp_order_number, mp_return_number), *tail],
            of=_return_named(mp_order_number, mp_return_number),
            read=lambda: self.get(mp_order_number, mp_return_number),
            complete=ReturnStatus.COMPLETED,
        )

    def report_errors(
        self, mp_order_number: str, mp_return_number: str, errors: Sequence[Mapping[str, Any]]
    ) -> None:
        """Report why the marketplace cannot process what the seller entered for a return.

        When nobody knows whether the call has arrived, the return is read, and what does not stand there is
        sent once more.

        :param mp_order_number: The marketplace's order number.
        :param mp_return_number: The marketplace's return number.
        :param errors: At least one :class:`ReportedError`, each with ``code`` and ``message``.
        """
        report_errors(
            self._transport,
            _return_path(mp_order_number, mp_return_number),
            errors,
            of=_return_named(mp_order_number, mp_return_number),
            read=lambda: self.get(mp_order_number, mp_return_number),
        )


def _passed_through(filters: Mapping[str, str]) -> dict[str, str]:
    for part in itertools.chain.from_iterable(filters.items()):
        if not isinstance(part, str):
            raise InputError(
                "filters must hold texts under texts; they are sent as query parameters as they are."
            )
        check_text("filters", part)
    return dict(filters)


def _return_path(mp_order_number: str, mp_return_number: str) -> builtins.list[str]:
    return ["orders", mp_order_number, "returns", mp_return_number]


def _return_named(mp_order_number: str, mp_return_number: str) -> str:
    return f"return {mp_return_number!r} of order {mp_order_number!r}"
