"""Waiting for customers' returns, see :mod:`airflow_provider_feedamp.api.conditions`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_feedamp.api.types import ReturnStatus
from airflow_provider_feedamp.api.waiting import Notes, check_texts, is_list, named
from airflow_provider_feedamp.exceptions import InputError, ReturnOverdueError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_feedamp.api.client import FeedAmpClient

#: How far a return can be, in this order.
_STEPS: Final = tuple(ReturnStatus)
#: FeedAMP does not say whose day ``respond_date`` is. Every day ends last twelve hours behind UTC.
_LAST_ZONE: Final = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class ReturnsInStatus:
    """All given returns have reached a status, or one behind it.

    :param returns: Each with ``mp_order_number`` and ``mp_return_number``; none at all is done at once.
    :param status: One of ``ReturnStatus``.
    :param respond_dates: The day by which the seller has to respond, for each return (None: not known);
        :meth:`dated` reads them. Default: no deadline.
    """

    returns: Sequence[Mapping[str, str]]
    status: str = ReturnStatus.REFUNDED
    respond_dates: Sequence[str | None] | None = None
    _said: Notes = field(default_factory=Notes, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = ("mp_order_number", "mp_return_number")
        if not is_list(self.returns) or not all(isinstance(each, Mapping) for each in self.returns):
            raise InputError(f"returns must be a list of objects with {' and '.join(names)}.")
        for name in names:
            check_texts(f"{name} in returns", [each.get(name) for each in self.returns])
        if self.status not in _STEPS:
            raise InputError(f"status must be one of {', '.join(_STEPS)}, not {self.status!r}.")

    def dated(self, client: FeedAmpClient) -> ReturnsInStatus:
        """Return the same condition with the deadlines that the returns have."""
        held = [client.returns.get(*_numbers(each)) for each in self.returns]
        return replace(self, respond_dates=[_text(each.get("respond_date")) for each in held])

    def met(self, client: FeedAmpClient) -> list[Any] | None:
        """Return the numbers, status and error codes of the returns once all have reached the status.

        :raises ReturnOverdueError: A return has not, and its ``respond_date`` is over anywhere on earth.
        :raises NotFoundError: There is no such return.
        """
        reached: list[dict[str, Any]] = []
        waiting: list[str] = []
        overdue: list[str] = []
        for index, each in enumerate(self.returns):
            known = self.respond_dates[index] if self.respond_dates else None
            held: Mapping[str, Any] = client.returns.refunds(*_numbers(each))
            late = not self._reached(each, held) and _over(known)
            if late:  # the date that we know may have been moved
                held = client.returns.get(*_numbers(each))
                late = _over(_text(held.get("respond_date")) or known)
            if self._reached(each, held):
                reached.append(self._told(each, held))
            else:
                (overdue if late else waiting).append(_shown(each, held))
        if overdue:
            raise ReturnOverdueError(
                f"The respond_date of {len(overdue)} returns is over, and they have not reached "
                f"{self.status}: {named(overdue)}. Ask the seller, or wait on with "
                "respond_date_is_deadline=False."
            )
        if waiting:
            of = f"{len(waiting)} of {len(self.returns)} returns"
            self._said.say(logging.INFO, f"{of} are not {self.status} yet: {named(waiting)}")
            return None
        return reached

    def _reached(self, each: Mapping[str, str], held: Mapping[str, Any]) -> bool:
        status = held.get("status")
        if status in _STEPS:
            return _STEPS.index(ReturnStatus(status)) >= _STEPS.index(ReturnStatus(self.status))
        text = f"Return {each['mp_return_number']!r} has the status {status!r}, which is not known here"
        self._said.say(logging.WARNING, text)
        return False

    def _told(self, each: Mapping[str, str], held: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the next task needs, also errors that the marketplace reported and nobody resolved."""
        codes = _codes(held)
        order_number, return_number = _numbers(each)
        if codes:
            text = f"Return {return_number!r} has unresolved errors: {named(codes)}"
            self._said.say(logging.WARNING, text)
        return {
            "mp_order_number": order_number,
            "mp_return_number": return_number,
            "status": str(held.get("status")),
            "errors": codes,
        }


def _shown(each: Mapping[str, str], held: Mapping[str, Any]) -> str:
    return f"{each['mp_return_number']} ({', '.join([str(held.get('status')), *_codes(held)])})"


def _codes(held: Mapping[str, Any]) -> list[str]:
    errors = held.get("errors")
    listed = errors if isinstance(errors, list) else []
    return [str(error.get("code")) for error in listed if isinstance(error, Mapping)]


def _numbers(each: Mapping[str, str]) -> tuple[str, str]:
    return each["mp_order_number"], each["mp_return_number"]


def _over(day: str | None) -> bool:
    """Say whether a day is over everywhere; what cannot be read as a day never is."""
    try:
        after = date.fromisoformat((day or "")[:10]) + timedelta(days=1)
    except (ValueError, OverflowError):
        return False
    return datetime.now(UTC) >= datetime(after.year, after.month, after.day, tzinfo=UTC) + _LAST_ZONE


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
