"""Errors that no retry can mend fail a task at once; the others are left to Airflow's retries."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import traceback
from email.message import Message

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

import airflow_provider_feedamp as package
from airflow_provider_feedamp import exceptions
from airflow_provider_feedamp.exceptions import BadRequestError, FeedAmpError, InputError, ServerError
from airflow_provider_feedamp.hooks.feedamp import as_task_error, task_errors
from tests.airflow_parts import AIRFLOW_3

EVERY_ERROR = [
    kind
    for _, kind in inspect.getmembers(exceptions, inspect.isclass)
    if issubclass(kind, FeedAmpError) and kind.__module__ == exceptions.__name__
]
FINAL = [kind for kind in EVERY_ERROR if not kind.retryable]
RETRYABLE = [kind for kind in EVERY_ERROR if kind.retryable]


def raised(error: FeedAmpError, cause: Exception | None = None) -> FeedAmpError:
    with pytest.raises(FeedAmpError) as caught, task_errors():
        raise error from cause
    return caught.value


@pytest.mark.parametrize("kind", EVERY_ERROR)
def test_a_note_names_the_errors_place_in_the_documentation_once(kind: type[FeedAmpError]) -> None:
    with pytest.raises(kind) as caught, task_errors(), task_errors():
        raise kind("no")

    assert caught.value.__notes__ == [
        f"What it means and what to do: docs/errors.md#{kind.__name__.lower()}",
    ]


def test_a_package_with_an_address_names_its_page(monkeypatch: pytest.MonkeyPatch) -> None:
    described = Message()
    for name, address in (("Source", "https://example.com/s"), ("Documentation", "https://example.com/d/")):
        described["Project-URL"] = f"{name}, {address}"
    monkeypatch.setattr("importlib.metadata.metadata", lambda name: described)

    assert exceptions.page_of(InputError("no")) == "https://example.com/d/errors.html#inputerror"


def test_both_kinds_exist() -> None:
    assert len(FINAL) > 5
    assert len(RETRYABLE) > 5


@pytest.mark.parametrize("kind", FINAL)
def test_a_final_error_is_its_own_class_and_one_that_airflow_does_not_retry(kind: type[FeedAmpError]) -> None:
    error = raised(
        kind("no", status=400, codes=["X"], request_id="r-1", retry_after=2.0, server_message="Jane")
    )

    assert isinstance(error, kind)
    assert isinstance(error, AirflowFailException)
    assert type(error).__name__ == kind.__name__
    assert (str(error), error.status, error.codes) == ("no", 400, ("X",))
    assert (error.request_id, error.retry_after, error.server_message) == ("r-1", 2.0, "Jane")


@pytest.mark.parametrize("kind", RETRYABLE)
def test_a_retryable_error_stays_the_very_same(kind: type[FeedAmpError]) -> None:
    error = kind("later", retry_after=5.0)

    assert raised(error) is error
    assert not isinstance(error, AirflowFailException)


def test_a_class_of_the_caller_is_kept_too() -> None:
    class TooOddError(InputError):
        """An error of somebody else's module."""

    error = raised(TooOddError("odd"))

    assert isinstance(error, TooOddError)
    assert isinstance(error, ValueError)
    assert isinstance(error, AirflowFailException)


def test_an_error_that_is_final_already_is_not_made_anew() -> None:
    once = as_task_error(InputError("no"))

    assert as_task_error(once) is once


@pytest.mark.parametrize("kind", [BadRequestError, ServerError])
def test_the_cause_and_the_place_are_kept(kind: type[FeedAmpError]) -> None:
    cause = KeyError("why")

    error = raised(kind("no"), cause)

    assert error.__cause__ is cause
    assert error.__traceback__
    assert "raised" in {frame.function for frame in inspect.getinnerframes(error.__traceback__)}


@pytest.mark.parametrize("kind", [BadRequestError, ServerError])
@pytest.mark.parametrize("told", [True, False], ids=["from", "while handling"])
def test_of_a_chain_the_beginning_is_shown_with_its_place(kind: type[FeedAmpError], told: bool) -> None:
    def refuse() -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    def fail() -> None:
        try:
            try:
                try:
                    refuse()
                except OSError as first:
                    raise ValueError("no connection") from first
            except ValueError:
                raise KeyError("retries are used up")  # noqa: B904 - as urllib3 does
        except KeyError as last:
            if told:
                raise kind("No answer.") from last
            raise kind("No answer.")  # noqa: B904 - as somebody may forget

    with pytest.raises(kind) as caught, task_errors(), task_errors():
        fail()

    shown = "".join(traceback.format_exception(caught.value))
    assert shown.count("Traceback (most recent call last)") == 2
    assert "in refuse\n" in shown
    assert "ConnectionRefusedError: [Errno 111] Connection refused" in shown
    assert "retries are used up" not in shown
    assert "No answer.\nWhat it means and what to do: " in shown


def test_every_error_that_a_person_can_see_is_in_exceptions() -> None:
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        # The page of sellers is imported by the API servers of Airflow 3 alone.
        if not module.name.endswith("__main__") and (AIRFLOW_3 or ".sellers_page" not in module.name):
            importlib.import_module(module.name)
    kinds = [FeedAmpError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    elsewhere = {
        kind.__name__
        for kind in kinds
        if kind.__module__.startswith(package.__name__) and kind.__module__ != exceptions.__name__
    }

    # The one between the token endpoint and the spend, which makes of it what the seller has to be told.
    assert elsewhere == {"GrantRefusedError"}


def test_the_plain_error_is_not_shown_as_a_second_one() -> None:
    assert raised(InputError("no")).__suppress_context__


def test_other_exceptions_pass_untouched() -> None:
    error = KeyError("not ours")

    with pytest.raises(KeyError) as caught, task_errors():
        raise error

    assert caught.value is error
