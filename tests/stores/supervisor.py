"""The supervisor of a task as Airflow 3 talks to it: it fails as the real one does, by saying so."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

RUNNER = "airflow.sdk.execution_time.task_runner"


class Supervisor:
    """Keeps Variables, and answers some requests with an error of the API server.

    :param fails: Is handed the number of each request for a Variable's value, and says whether the API
        server answers it with an error, such as a 500 or a time-out.
    """

    def __init__(self, fails: Callable[[int], bool] = lambda number: False) -> None:
        self.fails = fails
        self.texts: dict[str, str] = {}
        self.descriptions: dict[str, str] = {}
        self.gets = 0
        self._answer: Any = None

    def send(self, message: Any) -> Any:
        """Answer one request (Airflow 3.1 and later)."""
        from airflow.sdk.execution_time import comms

        if isinstance(message, comms.GetVariable):
            self.gets += 1
            if self.fails(self.gets):
                return error("API_SERVER_ERROR")
            if message.key not in self.texts:
                return error("VARIABLE_NOT_FOUND")
            return comms.VariableResult(key=message.key, value=self.texts[message.key])
        if isinstance(message, comms.PutVariable):
            self.texts[message.key] = str(message.value)
            self.descriptions[message.key] = message.description or ""
            return comms.OKResponse(ok=True)
        if isinstance(message, comms.DeleteVariable):
            self.texts.pop(message.key, None)
            return comms.OKResponse(ok=True)
        return self._listed(message, comms)

    def send_request(self, log: Any, msg: Any) -> None:
        """Take one request (Airflow 3.0)."""
        self._answer = self.send(msg)

    def get_message(self) -> Any:
        """Answer the request taken last (Airflow 3.0)."""
        return self._answer

    def _listed(self, message: Any, comms: Any) -> Any:
        assert isinstance(message, comms.GetVariableKeys)
        names = sorted(name for name in self.texts if name.startswith(message.prefix or ""))
        page = names[message.offset : message.offset + message.limit]
        return comms.VariableKeysResult(keys=page, total_entries=len(names))


def error(kind: str) -> Any:
    """Return an answer of the API server that is an error."""
    from airflow.sdk.exceptions import ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse

    return ErrorResponse(error=ErrorType[kind], detail={"status_code": 500})


def become_a_task(patch: pytest.MonkeyPatch, supervisor: Supervisor) -> None:
    """Let this process's code find itself in a task with that supervisor."""
    __import__(RUNNER)
    patch.setattr(sys.modules[RUNNER], "SUPERVISOR_COMMS", supervisor, raising=False)
