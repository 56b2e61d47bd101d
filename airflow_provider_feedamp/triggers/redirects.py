"""The trigger of the task that authorises a seller, on Airflow 3.1 and 3.2; later ones need none."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow.triggers.base import TriggerEvent


class _Unshown(dict[str, Any]):
    def __repr__(self) -> str:
        return "***"


class RedirectTrigger(BaseTrigger):
    """Waits for a person's answer as the standard provider does, and keeps it out of the log.

    The triggerer logs each event as it is, and what the person has pasted holds a code that is not spent yet.

    :param arguments: Those of the standard provider's ``HITLTrigger``.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.arguments = arguments

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        return f"{__name__}.{type(self).__name__}", self.arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait for the answer, and yield it."""
        from airflow.providers.standard.triggers.hitl import HITLTrigger  # from Airflow 3.1 on

        # A copy: it takes its parameters apart.
        async for event in HITLTrigger(**deepcopy(self.arguments)).run():
            if event.payload.get("params_input"):
                event.payload["params_input"] = _Unshown(event.payload["params_input"])
            yield event
