"""Errors that no retry can mend fail a task at once; the others are left to Airflow's retries."""

from __future__ import annotations

import inspect

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_feedamp import exceptions
from airflow_provider_feedamp.exceptions import BadRequestError, FeedAmpError, InputError, ServerError
from airflow_provider_feedamp.hooks.errors import as_task_error, task_errors

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


def test_the_plain_error_is_not_shown_as_a_second_one() -> None:
    assert raised(InputError("no")).__suppress_context__


def test_other_exceptions_pass_untouched() -> None:
    error = KeyError("not ours")

    with pytest.raises(KeyError) as caught, task_errors():
        raise error

    assert caught.value is error
