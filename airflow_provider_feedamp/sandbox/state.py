"""The whole state of one sandbox without HTTP, and the actions of its control surface."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from pydantic import BaseModel, Field, TypeAdapter

from airflow_provider_feedamp.sandbox.accounts import Book, SellerAccount
from airflow_provider_feedamp.sandbox.faults import Fault, FaultQueue
from airflow_provider_feedamp.sandbox.models import (
    INVALID_PAYLOAD,
    INVALID_QUERY,
    Json,
    Page,
    Problem,
    Refusal,
    bad_request,
    not_found,
)
from airflow_provider_feedamp.sandbox.settings import SandboxClock, SandboxSettings
from airflow_provider_feedamp.sandbox.tokens import TokenIssuer

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime


class Cursors:
    """Hand out pages of lists, and opaque cursors of those that follow.

    Filters are bound into the cursor and need not be repeated (a guess). A cursor can be used again, so that
    a repeated GET sees the same page, and only by the seller and the list that it was made for.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[Book[Any], Page, int, int]] = {}

    def page(self, book: Book[Any], asked: Page) -> tuple[list[Any], str | None]:
        """Return what is on one page, and the cursor of the next one, if there is one.

        :param book: What is listed.
        :param asked: The query: a cursor, or else filters.
        :raises Refusal: 400 for a cursor that is not one of this seller's list.
        """
        whose, filters, position, size = book, asked, 0, 20
        if asked.cursor is not None:
            whose, filters, position, size = self._known.get(asked.cursor, (Book("list"), asked, 0, 0))
        if whose is not book:
            raise bad_request("'cursor' is not valid", INVALID_QUERY)
        size = asked.page_size or size
        wanted = (each for each in book.values() if each.sequence >= position and each.matches(filters))
        # One more than the page holds shows whether there is a next page.
        found = list(itertools.islice(wanted, size + 1))
        if len(found) <= size:
            return found, None
        following = hashlib.sha256(f"cursor {len(self._known)}".encode()).hexdigest()[:24]
        self._known[following] = book, filters, found[size].sequence, size
        return found[:size], following


class Counters:
    """Count token posts by outcome, calls by operation, refusals by status: in total, and by seller."""

    def __init__(self) -> None:
        self._counts: defaultdict[str | None, Counter[tuple[str, ...]]] = defaultdict(Counter)
        self._in_flight = self._in_flight_max = 0

    def count(self, seller: str | None, *path: str) -> None:
        """Count one thing in total, and for the seller if it is known whose it is.

        :param seller: The seller.
        :param path: Where to count it: ``("calls", "place_order")``.
        """
        self._counts[None][path] += 1
        if seller is not None:
            self._counts[seller][path] += 1

    def in_flight(self, change: int) -> None:
        """Note that a token post has arrived, or is answered or cut off; a reset may have come between."""
        self._in_flight = max(self._in_flight + change, 0)
        self._in_flight_max = max(self._in_flight, self._in_flight_max)

    def to_dict(self) -> Json:
        """Return all counts."""
        counts = {seller: self._of(seller) for seller in (None, *self._counts)}
        total = counts.pop(None)
        return {"token_posts_in_flight_max": self._in_flight_max, "faults": {}, **total, "sellers": counts}

    def _of(self, seller: str | None) -> Json:
        found: Json = {"token_posts": 0, "tokens": {}, "calls": {}, "refused": {}}
        for (*path, name), count in self._counts[seller].items():
            place = found
            for part in path:
                place = place.setdefault(part, {})
            place[name] = count
        if seller is not None:
            found["token_posts"] = sum(sum(outcomes.values()) for outcomes in found["tokens"].values())
        return found


class SandboxState:
    """All that a sandbox knows.

    It is used by one thread: the server's event loop, on which a request is handled without a pause between
    reading and changing this state. Threads and processes reach it through HTTP: no lock is needed here.

    :param settings: The switches to start with; a copy is kept for :meth:`reset`.
    :param now: Where time comes from, as timezone-aware datetimes; real time when None.
    """

    def __init__(
        self, settings: SandboxSettings | None = None, now: Callable[[], datetime] | None = None
    ) -> None:
        self._start = (settings or SandboxSettings()).model_copy()
        self._now = now
        self.reset()

    def reset(self) -> None:
        """Begin again: the settings, sellers and refresh tokens of the start, and nothing else."""
        self.settings = self._start.model_copy()
        self.clock = SandboxClock(self._now)
        self.tokens = TokenIssuer(self.settings, self.clock)
        self.cursors = Cursors()
        self.faults = FaultQueue()
        self.counters = Counters()
        self._refund_ids = itertools.count(1001)
        self.accounts: dict[str, SellerAccount] = {}
        for seller in self.settings.sellers:
            self.connect(seller)

    def connect(self, seller: Annotated[str, Field(min_length=1)]) -> str:
        """Return a refresh token of a new authorisation by the seller; an unknown seller gets an account."""
        if seller not in self.accounts:
            self.accounts[seller] = SellerAccount(self.settings, self.clock, self._refund_ids)
        return self.tokens.connect(seller)

    def account(self, seller: str) -> SellerAccount:
        """Return a seller's account.

        :raises Refusal: 404.
        """
        if seller not in self.accounts:
            raise not_found("seller")
        return self.accounts[seller]

    def sellers(self) -> dict[str, int]:
        """Return how many orders each seller has."""
        return {name: len(account.orders) for name, account in self.accounts.items()}

    def add_fault(self, fault: Fault) -> None:
        """Put a fault at the end of the queue.

        :raises Refusal: 404 for a fault of an unknown seller.
        """
        if fault.seller is not None:
            self.account(fault.seller)
        self.faults.add(fault)


# An action is a method, and its parameters are the fields of the JSON body.
_OF_SANDBOX: dict[str, tuple[str, Callable[..., Any]]] = {
    "counters": ("counters", Counters.to_dict),
    "reset": ("", SandboxState.reset),
    "settings": ("settings", SandboxSettings.public),
    "change": ("settings", SandboxSettings.update),
    "faults": ("", SandboxState.add_fault),
    "clear-faults": ("faults", FaultQueue.clear),
    "now": ("clock", SandboxClock.now),
    "advance": ("clock", SandboxClock.advance),
    "sellers": ("", SandboxState.sellers),
    "connect": ("", SandboxState.connect),
}
_OF_TOKENS: dict[str, Callable[..., Any]] = {
    "tokens": TokenIssuer.live,
    "authorize": TokenIssuer.authorize,
    "expire": TokenIssuer.expire,
    "revoke": TokenIssuer.revoke,
}
_OF_SELLER: dict[str, Callable[..., Any]] = {
    "orders": SellerAccount.all_orders,
    "acknowledge": SellerAccount.acknowledge,
    "ship": SellerAccount.ship,
    "cancel": SellerAccount.cancel,
    "resolve-errors": SellerAccount.resolve_errors,
    "refunds": SellerAccount.all_refunds,
    "create-refund": SellerAccount.create_refund,
    "resolve-refund-errors": SellerAccount.resolve_refund_errors,
    "returns": SellerAccount.all_returns,
    "authorize-return": SellerAccount.authorize_return,
    "enter-return-amounts": SellerAccount.enter_return_amounts,
}
#: The methods by their names in the path.
ACTIONS = {**{action: method for action, (_, method) in _OF_SANDBOX.items()}, **_OF_TOKENS, **_OF_SELLER}


class _Named(BaseModel):
    """What every action of a seller has in its body."""

    seller: str


@functools.cache
def reader(action: str) -> TypeAdapter[Any]:
    """Return what checks the fields of an action's body and calls its method."""
    method = ACTIONS[action]
    # Pydantic 2.11 looks for the names of annotations here, not where the method is written.
    method.__annotations__ = get_type_hints(method, include_extras=True)
    return TypeAdapter(method)


def act(state: SandboxState, action: str, body: Any) -> Any:
    """Do one action and return its answer.

    :raises Refusal: 404 for an unknown action, seller, order, refund or return; 400 for what cannot be done.
    :raises pydantic.ValidationError: when the body does not fit the action.
    """
    if action not in ACTIONS:
        raise not_found("action")
    if not isinstance(body, dict):
        raise Refusal(422, [Problem(code=INVALID_PAYLOAD, message="the body must be an object")])
    if action in _OF_SANDBOX:
        attribute = _OF_SANDBOX[action][0]
        owner = getattr(state, attribute) if attribute else state
        return reader(action).validate_python({**body, "self": owner})
    account = state.account(_Named.model_validate(body).seller)
    if action in _OF_TOKENS:
        return reader(action).validate_python({**body, "self": state.tokens})
    del body["seller"]
    return reader(action).validate_python({**body, "self": account})
