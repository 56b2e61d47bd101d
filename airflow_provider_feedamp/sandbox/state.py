"""The whole state of one sandbox, without HTTP: settings, clock, tokens, sellers, faults and counters."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_feedamp.sandbox.after_sale import AfterSale
from airflow_provider_feedamp.sandbox.clock import SandboxClock
from airflow_provider_feedamp.sandbox.counters import Counters
from airflow_provider_feedamp.sandbox.faults import FaultQueue
from airflow_provider_feedamp.sandbox.orders import OrderBook
from airflow_provider_feedamp.sandbox.paging import CursorBook
from airflow_provider_feedamp.sandbox.refunds import RefundBook
from airflow_provider_feedamp.sandbox.refusal import not_found
from airflow_provider_feedamp.sandbox.returns import ReturnBook
from airflow_provider_feedamp.sandbox.seller_actions import SellerActions
from airflow_provider_feedamp.sandbox.settings import SandboxSettings
from airflow_provider_feedamp.sandbox.tokens import TokenDesk

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Account:
    """One seller's account: nothing in it can be reached from another seller's token."""

    seller: str
    orders: OrderBook
    refunds: RefundBook
    returns: ReturnBook
    actions: SellerActions
    after_sale: AfterSale


class SandboxState:
    """All that a sandbox knows.

    It is used by one thread: the server's event loop, on which a request is handled without a pause between
    reading and changing this state. Threads and processes reach it through HTTP: no lock is needed here.

    :param settings: The switches to start with; a copy is kept for :meth:`reset`.
    :param now: Where time comes from, as timezone-aware datetimes; real time by default.
    """

    def __init__(
        self, settings: SandboxSettings | None = None, now: Callable[[], datetime] | None = None
    ) -> None:
        self._start = dataclasses.replace(settings or SandboxSettings())
        self._now = now
        self.reset()

    def reset(self) -> None:
        """Begin again: the settings, sellers and refresh tokens of the start, and nothing else."""
        self.settings = dataclasses.replace(self._start)
        self.clock = SandboxClock(self._now)
        self.tokens = TokenDesk(self.settings, self.clock)
        self.cursors = CursorBook(self.settings.seed)
        self.faults = FaultQueue()
        self.counters = Counters()
        # FeedAMP's own numbers: no two sellers share one.
        self._refund_ids = itertools.count(1001)
        self.accounts: dict[str, Account] = {}
        for seller in self.settings.sellers:
            self.connect(seller)

    def connect(self, seller: str) -> str:
        """Return a refresh token of a new authorisation by the seller; an unknown seller gets an account."""
        if seller not in self.accounts:
            self.accounts[seller] = self._new_account(seller)
        return self.tokens.connect(seller)

    def account(self, seller: str) -> Account:
        """Return a seller's account.

        :raises Refusal: 404.
        """
        if seller not in self.accounts:
            what = "seller"
            raise not_found(what)
        return self.accounts[seller]

    def _new_account(self, seller: str) -> Account:
        settings, clock = self.settings, self.clock
        orders = OrderBook(settings, clock)
        refunds = RefundBook(settings, clock, self._refund_ids)
        returns = ReturnBook(settings, clock)
        after_sale = AfterSale(settings, orders, refunds, returns)
        return Account(seller, orders, refunds, returns, SellerActions(orders, clock), after_sale)
