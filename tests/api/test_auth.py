from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING

import pytest
import requests

from airflow_provider_feedamp.api.session import BearerAuth, FeedAmpSession
from airflow_provider_feedamp.exceptions import InputError, ReauthorizationRequiredError, TokenError
from tests.api.edge import Edge, Reply, Tokens

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def bearers(edge: Edge) -> list[str | None]:
    return [request.bearer for request in edge.received]


def test_a_request_carries_the_token_of_the_source(edge: Edge, session: FeedAmpSession) -> None:
    session.get("orders")
    assert bearers(edge) == ["Bearer first-token"]


def test_it_authorises_plain_requests_code_too(edge: Edge, tokens: Tokens) -> None:
    edge.will_reply(Reply(401), Reply(200, {"ok": True}))
    answer = requests.get(f"{edge.base_url}/orders", auth=BearerAuth(tokens, edge.base_url), timeout=5)
    assert answer.json() == {"ok": True}
    assert bearers(edge) == ["Bearer first-token", "Bearer second-token"]


def test_a_refused_token_is_replaced_once_and_the_same_request_sent_again(
    edge: Edge, session: FeedAmpSession, tokens: Tokens
) -> None:
    edge.will_reply(Reply(401, {"message": "expired"}), Reply(200, {"ok": True}))
    answer = session.put("orders/A1?x=1", data=b'{"price": 1.10}')
    assert answer.status_code == 200
    assert tokens.refused == ["first-token"]
    first, second = edge.received
    assert (first.method, first.target, first.body) == (second.method, second.target, second.body)
    assert second.bearer == "Bearer second-token"


def test_a_post_is_sent_again_after_a_401_because_it_was_not_taken(
    edge: Edge, session: FeedAmpSession
) -> None:
    edge.will_reply(Reply(401), Reply(201))
    assert session.post("orders/A1/errors", json=[]).status_code == 201
    assert len(edge.received) == 2


def test_a_second_401_is_handed_back(edge: Edge, session: FeedAmpSession, tokens: Tokens) -> None:
    edge.otherwise = Reply(401)
    answer = session.get("orders")
    assert answer.status_code == 401
    assert [earlier.status_code for earlier in answer.history] == [401]
    assert tokens.refused == ["first-token"]
    assert len(edge.received) == 2


def test_each_request_may_replace_a_token(edge: Edge, session: FeedAmpSession, tokens: Tokens) -> None:
    tokens.tokens = ["one", "two", "three"]
    edge.will_reply(Reply(401), Reply(200), Reply(401), Reply(200))
    assert [session.get("orders").status_code for _ in range(2)] == [200, 200]
    assert tokens.refused == ["one", "two"]


def test_a_prepared_request_that_is_sent_twice_hands_in_the_token_that_it_carried(
    edge: Edge, session: FeedAmpSession, tokens: Tokens
) -> None:
    tokens.tokens = ["one", "two", "three"]
    edge.will_reply(Reply(401), Reply(200), Reply(401), Reply(200))
    prepared = session.prepare_request(requests.Request("GET", "orders"))
    session.send(prepared)
    session.send(prepared)
    assert tokens.refused == ["one", "two"]


def test_a_file_is_sent_again_from_where_it_stood(edge: Edge, session: FeedAmpSession) -> None:
    edge.will_reply(Reply(401), Reply(200))
    body = io.BytesIO(b"skipped-and-sent")
    body.seek(len(b"skipped-"))
    session.put("orders/A1", data=body)
    assert [request.body for request in edge.received] == [b"and-sent", b"and-sent"]


def test_a_body_that_cannot_be_read_twice_is_not_sent_half(edge: Edge, session: FeedAmpSession) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"once"

    edge.otherwise = Reply(401, headers={"Connection": "close"})
    assert session.put("orders/A1", data=pieces()).status_code == 401
    assert len(edge.received) == 1


def test_the_source_is_told_once_of_each_token_that_works(
    edge: Edge, session: FeedAmpSession, tokens: Tokens
) -> None:
    edge.will_reply(Reply(), Reply(404), Reply(401), Reply())
    for _ in range(3):
        session.get("orders")
    assert tokens.noted == ["first-token", "second-token"]


def test_a_token_that_is_refused_is_not_told_as_working(
    edge: Edge, session: FeedAmpSession, tokens: Tokens
) -> None:
    edge.otherwise = Reply(401)
    session.get("orders")
    assert tokens.noted == []


def test_what_the_source_raises_comes_through(edge: Edge) -> None:
    class Ended(Tokens):
        def replace(self, refused: str) -> str:
            message = "the seller must authorise again"
            raise ReauthorizationRequiredError(message)

    edge.otherwise = Reply(401)
    with FeedAmpSession(edge.base_url, BearerAuth(Ended("old"), edge.base_url)) as session:
        with pytest.raises(ReauthorizationRequiredError):
            session.get("orders")
    assert len(edge.received) == 1


@pytest.mark.parametrize("token", ["", "secret\nX-Other: 1", "secret token", "sécret", "secret\x00"])
def test_a_token_that_no_header_can_carry_is_refused_without_being_shown(edge: Edge, token: str) -> None:
    auth = BearerAuth(Tokens(token), edge.base_url)
    with FeedAmpSession(edge.base_url, auth) as session, pytest.raises(TokenError) as caught:
        session.get("orders")
    assert "cret" not in str(caught.value)
    assert edge.received == []


def test_an_absolute_url_of_another_origin_is_refused_unsent(
    elsewhere: Edge, session: FeedAmpSession
) -> None:
    with pytest.raises(InputError, match="goes elsewhere"):
        session.get(f"{elsewhere.base_url}/orders")
    assert elsewhere.received == []


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1.other.invalid/orders",
        "http://127.0.0.1:81/orders",
        "http://127.0.0.1@other.invalid/orders",
        "https://127.0.0.1/orders",
    ],
)
def test_an_origin_that_begins_like_ours_is_another_one(tokens: Tokens, url: str) -> None:
    request = requests.PreparedRequest()
    request.url, request.headers = url, requests.structures.CaseInsensitiveDict()
    auth = BearerAuth(tokens, "http://127.0.0.1/api/v1")
    with pytest.raises(InputError, match="goes elsewhere"):
        auth(request)


def test_an_absolute_url_of_the_same_origin_is_authorised(edge: Edge, session: FeedAmpSession) -> None:
    session.get(f"{edge.origin}/elsewhere/on/the/host")
    assert bearers(edge) == ["Bearer first-token"]


def test_a_redirect_within_the_origin_keeps_the_bearer(edge: Edge, session: FeedAmpSession) -> None:
    edge.will_reply(Reply(307, headers={"Location": "/api/v1/moved"}), Reply(200))
    assert session.get("orders").status_code == 200
    assert bearers(edge) == ["Bearer first-token", "Bearer first-token"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_origin_loses_the_bearer(
    edge: Edge, elsewhere: Edge, session: FeedAmpSession, status: int
) -> None:
    edge.will_reply(Reply(status, headers={"Location": f"{elsewhere.base_url}/orders"}))
    session.get("orders")
    assert bearers(elsewhere) == [None]


def test_a_401_of_another_origin_gets_no_token(
    edge: Edge, elsewhere: Edge, session: FeedAmpSession, tokens: Tokens
) -> None:
    edge.will_reply(Reply(307, headers={"Location": f"{elsewhere.base_url}/orders"}))
    elsewhere.otherwise = Reply(401)
    assert session.get("orders").status_code == 401
    assert bearers(elsewhere) == [None]
    assert tokens.refused == []


def test_a_401_of_another_origin_gets_no_token_in_plain_requests_either(
    edge: Edge, elsewhere: Edge, tokens: Tokens
) -> None:
    edge.will_reply(Reply(307, headers={"Location": f"{elsewhere.base_url}/orders"}))
    elsewhere.otherwise = Reply(401)
    auth = BearerAuth(tokens, edge.base_url)
    assert requests.get(f"{edge.base_url}/orders", auth=auth, timeout=5).status_code == 401
    assert tokens.refused == []


def test_a_redirect_after_a_renewal_carries_the_new_token(edge: Edge, session: FeedAmpSession) -> None:
    edge.will_reply(Reply(401), Reply(307, headers={"Location": "/api/v1/moved"}), Reply(200))
    session.get("orders")
    assert bearers(edge) == ["Bearer first-token", "Bearer second-token", "Bearer second-token"]


def test_netrc_is_not_used(
    edge: Edge, elsewhere: Edge, session: FeedAmpSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password something\n")
    monkeypatch.setenv("NETRC", str(netrc))
    edge.will_reply(Reply(307, headers={"Location": f"{elsewhere.base_url}/orders"}))
    session.get("orders")
    assert bearers(edge) == ["Bearer first-token"]
    assert bearers(elsewhere) == [None]


def test_threads_do_not_mix_up_their_renewals(edge: Edge, session: FeedAmpSession, tokens: Tokens) -> None:
    edge.will_reply(*[Reply(401) for _ in range(8)])
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(session.get("orders").status_code)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(edge.received) == 8 + len(tokens.refused)
    assert statuses.count(200) + statuses.count(401) == 8
    assert set(tokens.refused) <= {"first-token", "second-token"}
