"""A connection comes from anywhere that Airflow takes connections from."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from types import SimpleNamespace
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowNotFoundException, BaseHook

from airflow_provider_feedamp.exceptions import ConfigurationError
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
from tests.airflow_runs import PATIENCE, make_airflow

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hooks.conftest import SetConnection

SECRET = "p/a:s@s%w?r#d"
HOST = quote("https://feedamp.example", safe="")
EXTRAS = {"refresh_token": "token/with+signs=", "seller": "ac me/ü", "timeout": "12"}


@pytest.mark.parametrize(
    ("place", "base_url"),
    [
        (f"{HOST}/", "https://feedamp.example/api/v1"),
        (f"{HOST}/api%2Fv1", "https://feedamp.example/api/v1"),
        (f"{HOST}/api/v1/", "https://feedamp.example/api/v1"),
        (f"{HOST}%2Fproxied%2Fv1/", "https://feedamp.example/proxied/v1"),
        (f"{HOST}:8443/api/v1", "https://feedamp.example:8443/api/v1"),
        (f"{quote('http://127.0.0.1:8099/api/v1', safe='')}/", "http://127.0.0.1:8099/api/v1"),
    ],
)
def test_a_uri_is_read_with_its_escapes(set_connection: SetConnection, place: str, base_url: str) -> None:
    set_connection(f"feedamp://client%201:{quote(SECRET, safe='')}@{place}?{urlencode(EXTRAS)}")

    config = FeedAmpHook().config

    assert config.base_url == base_url
    assert (config.client_id, config.client_secret) == ("client 1", SECRET)
    assert (config.refresh_token, config.seller) == (EXTRAS["refresh_token"], EXTRAS["seller"])
    assert config.timeout == 12.0


def test_a_uri_without_a_host_means_feedamp_itself(set_connection: SetConnection) -> None:
    extra = urlencode({"__extra__": json.dumps({"refresh_token": "first-token", "timeout": 3})})
    set_connection(f"feedamp://client:secret@/?{extra}")

    config = FeedAmpHook().config

    assert config.base_url.startswith("https://marketplace-order-api.")
    assert (config.refresh_token, config.timeout) == ("first-token", 3.0)


@pytest.mark.processes
@pytest.mark.timeout(2 * PATIENCE)
def test_a_script_that_airflow_shows_no_database_is_told_so(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = make_airflow(tmp_path_factory, tmp_path, {})
    added = ("--conn-type", "feedamp", "--conn-login", "client", "--conn-password", "s3cret-of-ours")
    home.call("airflow", "connections", "add", "ours", *added)
    script = tmp_path / "script.py"
    script.write_text(
        "from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook\n"
        "print(FeedAmpHook('ours').config.client_id)"
    )

    ran = subprocess.run(
        [sys.executable, script], env=home.settings({}), capture_output=True, text=True, check=False
    )

    if version("apache-airflow").startswith(("2.", "3.0.")):
        assert ran.stdout.splitlines()[-1] == "client"
    else:
        assert "from Airflow 3.1 on those alone see the connections of the metadata database" in ran.stderr
        assert "needs AIRFLOW_CONN_OURS in its environment" in ran.stderr
    assert "s3cret-of-ours" not in ran.stdout + ran.stderr


def test_tasks_and_airflows_commands_are_not_told_of_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    with pytest.raises(ConfigurationError) as of_command:
        FeedAmpHook("no_such_connection").config  # noqa: B018
    monkeypatch.delenv("_AIRFLOW_PROCESS_CONTEXT")
    runner = SimpleNamespace(SUPERVISOR_COMMS=None)
    monkeypatch.setitem(sys.modules, "airflow.sdk.execution_time.task_runner", runner)
    monkeypatch.setattr(BaseHook, "get_connection", missing)
    with pytest.raises(ConfigurationError) as of_task:
        FeedAmpHook("no_such_connection").config  # noqa: B018

    for caught in (of_command, of_task):
        assert "There is no Airflow connection 'no_such_connection'" in str(caught.value)
        assert "metadata database" not in str(caught.value)


def missing(conn_id: str) -> None:
    raise AirflowNotFoundException(conn_id)


def test_extras_of_a_json_connection_may_be_a_text(set_connection: SetConnection) -> None:
    connection = {
        "conn_type": "feedamp",
        "login": "client",
        "password": "secret",
        "extra": json.dumps(EXTRAS),
    }
    set_connection(connection)

    assert FeedAmpHook().config.seller == EXTRAS["seller"]


def test_a_host_that_is_not_escaped_in_a_uri_is_explained(set_connection: SetConnection) -> None:
    set_connection("feedamp://client:secret@feedamp.example/api/v1")

    with pytest.raises(ConfigurationError, match="escape it: https%3A%2F%2F"):
        _ = FeedAmpHook().config


@pytest.mark.parametrize(
    "text",
    [
        "feedamp://client:hush-hush@https%3A%2F%2Ffeedamp.example:99999999/api/v1",
        '{"conn_type": "feedamp", "password": "hush-hush", "port": "x"}',
        '{"conn_type": "feedamp", "password": "hush-hush"',
        "hush-hush",
    ],
)
def test_a_variable_that_is_no_connection_is_one_error_that_names_it(
    set_connection: SetConnection, text: str
) -> None:
    set_connection(text)

    with pytest.raises(ConfigurationError) as caught:
        _ = FeedAmpHook().config

    assert "'feedamp_default'" in str(caught.value)
    assert "hush-hush" not in repr(caught.value)
    assert isinstance(caught.value, AirflowFailException)


def test_a_connection_that_is_not_there_is_named_with_the_ways_to_make_it() -> None:
    with pytest.raises(ConfigurationError) as caught:
        FeedAmpHook("feedamp_eu").get_access_token()

    assert "'feedamp_eu'" in str(caught.value)
    assert "AIRFLOW_CONN_FEEDAMP_EU" in str(caught.value)
    assert "Admin > Connections" in str(caught.value)
    assert isinstance(caught.value, AirflowFailException)


def test_a_secrets_backend_serves_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "feedamp", "login": "vault-client", "password": "secret", "extra": EXTRAS}
    vault = {"feedamp_vault": json.dumps(connection)}
    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND", "tests.hooks.vault.Vault")
    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND_KWARGS", json.dumps({"connections": vault}))

    config = FeedAmpHook("feedamp_vault").config

    assert (config.client_id, config.refresh_token) == ("vault-client", EXTRAS["refresh_token"])
