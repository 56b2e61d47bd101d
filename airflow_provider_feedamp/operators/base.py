"""Do one thing to each of many: one that FeedAMP refuses is accounted for, and the others go on."""

from __future__ import annotations

import logging
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_feedamp.exceptions import (
    ApiError,
    BadRequestError,
    FeedAmpError,
    InputError,
    NotFoundError,
    StoppedError,
    TooManyFailuresError,
)
from airflow_provider_feedamp.operators.parameters import Check, given_objects, text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook


log = logging.getLogger(__name__)

_LOGGED = 20
_NAMED = 10


@dataclass(frozen=True, slots=True)
class Skipped:
    """It was left as it is, for a reason that is no fault."""

    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """It could not be done, for a reason that somebody should see; whether another try may help."""

    reason: str
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What was read of it, which the task returns."""

    value: Any


Outcome = str | Skipped | Failed | Found


@dataclass(slots=True)
class Account:
    """What became of each.

    :param things: What they are, such as ``orders``.
    :param counts: How many there are for each word of success.
    """

    things: str
    counts: dict[str, int]
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    retryable: bool = False
    found: list[Any] = field(default_factory=list)

    def add(self, name: str, outcome: Outcome) -> None:
        """Take note of one: a word of success, or why not."""
        if isinstance(outcome, Found):
            self.found.append(outcome.value)
            outcome = "read"
        if isinstance(outcome, str):
            self.counts[outcome] += 1
            return
        skipped = isinstance(outcome, Skipped)
        kept = self.skipped if skipped else self.failed
        kept[name] = outcome.reason
        self.retryable |= isinstance(outcome, Failed) and outcome.retryable
        if len(kept) <= _LOGGED:
            level = logging.INFO if skipped else logging.WARNING
            log.log(level, "%s %s: %s", "Skipped" if skipped else "Failed", name, outcome.reason)

    def result(self) -> dict[str, Any]:
        """Return it as the task does."""
        return {**self.counts, "skipped": self.skipped, "failed": self.failed}

    def check(self, max_failures: int | None, kind: type[FeedAmpError] = TooManyFailuresError) -> None:
        """Fail if more failed than are allowed.

        :param max_failures: None for any number.
        :param kind: The error to raise.
        """
        if max_failures is None or len(self.failed) <= max_failures:
            return
        named = "; ".join(f"{name}: {reason}" for name, reason in list(self.failed.items())[:_NAMED])
        more = f"; and {len(self.failed) - _NAMED} more" if len(self.failed) > _NAMED else ""
        raise kind(
            f"{len(self.failed)} {self.things} failed, and max_failures is {max_failures} ({self}). "
            f"{named}{more}"
        )

    def __str__(self) -> str:
        counts = self.counts | {"skipped": len(self.skipped), "failed": len(self.failed)}
        return ", ".join(f"{word} {count}" for word, count in counts.items())


def try_each(
    things: str,
    words: Sequence[str],
    items: Mapping[Any, Any],
    act: Callable[[Any], Outcome],
    stopped: Callable[[], bool] = lambda: False,
) -> Account:
    """Do one thing to each, in their order.

    :param things: What they are, such as ``orders``.
    :param words: What ``act`` may return beside reasons.
    :param items: By what each is called: an order's number, or the numbers that name a refund or a return.
    :param act: Does it to one.
    :param stopped: Says whether to stop; asked before each. Default: never.
    :raises StoppedError: Names those that were not begun.
    :raises FeedAmpError: What is not about one of them (token, network, 429, 5xx) ends it; the log has the
        account until then.
    """
    account = Account(things, dict.fromkeys(words, 0))
    try:
        for done, (key, item) in enumerate(items.items()):
            if stopped():
                _stop(account, done, list(items)[done:])
            account.add(shown(key), _tried(act, item))
    except BaseException:
        log.warning("Stopped before the end of the %d %s; until then: %s", len(items), things, account)
        raise
    return account


def _stop(account: Account, done: int, left: Sequence[Any]) -> NoReturn:
    named = ", ".join(map(shown, left[:_NAMED]))
    more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
    raise StoppedError(
        f"The task was told to stop after {done} of {done + len(left)} {account.things} ({account}). "
        f"Not begun: {named}{more}. Run it again for those."
    )


def shown(key: Any) -> str:
    """Return what an order, a refund or a return is called in a result."""
    return "/".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _tried(act: Callable[[Any], Outcome], item: Any) -> Outcome:
    try:
        return act(item)
    except InputError as error:
        return Failed(str(error))
    except (BadRequestError, NotFoundError) as error:
        if not error.is_about_one:
            raise
        return Failed(refusal(error))


def refusal(error: ApiError) -> str:
    """Return why FeedAMP refused something, without its own words: those may quote a person."""
    codes = ", ".join(error.codes)
    said = "does not know it" if isinstance(error, NotFoundError) else "refused it"
    return f"FeedAMP {said} (HTTP {error.status}{', ' + codes if codes else ''})"


class EachBase(BaseOperator):
    """Base of the operators that do one thing to each of many.

    :param max_failures: The most failures with which the task succeeds (templated); None for any number.
        Default 0. The others are done in any case.
    :param feedamp_conn_id: The FeedAMP connection (templated). Default ``feedamp_default``.
    :param seller: The seller whose account it is (templated). Default: the connection's.
    """

    ui_color = "#d7e8f7"

    #: What the many are.
    things: ClassVar[str]
    #: What can become of one, beside skipped and failed.
    words: ClassVar[Sequence[str]]

    #: Whether Airflow has told this task to stop.
    _killed = False

    def __init__(
        self,
        *,
        max_failures: int | str | None = 0,
        feedamp_conn_id: str = "feedamp_default",
        seller: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_failures = max_failures
        self.feedamp_conn_id = feedamp_conn_id
        self.seller = seller

    def execute(self, context: Context) -> Any:
        """Do it to each and return what became of them."""
        from airflow_provider_feedamp.hooks.errors import task_errors

        with task_errors():
            return self._told(self._account())

    def on_kill(self) -> None:
        """Tell the task to stop before the next one: Airflow 3 lets it go on until it kills the process."""
        self._killed = True

    @abstractmethod
    def _items(self, hook: FeedAmpHook) -> Mapping[Any, Any]:
        """Return the many by what each is called."""

    @abstractmethod
    def _one(self, hook: FeedAmpHook, item: Any) -> Outcome:
        """Do it to one."""

    def _account(self) -> Account:
        from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
        from airflow_provider_feedamp.operators.parameters import limit

        max_failures = limit("max_failures", self.max_failures)
        hook = FeedAmpHook(self.feedamp_conn_id, seller=self.seller)
        items = self._items(hook)
        if not items:
            log.info("There are no %s: nothing to do", self.things)
            return Account(self.things, dict.fromkeys(self.words, 0))
        log.info(
            "%d %s of seller %r (connection %s)", len(items), self.things, hook.seller, self.feedamp_conn_id
        )
        account = self._each(hook, items)
        log.info("All %d %s: %s", len(items), self.things, account)
        account.check(max_failures, self._error(account))
        return account

    def _each(self, hook: FeedAmpHook, items: Mapping[Any, Any]) -> Account:
        """Do it to each in a thread of its own: what a signal raises in the main thread cuts none in two."""
        from airflow_provider_feedamp.bulk.interrupt import Stop, run_apart

        stop = Stop()
        return run_apart(
            lambda: try_each(
                self.things,
                self.words,
                items,
                lambda item: self._one(hook, item),
                # Airflow 2.11 and execution_timeout raise, and the one under way has some seconds then. After
                # on_kill alone it has all the time that the process has.
                stopped=lambda: self._killed or stop.requested,
            ),
            stop,
        )

    def _told(self, account: Account) -> Any:
        """Return what the task returns."""
        return account.result()

    def _error(self, account: Account) -> type[FeedAmpError]:
        """Return the error to raise if more failed than are allowed."""
        return TooManyFailuresError


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
        from airflow_provider_feedamp.api.reporting import not_held

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
