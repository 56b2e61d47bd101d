"""Lets a task fail at once where a retry cannot help."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from airflow_provider_feedamp.exceptions import FeedAmpError, forget_variables

if TYPE_CHECKING:
    from collections.abc import Iterator


def as_task_error(error: FeedAmpError) -> FeedAmpError:
    """Return the error as one that Airflow does not retry, if trying again cannot help.

    :param error: Any error of this provider.
    :return: The error itself if it is retryable; else one of its class, with the same data, that is an
        ``AirflowFailException`` as well, so that ``except`` clauses for either see it.
    """
    final = _final_class(type(error))  # type: ignore[arg-type]  # a class is hashable
    if error.retryable or type(error) is final:
        return error
    task_error = final(
        str(error),
        status=error.status,
        codes=error.codes,
        request_id=error.request_id,
        retry_after=error.retry_after,
        server_message=error.server_message,
    )
    task_error.__cause__ = error.__cause__
    return task_error.with_traceback(error.__traceback__)


@contextmanager
def task_errors() -> Iterator[None]:
    """Raise this provider's errors as :func:`as_task_error` returns them.

    Of the chain behind one, only its beginning is shown, with the place where it was raised: requests and
    urllib3 alone would add three tracebacks that say the same.
    """
    try:
        yield
    except FeedAmpError as error:
        forget_variables(error)
        error.__cause__ = _beginning(error)
        task_error = as_task_error(error)
        if task_error is error:
            raise
        raise task_error from error.__cause__


def _beginning(error: BaseException) -> BaseException | None:
    """Return what an error began with, None if it stands alone."""
    first = error
    while before := first.__cause__ or (None if first.__suppress_context__ else first.__context__):
        first = before
    if first is error:
        return None
    place = first.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return first.with_traceback(place)


@cache
def _final_class(kind: type[FeedAmpError]) -> type[FeedAmpError]:
    from airflow.providers.common.compat.sdk import AirflowFailException

    if issubclass(kind, AirflowFailException):
        return kind
    # api/ and tokens/ raise plain errors and know no Airflow; here each class gets its Airflow twin.
    namespace = {"__module__": kind.__module__, "__doc__": kind.__doc__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (kind, AirflowFailException), namespace)
