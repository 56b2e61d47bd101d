"""The whole state of one sandbox without HTTP, and the actions of its control surface."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from pydantic import BaseModel, Field, TypeAdapter

from airflow_provider_feedamp.sandbox import models
from airflow_provider_feedamp.sandbox.accounts import Book, SellerAccount
from airflow_provider_feedamp.sandbox.faults import Fault, FaultQueue
from airflow_provider_feedamp.sandbox.models import Json, Page, Problem, Refusal
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
        self._known: dict[str, tuple[Book[Any], Json, int, int]] = {}

    def page(self, book: Book[Any], asked: Page) -> tuple[list[Any], str | None]:
        """Return what is on one page, and the cursor of the next one, if there is one.

        :param book: What is listed.
        :param asked: The query: a cursor, or else filters.
        :raises Refusal: 400 for a cursor that is not one of this seller's list.
        """
        given = asked.model_dump(exclude={"page_size", "cursor"}, exclude_none=True)
        whose, filters, position, size = book, given, 0, 20
        if asked.cursor is not None:
            whose, filters, position, size = self._known.get(asked.cursor, (Book("list"), given, 0, 0))
        if whose is not book:
            raise models.bad_request("'cursor' is not valid", models.INVALID_QUERY)
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
        """Count one thing, as ``("calls", "place_order")``, in total and for the seller if he is known."""
        for whose in {None, seller}:
            self._counts[whose][path] += 1

    def in_flight(self, change: int) -> None:
        """Note that a token post has arrived, or is answered or cut off; a reset may have come between."""
        self._in_flight = max(self._in_flight + change, 0)
        self._in_flight_max = max(self._in_flight, self._in_flight_max)

    def to_dict(self) -> Json:
        """Return all counts."""
        counts: dict[str | None, Json] = {}
        for seller in (None, *self._counts):
            found: Json = {"token_posts": 0, "tokens": {}, "calls": {}, "refused": {}}
            for (*path, name), count in self._counts[seller].items():
                place = found
                for part in path:
                    place = place.setdefault(part, {})
                place[name] = count
            if seller is not None:
                found["token_posts"] = sum(sum(outcomes.values()) for outcomes in found["tokens"].values())
            counts[seller] = found
        total = counts.pop(None)
        return {"token_posts_in_flight_max": self._in_flight_max, "faults": {}, **total, "sellers": counts}


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
            raise models.not_found("seller")
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
        self.faults.append(fault)

    def clear_faults(self) -> None:
        """Take all faults back."""
        self.faults.clear()


#: The actions by their names in the path: whose method it is, and the method. The fields of the body are its
#: parameters. The sandbox's attributes come first, then those of the account of the body's ``seller``.
ACTIONS: dict[str, tuple[str, Callable[..., Any]]] = {
    "counters": ("counters", Counters.to_dict),
    "reset": ("sandbox", SandboxState.reset),
    "settings": ("settings", SandboxSettings.public),
    "change": ("settings", SandboxSettings.update),
    "faults": ("sandbox", SandboxState.add_fault),
    "clear-faults": ("sandbox", SandboxState.clear_faults),
    "now": ("clock", SandboxClock.now),
    "advance": ("clock", SandboxClock.advance),
    "sellers": ("sandbox", SandboxState.sellers),
    "connect": ("sandbox", SandboxState.connect),
    "tokens": ("tokens", TokenIssuer.live),
    "authorize": ("tokens", TokenIssuer.authorize),
    "expire": ("tokens", TokenIssuer.expire),
    "revoke": ("tokens", TokenIssuer.revoke),
    "orders": ("orders", Book.whole),
    "acknowledge": ("account", SellerAccount.acknowledge),
    "ship": ("account", SellerAccount.ship),
    "cancel": ("account", SellerAccount.cancel),
    "resolve-errors": ("account", SellerAccount.resolve_errors),
    "refunds": ("refunds", Book.whole),
    "create-refund": ("account", SellerAccount.create_refund),
    "resolve-refund-errors": ("account", SellerAccount.resolve_refund_errors),
    "returns": ("returns", Book.whole),
    "authorize-return": ("account", SellerAccount.authorize_return),
    "enter-return-amounts": ("account", SellerAccount.enter_return_amounts),
}


class _Named(BaseModel):
    """What every action of a seller has in its body."""

    seller: str


@functools.cache
def reader(action: str) -> TypeAdapter[Any]:
    """Return what checks the fields of an action's body and calls its method."""
    _, method = ACTIONS[action]
    # Pydantic 2.11 looks for the names of annotations here, not where the method is written.
    method.__annotations__ = get_type_hints(method, include_extras=True)
    return TypeAdapter(method)


def act(state: SandboxState, action: str, body: Any) -> Any:
    """Do one action and return its answer.

    :raises Refusal: 404 for an unknown action, seller, order, refund or return; 400 for what cannot be done.
    :raises pydantic.ValidationError: when the body does not fit the action.
    """
    if action not in ACTIONS:
        raise models.not_found("action")
    if not isinstance(body, dict):
        raise Refusal(422, Problem(code=models.INVALID_PAYLOAD, message="the body must be an object"))
    whose, _ = ACTIONS[action]
    fields: Json = dict(body)
    owners: Json = {"sandbox": state, **vars(state)}
    if whose not in ("sandbox", "counters", "settings", "clock"):
        account = state.account(_Named.model_validate(body).seller)
        owners |= {"account": account, **vars(account)}
        if whose != "tokens":
            del fields["seller"]
    return reader(action).validate_python({**fields, "self": owners[whose]})
