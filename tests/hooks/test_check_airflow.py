"""The Test button as Airflow presses it: under a made-up id, in the API server's process and on a worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.tokens.conftest import server
from tests.tokens.edge import TokenServer, answers

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["server"]

#: As Airflow's API does it.
BESIDE_THE_DATABASE = """
import json, os, sys
from airflow.models import Connection
fields = json.loads(sys.argv[1])
conn = Connection(conn_id="qJ3xW9", **fields | {"extra": json.dumps(fields["extra"])})
os.environ["AIRFLOW_CONN_QJ3XW9"] = conn.get_uri()
print("\\n" + json.dumps(conn.test_connection()))
"""
ON_A_WORKER = """
import sys, uuid
from airflow.sdk.execution_time.connection_test_supervisor import supervise_connection_test
supervise_connection_test(
    connection_test_id=uuid.UUID(sys.argv[1]),
    connection_id="qJ3xW9",
    timeout=60,
    token="t",
    server=sys.argv[2],
)
"""


def client(feedamp: str, **extra: Any) -> dict[str, Any]:
    return {
        "conn_type": "feedamp",
        "host": feedamp,
        "login": "client",
        "password": "client-secret",
        "extra": extra,
    }


def run(home: Path, script: str, *arguments: str, **settings: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    environment |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__FERNET_KEY": "",
        "NO_PROXY": "127.0.0.1",
        **settings,
    }
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def pressed(home: Path, fields: dict[str, Any], **settings: str) -> tuple[bool, str]:
    """Press the button where the metadata database is at hand."""
    context = {"_AIRFLOW_PROCESS_CONTEXT": "server"}
    shown = run(home, BESIDE_THE_DATABASE, json.dumps(fields), **context | settings)
    ok, text = json.loads(shown.splitlines()[-1])
    return ok, text


def pressed_for_a_worker(home: Path, fields: dict[str, Any], api: TokenServer) -> tuple[bool, str]:
    """Press the button, with a worker that does the test and reports it to the API server."""
    pytest.importorskip("airflow.sdk.execution_time.connection_test_supervisor")
    fields = fields | {"conn_id": "qJ3xW9", "extra": json.dumps(fields["extra"])}
    api.will(answers(200, fields), answers(200, {}))
    run(home, ON_A_WORKER, str(uuid4()), f"http://127.0.0.1:{api.port}")
    report = api.received[-1].json
    return report["state"] == "success", report["result_message"]


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"token_store": "os.system", "token_store_conn_id": "touch ran"}, "token_store"),
        ({"token_store": "subprocess.Popen", "token_store_conn_id": "touch ran"}, "token_store"),
        ({"token_store_conn_id": "touch ran"}, "token_store_conn_id"),
    ],
)
def test_nothing_that_stands_in_a_connection_is_called(
    tmp_path: Path, server: TokenServer, extra: dict[str, str], named: str
) -> None:
    ok, text = pressed(tmp_path, client(server.url, **extra))

    assert not ok
    assert f"an extra {named}," in text
    assert not (tmp_path / "ran").exists()


def test_nothing_that_stands_in_a_connection_is_called_on_a_worker(
    tmp_path: Path, server: TokenServer
) -> None:
    fields = client("https://feedamp.invalid", token_store="os.system", token_store_conn_id="touch ran")

    ok, text = pressed_for_a_worker(tmp_path, fields, server)

    assert not ok
    assert "an extra token_store," in text
    assert not (tmp_path / "ran").exists()


def test_a_worker_says_that_the_token_store_was_not_checked_and_makes_no_database(
    tmp_path: Path, server: TokenServer
) -> None:
    feedamp = TokenServer()
    feedamp.otherwise = answers(401)
    fields = client(f"http://127.0.0.1:{feedamp.port}", refresh_token="first-token")

    ok, text = pressed_for_a_worker(tmp_path, fields, server)

    feedamp.close()
    assert ok
    assert "The token store was not checked from here" in text
    assert "not used yet" not in text
    assert "Fernet" not in text  # a worker of Airflow 3 needs none
    assert not list(tmp_path.rglob("*.db"))


@pytest.mark.parametrize("fields", [{"login": ""}, {"password": ""}, {"conn_type": "http"}, {"host": "x y"}])
def test_a_made_up_connection_id_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, str]
) -> None:
    from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

    connection = client("https://feedamp.invalid") | fields
    monkeypatch.setenv("AIRFLOW_CONN_QJ3XW9", json.dumps(connection))

    ok, text = FeedAmpHook("qJ3xW9").test_connection()

    assert not ok
    assert text.startswith("The connection has ")
    assert "qJ3xW9" not in text


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, True),
        ({"AIRFLOW__CORE__FERNET_KEY": "ZmVlZGFtcC10ZXN0cy1vbmx5LW5vdC1hLXNlY3JldCE="}, False),
        ({"AIRFLOW__FEEDAMP__ENCRYPTION_KEY": "ZmVlZGFtcC10ZXN0cy1vbmx5LW5vdC1hLXNlY3JldCE="}, False),
        ({"AIRFLOW__FEEDAMP__TOKEN_STORE": "memory"}, False),
    ],
    ids=["no key", "Airflow's key", "our key", "another store"],
)
def test_a_deployment_without_a_key_is_told_so(
    tmp_path: Path, server: TokenServer, settings: dict[str, str], told: bool
) -> None:
    server.otherwise = answers(401)
    database = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path / 'meta.db'}"}

    _, text = pressed(tmp_path, client(server.url, refresh_token="first-token"), **settings | database)

    assert ("No Fernet key is set" in text) == told, text
