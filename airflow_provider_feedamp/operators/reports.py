"""Reporting errors: put together by what they are about, and only those that do not stand there already."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_feedamp.exceptions import InputError
from airflow_provider_feedamp.operators.each import EachBase, Skipped
from airflow_provider_feedamp.operators.given import Check, given_objects, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.providers.common.compat.sdk import XComArg

    from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
    from airflow_provider_feedamp.operators.each import Outcome

CODE_AND_MESSAGE: Mapping[str, Check] = {"code": text, "message": text}


class ReportErrorsBase(EachBase):
    """What the operators that report errors share.

    :param errors: The errors as a list, the output of another task, or the text of a JSON array (templated).
    """

    template_fields: Sequence[str] = ("errors", "max_failures", "feedamp_conn_id", "seller")
    template_fields_renderers: ClassVar[dict[str, str]] = {"errors": "json"}
    words = ("reported", "unchanged")
    #: The fields that name what an error is about, with their checks.
    about: ClassVar[Mapping[str, Check]]
    #: Fields to send beside code and message.
    more: ClassVar[Sequence[str]] = ()
    #: The status of what is settled, which no error is reported of; None if there is none.
    settled: ClassVar[str | None] = None

    def __init__(
        self,
        *,
        errors: Sequence[Mapping[str, Any]] | XComArg | str,
        max_failures: int | str | None = 0,
        feedamp_conn_id: str = "feedamp_default",
        seller: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(max_failures=max_failures, feedamp_conn_id=feedamp_conn_id, seller=seller, **kwargs)
        self.errors = errors

    def _items(self, hook: FeedAmpHook) -> Mapping[Any, Any]:
        return {
            key: (key, errors) for key, errors in grouped(self.errors, self.about, more=self.more).items()
        }

    def _one(self, hook: FeedAmpHook, item: Any) -> Outcome:
        from airflow_provider_feedamp.api.client import not_held

        key, errors = item
        held = self._held(hook, key)
        if self.settled is not None and held.get("status") == self.settled:
            return Skipped(f"it is {self.settled} already")
        missing = not_held(errors, held.get("errors"))
        if not missing:
            return "unchanged"
        self._report(hook, key, missing)
        return "reported"

    @abstractmethod
    def _held(self, hook: FeedAmpHook, key: tuple[str, ...]) -> Mapping[str, Any]:
        """Read what the errors are about."""

    @abstractmethod
    def _report(self, hook: FeedAmpHook, key: tuple[str, ...], errors: Sequence[Mapping[str, Any]]) -> None:
        """Report errors of it."""


def grouped(
    value: object, about: Mapping[str, Check], *, more: Sequence[str] = ()
) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    """Return the errors as they are sent, by what they are about.

    :param value: What the task was given as ``errors``.
    :param about: The fields that name what an error is about, with their checks.
    :param more: Fields to send beside code and message.
    :raises InputError: Names the position and the field that is missing, wrong or unknown: under another name
        a line number would be lost.
    """
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    known = [*about, *CODE_AND_MESSAGE, *more]
    for position, entry in enumerate(given_objects("errors", value, {**about, **CODE_AND_MESSAGE})):
        if unknown := [str(name) for name in entry if name not in known]:
            raise InputError(
                f"errors[{position}].{unknown[0]} is no field of an error; there are {', '.join(known)}."
            )
        sent = {name: entry[name] for name in (*CODE_AND_MESSAGE, *more) if entry.get(name) is not None}
        groups.setdefault(tuple(str(entry[name]) for name in about), []).append(sent)
    return groups
