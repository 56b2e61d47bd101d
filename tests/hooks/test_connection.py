"""A connection is read field by field: what can be meant is normalised, all else has one clear error."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import traceback
from importlib.metadata import version
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowNotFoundException, BaseHook

from airflow_provider_feedamp.exceptions import ConfigurationError
from airflow_provider_feedamp.hooks.connection import DEFAULT_BASE_URL
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
from tests.airflow_runs import PATIENCE, make_airflow

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_feedamp.hooks.connection import FeedAmpConnection
    from tests.hooks.conftest import SetConnection


SECRET = "hush-hush-secret"
REFRESH_TOKEN = "quiet-refresh-token"
EXTRA = {"refresh_token": REFRESH_TOKEN, "seller": "hooli"}
GOOD = {
    "conn_type": "feedamp",
    "host": "https://feedamp.example/api/v1",
    "login": "client-1",
    "password": SECRET,
    "extra": EXTRA,
}


def read(set_connection: SetConnection, **changes: Any) -> FeedAmpConnection:
    set_connection({name: value for name, value in (GOOD | changes).items() if value is not None})
    return FeedAmpHook().config


def refusal(set_connection: SetConnection, **changes: Any) -> str:
    """Return the error's text, after checking what holds for every one of them."""
    with pytest.raises(ConfigurationError) as caught:
        read(set_connection, **changes)
    shown = f"{caught.value!r}\n{''.join(traceback.format_exception(caught.value))}"
    assert SECRET not in shown
    assert REFRESH_TOKEN not in shown
    assert isinstance(caught.value, AirflowFailException)  # no retry mends a connection
    assert "'feedamp_default'" in str(caught.value)
    return str(caught.value)


def test_every_field_is_read(set_connection: SetConnection) -> None:
    extra = {
        "refresh_token": REFRESH_TOKEN,
        "seller": "hooli",
        "request_encoding": "form",
        "timeout": 7.5,
        "requests_per_second": 3,
        "list_requests_per_second": 0.5,
    }
    config = read(set_connection, extra=extra)

    assert {name: getattr(config, name) for name in extra} == extra
    assert (config.conn_id, config.base_url) == ("feedamp_default", "https://feedamp.example/api/v1")
    assert (config.client_id, config.client_secret) == ("client-1", SECRET)
    assert config.token_url == "https://feedamp.example/api/v1/access_token"


def test_what_may_be_left_out_has_a_default(set_connection: SetConnection) -> None:
    config = read(set_connection, host=None, extra=None)

    assert config.base_url == DEFAULT_BASE_URL
    assert (config.seller, config.request_encoding) == ("default", "json")
    assert (config.refresh_token, config.timeout, config.requests_per_second) == (None, None, None)
    assert config.list_requests_per_second == 2.0


def test_blank_and_null_extras_count_as_left_out(set_connection: SetConnection) -> None:
    # The connection form stores every field of its own, also those that nobody filled in.
    blank = {
        "refresh_token": " ",
        "seller": "",
        "timeout": "",
        "requests_per_second": None,
        "list_requests_per_second": "",
        "token_store": "",
        "token_store_conn_id": None,
    }

    config = read(set_connection, extra=blank)

    assert (config.refresh_token, config.seller, config.timeout) == (None, "default", None)
    assert config.requests_per_second is None
    assert config.list_requests_per_second == 2.0


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        *(("list_requests_per_second", zero, 0.0) for zero in ("0", 0, 0.0, " 0 ")),
        *(("timeout", text, 30.0) for text in ("30", " 30 ", "3e1")),
        *(("refresh_token", mask, None) for mask in ("***", "RATHER_LONG_SENSITIVE_FIELD_PLACEHOLDER")),
    ],
)
def test_lists_may_be_unpaced_numbers_be_texts_and_what_airflow_shows_for_a_secret_is_none(
    set_connection: SetConnection, name: str, value: object, found: object
) -> None:
    assert getattr(read(set_connection, extra={name: value}), name) == found


def test_spaces_around_pasted_values_are_dropped(set_connection: SetConnection) -> None:
    extra = {"refresh_token": f" {REFRESH_TOKEN}\n", "seller": " hooli "}
    config = read(set_connection, login=" client-1 ", password=f"{SECRET}\n", extra=extra)

    assert (config.client_id, config.client_secret) == ("client-1", SECRET)
    assert (config.refresh_token, config.seller) == (REFRESH_TOKEN, "hooli")


def test_the_repr_of_a_connection_holds_no_secret(set_connection: SetConnection) -> None:
    shown = repr(read(set_connection))

    assert "client-1" in shown
    assert SECRET not in shown
    assert REFRESH_TOKEN not in shown


@pytest.mark.parametrize(
    ("host", "port", "base_url"),
    [
        ("", None, DEFAULT_BASE_URL),
        ("  ", None, DEFAULT_BASE_URL),
        ("https://a.example/api/v1", None, "https://a.example/api/v1"),
        ("https://a.example/api/v1/", None, "https://a.example/api/v1"),
        ("https://a.example/api/v1//", None, "https://a.example/api/v1"),
        (" https://a.example/api/v1\n", None, "https://a.example/api/v1"),
        ("https://a.example", None, "https://a.example/api/v1"),
        ("https://a.example/", None, "https://a.example/api/v1"),
        ("https://a.example/proxied/feedamp", None, "https://a.example/proxied/feedamp"),
        ("HTTPS://A.Example/api/v1", None, "https://a.example/api/v1"),
        ("https://a.example:8443/api/v1", None, "https://a.example:8443/api/v1"),
        ("https://a.example:443/api/v1", None, "https://a.example/api/v1"),
        ("https://a.example", 8443, "https://a.example:8443/api/v1"),
        ("https://a.example:1234", 8443, "https://a.example:1234/api/v1"),
        ("https://[2001:db8::1]:8443", None, "https://[2001:db8::1]:8443/api/v1"),
        ("https://[2001:db8::1]/x", None, "https://[2001:db8::1]/x"),
        ("http://127.0.0.1:8099/api/v1", None, "http://127.0.0.1:8099/api/v1"),
        ("http://127.8.9.1", None, "http://127.8.9.1/api/v1"),
        ("http://localhost:80", None, "http://localhost/api/v1"),
        ("http://[::1]:8099", None, "http://[::1]:8099/api/v1"),
    ],
)
def test_the_base_url_is_normalised(
    set_connection: SetConnection, host: str, port: int | None, base_url: str
) -> None:
    assert read(set_connection, host=host, port=port).base_url == base_url


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("feedamp.example", "no URL"),
        ("feedamp.example/api/v1", "no URL"),
        ("feedamp.example:443/api/v1", "scheme|no URL"),
        ("//feedamp.example/api/v1", "no URL"),
        ("/api/v1", "no URL"),
        ("https://", "no URL"),
        ("https:///api/v1", "no URL"),
        ("https://:443/api/v1", "no URL"),
        ("https://[::1", "no URL"),
        ("https://feedamp.example:99999", "no URL"),
        ("https://feedamp.example:https", "no URL"),
        ("https://feedamp .example/api/v1", "no URL"),
        ("http://feedamp.example/api/v1", "scheme http.*https"),
        ("http://localhost.feedamp.example", "scheme http.*https"),
        ("http://127.0.0.1.feedamp.example", "scheme http.*https"),
        ("http://10.0.0.1:8099", "scheme http.*https"),
        ("http://2130706433/api/v1", "scheme http.*https"),
        ("http://[2001:db8::1]", "scheme http.*https"),
        ("ftp://feedamp.example", "scheme ftp.*https"),
        ("https://feedamp.example/api/v1?x=1", "query"),
        ("https://feedamp.example/api/v1#x", "fragment"),
        (f"https://client-1:{SECRET}@feedamp.example/api/v1", "user"),
        (f"https://{SECRET}@feedamp.example/api/v1", "user"),
        (SECRET, "no URL"),
    ],
)
def test_a_base_url_that_cannot_be_used_is_refused(
    set_connection: SetConnection, host: str, problem: str
) -> None:
    text = refusal(set_connection, host=host)

    assert "host" in text
    assert re.search(problem, text)
    assert "https" in text  # what to write instead


@pytest.mark.parametrize("blank", [None, "", "  "])
@pytest.mark.parametrize(("field", "name"), [("login", "Client ID"), ("password", "Client Secret")])
def test_client_id_and_secret_are_needed(
    set_connection: SetConnection, field: str, name: str, blank: str | None
) -> None:
    text = refusal(set_connection, **{field: blank})

    assert f"no {name} ({field})" in text
    assert "Feedonomics gives it" in text


@pytest.mark.parametrize("conn_type", ["http", "FeedAMP", "generic"])
def test_a_connection_of_another_type_is_refused(set_connection: SetConnection, conn_type: str) -> None:
    text = refusal(set_connection, conn_type=conn_type)

    assert f"type '{conn_type}'" in text
    assert "Set its type (conn_type) to feedamp" in text


@pytest.mark.parametrize(
    ("extra", "field", "advice"),
    [
        ({"refresh_token": 5}, "refresh_token", "text"),
        ({"refresh_token": [REFRESH_TOKEN]}, "refresh_token", "text"),
        ({"seller": {"hooli": REFRESH_TOKEN}}, "seller", "text"),
        ({"seller": True}, "seller", "text"),
        ({"request_encoding": 1}, "request_encoding", "text"),
        ({"request_encoding": "xml"}, "request_encoding", "json or form"),
        ({"timeout": "soon"}, "timeout", "number"),
        ({"timeout": 0}, "timeout", "number"),
        ({"timeout": -1}, "timeout", "number"),
        ({"timeout": True}, "timeout", "number"),
        ({"timeout": [30]}, "timeout", "number"),
        ({"timeout": "nan"}, "timeout", "number"),
        ({"timeout": "inf"}, "timeout", "number"),
        ({"requests_per_second": 0}, "requests_per_second", "number"),
        ({"requests_per_second": {}}, "requests_per_second", "number"),
        ({"list_requests_per_second": -1}, "list_requests_per_second", "number"),
        ({"list_requests_per_second": "off"}, "list_requests_per_second", "number"),
        ({"list_requests_per_second": False}, "list_requests_per_second", "number"),
    ],
)
def test_an_extra_of_the_wrong_kind_is_refused(
    set_connection: SetConnection, extra: dict[str, Any], field: str, advice: str
) -> None:
    text = refusal(set_connection, extra=EXTRA | extra)

    assert f"extra {field} " in text
    assert advice in text


@pytest.mark.parametrize("name", ["token_store", "token_store_conn_id"])
@pytest.mark.parametrize("value", ["memory", 1, ["x"]])
def test_where_tokens_live_is_not_a_connections_decision(
    set_connection: SetConnection, name: str, value: object
) -> None:
    text = refusal(set_connection, extra=EXTRA | {name: value})

    assert f"extra {name}, " in text
    assert f"[feedamp] {name} (AIRFLOW__FEEDAMP__{name.upper()})" in text


@pytest.mark.parametrize(
    "extra",
    [
        f"refresh_token={REFRESH_TOKEN}",
        f'{{"refresh_token": "{REFRESH_TOKEN}"',
        f'["{REFRESH_TOKEN}"]',
        f'"{REFRESH_TOKEN}"',
        "7",
    ],
)
def test_extras_that_are_no_json_object_are_refused(set_connection: SetConnection, extra: str) -> None:
    text = refusal(set_connection, extra=extra)

    # Airflow 3.0 and 3.1 do not even hand over such a connection.
    assert re.search("extras that are no JSON object|the extras a JSON object", text)


AWKWARD_SECRET = "p/a:s@s%w?r#d"
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
    set_connection(f"feedamp://client%201:{quote(AWKWARD_SECRET, safe='')}@{place}?{urlencode(EXTRAS)}")

    config = FeedAmpHook().config

    assert config.base_url == base_url
    assert (config.client_id, config.client_secret) == ("client 1", AWKWARD_SECRET)
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
    assert read(set_connection, extra=json.dumps(EXTRAS)).seller == EXTRAS["seller"]


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
