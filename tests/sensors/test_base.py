"""What all sensors share: modes, time-outs, skips, and how a resumed task reads the trigger's event."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)

from airflow_provider_feedamp import exceptions
from airflow_provider_feedamp.exceptions import FeedAmpError, NotFoundError, ServerError, TriggerEventError
from airflow_provider_feedamp.sensors.orders import FeedAmpFulfillmentSensor
from airflow_provider_feedamp.sensors.refunds import FeedAmpRefundsSensor
from airflow_provider_feedamp.sensors.returns import FeedAmpReturnsSensor
from airflow_provider_feedamp.triggers.polling import MOST_FAILURES
from tests.operators.support import parameters_of, to_be_retried, without_retries
from tests.sensors.waiting import both_modes, deferred, event_of

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox

#: Each sensor with the list that it takes.
SENSORS: list[tuple[type[Any], str]] = [
    (FeedAmpFulfillmentSensor, "mp_order_numbers"),
    (FeedAmpRefundsSensor, "mp_order_numbers"),
    (FeedAmpReturnsSensor, "returns"),
]


def sensor(**arguments: Any) -> FeedAmpFulfillmentSensor:
    given = {"poke_interval": 0, "mp_order_numbers": ["A"], "deferrable": True, **arguments}
    return FeedAmpFulfillmentSensor(task_id="wait", **given)


def resume(waiting: FeedAmpFulfillmentSensor, event: Any) -> Any:
    return waiting.resume_execution("execute_complete", {"event": event}, {})


@pytest.mark.parametrize(("kind", "listed"), SENSORS)
def test_every_value_of_the_user_is_a_template_field_and_whether_to_defer_is_airflows_setting(
    kind: type[Any], listed: str
) -> None:
    parameters = parameters_of(kind)

    assert set(kind.template_fields) == set(parameters) - {"deferrable"}
    assert set(kind.template_fields) >= {listed, "feedamp_conn_id", "seller"}
    assert kind.template_fields_renderers == {listed: "json"}
    assert parameters["deferrable"].default is False


@both_modes
@pytest.mark.parametrize(("kind", "listed"), SENSORS)
def test_an_empty_list_is_done_at_once_and_nobody_is_asked(
    feedamp: RunningSandbox, kind: type[Any], listed: str, deferrable: bool
) -> None:
    before = feedamp.control.counters()["calls"]

    assert kind(task_id="wait", **{listed: []}, deferrable=deferrable).execute({}) == []
    assert feedamp.control.counters()["calls"] == before


def test_the_deadline_goes_to_the_trigger_as_an_instant(feedamp: RunningSandbox) -> None:
    before = datetime.now(UTC)

    with pytest.raises(TaskDeferred) as caught:
        sensor(timeout=3600).execute({})

    deadline = datetime.fromisoformat(caught.value.trigger.deadline)
    assert timedelta(0) <= deadline - before - timedelta(hours=1) < timedelta(minutes=1)
    assert caught.value.timeout == timedelta(hours=1, minutes=10)


def test_what_waits_is_told_to_the_trigger_whole(feedamp: RunningSandbox) -> None:
    trigger = deferred(sensor(seller="hooli", poke_interval=7, until="started"))

    path, arguments = trigger.serialize()
    assert path == "airflow_provider_feedamp.triggers.polling.FeedAmpPollingTrigger"
    assert arguments == {
        "condition": "FulfilledOrders",
        "arguments": {"mp_order_numbers": ["A"], "until": "started"},
        "deadline": trigger.deadline,
        "feedamp_conn_id": "feedamp_default",
        "seller": "hooli",
        "poll_interval": 7,
    }


@pytest.mark.parametrize(("soft_fail", "kind"), [(False, AirflowSensorTimeout), (True, AirflowSkipException)])
def test_time_is_up_in_the_triggerer_as_in_the_task_and_soft_fail_skips(
    feedamp: RunningSandbox, soft_fail: bool, kind: type[Exception]
) -> None:
    waiting = sensor(timeout=0.01, soft_fail=soft_fail)

    with pytest.raises(kind):
        resume(waiting, event_of(deferred(waiting)))
    with pytest.raises(kind):
        sensor(timeout=0.01, soft_fail=soft_fail, deferrable=False, poke_interval=0.02).execute({})


@pytest.mark.parametrize(
    ("timeout", "execution_timeout", "ran", "waits"),
    [
        (timedelta(hours=2), timedelta(hours=1), timedelta(0), timedelta(hours=1)),
        (timedelta(hours=2), timedelta(hours=1), timedelta(minutes=20), timedelta(minutes=40)),
        (timedelta(hours=2), timedelta(hours=1), timedelta(hours=3), timedelta(0)),
        (timedelta(hours=1), timedelta(hours=2), timedelta(minutes=20), timedelta(hours=1)),
    ],
)
def test_the_lesser_of_timeout_and_execution_timeout_is_the_deadline(
    feedamp: RunningSandbox,
    timeout: timedelta,
    execution_timeout: timedelta,
    ran: timedelta,
    waits: timedelta,
) -> None:
    context: Any = {"ti": SimpleNamespace(start_date=datetime.now(UTC) - ran)}
    before = datetime.now(UTC)

    with pytest.raises(TaskDeferred) as caught:
        sensor(timeout=timeout, execution_timeout=execution_timeout).execute(context)

    deadline = datetime.fromisoformat(caught.value.trigger.deadline)
    assert abs(deadline - before - waits) < timedelta(minutes=1)
    assert caught.value.timeout is not None
    assert abs(caught.value.timeout - waits - timedelta(minutes=10)) < timedelta(minutes=1)


def test_an_execution_timeout_that_is_over_while_deferred_is_raised_as_one(feedamp: RunningSandbox) -> None:
    waiting = sensor(timeout=3600, execution_timeout=timedelta(microseconds=1), soft_fail=True)

    with pytest.raises(AirflowTaskTimeout, match=r"execution_timeout is 0:00:00\.000001"):
        resume(waiting, event_of(deferred(waiting)))
    longer = sensor(timeout=0, execution_timeout=timedelta(hours=1))
    with pytest.raises(AirflowSensorTimeout):
        resume(longer, event_of(deferred(longer)))


def test_as_many_errors_in_a_row_as_the_trigger_bears_are_waited_out_in_a_worker(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_retries(monkeypatch)
    feedamp.control.ship("hooli", "A")
    feedamp.control.fault("http_error", on="get_order", status=503, times=MOST_FAILURES - 1)

    assert sensor(deferrable=False).execute({}) == ["A"]

    feedamp.control.fault("http_error", on="get_order", status=503, times=MOST_FAILURES)
    with pytest.raises(ServerError):
        sensor(deferrable=False).execute({})
    assert sensor(deferrable=False).execute({}) == ["A"]


def test_only_errors_in_a_row_count(feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    without_retries(monkeypatch)
    waiting = sensor(deferrable=False)

    for _ in range(2):
        feedamp.control.fault("http_error", on="get_order", status=503, times=MOST_FAILURES - 1)
        for _ in range(MOST_FAILURES - 1):
            assert not waiting.poke({})
        assert not waiting.poke({})


def test_an_error_that_passes_does_not_keep_a_task_from_deferring(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_retries(monkeypatch)
    feedamp.control.ship("hooli", "A")
    feedamp.control.fault("http_error", on="get_order", status=503)
    waiting = sensor()

    assert resume(waiting, event_of(deferred(waiting))) == ["A"]


def test_an_error_in_a_look_that_is_rescheduled_is_left_to_airflows_retries(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_retries(monkeypatch)
    feedamp.control.fault("http_error", on="get_order", status=503)

    with pytest.raises(ServerError):
        sensor(deferrable=False, mode="reschedule").poke({})


def test_an_error_that_does_not_pass_is_raised_at_once(feedamp: RunningSandbox) -> None:
    with pytest.raises(NotFoundError):
        sensor(deferrable=False, mp_order_numbers=["X"]).poke({})


@pytest.mark.parametrize("deferrable", [False, True])
def test_what_no_retry_can_mend_is_skipped_with_soft_fail(feedamp: RunningSandbox, deferrable: bool) -> None:
    with pytest.raises(AirflowSkipException):
        sensor(mp_order_numbers=["X"], soft_fail=True, deferrable=deferrable).execute({})


@pytest.mark.parametrize(
    "event", [None, {}, {"status": "done"}, {"status": "success"}, {"status": "success", "found": "A"}]
)
def test_an_event_that_nobody_knows_is_a_failure_that_a_retry_can_mend(event: Any) -> None:
    with to_be_retried(TriggerEventError) as caught:
        resume(sensor(), event)

    assert caught.value.retryable


@pytest.mark.parametrize(
    "kind",
    [
        each
        for _, each in inspect.getmembers(exceptions, inspect.isclass)
        if issubclass(each, FeedAmpError) and each is not FeedAmpError
    ],
)
def test_an_error_of_the_trigger_is_the_same_error_in_the_task(kind: type[FeedAmpError]) -> None:
    from airflow_provider_feedamp.hooks.feedamp import as_task_error
    from airflow_provider_feedamp.triggers.polling import failed

    error = as_task_error(kind("no", status=418, codes=["X"], request_id="r", retry_after=2.0))

    with pytest.raises(kind, match="no") as caught:
        resume(sensor(), failed(error))

    assert isinstance(caught.value, AirflowFailException) is not kind.retryable
    assert (caught.value.status, caught.value.codes) == (418, ("X",))
    assert (caught.value.request_id, caught.value.retry_after) == ("r", 2.0)


@pytest.mark.parametrize("name", ["forget_variables", "traceback", "NoSuchError", "", None])
def test_an_error_that_is_none_of_ours_is_not_looked_up(name: Any) -> None:
    with pytest.raises(TriggerEventError):
        resume(sensor(), {"status": "error", "message": "m", "error": name, "data": {"codes": ["X"]}})


def test_an_error_that_may_pass_is_left_to_airflows_retries(feedamp: RunningSandbox) -> None:
    event = {"status": "error", "message": "m", "error": "ServerError", "data": None}

    with to_be_retried(ServerError):
        resume(sensor(soft_fail=True), event)


def test_making_a_sensor_reads_no_connection() -> None:
    assert sensor(feedamp_conn_id="no_such_connection").feedamp_conn_id == "no_such_connection"
