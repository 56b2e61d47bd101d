"""Tasks on the refunds that sellers ask for: the marketplace pays them, and says so or why not."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_feedamp.exceptions import InputError, counted
from airflow_provider_feedamp.operators.base import (
    Check,
    Failed,
    FeedAmpOperator,
    ForEachOperator,
    ReportErrorsOperator,
    Skipped,
    given_filters,
    given_objects,
    refund_id,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
    from airflow_provider_feedamp.operators.base import Outcome

log = logging.getLogger(__name__)

_LISTS = ("refund_status", "mp_order_numbers")
_CREATED = ("created_after", "created_before")

#: The fields that name a refund, with their checks.
_NAMES: Mapping[str, Check] = {"mp_order_number": text, "feedamp_refund_id": refund_id}


class FeedAmpListRefundsOperator(FeedAmpOperator):
    """List the refunds that sellers ask for, to map the tasks behind it over.

    To find work, ask for ``CREATED`` without an instant: a refund that was paused and resolved keeps the date
    of its creation. The list may be empty; mapped tasks are skipped then. Further parameters:
    ``feedamp_conn_id`` and ``seller``, see :class:`.FeedAmpOperator`.

    :param refund_status: Only refunds in one of these states, as a list or the text of a JSON array
        (templated); None for any. Default ``("CREATED",)``.
    :param mp_order_numbers: Only refunds of these orders: a list, the output of another task, or the text of
        a JSON array (templated). An empty list finds none. Default: of any order.
    :param created_after: Only refunds created at or after this instant, with a zone, also in ISO 8601
        (templated).
    :param created_before: Only refunds created at or before this instant, likewise (templated).
    :return: The refunds as FeedAMP gives them. ``notes`` is the seller's text for the customer and may hold
        personal data, which is then in the XCom.
    """

    template_fields: Sequence[str] = (*_LISTS, *_CREATED, *FeedAmpOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = dict.fromkeys(_LISTS, "json")

    def __init__(
        self,
        *,
        refund_status: Sequence[str] | XComArg | str | None = ("CREATED",),
        mp_order_numbers: Sequence[str] | XComArg | str | None = None,
        created_after: datetime | str | None = None,
        created_before: datetime | str | None = None,
        feedamp_conn_id: str = "feedamp_default",
        seller: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(feedamp_conn_id=feedamp_conn_id, seller=seller, **kwargs)
        self.refund_status = refund_status
        self.mp_order_numbers = mp_order_numbers
        self.created_after = created_after
        self.created_before = created_before

    def _perform(self, context: Context) -> list[dict[str, Any]]:
        filters = given_filters(self, _LISTS, _CREATED)
        hook = self._hook()
        refunds = [dict(refund) for refund in hook.client.refunds.list(**filters)]
        log.info("%s of seller %r", counted(len(refunds), "refunds"), hook.seller)
        return refunds


class FeedAmpProcessRefundsOperator(ForEachOperator):
    """Hand each refund that is ``CREATED`` to a function that pays it, and tell FeedAMP how that went.

    ``process(refund)`` gets the refund as FeedAMP gives it, read again just before. What it returns decides:

    - None or True: it is paid, and is marked as complete.
    - A list of ``{"code", "message"}``: it cannot be paid. They are reported, and FeedAMP pauses the refund
      until the seller has resolved them.
    - If it raises, the refund stays ``CREATED``. The others go on, and at the end the task fails, to be
      retried.

    It runs in a thread that no signal cuts. A task that is stopped ends the refund under way and begins no
    other.

    **A refund can be handed to it twice**, if the task dies between the payment and the moment when FeedAMP
    has noted it: give the payment provider ``refund["feedamp_refund_id"]`` as idempotency key. Let only one
    run of the DAG be active (``max_active_runs=1``).

    Further parameters: ``mp_order_numbers``, ``created_after`` and ``created_before``, see
    :class:`.FeedAmpListRefundsOperator`; ``max_failures``, ``feedamp_conn_id`` and ``seller``, see
    :class:`.ForEachOperator`.

    :param process: Pays one refund.
    :return: ``completed``, ``reported``, and the reasons by ``{order number}/{refund id}``: ``skipped`` and
        ``failed``.
    """

    template_fields: Sequence[str] = ("mp_order_numbers", *_CREATED, *ForEachOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = {"mp_order_numbers": "json"}
    noun = "refunds"
    outcomes = ("completed", "reported")

    def __init__(
        self,
        *,
        process: Callable[[dict[str, Any]], Sequence[Mapping[str, str]] | bool | None],
        mp_order_numbers: Sequence[str] | XComArg | str | None = None,
        created_after: datetime | str | None = None,
        created_before: datetime | str | None = None,
        max_failures: int | str | None = 0,
        feedamp_conn_id: str = "feedamp_default",
        seller: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(max_failures=max_failures, feedamp_conn_id=feedamp_conn_id, seller=seller, **kwargs)
        self.process = process
        self.mp_order_numbers = mp_order_numbers
        self.created_after = created_after
        self.created_before = created_before

    def _load_items(self, hook: FeedAmpHook) -> Mapping[Any, Any]:
        if not callable(self.process):
            kind = type(self.process).__name__
            raise InputError(f"process must be a function that takes a refund, not {kind}.")
        # All of them first: what is done to one could shift the pages of the others.
        filters = given_filters(self, ("mp_order_numbers",), _CREATED)
        return _keys(hook.client.refunds.list(refund_status=["CREATED"], **filters))

    def _process_one(self, hook: FeedAmpHook, item: Any) -> Outcome:
        refunds = hook.client.refunds
        refund = refunds.get(*item)
        if refund.get("status") != "CREATED":
            return Skipped(f"it is {refund.get('status')} now")
        try:
            answer = self.process(dict(refund))
        except Exception as error:  # noqa: BLE001  # The others go on; the task fails at the end.
            # Its words are not shown: they may name the customer.
            at = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{at.filename}:{at.lineno} in {at.name}"
            reason = f"process raised {type(error).__name__} ({place}); it is CREATED still"
            return Failed(reason, retryable=True)
        if answer is None or answer is True:
            refunds.complete(*item)
            return "completed"
        if isinstance(answer, list | tuple) and answer:
            refunds.report_errors(item[0], item[1], answer)
            return "reported"
        what = "an empty list" if isinstance(answer, list | tuple) else type(answer).__name__
        return Failed(
            f"process returned {what}, which says neither paid (None, True) nor why not (a list of errors); "
            "it is CREATED still"
        )


class FeedAmpCompleteRefundsOperator(ForEachOperator):
    """Mark refunds as complete that the marketplace has paid.

    One that is complete already is left as it is, so the task can run again. The path of this call is not
    documented: see ``[feedamp] refund_complete_path``. Further parameters: ``max_failures``,
    ``feedamp_conn_id`` and ``seller``, see :class:`.ForEachOperator`.

    :param refunds: The refunds as a list, the output of another task, or the text of a JSON array
        (templated). Each has ``mp_order_number`` and ``feedamp_refund_id``; further fields are not used. None
        at all is fine.
    :return: ``completed``, ``unchanged``, and the reasons by ``{order number}/{refund id}``: ``skipped``
        (none) and ``failed``.
    """

    template_fields: Sequence[str] = ("refunds", *ForEachOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = {"refunds": "json"}
    noun = "refunds"
    outcomes = ("completed", "unchanged")

    def __init__(
        self,
        *,
        refunds: Sequence[Mapping[str, Any] | XComArg] | XComArg | str,
        max_failures: int | str | None = 0,
        feedamp_conn_id: str = "feedamp_default",
        seller: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(max_failures=max_failures, feedamp_conn_id=feedamp_conn_id, seller=seller, **kwargs)
        self.refunds = refunds

    def _load_items(self, hook: FeedAmpHook) -> Mapping[Any, Any]:
        return _keys(given_objects("refunds", self.refunds, _NAMES))

    def _process_one(self, hook: FeedAmpHook, item: Any) -> Outcome:
        refunds = hook.client.refunds
        if refunds.get(*item).get("status") == "COMPLETE":
            return "unchanged"
        refunds.complete(*item)
        return "completed"


class FeedAmpReportRefundErrorsOperator(ReportErrorsOperator):
    """Report why refunds cannot be paid, one call per refund; FeedAMP pauses them until the seller acts.

    Errors that a refund has already, unresolved, are not reported again, so the task can run again; a refund
    that is complete is left alone. Further parameters: ``max_failures``, ``feedamp_conn_id`` and ``seller``,
    see :class:`.ForEachOperator`.

    :param errors: The errors as a list, the output of another task, or the text of a JSON array (templated).
        Each has ``mp_order_number``, ``feedamp_refund_id``, ``code`` and ``message``. None at all is fine.
    :return: How many refunds were ``reported`` and ``unchanged``, and the reasons by ``{order number}/{refund
        id}``: ``skipped`` and ``failed``.
    """

    noun = "refunds"
    key_fields: ClassVar[Mapping[str, Check]] = _NAMES
    final_status = "COMPLETE"


def _keys(refunds: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], tuple[str, str]]:
    """Return what names the refunds, each once."""
    keys = [(refund["mp_order_number"], str(refund["feedamp_refund_id"])) for refund in refunds]
    return dict(zip(keys, keys, strict=True))
