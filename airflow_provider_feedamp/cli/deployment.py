"""The deployment that the command works on: its connection and its token store, as tasks see them."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from airflow_provider_feedamp.cli.group import FailedError
from airflow_provider_feedamp.exceptions import TokenRecordError, TokenStoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_feedamp.bulk.counts import PlaceCounts
    from airflow_provider_feedamp.bulk.inputs import OrderInput
    from airflow_provider_feedamp.bulk.interrupt import Stop
    from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
    from airflow_provider_feedamp.stores.base import TokenStore
    from airflow_provider_feedamp.tokens.custodian import TokenCustodian
    from airflow_provider_feedamp.tokens.models import AccessToken, TokenKey, TokenRecord

_Command = TypeVar("_Command", bound="Callable[..., Any]")


def seller_name(value: str) -> str:
    """Return a seller's name as it was given: any text that is not blank."""
    if not value.strip():
        raise click.BadParameter("the seller's name is empty.")
    return value


def conn_id_option(command: _Command) -> _Command:
    """Add the option that every command has which works on a deployment."""
    option = click.option(
        "--conn-id",
        default="feedamp_default",
        show_default=True,
        help="The Airflow connection, type feedamp.",
    )
    return option(command)


@dataclass(frozen=True, slots=True)
class Deployment:
    """What the commands do to it; each method is one thing that a person asks for.

    :param conn_id: The Airflow connection.
    """

    conn_id: str

    def sellers(self) -> list[str]:
        """Return the sellers of the connection's client."""
        with _airflow():
            return self._hook().sellers()

    def record(self, seller: str) -> TokenRecord | None:
        """Return a seller's record as it stands."""
        with _airflow():
            return self._custodian(seller).record()

    def records(self) -> Iterator[tuple[str, TokenRecord | TokenStoreError | None]]:
        """Yield every seller with its record, or with the reason why that one cannot be read."""
        for seller in self.sellers():
            try:
                yield seller, self.record(seller)
            except TokenStoreError as error:
                yield seller, error

    def authorize_url(self, seller: str, redirect_url: str, state: str) -> str:
        """Return the URL to open in the seller's browser."""
        with _airflow():
            return self._hook(seller).authorize_url(redirect_url, state)

    def exchange_code(self, seller: str, code: str) -> None:
        """Exchange an authorisation code and store what it brings."""
        with _airflow():
            self._hook(seller).exchange_code(code)

    def renew(self, seller: str) -> AccessToken:
        """Spend the seller's refresh token now, unless another worker is just doing that."""
        with _airflow():
            custodian = self._custodian(seller)
            record = custodian.record()
            # As if FeedAMP had refused the present one: the way that exists for a renewal before its time.
            present = record.access_token if record is not None else None
            return custodian.replace(present) if present else custodian.token()

    def forget(self, seller: str) -> bool:
        """Remove a seller's record.

        :return: Whether the connection still holds a refresh token for this seller.
        """
        with _airflow():
            custodian = self._custodian(seller)
            store, key = custodian.store, custodian.key
            try:
                if store.read(key) is None:
                    raise FailedError(
                        f"There is no token record of seller {seller!r} for connection {self.conn_id!r}."
                    )
                # A renewal under way would write its record after all.
                with _locked(store, key, custodian.lock_wait):
                    store.delete(key)
            except TokenRecordError:
                store.delete(key)
            return custodian.seed is not None

    def put(self, record: TokenRecord, *, force: bool) -> bool:
        """Store a record that was exported elsewhere.

        :param force: Store it even over one that is as new or newer.
        :return: Whether it was written; otherwise the very same tokens are stored already.
        :raises FailedError: if the stored record is as new or newer, or another client's is to be stored.
        """
        with _airflow():
            custodian = self._custodian(record.key.seller)
            store, key = custodian.store, custodian.key
            if record.key != key:
                raise FailedError(self._other_client(record.key, key))
            try:
                stored = store.read(key)
            except TokenRecordError:
                if not force:
                    raise
                store.delete(key)
            with _locked(store, key, custodian.lock_wait) as nonce:
                stored = store.read(key)
                if stored is not None and _same_tokens(stored, record):
                    return False
                if stored is not None and stored.generation >= record.generation and not force:
                    raise FailedError(_newer(stored, record))
                store.write(record.changed(released=nonce), expected=stored.revision if stored else None)
                return True

    def check_lasting(self) -> None:
        """Refuse to obtain tokens that would end with this very command.

        :raises FailedError: if the connection keeps its tokens in memory.
        """
        with _airflow():
            from airflow_provider_feedamp.stores.memory import MemoryStore

            store = self._custodian(self._hook().config.seller).store
        if type(store) is MemoryStore:
            raise FailedError(
                f"Connection {self.conn_id!r} keeps tokens in memory, so they would be lost when this "
                "command ends. Set token_store to variable or sql."
            )

    def place_orders(
        self,
        source: OrderInput,
        seller: str | None,
        *,
        max_workers: int,
        requests_per_second: float | None,
        **options: Any,
    ) -> PlaceCounts:
        """Place all orders of a source as a task does; SIGINT and SIGTERM stop it in order.

        :param options: ``rejects`` and ``observers``, as :func:`import_orders` takes them.
        """
        with _airflow():
            from airflow_provider_feedamp.bulk.run import import_orders
            from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

            hook = FeedAmpHook(
                self.conn_id, seller, requests_per_second=requests_per_second, pool_size=max_workers
            )
            api = hook.client.orders
            with _stopped_by_signals() as stop:
                return import_orders(source, api, max_workers=max_workers, stop=stop, **options)

    def _hook(self, seller: str | None = None) -> FeedAmpHook:
        from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

        return FeedAmpHook(self.conn_id, seller)

    def _custodian(self, seller: str) -> TokenCustodian:
        from airflow_provider_feedamp.hooks.custody import custodian_of

        return custodian_of(self._hook().config, seller)

    def _other_client(self, found: TokenKey, own: TokenKey) -> str:
        return (
            f"The file holds tokens of client {found.client_id!r} at {found.token_url}; connection "
            f"{self.conn_id!r} is client {own.client_id!r} at {own.token_url}. Name the right --conn-id."
        )


@contextmanager
def _airflow() -> Iterator[None]:
    """Use Airflow as its own commands do: with the metadata database; its talk goes to standard error."""
    # Without this, connections outside of a task come from the environment and secrets backends only (3.1+).
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    talk = logging.getLogger("airflow")
    level = talk.level
    talk.setLevel(logging.ERROR)  # that a connection is being retrieved is no answer to anything
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        talk.setLevel(level)


@contextmanager
def _stopped_by_signals() -> Iterator[Stop]:
    from airflow_provider_feedamp.bulk.interrupt import Stop

    stop = Stop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    former = {number: signal.signal(number, lambda *_: stop.request()) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler or signal.SIG_DFL)


@contextmanager
def _locked(store: TokenStore, key: TokenKey, wait: float) -> Iterator[str]:
    with store.lock(key, wait=wait, stop=threading.Event()) as lease:
        yield lease.nonce


def _same_tokens(stored: TokenRecord, record: TokenRecord) -> bool:
    pair = (record.generation, record.refresh_token, record.access_token)
    return (stored.generation, stored.refresh_token, stored.access_token) == pair


def _newer(stored: TokenRecord, record: TokenRecord) -> str:
    return (
        f"seller {record.key.seller!r}: generation {stored.generation} is stored here, the file has "
        f"{record.generation}. Overwriting a newer refresh token can lose the seller; --force does it."
    )
