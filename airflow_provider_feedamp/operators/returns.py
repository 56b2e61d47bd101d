"""Tasks on the returns that customers ask for: the seller authorises them and sets the amounts."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_feedamp.exceptions import NotFoundError, counted
from airflow_provider_feedamp.operators.base import (
    Check,
    FeedAmpOperator,
    ForEachOperator,
    ReportErrorsOperator,
    Skipped,
    given_filters,
    given_objects,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
    from airflow_provider_feedamp.operators.base import Outcome

log = logging.getLogger(__name__)

_LISTS = ("return_status", "mp_order_numbers")
_REQUESTED = ("requested_after", "requested_before")
_AMOUNTS = ("status", "rma", "merchant_refund_lines", "errors")
_LISTED = ("mp_order_number", "mp_return_number", "status", "request_date", "respond_date")

#: The fields that name a return, with their checks.
_NAMES: Mapping[str, Check] = {"mp_order_number": text, "mp_return_number": text}


class FeedAmpListReturnsOperator(FeedAmpOperator):
    """List the returns of a seller in some status, to read, pay and complete them in the tasks behind it.

    FeedAMP documents no filter of this list, and may ignore one. So what it gives is compared with
    ``return_status`` and ``mp_order_numbers`` here once more; the instants are not. The list may be empty;
    mapped tasks are skipped then. Further parameters: ``feedamp_conn_id`` and ``seller``, see
    :class:`.FeedAmpOperator`.

    :param return_status: Only returns in one of these states, as a list or the text of a JSON array
        (templated); None for any. Default ``("REFUNDED",)``: the seller has entered the amounts.
    :param mp_order_numbers: Only returns of these orders: a list, the output of another task, or the text of
        a JSON array (templated). An empty list finds none. Default: of any order.
    :param requested_after: Only returns asked for at or after this instant, with a zone, also in ISO 8601
        (templated).
    :param requested_before: Only returns asked for at or before this instant, likewise (templated).
    :return: ``mp_order_number``, ``mp_return_number``, ``status``, ``request_date`` and ``respond_date`` of
        each. Address and e-mail are left out, so that they are not in the XCom.
    """

    template_fields: Sequence[str] = (*_LISTS, *_REQUESTED, *FeedAmpOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = dict.fromkeys(_LISTS, "json")

    def __init__(
        self,
        *,
        return_status: Sequence[str] | XComArg | str | None = ("REFUNDED",),
        mp_order_numbers: Sequence[str] | XComArg | str | None = None,
        requested_after: datetime | str | None = None,
        requested_before: datetime | str | None = None,
        feedamp_conn_id: str = "feedamp_default",
        seller: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(feedamp_conn_id=feedamp_conn_id, seller=seller, **kwargs)
        self.return_status = return_status
        self.mp_order_numbers = mp_order_numbers
        self.requested_after = requested_after
        self.requested_before = requested_before

    def _perform(self, context: Context) -> list[dict[str, Any]]:
        filters = given_filters(self, _LISTS, _REQUESTED)
        status, numbers = filters["return_status"], filters["mp_order_numbers"]
        hook = self._hook()
        returns = [
            {name: found.get(name) for name in _LISTED}
            for found in hook.client.returns.list(**filters)
            if (status is None or found.get("status") in status)
            and (numbers is None or found.get("mp_order_number") in numbers)
        ]
        log.info("%s of seller %r", counted(len(returns), "returns"), hook.seller)
        return returns


class _ReturnsBase(ForEachOperator):
    """Base of the tasks that are given a list of returns."""

    template_fields: Sequence[str] = ("returns", *ForEachOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = {"returns": "json"}
    noun = "returns"

    def __init__(
        self,
        *,
        returns: Sequence[Mapping[str, Any] | XComArg] | XComArg | str,
        max_failures: int | str | None = 0,
        feedamp_conn_id: str = "feedamp_default",
        seller: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(max_failures=max_failures, feedamp_conn_id=feedamp_conn_id, seller=seller, **kwargs)
        self.returns = returns

    def _load_items(self, hook: FeedAmpHook) -> Mapping[Any, Any]:
        returns = given_objects("returns", self.returns, _NAMES)
        items = [(each["mp_order_number"], each["mp_return_number"], each) for each in returns]
        return {item[:2]: item for item in items}


class FeedAmpCreateReturnsOperator(_ReturnsBase):
    """Place returns into FeedAMP, for the seller to authorise them and to enter the amounts.

    Each is checked before it is sent. A return whose number the order has already is left as it is and not
    compared, so the task can run again: what FeedAMP does with a second one is not documented.
    Further parameters: ``max_failures``, ``feedamp_conn_id`` and ``seller``, see :class:`.ForEachOperator`.

    :param returns: The returns as a list, the output of another task, or the text of a JSON array
        (templated). Each has ``mp_order_number``, ``mp_return_number`` and ``return_lines``, and may have
        ``request_date``, ``respond_date``, ``shipping_address``, ``customer_email`` and ``return_type``. None
        at all is fine.
    :return: ``created``, ``unchanged``, and the reasons by ``{order number}/{return number}``: ``skipped``
        (none) and ``failed``.
    """

    outcomes = ("created", "unchanged")

    def _process_one(self, hook: FeedAmpHook, item: Any) -> Outcome:
        number, return_number, return_ = item
        try:
            hook.client.returns.get(number, return_number)
        except NotFoundError:
            hook.client.returns.create(number, return_number, return_)
            return "created"
        return "unchanged"


class FeedAmpReadReturnRefundsOperator(_ReturnsBase):
    """Read how far the seller is with returns, and the amounts to refund.

    Further parameters: ``max_failures``, ``feedamp_conn_id`` and ``seller``, see :class:`.ForEachOperator`.

    :param returns: The returns as a list, the output of another task, or the text of a JSON array
        (templated). Each has ``mp_order_number`` and ``mp_return_number``; further fields are not used. None
        at all is fine.
    :return: For each that could be read: ``mp_order_number``, ``mp_return_number``, ``status``, ``rma``,
        ``merchant_refund_lines`` and ``errors``. To pay only what the seller has entered, look at ``status``:
        it must be ``REFUNDED``.
    """

    outcomes = ("read",)

    def _process_one(self, hook: FeedAmpHook, item: Any) -> Outcome:
        *key, _ = item
        read = hook.client.returns.refunds(*key)
        numbers = dict(zip(_NAMES, key, strict=True))
        return numbers | {name: read.get(name) for name in _AMOUNTS}


class FeedAmpCompleteReturnsOperator(_ReturnsBase):
    """Mark returns as complete whose amounts the marketplace has refunded.

    One that is complete already is left as it is, so the task can run again. One whose amounts the seller has
    not entered yet (``AWAITING_AUTHORIZATION``, ``AUTHORIZED``) is skipped. The path of this call is not
    documented: see ``[feedamp] return_complete_path``. Further parameters: ``max_failures``,
    ``feedamp_conn_id`` and ``seller``, see :class:`.ForEachOperator`.

    :param returns: The returns as a list, the output of another task, or the text of a JSON array
        (templated). Each has ``mp_order_number`` and ``mp_return_number``; further fields are not used. None
        at all is fine.
    :return: ``completed``, ``unchanged``, and the reasons by ``{order number}/{return number}``: ``skipped``
        and ``failed``.
    """

    outcomes = ("completed", "unchanged")

    def _process_one(self, hook: FeedAmpHook, item: Any) -> Outcome:
        *key, _ = item
        status = hook.client.returns.refunds(*key).get("status")
        if status == "COMPLETED":
            return "unchanged"
        if status in ("AWAITING_AUTHORIZATION", "AUTHORIZED"):
            return Skipped(f"it is {status}: the seller has not entered the amounts")
        hook.client.returns.complete(*key)
        return "completed"


class FeedAmpReportReturnErrorsOperator(ReportErrorsOperator):
    """Report why the amounts of returns cannot be refunded, one call per return.

    Errors that a return has already, unresolved, are not reported again, so the task can run again; a return
    that is complete is left alone. Further parameters: ``max_failures``, ``feedamp_conn_id`` and ``seller``,
    see :class:`.ForEachOperator`.

    :param errors: The errors as a list, the output of another task, or the text of a JSON array (templated).
        Each has ``mp_order_number``, ``mp_return_number``, ``code`` and ``message``. None at all is fine.
    :return: How many returns were ``reported`` and ``unchanged``, and the reasons by ``{order number}/{return
        number}``: ``skipped`` and ``failed``.
    """

    noun = "returns"
    key_fields: ClassVar[Mapping[str, Check]] = _NAMES
    final_status = "COMPLETED"
    read_with = "refunds"
