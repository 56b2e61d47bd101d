from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_provider_feedamp.sandbox.server import RunningSandbox


@pytest.fixture
def feedamp(sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> RunningSandbox:
    """Make the sandbox the connection feedamp_default of the seller hooli, with tokens kept in memory."""
    connection = sandbox.connection("hooli", list_requests_per_second="0")
    monkeypatch.setenv("AIRFLOW__FEEDAMP__TOKEN_STORE", "memory")
    monkeypatch.setenv("AIRFLOW_CONN_FEEDAMP_DEFAULT", json.dumps(connection))
    return sandbox
