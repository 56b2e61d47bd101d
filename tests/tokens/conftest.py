from __future__ import annotations

import datetime
import ipaddress
import ssl
from typing import TYPE_CHECKING, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import settings

from airflow_provider_feedamp.exceptions import FeedAmpError
from airflow_provider_feedamp.tokens.cache import CACHE
from airflow_provider_feedamp.tokens.endpoint import TokenEndpoint
from airflow_provider_feedamp.tokens.records import TokenKey
from airflow_provider_feedamp.tokens.store import open_store
from tests.tokens.custody import Bench
from tests.tokens.edge import TokenServer
from tests.tokens.secrets import CLIENT_SECRET, REFRESH_TOKEN, secrets_in, told

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_feedamp.sandbox.server import RunningSandbox

# How long an example takes says how busy the machine is, and nothing about the code.
settings.register_profile("feedamp", deadline=None)
settings.load_profile("feedamp")

_ENVIRONMENT = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "curl_ca_bundle")


@pytest.fixture(autouse=True)
def _new_process() -> Iterator[None]:
    """Let each test begin as a new process would: nothing cached, no store open."""
    CACHE.clear()
    open_store.cache_clear()
    yield
    CACHE.clear()
    open_store.cache_clear()


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the proxies, certificates and .netrc of the machine out of the tests."""
    for name in _ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def key() -> TokenKey:
    return TokenKey("https://feedamp.test/api/v1/access_token", "client-1", "hooli")


@pytest.fixture
def server() -> Iterator[TokenServer]:
    running = TokenServer()
    yield running
    running.close()


@pytest.fixture
def endpoint(server: TokenServer) -> TokenEndpoint:
    return endpoint_at(server.url)


def endpoint_at(url: str, deadline: float = 60.0, encoding: str = "json") -> TokenEndpoint:
    return TokenEndpoint(url, "client-1", CLIENT_SECRET, encoding, deadline, "connection 'shop'")


def failure(endpoint: TokenEndpoint) -> FeedAmpError:
    """Return the error that a refresh ends with, after a look at all that it tells."""
    with pytest.raises(FeedAmpError) as caught:
        endpoint.refresh(REFRESH_TOKEN)
    assert secrets_in(told(caught.value)) == []
    assert endpoint.url in str(caught.value)
    return caught.value


class Certificate(NamedTuple):
    """A self-signed certificate for the loopback address and for feedamp.test."""

    path: Path
    context: ssl.SSLContext


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "feedamp.test")])
    names: list[x509.GeneralName] = [
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.DNSName("feedamp.test"),
    ]
    now = datetime.datetime.now(datetime.UTC)
    public = (
        x509.CertificateBuilder(name, name, secret.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(secret, hashes.SHA256())
    )
    pem = secret.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(pem + public.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return Certificate(path, context)


@pytest.fixture
def trusted(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> Certificate:
    """Trust the test certificate as a deployment trusts its own authority."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.path))
    return certificate


@pytest.fixture(scope="module")
def feedamp() -> Iterator[RunningSandbox]:
    """Serve one local FeedAMP for a whole module."""
    from airflow_provider_feedamp.sandbox.server import serve

    with serve() as running:
        yield running


@pytest.fixture
def bench(feedamp: RunningSandbox) -> Bench:
    """Begin with a FeedAMP that has seen nothing, and an empty store."""
    feedamp.control.reset()
    return Bench(feedamp)
