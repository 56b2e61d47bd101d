from __future__ import annotations

import socket
import threading
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from airflow_provider_feedamp import __version__
from airflow_provider_feedamp.api.http import DEFAULT_TIMEOUT
from airflow_provider_feedamp.api.session import BearerAuth, FeedAmpSession
from tests.api.edge import Edge, Reply, Tokens


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("orders", "/api/v1/orders"),
        ("/orders", "/api/v1/orders"),
        ("orders?x=1", "/api/v1/orders?x=1"),
        ("orders?next=http://other/", "/api/v1/orders?next=http://other/"),
        ("orders/A%2F1%20%C3%BC%25", "/api/v1/orders/A%2F1%20%C3%BC%25"),
        ("", "/api/v1/"),
    ],
)
def test_a_relative_url_starts_at_the_base_url(
    edge: Edge, session: FeedAmpSession, url: str, target: str
) -> None:
    session.get(url)
    assert edge.received[0].target == target


def test_a_trailing_slash_of_the_base_url_does_not_matter(edge: Edge, tokens: Tokens) -> None:
    with FeedAmpSession(f"{edge.base_url}/", BearerAuth(tokens, edge.base_url)) as session:
        session.get("orders")
    assert edge.received[0].target == "/api/v1/orders"


def test_a_request_says_who_sends_it_and_what_it_wants(edge: Edge, session: FeedAmpSession) -> None:
    session.get("orders")
    headers = edge.received[0].headers
    assert headers["User-Agent"].startswith(f"airflow-provider-feedamp/{__version__} ")
    assert headers["Accept"] == "application/json"


def test_cookies_are_neither_kept_nor_sent(edge: Edge, session: FeedAmpSession) -> None:
    edge.will_reply(Reply(200, headers={"Set-Cookie": "seller=other; Path=/"}))
    session.get("orders")
    session.get("orders")
    assert "Cookie" not in edge.received[1].headers


@pytest.mark.parametrize(
    ("of_session", "of_request", "expected"),
    [(DEFAULT_TIMEOUT, None, DEFAULT_TIMEOUT), (7.5, None, 7.5), (7.5, 1.5, 1.5), (7.5, (1, 2), (1, 2))],
)
def test_every_request_has_a_timeout(
    edge: Edge,
    tokens: Tokens,
    of_session: float | tuple[float, float],
    of_request: float | tuple[float, float] | None,
    expected: object,
) -> None:
    given: list[object] = []

    class Listening(HTTPAdapter):
        def send(self, *args: Any, **options: Any) -> requests.Response:
            given.append(options["timeout"])
            return super().send(*args, **options)

    with FeedAmpSession(edge.base_url, BearerAuth(tokens, edge.base_url), timeout=of_session) as session:
        session.mount("http://", Listening())
        session.get("orders", timeout=of_request)
    assert given == [expected]


def test_a_server_that_does_not_answer_in_time_ends_in_a_timeout(tokens: Tokens) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        base_url = f"http://127.0.0.1:{silent.getsockname()[1]}/api/v1"
        with FeedAmpSession(base_url, BearerAuth(tokens, base_url), timeout=0.05, retries=0) as session:
            with pytest.raises(requests.Timeout):
                session.get("orders")


def test_its_connections_are_kept_for_the_next_request(edge: Edge, session: FeedAmpSession) -> None:
    before = threading.active_count()
    for _ in range(5):
        session.get("orders")
    assert threading.active_count() <= before + 1  # the server uses a thread for each connection
