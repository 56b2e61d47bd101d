"""What tasks share: how parameters are read, the account, the errors, and one thing done to each of many."""

from __future__ import annotations

import json
import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_feedamp.assets import SCHEME
from airflow_provider_feedamp.exceptions import (
    BadRequestError,
    InputError,
    NotFoundError,
    RefundsNotProcessedError,
    StoppedError,
    TooManyFailuresError,
    counted,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook


log = logging.getLogger(__name__)

#: How many failures the log has, and how many an error's message names.
_LOGGED = 20
_NAMED = 10

#: Returns why a value cannot be used, or nothing: "".
Check = Callable[[object], str]


def nothing(value: object) -> bool:
    """Say whether a value is None, also as a template renders it."""
    return value is None or value == "None"


# Each of the readers below takes the parameter's name, for the error, and what the task was given.


def given_list(name: str, value: object) -> list[Any]:
    """Return a list, also the output of mapped tasks, or the text of a JSON array.

    :raises InputError: It is something else.
    """
    if isinstance(value, str):
        try:
            # A price of 1.10 stays what it is; through a float, one with many digits would not.
            value = json.loads(value, parse_float=Decimal)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, list):
            return value
        raise InputError(
            f"{name} is a text that is not a JSON array. A template that renders to Python's notation or to "
            f'nothing does that: pass the task\'s output itself ({name}=task.output), or add "| tojson".'
        )
    if isinstance(value, (Mapping, bytes)) or not isinstance(value, Iterable):
        kind = "None: did the task before return nothing?" if value is None else f"{type(value).__name__}."
        raise InputError(f"{name} must be a list, not {kind}")
    return list(value)


def given_texts(name: str, value: object) -> list[str]:
    """Return a list of texts; see :func:`given_list`.

    :raises InputError: Names the first entry that is blank or no text.
    """
    texts = given_list(name, value)
    for position, entry in enumerate(texts):
        if wrong := text(entry):
            raise InputError(f"{name}[{position}] {wrong}.")
    return texts


def given_objects(name: str, value: object, fields: Mapping[str, Check]) -> list[Mapping[str, Any]]:
    """Return a list of objects; see :func:`given_list`.

    :param fields: The fields that are needed, with their checks.
    :raises InputError: Names the position, and the field that is missing or wrong; never its value.
    """
    objects = given_list(name, value)
    for position, entry in enumerate(objects):
        if not isinstance(entry, Mapping):
            raise InputError(f"{name}[{position}] must be an object with {', '.join(fields)}.")
        for key, check in fields.items():
            if wrong := check(entry.get(key)):
                raise InputError(f"{name}[{position}].{key} {wrong}.")
    return objects


def given_filters(task: object, lists: Iterable[str], instants: Iterable[str]) -> dict[str, Any]:
    """Return the filters of a list call by their names; None for one that was not given.

    :param task: Has the filters as attributes.
    :param lists: The names of those that are lists of texts; ``instants`` are the others.
    :raises InputError: One of them cannot be read.
    """
    given = {name: getattr(task, name) for name in lists}
    texts = {name: None if nothing(value) else given_texts(name, value) for name, value in given.items()}
    return texts | {name: given_instant(name, getattr(task, name)) for name in instants}


def given_instant(name: str, value: object) -> datetime | None:
    """Return an instant with its time zone, also from ISO 8601; None if none was given.

    :raises InputError: It cannot be read, or has no time zone: FeedAMP would take it for New York's.
    """
    if nothing(value):
        return None
    try:
        instant = value if isinstance(value, datetime) else datetime.fromisoformat(str(value).strip())
        if instant.utcoffset() is not None:
            return instant
    except ValueError:
        pass
    _refuse(name, "a datetime with a time zone, or one in ISO 8601, such as 2026-11-01T00:00:00Z", value)


def text(value: object) -> str:
    """Check a number of the marketplace's, a code or a message."""
    return "" if isinstance(value, str) and value.strip() else "must be text that is not blank"


def refund_id(value: object) -> str:
    """Check a refund's id: FeedAMP gives a number, a template may make a text of it."""
    digits = str(value) if type(value) is int else value
    fine = isinstance(digits, str) and digits.isascii() and digits.isdigit()
    return "" if fine else "must be a whole number or its digits"


def flag(name: str, value: object) -> bool:
    """Return True or False, also from their text.

    :raises InputError: It is neither.
    """
    word = str(value).strip().lower()
    if word in ("true", "false"):
        return word == "true"
    _refuse(name, "True or False", value)


def whole_number(name: str, value: object, *, least: int, most: int | None = None) -> int:
    """Return a whole number, also from its digits.

    :raises InputError: It is not a number, or is out of bounds.
    """
    number = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
    if type(number) is int and number >= least and (most is None or number <= most):
        return number
    _refuse(name, f"a whole number from {least}" + (f" to {most}" if most is not None else ""), value)


def limit(name: str, value: object) -> int | None:
    """Return how many of something may be, or None for any number.

    :raises InputError: It is neither.
    """
    if nothing(value):
        return None
    try:
        return whole_number(name, value, least=0)
    except ValueError:
        _refuse(name, "a whole number from 0 or None", value)


def rate(name: str, value: object) -> float | None:
    """Return a number above 0, or None (an empty text means that, too).

    :raises InputError: It is neither.
    """
    if nothing(value) or value == "":
        return None
    number = _number(value)
    if 0 < number < math.inf:
        return number
    _refuse(name, "a number above 0 or None", value)


def duration(name: str, value: object) -> timedelta:
    """Return a timedelta, also from seconds.

    :raises InputError: It is none, or below 0.
    """
    try:
        length = value if isinstance(value, timedelta) else timedelta(seconds=_number(value))
        if length >= timedelta(0):
            return length
    except (ValueError, OverflowError):
        pass
    raise InputError(f"{name} is {value!r}: give a timedelta, or seconds of 0 or more.")


def _number(value: object) -> float:
    """Return a number, also from its text; not a number for anything else."""
    try:
        return math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _refuse(name: str, wanted: str, value: object) -> NoReturn:
    raise InputError(f"{name} must be {wanted}, not {value!r}.")


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


def outlet_events(task: Any, context: Mapping[str, Any]) -> list[Any]:
    """Return the events of a task's outlets whose scheme is ``feedamp``, for the task to add to.

    Outlets of other schemes are left alone, and one that Airflow does not find fails no task.
    """
    found = []
    for outlet in task.outlets if context.get("outlet_events") is not None else ():
        # An asset, or a reference to one by its URI; an alias has none.
        if not str(getattr(outlet, "uri", "")).startswith(f"{SCHEME}://"):
            continue
        try:
            found.append(context["outlet_events"][outlet])
        except Exception as error:  # noqa: BLE001 - the work counts, with or without a word about it
            log.warning("Nothing is added to the event of the outlet %s: %s", outlet.uri, error)
    return found


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
                    raise StoppedError(  # noqa: TRY301 - the log has the account of this, too
                        f"The task was told to stop after {done} of {counted(len(names), self.noun)} "
                        f"({self}). Not begun: {_first(names[done:], ', ', ' and ')}. Run it again for those."
                    )
                try:
                    self._add(name, act(item))
                except InputError as error:
                    self._add(name, Failed(str(error)))
                except (BadRequestError, NotFoundError) as error:
                    if not error.is_about_one:
                        raise
                    # Without FeedAMP's own words: those may quote a person.
                    said = "does not know it" if isinstance(error, NotFoundError) else "refused it"
                    codes = ", ".join([f"HTTP {error.status}", *error.codes])
                    self._add(name, Failed(f"FeedAMP {said} ({codes})"))
        except BaseException:
            log.warning(
                "Stopped before the end of the %s; until then: %s", counted(len(items), self.noun), self
            )
            raise

    def check(self, max_failures: int | None) -> None:
        """Fail if more failed than are allowed.

        :param max_failures: None for any number.
        :raises TooManyFailuresError: More failed, and a retry would not help.
        :raises RefundsNotProcessedError: More failed, and a retry may help.
        """
        if max_failures is None or len(self.failed) <= max_failures:
            return
        named = _first([f"{name}: {reason}" for name, reason in self.failed.items()], "; ", "; and ")
        kind = RefundsNotProcessedError if self.retryable else TooManyFailuresError
        count = f"{counted(len(self.failed), self.noun)} failed"
        raise kind(f"{count}, and max_failures is {max_failures} ({self}). {named}")

    def result(self) -> Any:
        """Return what the task returns: the account, or what was read if that was the task."""
        account = {**self.counts, "skipped": self.skipped, "failed": self.failed}
        return self.found if "read" in self.counts else account

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


def _first(names: Sequence[str], between: str, last: str) -> str:
    more = f"{last}{len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return between.join(names[:_NAMED]) + more


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
        """Return the items, each under the name that it has in the account."""

    @abstractmethod
    def _process_one(self, hook: FeedAmpHook, item: Any) -> Outcome:
        """Do the task's work for one item, and return what became of it."""

    def _perform(self, context: Context) -> Any:
        from airflow_provider_feedamp.bulk.threads import Stop, run_apart

        max_failures = limit("max_failures", self.max_failures)
        hook = self._hook()
        items = self._load_items(hook)
        account = Account(self.noun, dict.fromkeys(self.outcomes, 0))
        if not items:
            log.info("There are no %s: nothing to do", self.noun)
            return account.result()
        whose = (hook.seller, self.feedamp_conn_id)
        log.info("%s of seller %r (connection %s)", counted(len(items), self.noun), *whose)
        stop = Stop()
        process_one = partial(self._process_one, hook)
        # In a thread of its own: a signal raises in the main thread, and cuts no item. Airflow 2.11 and
        # execution_timeout raise, and the one under way has some seconds then. After on_kill alone it has
        # all the time that the process has.
        run_apart(lambda: account.process(items, process_one, lambda: self._killed or stop.requested), stop)
        log.info("Done with %s: %s", counted(len(items), self.noun), account)
        account.check(max_failures)
        return account.result()


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
    #: The client's method that reads what the errors are about.
    read_with: ClassVar[str] = "get"

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
                wrong = f"errors[{position}].{unknown[0]}"
                raise InputError(f"{wrong} is no field of an error; there are {', '.join(known)}.")
            key = tuple(str(entry[name]) for name in self.key_fields)
            names = [name for name in known if name not in self.key_fields and entry.get(name) is not None]
            groups.setdefault(key, (key, []))[1].append({name: entry[name] for name in names})
        return groups

    def _process_one(self, hook: FeedAmpHook, item: Any) -> Outcome:
        from airflow_provider_feedamp.api.client import not_held

        key, errors = item
        api = getattr(hook.client, self.noun)
        held = getattr(api, self.read_with)(*key)
        if self.final_status is not None and held.get("status") == self.final_status:
            return Skipped(f"it is {self.final_status} already")
        if not (missing := not_held(errors, held.get("errors"))):
            return "unchanged"
        api.report_errors(*key, missing)
        return "reported"
