"""The one event of a trigger: how it is written in the triggerer, and read by the task that is resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_feedamp import exceptions
from airflow_provider_feedamp.exceptions import FeedAmpError, TriggerEventError

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIELDS = ("status", "codes", "request_id", "retry_after")


def succeeded(found: list[Any]) -> dict[str, Any]:
    """Return the event of a condition that is met."""
    return {"status": "success", "message": f"{len(found)} found", "found": found}


def timed_out(deadline: str) -> dict[str, Any]:
    """Return the event of a deadline that has passed."""
    return {"status": "timeout", "message": f"What is waited for has not happened until {deadline}."}


def failed(error: FeedAmpError) -> dict[str, Any]:
    """Return the event of an error, with all that its class needs to be raised again."""
    kind = next(each.__name__ for each in type(error).__mro__ if each.__module__ == exceptions.__name__)
    data = {name: getattr(error, name) for name in _FIELDS}
    return {"status": "error", "message": str(error), "error": kind, "data": data | {"codes": [*error.codes]}}


def result_of(event: Mapping[str, Any] | None) -> list[Any]:
    """Return what a trigger has found.

    :param event: The event, as Airflow hands it over.
    :raises AirflowSensorTimeout: The time was up.
    :raises FeedAmpError: What went wrong in the trigger, by the same class as there.
    """
    from airflow.providers.common.compat.sdk import AirflowSensorTimeout

    told = dict(event or {})
    message = str(told.get("message"))
    match told.get("status"):
        case "success" if isinstance(told.get("found"), list):
            return list(told["found"])
        case "timeout":
            raise AirflowSensorTimeout(message)
        case "error":
            raise _error(str(told.get("error")), message, told.get("data"))
    raise TriggerEventError(
        f"The trigger resumed this task with {'nothing' if event is None else 'something unknown'}: "
        "is the same version of this provider installed in the triggerer and the workers?"
    )


def _error(name: str, message: str, data: object) -> FeedAmpError:
    kind = getattr(exceptions, name, None)
    if not (isinstance(kind, type) and issubclass(kind, FeedAmpError)):
        kind = TriggerEventError
    known = {each: data[each] for each in _FIELDS if each in data} if isinstance(data, dict) else {}
    return kind(message, **known)
