from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.api import session as session_module
from airflow_provider_feedamp.api.client import FeedAmpClient, OrdersApi, RefundsApi, ReturnsApi
from airflow_provider_feedamp.api.http import Http
from airflow_provider_feedamp.api.session import BearerAuth, FeedAmpSession
from tests.api.edge import Edge, Tokens
from tests.tokens.conftest import certificate as certificate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.tokens.conftest import Certificate


@pytest.fixture
def edge() -> Iterator[Edge]:
    server = Edge()
    yield server
    server.close()


@pytest.fixture
def elsewhere() -> Iterator[Edge]:
    """Another origin: the same host on another port."""
    server = Edge()
    yield server
    server.close()


@pytest.fixture
def secure_edge(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edge]:
    """An edge that speaks TLS, with a certificate that the environment names."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.path))
    server = Edge(certificate.context)
    yield server
    server.close()


@pytest.fixture
def tokens() -> Tokens:
    return Tokens("first-token", "second-token")


@pytest.fixture
def slept() -> list[float]:
    """The seconds that were waited between retries; nothing waits in these tests."""
    return []


@pytest.fixture
def new_http(edge: Edge, tokens: Tokens, slept: list[float]) -> Callable[..., Http]:
    """Make the client's side, with other options where a test says so."""

    def made(base_url: str = edge.base_url, **options: Any) -> Http:
        # Time goes on when somebody sleeps.
        usual: dict[str, Any] = {"sleep": slept.append, "clock": lambda: sum(slept), "jitter": lambda: 1.0}
        return Http(base_url, options.pop("tokens", tokens), **{"retries": 3} | usual | options)

    return made


@pytest.fixture
def http(new_http: Callable[..., Http]) -> Http:
    return new_http()


@pytest.fixture
def session(
    edge: Edge, tokens: Tokens, slept: list[float], monkeypatch: pytest.MonkeyPatch
) -> Iterator[FeedAmpSession]:
    """The session of a user's own requests."""
    monkeypatch.setattr(session_module, "time", SimpleNamespace(sleep=slept.append))
    monkeypatch.setattr(session_module, "random", SimpleNamespace(random=lambda: 1.0))
    with FeedAmpSession(edge.base_url, BearerAuth(tokens, edge.base_url), retries=3) as session:
        yield session


@pytest.fixture
def orders(http: Http) -> OrdersApi:
    return OrdersApi(http)


@pytest.fixture
def refunds(http: Http) -> RefundsApi:
    return RefundsApi(http)


@pytest.fixture
def returns(http: Http) -> ReturnsApi:
    return ReturnsApi(http)


@pytest.fixture
def client(http: Http) -> FeedAmpClient:
    return FeedAmpClient(http)
