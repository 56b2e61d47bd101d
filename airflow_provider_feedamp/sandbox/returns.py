"""The returns that one seller's customers asked for, without HTTP (feedamp-api.md A7)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp.sandbox.error_rules import reported_errors
from airflow_provider_feedamp.sandbox.fields import MAX_NUMBER_LENGTH
from airflow_provider_feedamp.sandbox.json_body import read_json
from airflow_provider_feedamp.sandbox.refusal import INVALID_VALUE, Refusal, bad_request, not_found
from airflow_provider_feedamp.sandbox.return_rules import return_problems

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from airflow_provider_feedamp.sandbox.clock import SandboxClock
    from airflow_provider_feedamp.sandbox.orders import StoredOrder
    from airflow_provider_feedamp.sandbox.return_queries import ReturnQuery
    from airflow_provider_feedamp.sandbox.settings import SandboxSettings


@dataclass(slots=True)
class StoredReturn:
    """One return: the marketplace's JSON as it came, and beside it what the seller did."""

    number: str
    order_number: str
    sequence: int
    placed_at: datetime
    raw: bytes
    #: What was asked for by return line, and whether all of it is authorised beforehand.
    requested: dict[str, Any]
    preauthorized: bool
    seller_authorized: bool = False
    rma: str | None = None
    amounts: list[dict[str, Any]] = field(default_factory=list)
    completed: bool = False
    errors: list[dict[str, Any]] = field(default_factory=list)

    @property
    def status(self) -> str:
        """The return's status (A7)."""
        if self.completed:
            return "COMPLETED"
        if self.amounts:
            return "REFUNDED"
        return "AUTHORIZED" if self.preauthorized or self.seller_authorized else "AWAITING_AUTHORIZATION"

    @property
    def seller_acted(self) -> bool:
        """Whether anything but the marketplace's own PUT has happened to it."""
        return self.seller_authorized or bool(self.amounts) or self.completed

    def resource(self) -> dict[str, Any]:
        """Return it as the API shows it: what was asked for, and over it what only FeedAMP sets."""
        return {
            "request_date": self.placed_at.date().isoformat(),
            "respond_date": None,
            "shipping_address": None,
            "customer_email": None,
            "return_type": "SHIP",
            **{name: value for name, value in json.loads(self.raw).items() if value is not None},
            "mp_order_number": self.order_number,
            "mp_return_number": self.number,
            **self.refunds(),
        }

    def refunds(self) -> dict[str, Any]:
        """Return the answer of the lean endpoint (A7.5)."""
        return {
            "status": self.status,
            "rma": self.rma,
            "merchant_refund_lines": self.amounts,
            "errors": self.errors,
        }


class ReturnBook:
    """All returns of one seller, in the order in which they were first placed."""

    def __init__(self, settings: SandboxSettings, clock: SandboxClock) -> None:
        self._settings = settings
        self._clock = clock
        self._returns: list[StoredReturn] = []
        self._by_number: dict[tuple[str, str], StoredReturn] = {}

    def __len__(self) -> int:
        return len(self._returns)

    def candidates(self, _query: ReturnQuery | None, sequence: int) -> Iterator[StoredReturn]:
        """Return the returns from a place in the sequence on."""
        for index in range(sequence, len(self._returns)):
            yield self._returns[index]

    def of_order(self, order_number: str) -> list[StoredReturn]:
        """Return the returns of one order."""
        return [each for each in self._returns if each.order_number == order_number]

    def get(self, order_number: str, number: str) -> StoredReturn:
        """Return one return; its number is unique within its order.

        :raises Refusal: 404.
        """
        found = self._by_number.get((order_number, number))
        if found is None:
            what = "return"
            raise not_found(what)
        return found

    def place(self, order: StoredOrder, number: str, raw: bytes) -> tuple[StoredReturn, bool]:
        """Create a return, or replace it: freely before the seller has acted, else only unless strict.

        The same body again is never refused, so that a repeated PUT is harmless.

        :param order: The order.
        :param number: The return number in the path.
        :param raw: The body as it came.
        :return: The return, and whether it is new.
        :raises Refusal: 400 with all problems.
        """
        body = self._checked(order, number, raw)
        lines = body["return_lines"]
        requested = {each["mp_return_line_number"]: each["requested_refund_principal"] for each in lines}
        preauthorized = all(each["preauthorized"] for each in lines)
        known = self._by_number.get((order.number, number))
        if known is None:
            created = StoredReturn(
                number, order.number, len(self._returns), self._clock.now(), raw, requested, preauthorized
            )
            self._returns.append(created)
            self._by_number[order.number, number] = created
            return created, True
        if not _same(known, body):
            self._check_replacement(known, requested)
            known.raw, known.requested, known.preauthorized = raw, requested, preauthorized
        return known, False

    def complete(self, order_number: str, number: str) -> None:
        """Take note that the marketplace has paid the customer; a second time changes nothing.

        :raises Refusal: 404, or 400 when transitions are strict and the seller has entered no amounts.
        """
        found = self.get(order_number, number)
        if self._settings.strict_transitions and found.status not in ("REFUNDED", "COMPLETED"):
            raise bad_request(INVALID_VALUE, f"the return is {found.status}, not yet REFUNDED")
        found.completed = True
        found.errors.clear()

    def report_errors(self, order_number: str, number: str, raw: bytes) -> None:
        """Append the marketplace's complaints; the status stays as it is.

        :raises Refusal: 404, or 400 with all problems, or when transitions are strict and it is complete.
        """
        found = self.get(order_number, number)
        errors = reported_errors(raw, None, strict_fields=self._settings.strict_fields)
        if self._settings.strict_transitions and found.completed:
            raise bad_request(INVALID_VALUE, "the return is COMPLETED")
        found.errors.extend(errors)

    def _checked(self, order: StoredOrder, number: str, raw: bytes) -> dict[str, Any]:
        if len(number) > MAX_NUMBER_LENGTH:
            raise bad_request(
                INVALID_VALUE, f"'mp_return_number' must have 1 to {MAX_NUMBER_LENGTH} characters"
            )
        body = read_json(raw)
        settings = self._settings
        problems = return_problems(
            body,
            order.number,
            order.quantities,
            strict_fields=settings.strict_fields,
            seller_on_v2=settings.seller_on_v2,
        )
        if problems or not isinstance(body, dict):
            raise Refusal(400, problems)
        return body

    def _check_replacement(self, known: StoredReturn, requested: dict[str, Any]) -> None:
        if self._settings.strict_transitions and known.seller_acted:
            raise bad_request(INVALID_VALUE, f"the return is {known.status} and cannot change any more")
        if not {each["mp_return_line_number"] for each in known.amounts} <= requested.keys():
            raise bad_request(INVALID_VALUE, "'return_lines' lacks a line for which there are amounts")


def _same(known: StoredReturn, body: dict[str, Any]) -> bool:
    """Say whether a body asks for what is stored; the order's number may be in it or not."""
    old = {"mp_order_number": known.order_number, **json.loads(known.raw)}
    return old == {"mp_order_number": known.order_number, **body}
