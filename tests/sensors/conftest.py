from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.sandbox.caller import Caller

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox


@pytest.fixture
def feedamp(sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> RunningSandbox:
    """Make the sandbox, with the orders A and B of hooli, the connection feedamp_default."""
    marketplace = Caller(sandbox, "hooli")
    for number in "AB":
        assert marketplace.place(number).ok
    connection = sandbox.connection("hooli", list_requests_per_second="0")
    monkeypatch.setenv("AIRFLOW__FEEDAMP__TOKEN_STORE", "memory")
    monkeypatch.setenv("AIRFLOW_CONN_FEEDAMP_DEFAULT", json.dumps(connection))
    return sandbox
