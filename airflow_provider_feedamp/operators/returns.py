"""Tasks on the returns that customers ask for: the seller authorises them and sets the amounts."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_feedamp.operators.base import EachBase, Found, ReportErrorsBase, Skipped
from airflow_provider_feedamp.operators.parameters import Check, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
    from airflow_provider_feedamp.operators.base import Account, Outcome

log = logging.getLogger(__name__)

_AMOUNTS = ("status", "rma", "merchant_refund_lines", "errors")
_LISTED = ("mp_order_number", "mp_return_number", "status", "request_date", "respond_date")

#: The fields that name a return, with their checks.
_NAMES: Mapping[str, Check] = {"mp_order_number": text, "mp_return_number": text}


class FeedAmpListReturnsOperator(BaseOperator):
    """List the returns of a seller in some status, to read, pay and complete them in the tasks behind it.

    FeedAMP documents no filter of this list, and may ignore one. So what it gives is compared with
    ``return_status`` and ``mp_order_numbers`` here once more; the instants are not. The list may be empty;
    mapped tasks are skipped then.

    :param return_status: Only returns in one of these states, as a list or the text of a JSON array
        (templated); None for any. Default ``("REFUNDED",)``: the seller has entered the amounts.
    :param mp_order_numbers: Only returns of these orders: a list, the output of another task, or the text of
        a JSON array (templated). An empty list finds none. Default: of any order.
    :param requested_after: Only returns asked for at or after this instant, with a zone, also in ISO 8601
        (templated).
    :param requested_before: Only returns asked for at or before this instant, likewise (templated).
    :param feedamp_conn_id: The FeedAMP connection (templated). Default ``feedamp_default``.
    :param seller: The seller whose account it is (templated). Default: the connection's.
    :return: ``mp_order_number``, ``mp_return_number``, ``status``, ``request_date`` and ``respond_date`` of
        each. Address and e-mail are left out, so that they do not stand in the XCom.
    """

    template_fields: Sequence[str] = (
        "return_status",
        "mp_order_numbers",
        "requested_after",
        "requested_before",
        "feedamp_conn_id",
        "seller",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "return_status": "json",
        "mp_order_numbers": "json",
    }
    ui_color = "#d7e8f7"

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
        super().__init__(**kwargs)
        self.return_status = return_status
        self.mp_order_numbers = mp_order_numbers
        self.requested_after = requested_after
        self.requested_before = requested_before
        self.feedamp_conn_id = feedamp_conn_id
        self.seller = seller

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Return the numbers, states and dates of the returns."""
        from airflow_provider_feedamp.hooks.errors import task_errors
        from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
        from airflow_provider_feedamp.operators.parameters import given_filters

        with task_errors():
            filters = given_filters(
                self, ("return_status", "mp_order_numbers"), ("requested_after", "requested_before")
            )
            status, numbers = filters["return_status"], filters["mp_order_numbers"]
            hook = FeedAmpHook(self.feedamp_conn_id, seller=self.seller)
            returns = [
                {name: found.get(name) for name in _LISTED}
                for found in hook.client.returns.list(**filters)
                if (status is None or found.get("status") in status)
                and (numbers is None or found.get("mp_order_number") in numbers)
            ]
            log.info("%d returns of seller %r", len(returns), hook.seller)
            return returns


class _ReturnsBase(EachBase):
    """Base of the tasks that are given a list of returns."""

    template_fields: Sequence[str] = ("returns", "max_failures", "feedamp_conn_id", "seller")
    template_fields_renderers: ClassVar[dict[str, str]] = {"returns": "json"}
    things = "returns"

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

    def _items(self, hook: FeedAmpHook) -> Mapping[Any, Any]:
        from airflow_provider_feedamp.operators.parameters import given_objects

        returns = given_objects("returns", self.returns, _NAMES)
        return {(each["mp_order_number"], each["mp_return_number"]): each for each in returns}


class FeedAmpCreateReturnsOperator(_ReturnsBase):
    """Place returns into FeedAMP, for the seller to authorise them and to enter the amounts.

    Each is checked before it is sent. A return whose number the order has already is left as it is and not
    compared, so the task can run again: what FeedAMP does with a second one is not documented.

    :param returns: The returns as a list, the output of another task, or the text of a JSON array
        (templated). Each has ``mp_order_number``, ``mp_return_number`` and ``return_lines``, and may have
        ``request_date``, ``respond_date``, ``shipping_address``, ``customer_email`` and ``return_type``. None
        at all is fine.
    :param max_failures: The most failures with which the task succeeds (templated); None for any number.
        Default 0. The other returns are done in any case.
    :param feedamp_conn_id: The FeedAMP connection (templated). Default ``feedamp_default``.
    :param seller: The seller whose account it is (templated). Default: the connection's.
    :return: ``created``, ``unchanged``, and the reasons by ``{order number}/{return number}``: ``skipped``
        (none) and ``failed``.
    """

    words = ("created", "unchanged")

    def _one(self, hook: FeedAmpHook, item: Any) -> Outcome:
        from airflow_provider_feedamp.exceptions import NotFoundError

        returns = hook.client.returns
        try:
            returns.get(*_key(item))
        except NotFoundError:
            returns.create(*_key(item), item)
            return "created"
        return "unchanged"


class FeedAmpReadReturnRefundsOperator(_ReturnsBase):
    """Read how far the seller is with returns, and the amounts to refund.

    :param returns: The returns as a list, the output of another task, or the text of a JSON array
        (templated). Each has ``mp_order_number`` and ``mp_return_number``; further fields are not used. None
        at all is fine.
    :param max_failures: The most failures with which the task succeeds (templated); None for any number.
        Default 0.
    :param feedamp_conn_id: The FeedAMP connection (templated). Default ``feedamp_default``.
    :param seller: The seller whose account it is (templated). Default: the connection's.
    :return: For each that could be read: ``mp_order_number``, ``mp_return_number``, ``status``, ``rma``,
        ``merchant_refund_lines`` and ``errors``. To pay only what the seller has entered, look at ``status``:
        it must be ``REFUNDED``.
    """

    words = ("read",)

    def _one(self, hook: FeedAmpHook, item: Any) -> Outcome:
        read = hook.client.returns.refunds(*_key(item))
        order_number, return_number = _key(item)
        amounts = {name: read.get(name) for name in _AMOUNTS}
        return Found({"mp_order_number": order_number, "mp_return_number": return_number, **amounts})

    def _told(self, account: Account) -> Any:
        return account.found


class FeedAmpCompleteReturnsOperator(_ReturnsBase):
    """Mark returns as complete whose amounts the marketplace has refunded.

    One that is complete already is left as it is, so the task can run again. One whose amounts the seller has
    not entered yet (``AWAITING_AUTHORIZATION``, ``AUTHORIZED``) is skipped. The path of this call is not
    documented: see ``[feedamp] return_complete_path``.

    :param returns: The returns as a list, the output of another task, or the text of a JSON array
        (templated). Each has ``mp_order_number`` and ``mp_return_number``; further fields are not used. None
        at all is fine.
    :param max_failures: The most failures with which the task succeeds (templated); None for any number.
        Default 0. The other returns are done in any case.
    :param feedamp_conn_id: The FeedAMP connection (templated). Default ``feedamp_default``.
    :param seller: The seller whose account it is (templated). Default: the connection's.
    :return: ``completed``, ``unchanged``, and the reasons by ``{order number}/{return number}``: ``skipped``
        and ``failed``.
    """

    words = ("completed", "unchanged")

    def _one(self, hook: FeedAmpHook, item: Any) -> Outcome:
        returns = hook.client.returns
        status = returns.refunds(*_key(item)).get("status")
        if status == "COMPLETED":
            return "unchanged"
        if status in ("AWAITING_AUTHORIZATION", "AUTHORIZED"):
            return Skipped(f"it is {status}: the seller has not entered the amounts")
        returns.complete(*_key(item))
        return "completed"


class FeedAmpReportReturnErrorsOperator(ReportErrorsBase):
    """Report why the amounts of returns cannot be refunded, one call per return.

    Errors that a return has already, unresolved, are not reported again, so the task can run again; a return
    that is complete is left alone.

    :param errors: The errors as a list, the output of another task, or the text of a JSON array (templated).
        Each has ``mp_order_number``, ``mp_return_number``, ``code`` and ``message``. None at all is fine.
    :param max_failures: The most returns that may fail with the task still succeeding (templated); None for
        any number. Default 0. The other returns are done in any case.
    :param feedamp_conn_id: The FeedAMP connection (templated). Default ``feedamp_default``.
    :param seller: The seller whose account it is (templated). Default: the connection's.
    :return: How many returns were ``reported`` and ``unchanged``, and the reasons by ``{order number}/{return
        number}``: ``skipped`` and ``failed``.
    """

    things = "returns"
    about: ClassVar[Mapping[str, Check]] = _NAMES
    settled = "COMPLETED"

    def _held(self, hook: FeedAmpHook, key: tuple[str, ...]) -> Mapping[str, Any]:
        return hook.client.returns.refunds(*key)

    def _report(self, hook: FeedAmpHook, key: tuple[str, ...], errors: Sequence[Mapping[str, Any]]) -> None:
        hook.client.returns.report_errors(key[0], key[1], errors)


def _key(return_: Mapping[str, Any]) -> tuple[str, str]:
    return return_["mp_order_number"], return_["mp_return_number"]
