from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests import s3 as s3_server
from tests.bulk.conftest import bucket  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from tests.s3 import S3


@pytest.fixture
def feedamp(sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> RunningSandbox:
    """Make an empty sandbox the connection feedamp_default of the seller acme, with tokens kept in memory."""
    connection = sandbox.connection("acme", list_requests_per_second="0")
    monkeypatch.setenv("AIRFLOW__FEEDAMP__TOKEN_STORE", "memory")
    monkeypatch.setenv("AIRFLOW_CONN_FEEDAMP_DEFAULT", json.dumps(connection))
    return sandbox


@pytest.fixture(scope="module")
def running_s3() -> Iterator[S3]:
    for needed in ("flask", "flask_cors", "moto", "s3fs"):
        pytest.importorskip(needed)
    with s3_server.serve() as running:
        yield running


@pytest.fixture
def s3(running_s3: S3) -> S3:
    """Make an empty bucket what s3:// names."""
    running_s3.empty()
    running_s3.wire.mend()
    s3_server.attach(running_s3.wire.port)
    return running_s3
