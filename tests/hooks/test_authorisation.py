"""Authorising a seller through the hook: whose state it is, whose account it is, and what is stored when."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_provider_feedamp.exceptions import (
    CodeRefusedError,
    ConfigurationError,
    InputError,
    NotProcessedError,
    RedirectRefusedError,
    TokenBusyError,
    TokenRecordError,
    TokenStoreError,
)
from airflow_provider_feedamp.hooks.authorisation import Authorisation, redirect_query
from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
from airflow_provider_feedamp.tokens.cache import CACHE
from airflow_provider_feedamp.tokens.custodian import known_order, note_order
from airflow_provider_feedamp.tokens.pending import PendingAuthorisation
from airflow_provider_feedamp.tokens.records import RecordState, TokenKey, TokenRecord
from airflow_provider_feedamp.tokens.store import MemoryStore, open_store, records_of
from tests.operators.support import order

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_feedamp.sandbox.server import RunningSandbox
    from tests.hooks.conftest import FailingStore, SetConnection

BACK = "https://airflow.example/feedamp/callback"
#: Whom the connection has no refresh token for.
SELLER = "initech"


class Kept(NamedTuple):
    """The token store of the deployment, and the seller's key in it."""

    store: MemoryStore
    key: TokenKey

    def read(self) -> TokenRecord | None:
        return self.store.read(self.key)

    def record(self) -> TokenRecord:
        record = self.read()
        assert record is not None
        return record

    def everything(self) -> str:
        return " ".join(record.to_json() for record in self.store._records.values())


@pytest.fixture
def kept(feedamp: RunningSandbox) -> Kept:
    store = open_store("memory", None)
    assert isinstance(store, MemoryStore)
    key = TokenKey(f"{feedamp.base_url}/access_token", feedamp.state.settings.client_id, SELLER)
    return Kept(store, key)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Move the time of new custodians by the seconds in it."""
    from airflow_provider_feedamp.hooks import feedamp as module

    moved, real = [0.0], module.custodian_of

    def custodian_of(*args: Any) -> Any:
        from dataclasses import replace

        custodian = real(*args)
        return replace(custodian, now=lambda: custodian.now() + moved[0])

    monkeypatch.setattr(module, "custodian_of", custodian_of)
    return moved


def authorisation(seller: str = SELLER, by: str = "ada", conn_id: str = "feedamp_default") -> Authorisation:
    """Return it as another process would make it."""
    return Authorisation(FeedAmpHook(conn_id, seller), by)


def agree(sandbox: RunningSandbox, state: str, account: str = SELLER) -> str:
    """Return the URL that the browser comes back to when the owner of an account has agreed."""
    if account not in sandbox.control.sellers():
        sandbox.control.connect(account)
    return f"{BACK}?code={sandbox.control.authorize(account)}&state={state}"


def begin(sandbox: RunningSandbox, account: str = SELLER) -> str:
    return agree(sandbox, authorisation().start(BACK).state, account)


def waiting(sandbox: RunningSandbox, account: str = SELLER) -> str:
    """Bring tokens that wait for a person's answer, and return their state."""
    redirect = begin(sandbox, account)
    authorisation().redeem(redirect)
    return state_of(redirect)


def state_of(redirect: str) -> str:
    (state,) = parse_qs(urlsplit(redirect).query)["state"]
    return state


def import_order(number: str, seller: str = SELLER) -> None:
    """Place an order as an import does."""
    hook = FeedAmpHook(seller=seller)
    hook.client.orders.place(order(number))
    hook.note_order(hook.client.orders.last_placed)


def authorised(sandbox: RunningSandbox, account: str = SELLER) -> dict[str, Any]:
    return authorisation().confirm(waiting(sandbox, account))


def test_the_consent_page_gets_a_state_that_is_new_each_time(feedamp: RunningSandbox) -> None:
    first, second = authorisation().start(BACK), authorisation().start(BACK, seconds=60)

    query = parse_qs(urlsplit(first.url).query)
    assert query["state"] == [first.state]
    assert query["redirect_url"] == [BACK]
    assert first.state != second.state
    assert 58 <= (first.expires_at - second.expires_at).total_seconds() - 480 <= 62


def test_a_new_seller_is_stored_when_a_person_has_seen_the_account(
    feedamp: RunningSandbox, kept: Kept
) -> None:
    redirect = begin(feedamp)

    found = authorisation().redeem(redirect)

    assert (found.account, found.order_numbers, found.confirmed) == ("empty", (), False)
    assert found.question == (
        "No order of seller 'initech' is known to tell the account by. It has no orders at all. Is this the "
        "account of seller 'initech'?"
    )
    assert kept.read() is None
    description = authorisation().confirm(state_of(redirect))
    record = kept.record()
    assert feedamp.control.refresh_tokens(SELLER)[-1] == record.refresh_token
    assert (description["seller"], description["generation"], description["renewed"]) == (SELLER, 1, True)
    assert FeedAmpHook(seller=SELLER).get_access_token() == record.access_token


def test_orders_of_the_account_of_a_new_seller_are_shown(feedamp: RunningSandbox) -> None:
    for number in "ABCD":
        FeedAmpHook(seller="hooli").client.orders.place(order(number))

    found = authorisation().redeem(begin(feedamp, "hooli"))

    assert (found.account, found.order_numbers) == ("new", ("A", "B", "C"))
    assert "It has the orders 'A', 'B', 'C'." in (found.question or "")


def test_a_seller_whose_known_order_is_in_the_account_is_stored_at_once(
    feedamp: RunningSandbox, kept: Kept
) -> None:
    authorised(feedamp)
    import_order("A-1")

    found = authorisation().redeem(begin(feedamp))

    assert (found.account, found.known_order, found.confirmed, found.question) == ("known", "A-1", True, None)
    token = kept.record().token()
    assert token is not None
    until = token.expires_at.to_iso8601_string()
    assert found.description == {"seller": SELLER, "expires_at": until, "renewed": True, "generation": 2}


def test_another_account_replaces_nothing_until_a_person_says_so(feedamp: RunningSandbox, kept: Kept) -> None:
    authorised(feedamp)
    import_order("A-1")
    before = kept.read()
    FeedAmpHook(seller="hooli").client.orders.place(order("B-1"))
    redirect = begin(feedamp, "hooli")

    found = authorisation().redeem(redirect)

    assert (found.account, found.order_numbers, found.confirmed) == ("other", ("B-1",), False)
    assert "does not have order 'A-1'" in (found.question or "")
    assert kept.read() == before
    authorisation().confirm(state_of(redirect))
    assert known_order(*kept) == "B-1"
    again = authorisation().redeem(begin(feedamp))
    assert (again.account, again.known_order) == ("other", "B-1")


def test_a_pair_that_was_dropped_leaves_nothing(feedamp: RunningSandbox, kept: Kept) -> None:
    authorised(feedamp)
    import_order("A-1")
    before = kept.read()
    state = waiting(feedamp, "hooli")

    authorisation().discard(state)

    with pytest.raises(RedirectRefusedError, match="its tokens were dropped"):
        authorisation().confirm(state)
    assert kept.read() == before
    assert known_order(*kept) == "A-1"
    assert feedamp.control.refresh_tokens("hooli")[-1] not in kept.everything()


def test_an_order_is_learned_from_the_account_before_while_its_token_works(
    feedamp: RunningSandbox, kept: Kept
) -> None:
    authorised(feedamp)
    FeedAmpHook(seller=SELLER).client.orders.place(order("A-1"))  # by an import of before
    assert known_order(*kept) is None

    assert authorisation().redeem(begin(feedamp)).account == "known"

    feedamp.control.expire(SELLER)
    note_order(*kept, None, anew=True)
    assert authorisation().redeem(begin(feedamp)).account == "new"


def test_a_feedamp_that_cannot_be_asked_leaves_it_to_the_person(feedamp: RunningSandbox, kept: Kept) -> None:
    redirect = begin(feedamp)
    feedamp.control.fault("http_error", on="data", status=403, times=9)

    found = authorisation().redeem(redirect)

    assert (found.account, found.confirmed) == ("unchecked", False)
    assert "could not be checked" in (found.question or "")
    assert kept.read() is None
    feedamp.control.clear_faults()
    assert authorisation().confirm(state_of(redirect))["generation"] == 1


def test_an_account_of_before_never_vouches_again_when_feedamp_is_away(
    feedamp: RunningSandbox, kept: Kept
) -> None:
    authorised(feedamp)
    import_order("A-1")
    redirect = begin(feedamp, "hooli")
    feedamp.control.fault("http_error", on="data", status=403, times=99)
    authorisation().redeem(redirect)

    authorisation().confirm(state_of(redirect))

    assert known_order(*kept) is None


@pytest.mark.parametrize("number", [None, 7, ["A"]])
def test_an_order_without_a_number_leaves_the_question_to_the_person(
    feedamp: RunningSandbox,
    kept: Kept,
    monkeypatch: pytest.MonkeyPatch,
    number: object,
) -> None:
    """The code is spent by then: whatever else fails would leave tokens that nobody can store."""
    from airflow_provider_feedamp.api.client import OrdersApi

    listed = [{"mp_order_number": number}, {}, {"mp_order_number": "A-1"}]
    monkeypatch.setattr(OrdersApi, "list", lambda self, **filters: iter(listed))
    redirect = begin(feedamp)

    found = authorisation().redeem(redirect)

    assert (found.account, found.order_numbers) == ("new", ("A-1",))
    assert authorisation().confirm(state_of(redirect))["generation"] == 1
    assert known_order(*kept) == "A-1"


def test_an_import_that_ends_after_the_account_was_replaced_notes_nothing(
    feedamp: RunningSandbox, kept: Kept
) -> None:
    """Its worker goes on with the access token of before, for up to an hour."""
    authorised(feedamp, "hooli")
    importing = FeedAmpHook(seller=SELLER)
    importing.client.orders.place(order("of hooli"))
    held = CACHE.slot(kept.key).token
    authorised(feedamp)  # in another process: what this one holds stays
    CACHE.slot(kept.key).token = held

    importing.note_order("of hooli")
    assert known_order(*kept) is None
    CACHE.clear()
    import_order("A-1")
    assert known_order(*kept) == "A-1"


def test_an_order_of_an_account_that_is_replaced_while_it_is_read_is_not_noted(
    feedamp: RunningSandbox, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_feedamp.hooks import authorisation as module

    authorised(feedamp, "hooli")
    FeedAmpHook(seller=SELLER).client.orders.place(order("of hooli"))
    redirect = begin(feedamp)
    note_order(*kept, None, anew=True)
    authorisation().redeem(redirect)
    asks, once = module._orders, [True]

    def orders(*args: Any) -> list[str]:
        found = asks(*args)
        if once:
            once.clear()
            authorisation().confirm(state_of(redirect))
        return found

    monkeypatch.setattr(module, "_orders", orders)
    authorisation().start(BACK)

    assert not once
    assert known_order(*kept) is None


# Whose state it is


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"by": "bob"}, "another person has begun"),
        ({"seller": "globex"}, "authorises seller 'initech', not 'globex'"),
        ({"conn_id": "other"}, "connection 'feedamp_default', not 'other'"),
    ],
)
def test_only_the_person_who_began_can_go_on_for_that_seller_and_connection(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch, other: dict[str, str], said: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps(feedamp.connection("hooli")))
    redirect = begin(feedamp)

    for step in (Authorisation.redeem, Authorisation.confirm, Authorisation.discard):
        given = redirect if step is Authorisation.redeem else state_of(redirect)
        with pytest.raises(RedirectRefusedError, match=said):
            step(authorisation(**other), given)
    assert feedamp.control.counters()["token_posts"] == 0
    assert authorisation().redeem(redirect).account == "empty"


@pytest.mark.parametrize("field", ["password", "login", "host"])
def test_a_connection_that_changed_meanwhile_is_named(
    feedamp: RunningSandbox, set_connection: SetConnection, field: str
) -> None:
    redirect = begin(feedamp)
    changed = {"password": "another", "login": "another", "host": "https://feedamp.example/api/v1"}
    set_connection(feedamp.connection("hooli") | {field: changed[field]})

    with pytest.raises(RedirectRefusedError, match="another host, Client ID or Client Secret"):
        authorisation().redeem(redirect)


def test_a_connection_that_was_deleted_meanwhile_is_named(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    redirect = begin(feedamp)
    monkeypatch.delenv("AIRFLOW_CONN_FEEDAMP_DEFAULT")

    with pytest.raises(ConfigurationError, match="no Airflow connection 'feedamp_default'"):
        authorisation().redeem(redirect)


def test_a_redirect_that_comes_late_is_refused(feedamp: RunningSandbox, clock: list[float]) -> None:
    redirect = begin(feedamp)
    clock[0] = 601

    with pytest.raises(RedirectRefusedError, match="time of this authorisation is over"):
        authorisation().redeem(redirect)
    assert feedamp.control.counters()["token_posts"] == 0


def test_a_question_can_be_answered_for_as_long_again(feedamp: RunningSandbox, clock: list[float]) -> None:
    redirects = [begin(feedamp), begin(feedamp)]
    clock[0] = 590
    for redirect in redirects:
        authorisation().redeem(redirect)
    clock[0] = 1180
    assert authorisation().confirm(state_of(redirects[0]))
    clock[0] = 1200

    with pytest.raises(RedirectRefusedError, match="time of this authorisation is over"):
        authorisation().confirm(state_of(redirects[1]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state[:-1], "is cut"),
        (lambda state: state + "x", "is cut"),
        (lambda state: state[:-2] + ("AA" if not state.endswith("AA") else "BB"), "is cut"),
        (lambda state: state.replace(".", ""), "is cut"),
        (lambda state: "7fffffff" + state[8:], "No authorisation was begun here"),
        (lambda state: "00000001" + state[8:], "is over"),
        (lambda state: "ü\udcff", "is cut"),
    ],
)
def test_a_state_that_was_changed_is_refused(
    feedamp: RunningSandbox, change: Callable[[str], str], said: str
) -> None:
    started = authorisation().start(BACK)
    query = {"code": feedamp.control.authorize("hooli"), "state": change(started.state)}

    with pytest.raises(RedirectRefusedError, match=said) as caught:
        authorisation().redeem(query)

    assert query["code"] not in str(caught.value)
    assert feedamp.control.counters()["token_posts"] == 0


def test_a_redirect_works_once(feedamp: RunningSandbox) -> None:
    redirect = begin(feedamp)
    authorisation().redeem(redirect)

    with pytest.raises(RedirectRefusedError, match="used before: its tokens wait for a person's answer"):
        authorisation().redeem(redirect)
    authorisation().confirm(state_of(redirect))
    with pytest.raises(RedirectRefusedError, match="used before: its tokens are stored"):
        authorisation().redeem(redirect)
    assert feedamp.control.counters()["token_posts"] == 1


def test_a_pair_is_stored_once_however_often_it_is_confirmed(feedamp: RunningSandbox, kept: Kept) -> None:
    state = waiting(feedamp)
    authorisation().confirm(state)
    hook = FeedAmpHook(seller=SELLER)
    hook._custodian.replace(hook.get_access_token())
    renewed = kept.read()

    assert authorisation().confirm(state)["generation"] == 2
    assert kept.read() == renewed


@pytest.mark.parametrize("newer", ["confirmed", "exchanged"])
def test_an_older_pair_never_replaces_that_of_a_newer_authorisation(
    feedamp: RunningSandbox, kept: Kept, newer: str
) -> None:
    older, younger = begin(feedamp), begin(feedamp)
    authorisation().redeem(older)
    if newer == "confirmed":
        authorisation().redeem(younger)
        authorisation().confirm(state_of(younger))
    else:
        FeedAmpHook(seller=SELLER).exchange_code(feedamp.control.authorize(SELLER))
    hook = FeedAmpHook(seller=SELLER)
    hook._custodian.replace(hook.get_access_token())
    stored = kept.read()

    with pytest.raises(RedirectRefusedError, match="has been authorised again since"):
        authorisation().confirm(state_of(older))
    assert kept.read() == stored
    assert stored is not None
    assert stored.refresh_token == feedamp.control.refresh_tokens(SELLER)[-1]


def test_a_younger_pair_replaces_an_older_one_however_often_that_was_renewed(
    feedamp: RunningSandbox, kept: Kept
) -> None:
    older, younger = begin(feedamp), begin(feedamp)
    for redirect in (older, younger):
        authorisation().redeem(redirect)
    granted = feedamp.control.refresh_tokens(SELLER)[-1]
    authorisation().confirm(state_of(older))
    hook = FeedAmpHook(seller=SELLER)
    hook._custodian.replace(hook.get_access_token())

    assert authorisation().confirm(state_of(younger))["generation"] == 3
    record = kept.record()
    assert record.refresh_token == granted


def test_a_no_that_comes_after_the_yes_is_told_that_the_tokens_are_stored(
    feedamp: RunningSandbox, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = waiting(feedamp)
    authorisation().confirm(first)
    with pytest.raises(RedirectRefusedError, match="its tokens are stored"):
        authorisation().discard(first)

    second = waiting(feedamp)
    with monkeypatch.context() as patched:
        # As when the process is killed before the mark says so.
        patched.setattr(PendingAuthorisation, "_end", lambda self, name, stage: None)
        authorisation().confirm(second)
    with pytest.raises(RedirectRefusedError, match="its tokens are stored"):
        authorisation().discard(second)
    record = kept.record()
    assert record.generation == 2


def test_a_no_is_taken_whatever_is_stored_of_the_seller(
    feedamp: RunningSandbox, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = waiting(feedamp)
    read = kept.store.read

    def damaged(asked: TokenKey) -> TokenRecord | None:
        if asked == kept.key:
            raise TokenRecordError("The stored token record is damaged.")
        return read(asked)

    monkeypatch.setattr(kept.store, "read", damaged)

    authorisation().discard(state)

    assert feedamp.control.refresh_tokens(SELLER)[-1] not in kept.everything()


def test_nothing_is_stored_before_the_code_was_exchanged(feedamp: RunningSandbox) -> None:
    state = authorisation().start(BACK).state

    with pytest.raises(RedirectRefusedError, match="Nothing was exchanged"):
        authorisation().confirm(state)


def test_whoever_is_handed_a_state_learns_whom_to_ask(feedamp: RunningSandbox) -> None:
    state = authorisation().start(BACK).state

    assert Authorisation.whose(state) == ("feedamp_default", SELLER)
    for unknown in ("", state + "x", "7fffffff" + state[8:]):
        with pytest.raises(RedirectRefusedError, match="No authorisation waits"):
            Authorisation.whose(unknown)


# What FeedAMP says


@pytest.mark.parametrize(
    ("error", "said"),
    [("access_denied", r"\(access_denied\)"), ("%1b[2J<script>", r"\(no reason that can be shown\)")],
)
def test_a_decline_is_told_with_its_reason_unless_that_is_strange(
    feedamp: RunningSandbox, error: str, said: str
) -> None:
    state = authorisation().start(BACK).state

    with pytest.raises(RedirectRefusedError, match=said):
        authorisation().redeem(f"error={error}&state={state}")
    with pytest.raises(RedirectRefusedError, match="is cut"):  # says nothing about ours
        authorisation().redeem(f"error={error}&state={state}x")
    assert authorisation().redeem(agree(feedamp, state)).account == "empty"


@pytest.mark.parametrize("fault", ["", "lose_answer"])
def test_a_code_that_was_not_exchanged_leaves_the_state_good_for_the_next_one(
    feedamp: RunningSandbox, kept: Kept, fault: str
) -> None:
    authorised(feedamp)
    before = kept.read()
    state = authorisation().start(BACK).state
    redirect = agree(feedamp, state) if fault else f"code=never-given&state={state}"
    if fault:
        feedamp.control.fault(fault, on="token")

    with pytest.raises(CodeRefusedError, match="Open FeedAMP's page again and agree once more"):
        authorisation().redeem(redirect)
    assert kept.read() == before
    assert authorisation().redeem(agree(feedamp, state)).account == "empty"


def test_a_wrong_account_can_be_followed_by_the_right_one(feedamp: RunningSandbox, kept: Kept) -> None:
    state = waiting(feedamp, "hooli")
    authorisation().discard(state, again=True)

    authorisation().redeem(agree(feedamp, state))
    authorisation().confirm(state)

    record = kept.record()
    assert record.refresh_token in feedamp.control.refresh_tokens(SELLER)


def test_a_feedamp_that_is_away_costs_nothing(feedamp: RunningSandbox) -> None:
    redirect = begin(feedamp)
    feedamp.control.fault("http_error", on="token", status=429)

    with pytest.raises(NotProcessedError, match="Use the same redirect URL again"):
        authorisation().redeem(redirect)
    assert authorisation().redeem(redirect).account == "empty"


# What is seen of it


def test_nobody_sees_a_mark_or_a_known_order_among_the_sellers(feedamp: RunningSandbox, kept: Kept) -> None:
    authorised(feedamp)
    import_order("A-1")
    begin(feedamp)

    assert FeedAmpHook().sellers() == ["hooli", SELLER]
    records = records_of(kept.store, kept.key.token_url, kept.key.client_id)
    assert [each.seller for each, _ in records] == [SELLER]


def test_marks_whose_time_is_over_go_with_the_next_start(
    feedamp: RunningSandbox, kept: Kept, clock: list[float]
) -> None:
    begun, granted = begin(feedamp), begin(feedamp)
    clock[0] = 300
    authorisation().redeem(granted)
    clock[0] = 650
    authorisation().start(BACK)
    assert [Authorisation.whose(state_of(each)) for each in (granted,)]
    with pytest.raises(RedirectRefusedError):
        Authorisation.whose(state_of(begun))
    clock[0] = 2000
    authorisation().start(BACK)

    assert len(kept.store.keys("authorisation", "")) == 1


def test_a_mark_that_cannot_be_read_keeps_no_other_one_in_the_store(
    feedamp: RunningSandbox, kept: Kept, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged, _, _ = (authorisation().start(BACK).state for _ in range(3))
    read = kept.store.read

    def fails(key: TokenKey) -> TokenRecord | None:
        if key.seller and damaged.startswith(key.seller):
            raise TokenRecordError("It was written under a key that is gone.")
        return read(key)

    monkeypatch.setattr(kept.store, "read", fails)
    clock[0] = 601
    authorisation().start(BACK)

    assert len(kept.store.keys("authorisation", "")) == 2  # the damaged one and the new one


def test_no_code_token_or_secret_is_in_what_is_shown(
    feedamp: RunningSandbox, kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    started = authorisation().start(BACK)
    redirect = agree(feedamp, started.state)
    found = authorisation().redeem(redirect)
    description = authorisation().confirm(started.state)

    shown = f"{started} {found} {description} {caplog.text} {kept.store.keys('authorisation', '')}"
    (code,) = parse_qs(urlsplit(redirect).query)["code"]
    tokens = feedamp.control.refresh_tokens(SELLER) + feedamp.control.access_tokens(SELLER)
    for secret in (code, *tokens, "demo-secret"):
        assert secret not in shown
    assert code not in kept.everything()


# A store that fails


def test_a_store_that_cannot_be_read_stops_every_step_and_loses_nothing(
    feedamp: RunningSandbox, failing: FailingStore
) -> None:
    redirect = begin(feedamp)
    failing.unreadable = True

    for step in (lambda: authorisation().start(BACK), lambda: authorisation().redeem(redirect)):
        with pytest.raises(TokenStoreError, match="cannot be read"):
            step()
    assert feedamp.control.counters()["token_posts"] == 0
    failing.unreadable = False
    assert authorisation().redeem(redirect).account == "empty"


def test_the_store_is_proved_before_the_code_is_sent(feedamp: RunningSandbox, failing: FailingStore) -> None:
    redirect = begin(feedamp)
    failing.writes, failing.failures = 0, 1

    with pytest.raises(TokenStoreError):
        authorisation().redeem(redirect)
    assert feedamp.control.counters()["token_posts"] == 0
    assert authorisation().redeem(redirect).account == "empty"


@pytest.mark.parametrize(("failures", "lost"), [(2, False), (3, True)])
def test_a_new_pair_is_stored_by_a_store_that_fails_for_a_moment(
    feedamp: RunningSandbox, failing: FailingStore, failures: int, lost: bool
) -> None:
    redirect = begin(feedamp)
    failing.writes, failing.failures = 1, failures

    if lost:
        with pytest.raises(TokenStoreError, match="did not take the new tokens"):
            authorisation().redeem(redirect)
    else:
        authorisation().redeem(redirect)
        assert authorisation().confirm(state_of(redirect))["generation"] == 1


def test_a_pair_that_could_not_be_confirmed_waits(feedamp: RunningSandbox, failing: FailingStore) -> None:
    state = waiting(feedamp)
    failing.writes, failing.failures = 0, 1

    with pytest.raises(TokenStoreError):
        authorisation().confirm(state)
    assert authorisation().confirm(state)["generation"] == 1


def test_the_right_account_that_could_not_be_stored_is_a_question(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch, kept: Kept
) -> None:
    authorised(feedamp)
    import_order("A-1")
    redirect = begin(feedamp)
    monkeypatch.setenv("AIRFLOW__FEEDAMP__LOCK_WAIT", "0.1")
    import threading

    with kept.store.lock(kept.key, wait=1, stop=threading.Event()):
        found = authorisation().redeem(redirect)
        with pytest.raises(TokenBusyError):
            authorisation().confirm(state_of(redirect))

    assert (found.account, found.confirmed) == ("known", False)
    assert "could not be stored yet" in (found.question or "")
    assert authorisation().confirm(state_of(redirect))["generation"] == 2


def test_the_right_account_is_a_question_whatever_keeps_it_from_being_stored(
    feedamp: RunningSandbox, monkeypatch: pytest.MonkeyPatch, kept: Kept
) -> None:
    """As when a worker with other [feedamp] lease times is about: the code is spent, and the pair waits."""
    authorised(feedamp)
    import_order("A-1")
    redirect = begin(feedamp)
    lock = kept.store.lock

    def refuses(asked: TokenKey, **how: Any) -> Any:
        if asked == kept.key:
            raise ConfigurationError("Another worker has other lease times.")
        return lock(asked, **how)

    with monkeypatch.context() as patched:
        patched.setattr(kept.store, "lock", refuses)
        found = authorisation().redeem(redirect)

    assert (found.account, found.confirmed) == ("known", False)
    assert "Another worker has other lease times" in (found.question or "")
    assert authorisation().confirm(found.state)["generation"] == 2


def test_an_authorisation_lifts_a_condemned_record(feedamp: RunningSandbox, kept: Kept) -> None:
    kept.store.write(
        TokenRecord(key=kept.key, refresh_token="gone", state=RecordState.REAUTH_REQUIRED, reason="refused"),
        expected=None,
    )

    authorised(feedamp)

    record = kept.record()
    assert (record.state, record.reason, record.generation) == (RecordState.ACTIVE, "", 1)


def test_noting_an_order_never_fails_and_keeps_the_first(
    feedamp: RunningSandbox, failing: FailingStore, kept: Kept
) -> None:
    hook = FeedAmpHook(seller=SELLER)
    failing.writes, failing.failures = 0, 1

    for number in ("A-0", "A-1", "A-2"):
        hook.note_order(number)

    assert known_order(failing, kept.key) == "A-1"


@pytest.mark.parametrize(
    ("redirect", "found"),
    [
        ("https://shop.example/back?code=c&state=s", True),
        ("https://shop.example/back?tenant=1&state=s&code=c#top", True),
        ("  http://127.0.0.1/?code=c&state=s\n", True),
        ("?code=c&state=s", True),
        ({"state": "s", "code": "c", "more": "x"}, True),
        ("", False),
        ("c", False),
        ("https://shop.example/back?code=c", False),
        ("https://shop.example/back?state=s", False),
        ("https://shop.example/back?code=c&code=other&state=s", False),
        ("https://shop.example/back?code=c&state=x&state=s", False),
        ("http://[?code=a&state=b", False),
        ({}, False),
    ],
)
def test_code_and_state_are_taken_out_of_what_was_pasted(redirect: Any, found: bool) -> None:
    assert redirect_query(redirect) == ({"code": "c", "state": "s"} if found else None)


def test_what_is_no_redirect_is_one_clear_error(feedamp: RunningSandbox) -> None:
    with pytest.raises(InputError, match="not the URL which the browser came back to") as caught:
        authorisation().redeem("the-code-alone")

    assert "the-code-alone" not in str(caught.value)
