"""Let a sensor wait in a test: in the task, or through a trigger as Airflow hands it over."""

from __future__ import annotations

import asyncio
import json
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_feedamp.sensors.base import FeedAmpPollingSensor
    from airflow_provider_feedamp.triggers.polling import FeedAmpPollingTrigger


def deferred(sensor: FeedAmpPollingSensor) -> FeedAmpPollingTrigger:
    """Run the task until it defers; return the trigger as the triggerer makes it out of JSON."""
    with pytest.raises(TaskDeferred) as caught:
        sensor.execute({})
    assert caught.value.method_name == "execute_complete"
    return again(caught.value.trigger)


def again(trigger: Any) -> FeedAmpPollingTrigger:
    path, arguments = trigger.serialize()
    module, _, name = path.rpartition(".")
    made: FeedAmpPollingTrigger = getattr(import_module(module), name)(**json.loads(json.dumps(arguments)))
    return made


def event_of(trigger: FeedAmpPollingTrigger) -> dict[str, Any]:
    """Return the payload of the only event."""

    async def events() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    [payload] = asyncio.run(events())
    told: dict[str, Any] = json.loads(json.dumps(payload))
    return told


def through_the_triggerer(sensor: FeedAmpPollingSensor, meanwhile: Callable[[], Any]) -> Any:
    """Defer, let something happen, and resume."""
    trigger = deferred(sensor)
    meanwhile()
    return sensor.resume_execution("execute_complete", {"event": event_of(trigger)}, {})


def in_the_task(sensor: FeedAmpPollingSensor, meanwhile: Callable[[], Any]) -> Any:
    """Ask in vain, let something happen, and ask again."""
    assert not sensor.poke({})
    meanwhile()
    return sensor.execute({})


MODES = {False: in_the_task, True: through_the_triggerer}
both_modes = pytest.mark.parametrize("deferrable", [False, True], ids=["poke", "deferred"])
