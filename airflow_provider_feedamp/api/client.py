"""The FeedAMP client: one attribute per resource, one method per endpoint."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from airflow_provider_feedamp.api.checks import check_errors, check_order, check_return
from airflow_provider_feedamp.api.lists import (
    LARGEST_PAGE,
    calls_for,
    check_text,
    instant_filter,
    instant_filters,
    listed,
    listed_of_order,
    page_size_filter,
)
from airflow_provider_feedamp.api.types import (
    CreatedReturn,
    Fulfillments,
    MarketplaceState,
    Order,
    PlacedOrder,
    Refund,
    RefundStatus,
    Return,
    ReturnRefunds,
    ReturnStatus,
)
from airflow_provider_feedamp.exceptions import (
    ApiError,
    InputError,
    ServerError,
    UnreachableError,
    UnreadableError,
)

if TYPE_CHECKING:
    import builtins
    from collections.abc import Collection, Iterator
    from datetime import datetime

    from airflow_provider_feedamp.api.http import Http

log = logging.getLogger(__name__)


class FeedAmpClient:
    """The FeedAMP Order Source API of one seller's account; the access token says which.

    :param http: Sends the calls.
    :param unverified: What FeedAMP does not document, guessed; pass another one to change a guess.
    """

    def __init__(self, http: Http, unverified: Unverified | None = None) -> None:
        #: The orders that the marketplace places, and what the seller does with them.
        self.orders = OrdersApi(http, unverified)
        #: The refunds that the seller asks the marketplace to pay.
        self.refunds = RefundsApi(http, unverified)
        #: The returns that customers ask for, and what the seller does with them.
        self.returns = ReturnsApi(http, unverified)


#: What FeedAMP sets on an order and does not take back in a PUT. ``is_marketplace_fulfilled`` is not among
#: them: whether it may be sent is not documented, but leaving it out could turn it to false, and the seller
#: would ship what the marketplace ships too. A refused PUT is loud and harmless, a second parcel is not.
READ_ONLY_ORDER_FIELDS: Final = frozenset({"fulfillments", "acknowledged", "status", "errors"})


@dataclass(frozen=True, slots=True)
class Unverified:
    """The guesses that the client works with; make one with other values where FeedAMP proves one wrong.

    :param refund_complete_path: What follows a refund's path to mark it as complete; ``/`` for nothing.
    :param return_complete_path: What follows a return's path to mark it as complete; ``/`` for nothing.
    :param returns_by_order: Name of the filter on returns by order numbers.
    :param returns_by_status: Name of the filter on returns by status.
    :param returns_after: Name of the filter on returns by the earliest request.
    :param returns_before: Name of the filter on returns by the latest request.
    :param read_only_order_fields: What a change of an order's state does not put back.
    :param inserted: HTTP status of a PUT whose order or return is new.
    :param updated: HTTP status of a PUT whose order or return was known.
    """

    refund_complete_path: str = "complete"
    return_complete_path: str = "complete"
    returns_by_order: str = "mp_order_numbers"
    returns_by_status: str = "return_status"
    returns_after: str = "requested_after"
    returns_before: str = "requested_before"
    read_only_order_fields: Collection[str] = READ_ONLY_ORDER_FIELDS
    inserted: int = 201
    updated: int = 200

    def is_new(self, status: int) -> bool | None:
        """Return whether a PUT made something new, as its status says; None when it says neither."""
        return {self.inserted: True, self.updated: False}.get(status)


class _Resource:
    """What orders, refunds and returns have in common; its arguments are those of :class:`FeedAmpClient`."""

    def __init__(self, http: Http, unverified: Unverified | None = None) -> None:
        self._http = http
        self._unverified = unverified or Unverified()

    def _read(self, path: Sequence[str], words: str) -> dict[str, Any]:
        """Return what is found under a path; ``words`` name it in errors, such as ``order '600A'``."""
        what = f"reading {words}"
        status, body = self._http.request("GET", path, what=what)
        if isinstance(body, dict):
            return body
        raise ApiError(f"FeedAMP answered {what} with HTTP {status} and no JSON object.", status=status)

    def _report(self, path: Sequence[str], words: str, errors: Sequence[Mapping[str, Any]]) -> None:
        reported = check_errors(errors, words)

        def held() -> bool | None:
            errors = self._read(path, words).get("errors")
            # Without a list nothing is known: that an order has one is not documented.
            return not not_held(reported, errors) if isinstance(errors, list) else None

        self._post([*path, "errors"], f"reporting errors of {words}", reported, held)

    def _complete(self, path: Sequence[str], words: str, tail: str, complete: str) -> None:
        """Mark what is found under a path as complete; ``tail`` is the guess of what follows the path."""
        guessed = [segment for segment in tail.split("/") if segment]
        what = f"marking {words} as complete"
        self._post([*path, *guessed], what, None, lambda: self._read(path, words).get("status") == complete)

    def _post(self, path: Sequence[str], what: str, json: Any, held: Callable[[], bool | None]) -> None:
        """Send a POST, and once more if a look at the resource shows that the first did not arrive.

        FeedAMP may append what it gets twice, so a POST is never repeated blindly.

        :param held: Whether FeedAMP holds what was sent; None when it does not say.
        """
        for send in (1, 2):
            try:
                self._http.request("POST", path, json=json, what=what)
                return
            except (UnreachableError, ServerError, UnreadableError) as error:
                unclear = error
            log.info("Nobody knows whether %s has worked; looking", what)
            try:
                arrived = held()
            except ApiError:
                # The first failure says what was being done, and the look says nothing.
                raise unclear from unclear.__cause__
            if arrived is None or (send == 2 and not arrived):
                raise unclear from unclear.__cause__
            if arrived:
                log.info("It has: %s is done", what)
                return
            log.info("It has not: %s once more", what)


class OrdersApi(_Resource):
    """Orders of one seller's account: list, read and place them, and see what the seller did.

    ``mp_order_number`` is the marketplace's order number. A call about one order raises ``NotFoundError``
    when the seller's account has no such order.
    """

    #: Number of the order that FeedAMP took last.
    last_placed: str | None = None

    def authorise(self) -> None:
        """Obtain the access token now, so that threads that begin together need not do so all at once.

        :raises TokenError: There is none to be had.
        """
        self._http.authorise()

    def get(self, mp_order_number: str) -> Order:
        """Return one order."""
        return cast("Order", self._read(("orders", mp_order_number), f"order {mp_order_number!r}"))

    def place(self, order: Mapping[str, Any], *, body: bytes | None = None) -> PlacedOrder:
        """Insert an order, or update it when FeedAMP knows its number.

        :param order: The order; it is checked before it is sent.
        :param body: The same order as the JSON that it was read from, sent byte for byte (so that its numbers
            stay as they are written). By default the order is written as JSON anew.
        :raises InputError: The order cannot be placed as it is; nothing was sent.
        :raises BadRequestError: FeedAMP refused the order.
        """
        check_order(order)
        return self._put(order["mp_order_number"], order, body)

    def set_state(self, mp_order_number: str, state: MarketplaceState | str) -> PlacedOrder:
        """Change the marketplace state of an order that FeedAMP holds.

        FeedAMP has no partial update: the order is read, what FeedAMP sets itself is left out (see
        :class:`Unverified`), and the rest is put back with the new state. What the seller does between the
        two calls is not lost, since it is in the fields that are left out.

        :param state: The new state.
        :raises InputError: There is no such state.
        """
        try:
            state = MarketplaceState(state)
        except ValueError as error:
            states = ", ".join(MarketplaceState)
            raise InputError(
                f"The marketplace state of order {mp_order_number!r} must be one of {states}."
            ) from error
        read_only = self._unverified.read_only_order_fields
        order = {name: value for name, value in self.get(mp_order_number).items() if name not in read_only}
        return self._put(mp_order_number, order | {"marketplace_state": state.value}, None)

    def fulfillments(self, mp_order_number: str) -> Fulfillments:
        """Return what the seller has shipped and cancelled of an order."""
        words = f"the fulfilments of order {mp_order_number!r}"
        return cast("Fulfillments", self._read(("orders", mp_order_number, "fulfillments"), words))

    def report_errors(self, mp_order_number: str, errors: Sequence[Mapping[str, Any]]) -> None:
        """Report fulfilment data that the marketplace could not process.

        FeedAMP may append what it gets twice. When nobody knows whether the call has arrived, the order is
        read, and what is missing there is sent once more.

        :param errors: At least one :class:`OrderError`, each with ``code`` and ``message``.
        """
        self._report(("orders", mp_order_number), f"order {mp_order_number!r}", errors)

    def list(
        self,
        *,
        mp_order_numbers: Sequence[str] | None = None,
        fulfillment_status: Sequence[str] | None = None,
        imported_after: datetime | None = None,
        seller_updated_after: datetime | None = None,
        has_errors: bool | None = None,
        page_size: int = LARGEST_PAGE,
    ) -> Iterator[Order]:
        """Return the orders that match all filters, each once, page by page as they are asked for.

        :param mp_order_numbers: Only these orders; as in the next filter, an empty list finds none.
        :param fulfillment_status: Only orders in one of these states, see :class:`FulfillmentFilter`.
        :param imported_after: Only orders that came to FeedAMP at or after this instant (with a zone).
        :param seller_updated_after: Only orders the seller changed at or after this instant (with a zone).
        :param has_errors: True for orders with errors, False for orders without, None for both.
        :param page_size: Orders per call, 10 to 50.
        :raises InputError: A filter cannot be sent; raised at once, not when the first order is taken.
        """
        params = {"page_size": page_size_filter(page_size)}
        params |= instant_filters(imported_after=imported_after, seller_updated_after=seller_updated_after)
        if has_errors is not None:
            params["has_errors"] = "true" if has_errors else "false"
        chosen = {"mp_order_numbers": mp_order_numbers, "fulfillment_status": fulfillment_status}
        found = listed(self._http, "orders", calls_for(params, chosen), key=("mp_order_number",))
        return cast("Iterator[Order]", found)

    def _put(self, number: str, order: Mapping[str, Any], body: bytes | None) -> PlacedOrder:
        json = dict(order) if body is None else None
        what = f"placing order {number!r}"
        status, held = self._http.request("PUT", ("orders", number), json=json, body=body, what=what)
        # The body of this answer is not documented; what is not an order is not passed on as one.
        answer = held if isinstance(held, dict) else {}
        known = cast("Order", answer) if "mp_order_number" in answer else None
        self.last_placed = number
        return PlacedOrder(number, self._unverified.is_new(status), known, bool(answer.get("errors")))


_REFUND_KEY = ("mp_order_number", "feedamp_refund_id")


class RefundsApi(_Resource):
    """Refunds that the seller asks for: the marketplace pays and completes them, or reports errors.

    ``mp_order_number`` is the marketplace's order number, ``feedamp_refund_id`` FeedAMP's id of the refund,
    as a number or its digits. A call about one of them raises ``NotFoundError`` when there is no such.
    """

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
        params |= instant_filters(created_after=created_after)
        params |= instant_filters(created_before=created_before, latest=True)
        chosen = {"mp_order_numbers": mp_order_numbers, "refund_status": refund_status}
        found = listed(self._http, "refunds", calls_for(params, chosen), key=_REFUND_KEY)
        return cast("Iterator[Refund]", found)

    def of_order(self, mp_order_number: str) -> builtins.list[Refund]:
        """Return all refunds of one order."""
        found = listed_of_order(self._http, mp_order_number, "refunds", key=_REFUND_KEY)
        return [cast("Refund", refund) for refund in found]

    def get(self, mp_order_number: str, feedamp_refund_id: int | str) -> Refund:
        """Return one refund."""
        return cast("Refund", self._read(*_refund(mp_order_number, feedamp_refund_id)))

    def complete(self, mp_order_number: str, feedamp_refund_id: int | str) -> None:
        """Say that the marketplace has processed a refund.

        When nobody knows whether the call has arrived, the refund is read: unless it is ``COMPLETE``, the
        call is sent once more.

        :raises NotFoundError: The order has no such refund, or the path of this call is another one: it is
            not documented, see :class:`Unverified`.
        """
        path, words = _refund(mp_order_number, feedamp_refund_id)
        self._complete(path, words, self._unverified.refund_complete_path, RefundStatus.COMPLETE)

    def report_errors(
        self, mp_order_number: str, feedamp_refund_id: int | str, errors: Sequence[Mapping[str, Any]]
    ) -> None:
        """Report why the marketplace cannot process a refund; FeedAMP pauses it until the seller acts.

        When nobody knows whether the call has arrived, the refund is read, and what is missing there is sent
        once more.

        :param errors: At least one :class:`ReportedError`, each with ``code`` and ``message``.
        """
        self._report(*_refund(mp_order_number, feedamp_refund_id), errors)


def _refund(mp_order_number: str, feedamp_refund_id: int | str) -> tuple[builtins.list[str], str]:
    """Return a refund's path and its name in words; its id is a number in answers and a text in paths."""
    is_id = isinstance(feedamp_refund_id, int | str) and not isinstance(feedamp_refund_id, bool)
    digits = str(feedamp_refund_id) if is_id else ""
    if digits.isascii() and digits.isdigit():
        path = ["orders", mp_order_number, "refunds", digits]
        return path, f"refund {feedamp_refund_id} of order {mp_order_number!r}"
    raise InputError(
        f"feedamp_refund_id of a refund of order {mp_order_number!r} must be a whole number or its digits."
    )


#: A return's number may be unique only among the returns of its order.
_RETURN_KEY = ("mp_order_number", "mp_return_number")


class ReturnsApi(_Resource):
    """Returns that customers ask for: the marketplace creates them, the seller sets the amounts.

    ``mp_order_number`` is the marketplace's order number, ``mp_return_number`` its number of the return. A
    call about one of them raises ``NotFoundError`` when there is no such.
    """

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
        for part in itertools.chain(*(filters or {}).items()):
            if not isinstance(part, str):
                raise InputError(
                    "filters must hold texts under texts; they are sent as query parameters as they are."
                )
            check_text("filters", part)
        params |= filters or {}
        calls = calls_for(params, chosen, numbers=names.returns_by_order)
        return cast("Iterator[Return]", listed(self._http, "returns", calls, key=_RETURN_KEY))

    def of_order(self, mp_order_number: str) -> builtins.list[Return]:
        """Return all returns of one order."""
        found = listed_of_order(self._http, mp_order_number, "returns", key=_RETURN_KEY)
        return [cast("Return", return_) for return_ in found]

    def get(self, mp_order_number: str, mp_return_number: str) -> Return:
        """Return one return."""
        return cast("Return", self._read(*_return(mp_order_number, mp_return_number)))

    def create(
        self, mp_order_number: str, mp_return_number: str, return_: Mapping[str, Any]
    ) -> CreatedReturn:
        """Place a return into FeedAMP, for the seller to act on.

        What FeedAMP does with a number that it knows is not documented.

        :param mp_return_number: The marketplace's number for this return.
        :param return_: The return with its ``return_lines``; it is checked before it is sent. It may name the
            two numbers as well: that of the order is sent in any case, that of the return in the path alone.
        :raises InputError: The return cannot be created as it is; nothing was sent.
        :raises BadRequestError: FeedAMP refused the return.
        """
        check_return(mp_order_number, mp_return_number, return_)
        body = {name: value for name, value in return_.items() if name != "mp_return_number"}
        body["mp_order_number"] = mp_order_number
        path, words = _return(mp_order_number, mp_return_number)
        status, held = self._http.request("PUT", path, json=body, what=f"creating {words}")
        # The body of this answer is not documented; what is not a return is not passed on as one.
        known = isinstance(held, dict) and "return_lines" in held
        inserted = self._unverified.is_new(status)
        return CreatedReturn(
            mp_order_number, mp_return_number, inserted, cast("Return", held) if known else None
        )

    def refunds(self, mp_order_number: str, mp_return_number: str) -> ReturnRefunds:
        """Return how far the seller is with a return, and the amounts to refund."""
        path, words = _return(mp_order_number, mp_return_number)
        return cast("ReturnRefunds", self._read([*path, "refunds"], f"the amounts of {words}"))

    def complete(self, mp_order_number: str, mp_return_number: str) -> None:
        """Say that the marketplace has refunded what the seller entered for a return.

        When nobody knows whether the call has arrived, the return is read: unless it is ``COMPLETED``, the
        call is sent once more.

        :raises NotFoundError: The order has no such return, or the path of this call is another one: it is
            not documented, see :class:`Unverified`.
        """
        path, words = _return(mp_order_number, mp_return_number)
        self._complete(path, words, self._unverified.return_complete_path, ReturnStatus.COMPLETED)

    def report_errors(
        self, mp_order_number: str, mp_return_number: str, errors: Sequence[Mapping[str, Any]]
    ) -> None:
        """Report why the marketplace cannot process what the seller entered for a return.

        When nobody knows whether the call has arrived, the return is read, and what is missing there is sent
        once more.

        :param errors: At least one :class:`ReportedError`, each with ``code`` and ``message``.
        """
        self._report(*_return(mp_order_number, mp_return_number), errors)


def _return(mp_order_number: str, mp_return_number: str) -> tuple[builtins.list[str], str]:
    path = ["orders", mp_order_number, "returns", mp_return_number]
    return path, f"return {mp_return_number!r} of order {mp_order_number!r}"


def not_held(reported: Sequence[Mapping[str, Any]], held: object) -> list[Mapping[str, Any]]:
    """Return the errors that FeedAMP does not hold already, unresolved.

    :param reported: The errors to report.
    :param held: The ``errors`` of the order, refund or return, as it was read.
    """
    left = [error for error in held if isinstance(error, Mapping)] if isinstance(held, list) else []
    missing = []
    for error in reported:
        same = next((each for each in left if _same(error, each)), None)
        if same is None:
            missing.append(error)
        else:
            left.remove(same)
    return missing


def _same(reported: Mapping[str, Any], held: Mapping[str, Any]) -> bool:
    # Whether FeedAMP gives the line number back is not documented.
    return all(held.get(name) == reported[name] for name in ("code", "message")) and (
        held.get("mp_line_number") in (None, reported.get("mp_line_number"))
    )
