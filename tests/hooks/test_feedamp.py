"""The hook: one connection, one seller, an authorised session and client."""

from __future__ import annotations

import json
import pickle
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_feedamp.api import http
from airflow_provider_feedamp.api.client import FeedAmpClient, Unverified
from airflow_provider_feedamp.api.http import DEFAULT_TIMEOUT, Http, pacer_for
from airflow_provider_feedamp.api.session import FeedAmpSession
from airflow_provider_feedamp.api.wire import Request, Response, Wire
from airflow_provider_feedamp.exceptions import (
    AuthenticationError,
    ClientRefusedError,
    CodeRefusedError,
    ConfigurationError,
    InputError,
    NotFoundError,
    ReauthorizationRequiredError,
    TokenStoreError,
    UnreachableError,
)
from airflow_provider_feedamp.hooks.auth import FeedAmpAuth
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
from airflow_provider_feedamp.tokens.cache import CACHE
from airflow_provider_feedamp.tokens.records import RecordState, TokenKey, TokenRecord
from airflow_provider_feedamp.tokens.store import MemoryStore, open_store
from tests.operators.support import order, return_, token_posts
from tests.tokens.conftest import server
from tests.tokens.edge import answers

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from tests.hooks.conftest import SetConnection
    from tests.tokens.edge import TokenServer

__all__ = ["server"]


def as_in_another_process() -> None:
    CACHE.clear()


def test_making_a_hook_reads_nothing() -> None:
    hook = FeedAmpHook("no_such_connection", seller="hooli", timeout=3, requests_per_second=2)

    assert hook.feedamp_conn_id == "no_such_connection"


# The session


def test_the_session_is_authorised_and_starts_at_the_base_url(feedamp: RunningSandbox) -> None:
    session = FeedAmpHook().get_conn()

    assert isinstance(session, FeedAmpSession)
    assert session.get("orders").json()["orders"] == []
    assert session.get(f"{feedamp.base_url}/orders").status_code == 200


def test_one_token_serves_all_hooks_of_a_process(feedamp: RunningSandbox) -> None:
    for _ in range(3):
        assert FeedAmpHook().get_conn().get("orders").ok

    assert token_posts(feedamp) == 1


def test_an_access_token_that_ended_early_is_replaced_within_the_call(feedamp: RunningSandbox) -> None:
    session = FeedAmpHook().get_conn()
    session.get("orders")
    feedamp.control.expire("hooli")

    assert session.get("orders").status_code == 200
    assert token_posts(feedamp) == 2


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let calls of the client be repeated at once: the waits are not the subject."""
    monkeypatch.setitem(Http.__init__.__kwdefaults__ or {}, "sleep", lambda seconds: None)


@pytest.mark.usefixtures("no_waits")
def test_an_account_that_refuses_fresh_tokens_costs_one_renewal(feedamp: RunningSandbox) -> None:
    client = FeedAmpHook().client
    client.orders.place(order("A"))
    feedamp.control.fault("http_error", on="data", status=401, times=None)

    for _ in range(3):
        with pytest.raises(AuthenticationError):
            client.orders.get("A")

    assert token_posts(feedamp) == 2


@pytest.mark.parametrize(
    ("argument", "extra", "timeout"),
    [(None, None, DEFAULT_TIMEOUT), (None, "7", 7.0), (3.0, None, 3.0), (3.0, 7, 3.0)],
)
def test_the_hooks_timeout_beats_the_connections_and_that_beats_the_default(
    sandbox: RunningSandbox,
    set_connection: SetConnection,
    argument: float | None,
    extra: object,
    timeout: object,
) -> None:
    set_connection(sandbox.connection("hooli", timeout=extra))

    assert FeedAmpHook(timeout=argument).get_conn().timeout == timeout


# The client


def test_the_client_waits_for_an_answer_no_longer_than_the_hook_says(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(Http.__init__.__kwdefaults__ or {}, "retries", 0)
    feedamp.control.fault("slow", on="data", seconds=5)

    with pytest.raises(UnreachableError, match="ReadTimeoutError"):
        FeedAmpHook(timeout=0.5).client.orders.get("A")


@pytest.mark.parametrize(("argument", "kept"), [(None, 32), (200, 200)])
def test_session_and_client_keep_as_many_connections_open_as_asked_for(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch, argument: int | None, kept: int
) -> None:
    seen: set[int] = set()
    exchange = Wire.exchange

    def watched(wire: Wire, request: Request) -> Response:
        seen.add(wire.kept)
        return exchange(wire, request)

    hook = FeedAmpHook(pool_size=argument)
    adapter: Any = hook.get_conn().get_adapter(feedamp.base_url)
    assert adapter.poolmanager.connection_pool_kw["maxsize"] == kept
    hook.client.orders.authorise()
    monkeypatch.setattr(Wire, "exchange", watched)
    list(hook.client.orders.list())
    assert seen == {kept}


def test_the_client_places_and_finds_orders(feedamp: RunningSandbox) -> None:
    client = FeedAmpHook().client

    assert isinstance(client, FeedAmpClient)
    assert client.orders.place(order("A/1 ü%")).inserted
    assert [found["mp_order_number"] for found in client.orders.list()] == ["A/1 ü%"]
    assert feedamp.control.sellers() == {"hooli": 1, "globex": 0}


@pytest.mark.parametrize(("argument", "extra", "pace"), [(None, "40", 40.0), (50.0, 40, 50.0)])
def test_the_pace_is_one_for_all_hooks_of_a_seller(
    sandbox: RunningSandbox, set_connection: SetConnection, argument: float | None, extra: object, pace: float
) -> None:
    set_connection(sandbox.connection("hooli", requests_per_second=extra))
    hook = FeedAmpHook(requests_per_second=argument)
    list(hook.client.orders.list())

    shared = pacer_for((sandbox.base_url, "demo-client", "hooli"), pace)

    assert shared is not None
    assert shared._next_slot > 0.0  # that very pacer has let a call through


@pytest.mark.parametrize(
    ("argument", "extra", "pace"),
    [(None, None, 2.0), (None, "40", 40.0), (50.0, "40", 50.0), (50.0, "0", 50.0)],
)
def test_list_calls_have_a_pace_of_their_own(
    sandbox: RunningSandbox, set_connection: SetConnection, argument: float | None, extra: object, pace: float
) -> None:
    set_connection(sandbox.connection("hooli", list_requests_per_second=extra))
    client = FeedAmpHook(list_requests_per_second=argument).client
    list(client.orders.list())

    pacer = http._pacers[sandbox.base_url, "demo-client", "hooli", "lists"]

    assert pacer.requests_per_second == pace
    slot = pacer._next_slot
    assert slot > 0.0  # that very pacer has let the list call through
    with pytest.raises(NotFoundError):
        client.orders.get("A")
    assert pacer._next_slot == slot  # and not the other one


@pytest.mark.parametrize(("argument", "extra"), [(None, "0"), (0, None), (0, "40")])
def test_list_calls_may_be_unpaced(
    sandbox: RunningSandbox, set_connection: SetConnection, argument: float | None, extra: object
) -> None:
    set_connection(sandbox.connection("hooli", list_requests_per_second=extra))
    list(FeedAmpHook(list_requests_per_second=argument).client.orders.list())

    assert (sandbox.base_url, "demo-client", "hooli", "lists") not in http._pacers


# What FeedAMP does not document


@pytest.mark.parametrize("configured", [None, "", "done", " done "])
def test_the_guessed_paths_can_be_configured(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch, configured: str | None
) -> None:
    client = FeedAmpHook().client
    client.orders.place(order("A"))
    client.returns.create("A", "R", return_("R"))
    refund = feedamp.control.create_refund("hooli", "A")["feedamp_refund_id"]
    for option in ("refund_complete_path", "return_complete_path"):
        feedamp.control.change(**{option: (configured or "").strip() or "complete"})
        if configured is not None:
            monkeypatch.setenv(f"AIRFLOW__FEEDAMP__{option.upper()}", configured)

    client = FeedAmpHook().client
    client.refunds.complete("A", refund)
    client.returns.complete("A", "R")

    assert client.refunds.get("A", refund)["status"] == "COMPLETE"
    assert client.returns.get("A", "R")["status"] == "COMPLETED"


def test_guesses_that_are_handed_in_beat_the_configuration(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    FeedAmpHook().client.orders.place(order("A"))
    refund = feedamp.control.create_refund("hooli", "A")["feedamp_refund_id"]
    feedamp.control.change(refund_complete_path="handed-in")
    monkeypatch.setenv("AIRFLOW__FEEDAMP__REFUND_COMPLETE_PATH", "configured")

    FeedAmpHook(unverified=Unverified("handed-in")).client.refunds.complete("A", refund)

    with pytest.raises(NotFoundError):
        FeedAmpHook().client.refunds.complete("A", refund)


# The seller


def test_the_seller_is_the_connections_unless_one_is_named(feedamp: RunningSandbox) -> None:
    assert FeedAmpHook().seller == "hooli"
    assert FeedAmpHook(seller="globex").seller == "globex"


@pytest.mark.parametrize("seller", ["", "   "])
def test_an_empty_seller_is_refused_and_not_taken_for_the_default(
    feedamp: RunningSandbox, seller: str
) -> None:
    with pytest.raises(InputError, match=r"seller is empty.*'feedamp_default'") as caught:
        FeedAmpHook(seller=seller).get_access_token()

    assert isinstance(caught.value, AirflowFailException)
    assert token_posts(feedamp) == 0


def test_the_connections_refresh_token_is_never_spent_for_another_seller(feedamp: RunningSandbox) -> None:
    with pytest.raises(ReauthorizationRequiredError, match="'globex'"):
        FeedAmpHook(seller="globex").get_access_token()

    assert token_posts(feedamp) == 0


def test_each_seller_works_in_its_own_account(feedamp: RunningSandbox) -> None:
    globex = FeedAmpHook(seller="globex")
    globex.exchange_code(feedamp.control.authorize("globex"))
    globex.client.orders.place(order("G"))
    FeedAmpHook().client.orders.place(order("A"))

    assert [each["mp_order_number"] for each in feedamp.control.orders("globex")] == ["G"]
    assert [each["mp_order_number"] for each in feedamp.control.orders("hooli")] == ["A"]


# Access tokens


def test_the_token_comes_with_what_may_be_known_about_it(feedamp: RunningSandbox) -> None:
    token = FeedAmpHook().access_token()

    assert (token.seller, token.generation, token.renewed) == ("hooli", 1, True)
    assert [token.value] == feedamp.control.access_tokens("hooli")
    assert FeedAmpHook().get_access_token() == token.value


def test_a_min_ttl_that_the_token_has_not_left_renews_it(feedamp: RunningSandbox) -> None:
    hook = FeedAmpHook()
    hook.get_access_token()

    assert not hook.access_token(timedelta(minutes=59)).renewed
    assert hook.access_token(timedelta(seconds=3599.999)).renewed
    assert token_posts(feedamp) == 2


def test_a_min_ttl_that_not_even_a_new_token_has_is_refused(feedamp: RunningSandbox) -> None:
    with pytest.raises(InputError, match=r"min_ttl of 3600 s.*'hooli'.*lives 3600 s") as caught:
        FeedAmpHook().access_token(timedelta(hours=1))

    assert isinstance(caught.value, AirflowFailException)
    assert token_posts(feedamp) == 1


def test_a_refused_refresh_token_is_posted_once_and_never_again(feedamp: RunningSandbox) -> None:
    feedamp.control.revoke("hooli")

    for _ in range(2):
        with pytest.raises(ReauthorizationRequiredError, match=r"'hooli'.*authorised again") as caught:
            FeedAmpHook().get_access_token()
        assert isinstance(caught.value, AirflowFailException)
        as_in_another_process()

    assert token_posts(feedamp) == 1


def test_a_refused_client_names_the_connection_and_condemns_no_seller(
    feedamp: RunningSandbox, set_connection: SetConnection
) -> None:
    good = feedamp.connection("hooli")
    set_connection(good | {"password": "not-the-secret"})
    with pytest.raises(ClientRefusedError, match="'feedamp_default'") as caught:
        FeedAmpHook().get_access_token()
    assert isinstance(caught.value, AirflowFailException)

    set_connection(good)

    assert FeedAmpHook().get_access_token()


def test_a_refresh_token_that_a_person_puts_into_the_connection_is_taken_in(
    feedamp: RunningSandbox, set_connection: SetConnection
) -> None:
    feedamp.control.revoke("hooli")
    with pytest.raises(ReauthorizationRequiredError):
        FeedAmpHook().get_access_token()

    feedamp.control.connect("hooli")
    set_connection(feedamp.connection("hooli"))

    assert FeedAmpHook().get_access_token() in feedamp.control.access_tokens("hooli")


def test_a_bad_connection_is_a_final_error_everywhere(set_connection: SetConnection) -> None:
    set_connection(json.dumps({"conn_type": "http"}))
    hook = FeedAmpHook()

    for use in (hook.get_access_token, hook.get_conn, lambda: hook.client, lambda: hook.seller):
        with pytest.raises(ConfigurationError) as caught:
            use()
        assert isinstance(caught.value, AirflowFailException)


def test_a_pickled_hook_holds_no_secret_and_works_again(feedamp: RunningSandbox) -> None:
    hook = FeedAmpHook(seller="hooli", timeout=7.0)
    secrets = {hook.config.client_secret, hook.config.refresh_token, hook.get_access_token()}
    hook.client.orders.list()
    secrets |= {*feedamp.control.refresh_tokens("hooli"), *feedamp.control.access_tokens("hooli")}

    pickled = pickle.dumps(hook)
    again = pickle.loads(pickled)  # noqa: S301

    assert not [secret for secret in secrets if secret and secret.encode() in pickled]
    assert again.get_access_token() == hook.get_access_token()
    assert list(again.client.orders.list()) == []
    assert (again.seller, again._timeout) == ("hooli", 7.0)


def test_pickled_authorisation_holds_no_secret_and_works_again(feedamp: RunningSandbox) -> None:
    auth = FeedAmpAuth(seller="hooli")
    requests.get(f"{feedamp.base_url}/orders", auth=auth, timeout=10).raise_for_status()

    pickled = pickle.dumps(auth)

    for secret in ("demo-secret", *feedamp.control.access_tokens("hooli")):
        assert secret.encode() not in pickled
    again = pickle.loads(pickled)  # noqa: S301
    requests.get(f"{feedamp.base_url}/orders", auth=again, timeout=10).raise_for_status()


def test_a_pickled_session_holds_no_secret(feedamp: RunningSandbox) -> None:
    session = FeedAmpHook(seller="hooli").get_conn()
    session.get("orders").raise_for_status()

    pickled = pickle.dumps(session)

    for secret in ("demo-secret", *feedamp.control.access_tokens("hooli")):
        assert secret.encode() not in pickled


def test_the_authorisation_url_is_the_documented_one(
    sandbox: RunningSandbox, set_connection: SetConnection
) -> None:
    set_connection(sandbox.connection("hooli") | {"login": "client & co", "host": "https://a.example/api/v1"})

    url = FeedAmpHook().authorize_url("https://shop.example/back?x=1&y=ü", "s t&te")

    parts = urlsplit(url)
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == "https://a.example/api/v1/authorize"
    assert parse_qs(parts.query) == {
        "response_type": ["code"],
        "client_id": ["client & co"],
        "state": ["s t&te"],
        "redirect_url": ["https://shop.example/back?x=1&y=ü"],
    }


@pytest.mark.parametrize(
    ("redirect_url", "state", "field"),
    [
        ("", "s", "redirect_url"),
        ("/back", "s", "redirect_url"),
        ("shop.example/back", "s", "redirect_url"),
        ("ftp://shop.example", "s", "redirect_url"),
        ("https://shop.example/back", "", "state"),
    ],
)
def test_an_authorisation_url_that_cannot_work_is_not_made(
    feedamp: RunningSandbox, redirect_url: str, state: str, field: str
) -> None:
    with pytest.raises(InputError, match=f"^{field} ") as caught:
        FeedAmpHook().authorize_url(redirect_url, state)

    assert isinstance(caught.value, AirflowFailException)


def test_a_code_makes_a_seller_ready(feedamp: RunningSandbox) -> None:
    hook = FeedAmpHook(seller="globex")

    hook.exchange_code(f" {feedamp.control.authorize('globex')}\n")

    assert hook.get_access_token() in feedamp.control.access_tokens("globex")
    assert token_posts(feedamp) == 1


@pytest.mark.parametrize("redirect_url", [None, "https://shop.example/back"])
def test_a_server_that_asks_for_the_redirect_url_again_gets_it(
    server: TokenServer, set_connection: SetConnection, redirect_url: str | None
) -> None:
    server.will(answers(200, {"access_token": "an-access-token", "refresh_token": "a-refresh-token"}))
    client = {"conn_type": "feedamp", "login": "client", "password": "client-secret"}
    set_connection(client | {"host": server.url.removesuffix("/access_token")})

    FeedAmpHook().exchange_code("a-code", redirect_url)

    [request] = server.received
    assert request.json["code"] == "a-code"
    assert request.json.get("redirect_url") == redirect_url
    assert "redirect_url" in request.json or redirect_url is None


def spent_code(sandbox: RunningSandbox) -> str:
    code = sandbox.control.authorize("globex")
    FeedAmpHook(seller="globex").exchange_code(code)
    return code


@pytest.mark.parametrize("make_code", [spent_code, lambda sandbox: "never-issued"])
def test_a_refused_code_is_explained_without_being_quoted(
    feedamp: RunningSandbox, make_code: Callable[[RunningSandbox], str]
) -> None:
    code = make_code(feedamp)

    with pytest.raises(CodeRefusedError, match=r"'globex'.*works once") as caught:
        FeedAmpHook(seller="globex").exchange_code(code)

    assert code not in repr(caught.value)
    assert isinstance(caught.value, AirflowFailException)


@pytest.mark.parametrize("code", ["", "  "])
def test_an_empty_code_is_refused_before_anything_is_sent(feedamp: RunningSandbox, code: str) -> None:
    with pytest.raises(InputError, match="code is empty"):
        FeedAmpHook().exchange_code(code)

    assert token_posts(feedamp) == 0


def store_record(sandbox: RunningSandbox, seller: str, *, client_id: str = "demo-client") -> None:
    key = TokenKey(f"{sandbox.base_url}/access_token", client_id, seller)
    record = TokenRecord(key=key, refresh_token="r", state=RecordState.REAUTH_REQUIRED)
    open_store("memory", None).write(record, expected=None)


@pytest.mark.parametrize(
    ("stored", "own", "asks", "found"),
    [
        (("zeta", "beta"), True, None, ["beta", "hooli", "zeta"]),
        (("hooli",), True, None, ["hooli"]),
        (("zeta",), False, None, ["zeta"]),
        ((), True, "nobody", ["hooli"]),
    ],
    ids=["in the store", "named once", "a connection without a refresh token", "the hook's own is none"],
)
def test_sellers_are_those_of_the_store_and_the_connections_own_and_to_list_them_spends_nothing(
    feedamp: RunningSandbox,
    set_connection: SetConnection,
    stored: tuple[str, ...],
    own: bool,
    asks: str | None,
    found: list[str],
) -> None:
    if not own:
        set_connection(feedamp.connection("hooli", refresh_token=None))
    for seller in stored:
        store_record(feedamp, seller)
    store_record(feedamp, "another-clients", client_id="another")

    assert FeedAmpHook(seller=asks).sellers() == found
    assert token_posts(feedamp) == 0


def test_a_store_that_cannot_be_listed_is_an_error_not_an_empty_list(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(self: MemoryStore, token_url: str, client_id: str) -> list[TokenKey]:
        raise TokenStoreError("The store cannot be reached.")

    monkeypatch.setattr(MemoryStore, "keys", unreachable)

    with pytest.raises(TokenStoreError):
        FeedAmpHook().sellers()


def refusal(seller: str | None) -> str:
    with pytest.raises(ReauthorizationRequiredError) as caught:
        FeedAmpHook(seller=seller).get_access_token()
    return str(caught.value)


def test_an_error_about_an_unknown_seller_names_those_that_are_known_and_the_most_alike_first(
    feedamp: RunningSandbox,
) -> None:
    for number in range(30):
        store_record(feedamp, f"shop-{number}")
    store_record(feedamp, "another-clients", client_id="another")

    told = refusal("Shop-27")

    assert "Known to this connection are: 'shop-27', " in told
    assert told.endswith(" and 11 more.")
    assert told.count("'shop-") == 20
    assert "another-clients" not in told


def test_a_known_seller_who_must_authorise_again_is_not_told_of_others(
    feedamp: RunningSandbox,
) -> None:
    store_record(feedamp, "zeta")
    feedamp.control.revoke("hooli")

    assert "Known to this connection" not in refusal("zeta")
    assert "Known to this connection" not in refusal("hooli")


def test_where_nobody_is_known_or_the_store_cannot_list_the_error_is_the_same_as_ever(
    sandbox: RunningSandbox, set_connection: SetConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_connection(sandbox.connection("hooli", refresh_token=None))
    told = refusal("nobody")
    assert "'nobody' has to be authorised by a person" in told
    assert "Known to this connection" not in told

    def cannot_list(self: MemoryStore, token_url: str, client_id: str) -> list[TokenKey]:
        raise TokenStoreError("The keys cannot be listed from here.")

    store_record(sandbox, "zeta")
    assert "Known to this connection are: 'zeta'." in refusal("nobody")
    monkeypatch.setattr(MemoryStore, "keys", cannot_list)
    assert refusal("nobody") == told
