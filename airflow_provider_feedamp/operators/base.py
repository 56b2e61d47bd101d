"""What operators share: the account that they act on, their errors, and one thing done to each of many."""

from __future__ import annotations

import logging
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_feedamp.exceptions import (
    BadRequestError,
    InputError,
    NotFoundError,
    RefundsNotProcessedError,
    StoppedError,
    TooManyFailuresError,
)
from airflow_provider_feedamp.operators.parameters import Check, given_objects, given_texts, limit, text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

log = logging.getLogger(__name__)

#: How many failures the log has, and how many an error's message names.
_LOGGED = 20
_NAMED = 10


class FeedAmpOperator(BaseOperator):
    """Base of all operators: acts for one seller, and fails for good where no retry can help.

    :param feedamp_conn_id: The FeedAMP connection (templated). Default ``feedamp_default``.
    :param seller: Your name for the seller whose account it is (templated). Default: the connection's extra
        ``seller``. Maps: ``.partial(task_id=...).expand(seller=[...])``.
    """

    template_fields: Sequence[str] = ("feedamp_conn_id", "seller")
    ui_color = "#d7e8f7"

    def __init__(
        self, *, feedamp_conn_id: str = "feedamp_default", seller: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.feedamp_conn_id = feedamp_conn_id
        self.seller = seller

    def execute(self, context: Context) -> Any:
        """Do the work; an error that no retry can mend is raised as an ``AirflowFailException`` too."""
        from airflow_provider_feedamp.hooks.feedamp import task_errors

        with task_errors():
            return self._perform(context)

    @abstractmethod
    def _perform(self, context: Context) -> Any:
        """Do the work, and return what the task returns."""

    def _hook(self, **options: Any) -> FeedAmpHook:
        from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

        return FeedAmpHook(self.feedamp_conn_id, seller=self.seller, **options)


@dataclass(frozen=True, slots=True)
class Skipped:
    """It was left as it is, for a reason that is no fault."""

    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """It could not be done, for a reason that somebody should see; whether another try may help."""

    reason: str
    retryable: bool = False


#: What became of one: a word of success, or the object that was read of it, or why it was not done.
Outcome = str | dict[str, Any] | Skipped | Failed


@dataclass(slots=True)
class Account:
    """What became of each.

    :param noun: What they are, such as ``orders``.
    :param counts: How many there are for each word of success.
    """

    noun: str
    counts: dict[str, int]
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    retryable: bool = False
    found: list[Any] = field(default_factory=list)

    def process(
        self,
        items: Mapping[Any, Any],
        act: Callable[[Any], Outcome],
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Do one thing to each, in their order.

        :param items: By what each is called: an order's number, or the numbers that name a refund or return.
        :param act: Does it to one.
        :param stopped: Says whether to stop; asked before each. Default: never.
        :raises StoppedError: Names those that were not begun.
        :raises FeedAmpError: What is not about one of them (token, network, 429, 5xx) ends it; the log has
            the account until then.
        """
        names = ["/".join(map(str, key)) if isinstance(key, tuple) else str(key) for key in items]
        try:
            for done, (name, item) in enumerate(zip(names, items.values(), strict=True)):
                if stopped():
                    self._stop(done, names)
                self._add(name, _tried(act, item))
        except BaseException:
            log.warning("Stopped before the end of the %d %s; until then: %s", len(items), self.noun, self)
            raise

    def check(self, max_failures: int | None) -> None:
        """Fail if more failed than are allowed.

        :param max_failures: None for any number.
        """
        if max_failures is None or len(self.failed) <= max_failures:
            return
        named = "; ".join(f"{name}: {reason}" for name, reason in list(self.failed.items())[:_NAMED])
        more = f"; and {len(self.failed) - _NAMED} more" if len(self.failed) > _NAMED else ""
        kind = RefundsNotProcessedError if self.retryable else TooManyFailuresError
        count = f"{len(self.failed)} {self.noun} failed"
        raise kind(f"{count}, and max_failures is {max_failures} ({self}). {named}{more}")

    def result(self) -> Any:
        """Return what the task returns: the account, or what was read if that was the task."""
        if "read" in self.counts:
            return self.found
        return {**self.counts, "skipped": self.skipped, "failed": self.failed}

    def __str__(self) -> str:
        counts = self.counts | {"skipped": len(self.skipped), "failed": len(self.failed)}
        return ", ".join(f"{word} {count}" for word, count in counts.items())

    def _add(self, name: str, outcome: Outcome) -> None:
        if isinstance(outcome, dict):
            self.found.append(outcome)
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

    def _stop(self, done: int, names: Sequence[str]) -> NoReturn:
        left = names[done:]
        more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
        raise StoppedError(
            f"The task was told to stop after {done} of {len(names)} {self.noun} ({self}). "
            f"Not begun: {', '.join(left[:_NAMED])}{more}. Run it again for those."
        )


def _tried(act: Callable[[Any], Outcome], item: Any) -> Outcome:
    try:
        return act(item)
    except InputError as error:
        return Failed(str(error))
    except (BadRequestError, NotFoundError) as error:
        if not error.is_about_one:
            raise
        # Without FeedAMP's own words: those may quote a person.
        said = "does not know it" if isinstance(error, NotFoundError) else "refused it"
        return Failed(f"FeedAMP {said} ({', '.join([f'HTTP {error.status}', *error.codes])})")


class ForEachOperator(FeedAmpOperator):
    """Base of the operators that do one thing to each of many; see also :class:`FeedAmpOperator`.

    :param max_failures: The most failures with which the task succeeds (templated); None for any number.
        Default 0. The others are done in any case.
    """

    template_fields: Sequence[str] = ("max_failures", *FeedAmpOperator.template_fields)
    #: What they are: ``orders``, ``refunds`` or ``returns``, as the client calls them too.
    noun: ClassVar[str]
    #: The words of success, in the order in which the task returns them; ``read`` alone: it returns that.
    outcomes: ClassVar[Sequence[str]]

    #: Whether Airflow has asked the task to stop.
    _killed = False

    def __init__(
        self,
        *,
        max_failures: int | str | None = 0,
        feedamp_conn_id: str = "feedamp_default",
        seller: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(feedamp_conn_id=feedamp_conn_id, seller=seller, **kwargs)
        self.max_failures = max_failures

    def on_kill(self) -> None:
        """Stop before the next one: Airflow 3 lets the task go on until it kills the process."""
        self._killed = True

    @abstractmethod
    def _load_items(self, hook: FeedAmpHook) -> Mapping[Any, Any]:
        """Return the many by what each is called."""

    @abstractmethod
    def _process_one(self, hook: FeedAmpHook, item: Any) -> Outcome:
        """Do it to one."""

    def _perform(self, context: Context) -> Any:
        max_failures = limit("max_failures", self.max_failures)
        hook = self._hook()
        items = self._load_items(hook)
        account = Account(self.noun, dict.fromkeys(self.outcomes, 0))
        if not items:
            log.info("There are no %s: nothing to do", self.noun)
            return account.result()
        log.info(
            "%d %s of seller %r (connection %s)", len(items), self.noun, hook.seller, self.feedamp_conn_id
        )
        self._process(hook, items, account)
        log.info("All %d %s: %s", len(items), self.noun, account)
        account.check(max_failures)
        return account.result()

    def _process(self, hook: FeedAmpHook, items: Mapping[Any, Any], account: Account) -> None:
        """Do it to each in a thread of its own: what a signal raises in the main thread cuts none in two."""
        from airflow_provider_feedamp.bulk.threads import Stop, run_apart

        stop = Stop()
        # Airflow 2.11 and execution_timeout raise, and the one under way has some seconds then. After
        # on_kill alone it has all the time that the process has.
        run_apart(
            lambda: account.process(
                items, lambda item: self._process_one(hook, item), lambda: self._killed or stop.requested
            ),
            stop,
        )


class ForEachOrderOperator(ForEachOperator):
    """Base of the operators that are given order numbers; see also :class:`ForEachOperator`.

    :param mp_order_numbers: The order numbers as a list, the output of another task, or the text of a JSON
        array (templated). None at all is fine.
    """

    template_fields: Sequence[str] = ("mp_order_numbers", *ForEachOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = {"mp_order_numbers": "json"}
    noun = "orders"

    def __init__(
        self,
        *,
        mp_order_numbers: Sequence[str] | XComArg | str,
        max_failures: int | str | None = 0,
        feedamp_conn_id: str = "feedamp_default",
        seller: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(max_failures=max_failures, feedamp_conn_id=feedamp_conn_id, seller=seller, **kwargs)
        self.mp_order_numbers = mp_order_numbers

    def _load_items(self, hook: FeedAmpHook) -> Mapping[Any, Any]:
        return {number: number for number in given_texts("mp_order_numbers", self.mp_order_numbers)}


class ReportErrorsOperator(ForEachOperator):
    """Base of the operators that report errors: one call for all that is new about one thing.

    See also :class:`ForEachOperator`.

    :param errors: The errors as a list, the output of another task, or the text of a JSON array (templated).
        None at all is fine.
    """

    template_fields: Sequence[str] = ("errors", *ForEachOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = {"errors": "json"}
    outcomes = ("reported", "unchanged")
    #: The fields that name what an error is about, with their checks.
    key_fields: ClassVar[Mapping[str, Check]]
    #: Fields to send beside code and message.
    optional_fields: ClassVar[Sequence[str]] = ()
    #: The status in which no error is reported any more; None if there is none.
    final_status: ClassVar[str | None] = None

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

    def _load_items(self, hook: FeedAmpHook) -> Mapping[Any, Any]:
        """Return the errors as they are sent, by what they are about."""
        needed = {**self.key_fields, "code": text, "message": text}
        known = [*needed, *self.optional_fields]
        groups: dict[Any, Any] = {}
        for position, entry in enumerate(given_objects("errors", self.errors, needed)):
            # Under another name a line number would be lost.
            if unknown := [str(name) for name in entry if name not in known]:
                raise InputError(
                    f"errors[{position}].{unknown[0]} is no field of an error; there are {', '.join(known)}."
                )
            key = tuple(str(entry[name]) for name in self.key_fields)
            names = [name for name in known if name not in self.key_fields and entry.get(name) is not None]
            groups.setdefault(key, (key, []))[1].append({name: entry[name] for name in names})
        return groups

    def _process_one(self, hook: FeedAmpHook, item: Any) -> Outcome:
        from airflow_provider_feedamp.api.client import not_held

        key, errors = item
        held = self._fetch(hook, key)
        if self.final_status is not None and held.get("status") == self.final_status:
            return Skipped(f"it is {self.final_status} already")
        missing = not_held(errors, held.get("errors"))
        if not missing:
            return "unchanged"
        getattr(hook.client, self.noun).report_errors(*key, missing)
        return "reported"

    def _fetch(self, hook: FeedAmpHook, key: Sequence[str]) -> Mapping[str, Any]:
        """Read what the errors are about."""
        held: Mapping[str, Any] = getattr(hook.client, self.noun).get(*key)
        return held
