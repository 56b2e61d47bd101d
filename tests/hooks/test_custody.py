"""What decides about tokens: the connection of a seller's, the configuration of the deployment's."""

from __future__ import annotations

import json
import threading
from contextlib import nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, Stats
from cryptography.fernet import Fernet

from airflow_provider_feedamp.exceptions import (
    ConfigurationError,
    ReauthorizationRequiredError,
    TokenBusyError,
)
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook, custodian_of
from airflow_provider_feedamp.tokens.cache import CACHE, Windows
from airflow_provider_feedamp.tokens.store import MemoryStore, TokenStore
from airflow_provider_feedamp.tokens.variable_store import VariableStore
from tests.hooks.conftest import run_python
from tests.house import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from airflow_provider_feedamp.tokens.custodian import TokenCustodian
    from airflow_provider_feedamp.tokens.records import TokenKey, TokenRecord
    from airflow_provider_feedamp.tokens.store import Lease
    from tests.hooks.conftest import SetConnection

    #: Sets options of the section [feedamp].
    Configure = Callable[..., None]

HERE = "tests.hooks.test_custody"


class OwnStore(MemoryStore):
    """A store of a user's own, named by its dotted path."""

    def __init__(self, conn_id: str | None = None) -> None:
        super().__init__(conn_id)
        self.conn_id = conn_id


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Configure:
    def set_options(**options: object) -> None:
        for name, value in options.items():
            monkeypatch.setenv(f"AIRFLOW__FEEDAMP__{name.upper()}", str(value))

    return set_options


@pytest.fixture
def connect(set_connection: SetConnection) -> SetConnection:
    def connect_with(connection: dict[str, Any] | str) -> None:
        client = {"conn_type": "feedamp", "login": "client", "password": "client-secret"}
        set_connection(client | {"extra": connection})

    connect_with({})
    return connect_with


def custodian(seller: str = "hooli") -> TokenCustodian:
    return custodian_of(FeedAmpHook().config, seller)


def store() -> TokenStore:
    return custodian().store


# The store


@pytest.mark.parametrize(
    ("value", "kind"), [(None, VariableStore), ("", VariableStore), ("memory", MemoryStore)]
)
def test_tokens_live_in_airflow_variables_unless_the_configuration_names_another_store(
    connect: SetConnection, monkeypatch: pytest.MonkeyPatch, value: str | None, kind: type[TokenStore]
) -> None:
    monkeypatch.delenv("AIRFLOW__FEEDAMP__TOKEN_STORE")
    if value is not None:
        monkeypatch.setenv("AIRFLOW__FEEDAMP__TOKEN_STORE", value)

    assert isinstance(store(), kind)


def test_a_store_of_ones_own_gets_the_configured_connection_id(
    connect: SetConnection, configure: Configure
) -> None:
    configure(token_store=f"{HERE}.OwnStore", token_store_conn_id="my_store")
    own = store()

    assert isinstance(own, OwnStore)
    assert own.conn_id == "my_store"


def test_a_process_has_one_store_for_all_hooks(connect: SetConnection) -> None:
    assert store() is store()


@pytest.mark.parametrize(
    "name", ["redis", "no.such.Store", f"{HERE}.NoStore", ".", "memory.", "json.nothing"]
)
def test_an_unknown_store_is_one_clear_error(connect: SetConnection, configure: Configure, name: str) -> None:
    configure(token_store=name)

    with pytest.raises(
        ConfigurationError, match=r"no token store.*memory, .*variable.*dotted path"
    ) as caught:
        FeedAmpHook().get_access_token()

    assert repr(name) in str(caught.value)
    assert isinstance(caught.value, AirflowFailException)


class Strange(MemoryStore):
    """What must not be built: its constructor would tell."""

    def __init__(self, conn_id: str | None = None) -> None:
        pytest.fail("a class was called before it was looked at")


class Unbuildable(Strange):
    def __init__(self) -> None:
        super().__init__()


class ReadOnly(Strange):
    write = None  # type: ignore[assignment]


class Impatient(Strange):
    def lock(self, key: TokenKey, *, stop: threading.Event) -> AbstractContextManager[Lease]:  # type: ignore[override]
        raise NotImplementedError


class Demanding(Strange):
    def keys(self, token_url: str, client_id: str, page: int) -> list[TokenKey]:  # type: ignore[override]
        raise NotImplementedError


class Outline(TokenStore):
    """A class that says it is a token store, and does nothing."""

    def __init__(self, conn_id: str | None = None) -> None:
        pytest.fail("a class was called before it was looked at")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("os.system", "class"),
        ("subprocess.run", "class"),
        ("subprocess.Popen", "method"),
        (f"{HERE}.Unbuildable", "constructor that takes a connection id"),
        (f"{HERE}.ReadOnly", r"method write\(self, record, expected\)"),
        (f"{HERE}.Impatient", r"method lock\(self, key, wait, stop\)"),
        (f"{HERE}.Demanding", r"method keys\(self, token_url, client_id\)"),
        (f"{HERE}.Outline", r"method delete\(self, key\)"),
    ],
)
def test_what_keeps_not_the_stores_protocol_is_not_called(
    connect: SetConnection, configure: Configure, tmp_path: Path, name: str, what: str
) -> None:
    ran = tmp_path / "ran"
    configure(token_store=name, token_store_conn_id=f"touch {ran}")

    with pytest.raises(ConfigurationError, match=f"no token store: it has no {what}") as caught:
        FeedAmpHook().get_access_token()

    assert not ran.exists()
    assert isinstance(caught.value, AirflowFailException)


# Windows and waits


@pytest.mark.parametrize(
    ("values", "windows", "waits"),
    [
        ((), Windows(advisory=600.0, jitter=120.0, mandatory=120.0), (15.0, 90.0)),
        ((300, "0", "60.5", 5, 7), Windows(advisory=300.0, jitter=0.0, mandatory=60.5), (5.0, 7.0)),
        ([""] * 5, Windows(advisory=600.0, jitter=120.0, mandatory=120.0), (15.0, 90.0)),
    ],
    ids=["as documented", "configured", "empty"],
)
def test_windows_and_waits_are_configurable(
    connect: SetConnection, configure: Configure, values: Any, windows: Windows, waits: tuple[float, float]
) -> None:
    options = ("advisory_window", "advisory_jitter", "mandatory_window", "token_deadline", "lock_wait")
    configure(**dict(zip(options, values, strict=False)))

    assert custodian().windows == windows
    assert (custodian().endpoint.deadline, custodian().lock_wait) == waits


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("advisory_window", "soon"),
        ("advisory_window", "-1"),
        ("advisory_jitter", "nan"),
        ("mandatory_window", "inf"),
        ("mandatory_window", "86401"),
        ("token_deadline", "20.1"),
        ("lock_wait", "1 minute"),
    ],
)
def test_an_option_that_is_no_number_of_seconds_is_named(
    connect: SetConnection, configure: Configure, option: str, value: str
) -> None:
    configure(**{option: value})

    with pytest.raises(ConfigurationError, match=rf"\[feedamp\] {option} must be a number of") as caught:
        FeedAmpHook().get_access_token()

    assert isinstance(caught.value, AirflowFailException)


# Who and what


def test_the_connections_refresh_token_seeds_its_own_seller_only(connect: SetConnection) -> None:
    connect({"seller": "hooli", "refresh_token": "hoolis-token"})

    assert custodian("hooli").seed == "hoolis-token"
    assert custodian("globex").seed is None


def test_two_sellers_never_share_a_key(connect: SetConnection) -> None:
    names = ["a/b", "a__b", "a b", "A/B", "ä/b", "a/b ", "x" * 500]

    assert len({custodian(name).key.digest for name in names}) == len(names)


def test_the_endpoint_is_asked_as_the_connection_says(connect: SetConnection) -> None:
    connect({"request_encoding": "form"})
    endpoint = custodian().endpoint

    assert (endpoint.encoding, endpoint.client_id) == ("form", "client")
    assert endpoint.url == f"{FeedAmpHook().config.base_url}/access_token"


def test_secrets_are_masked_before_anything_else_happens(
    connect: SetConnection, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked: list[str] = []
    monkeypatch.setattr("airflow_provider_feedamp.hooks.feedamp.mask_secret", masked.append)
    configure(token_store="no.such.Store")
    connect({"refresh_token": "hoolis-token"})

    with pytest.raises(ConfigurationError):
        custodian()

    assert masked == ["client-secret", "hoolis-token"]


KEY = "ZmVlZGFtcC10ZXN0cy1vbmx5LW5vdC1hLXNlY3JldCE="
# As Airflow's own commands do first.
SEALED_AFTER_START = """
from airflow.providers_manager import ProvidersManager
from airflow_provider_feedamp.tokens.crypto import Sealer
ProvidersManager().initialize_providers_configuration()
print("\\n" + Sealer.configured().seal("record"))
"""


@pytest.mark.parametrize(
    "settings",
    [
        {"AIRFLOW__FEEDAMP__ENCRYPTION_KEY_CMD": f"echo {KEY}"},
        {
            "AIRFLOW__FEEDAMP__ENCRYPTION_KEY_SECRET": "feedamp_key",
            "AIRFLOW__SECRETS__BACKEND": "tests.hooks.vault.Vault",
            "AIRFLOW__SECRETS__BACKEND_KWARGS": json.dumps({"options": {"feedamp_key": KEY}}),
        },
    ],
    ids=["a command", "a secrets backend"],
)
def test_the_encryption_key_comes_from_where_airflow_takes_secrets(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    shown = run_python(tmp_path, SEALED_AFTER_START, **settings, PYTHONPATH=str(ROOT))

    assert Fernet(KEY).decrypt(shown.splitlines()[-1]) == b"record"


# Metrics of renewals


@pytest.fixture
def counted(
    sandbox: RunningSandbox, configure: Configure, set_connection: SetConnection
) -> Iterator[list[tuple[str, str]]]:
    """Return what is counted for hooli: the counter and the outcome."""
    configure(token_store="memory", lock_wait="0.5")
    set_connection(sandbox.connection("hooli"))
    told: list[tuple[str, str]] = []

    def incr(name: str, count: int = 1, rate: float = 1, *, tags: dict[str, str]) -> None:
        whose = {"connection": "feedamp_default", "seller": "hooli"}
        assert tags == whose | {"outcome": tags["outcome"]}
        told.append((name, tags["outcome"]))

    with patch.object(Stats, "incr", incr):
        yield told


def test_renewals_and_tokens_of_other_workers_are_counted(
    counted: list[tuple[str, str]], sandbox: RunningSandbox
) -> None:
    FeedAmpHook().get_access_token()
    FeedAmpHook().get_access_token()  # from this process: nothing to count
    CACHE.clear()  # as in another worker
    FeedAmpHook().get_access_token()
    sandbox.control.revoke("hooli")
    with pytest.raises(ReauthorizationRequiredError):
        FeedAmpHook().get_access_token(timedelta(hours=2))

    assert counted == [
        ("feedamp.tokens.renewed", "ok"),
        ("feedamp.tokens.adopted", "ok"),
        ("feedamp.tokens.renewed", "ReauthorizationRequiredError"),
    ]


@pytest.mark.parametrize("comes", [True, False])
def test_a_wait_for_another_worker_is_counted_with_how_it_ended(
    counted: list[tuple[str, str]], comes: bool
) -> None:
    FeedAmpHook().get_access_token()
    del counted[:]
    waiting = custodian()
    good = waiting.record()
    assert good is not None
    store().write(good.changed(access_token=None), expected=good.revision)
    CACHE.clear()
    looks = 0
    read = MemoryStore.read

    def other_worker(self: MemoryStore, key: TokenKey) -> TokenRecord | None:
        nonlocal looks
        looks += 1
        found = read(self, key)
        return found.changed(access_token="newer") if found and comes and looks > 1 else found

    with (
        patch.object(MemoryStore, "read", other_worker),
        store().lock(waiting.key, wait=0, stop=threading.Event()),
        nullcontext() if comes else pytest.raises(TokenBusyError),
    ):
        FeedAmpHook().get_access_token()

    ended = [("feedamp.tokens.waited", "ok"), ("feedamp.tokens.adopted", "ok")]
    assert counted == (ended if comes else [("feedamp.tokens.waited", "TokenBusyError")])


def test_metrics_that_fail_cost_no_token(counted: list[tuple[str, str]]) -> None:
    with patch.object(Stats, "incr", side_effect=OSError):
        assert FeedAmpHook().get_access_token()
