"""The deployment that the command works on: its connection and its token store, as tasks see them."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

import click

from airflow_provider_feedamp.cli.group import FailedError, one_line
from airflow_provider_feedamp.exceptions import TokenRecordError, TokenStoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_feedamp.bulk.counts import PlaceCounts
    from airflow_provider_feedamp.bulk.inputs import OrderInput
    from airflow_provider_feedamp.bulk.interrupt import Stop
    from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
    from airflow_provider_feedamp.tokens.custodian import TokenCustodian
    from airflow_provider_feedamp.tokens.records import AccessToken, TokenKey, TokenRecord
    from airflow_provider_feedamp.tokens.store import TokenStore

#: What our own loggers are below.
OWN_LOGGER = "airflow_provider_feedamp"

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

    def record(self, seller: str) -> TokenRecord | None:
        """Return a seller's record as it stands."""
        with _airflow():
            return self._custodian(seller).record()

    def records(self) -> list[tuple[str, TokenRecord | TokenStoreError | None]]:
        """Return every seller of the client with its record, or with the reason why it cannot be read.

        The seller that the connection holds a refresh token for is among them, without a record as well.
        """
        with _airflow():
            from airflow_provider_feedamp.tokens.store import records_of

            own = self._custodian()
            listed = records_of(own.store, own.key.token_url, own.key.client_id)
            found = {key.seller: record for key, record in listed if record is not None}
            if own.seed and own.key.seller not in found:
                return sorted([*found.items(), (own.key.seller, _found(own))], key=itemgetter(0))
            return sorted(found.items(), key=itemgetter(0))

    def authorize_url(self, seller: str, redirect_url: str, state: str) -> str:
        """Return the URL to open in the seller's browser."""
        with _airflow():
            return self._hook(seller).authorize_url(redirect_url, state)

    def exchange_code(self, seller: str, code: str, redirect_url: str | None) -> None:
        """Exchange an authorisation code and store what it brings.

        :param redirect_url: Sent with the code when it is given, for servers that ask for it again.
        """
        with _airflow():
            self._hook(seller).exchange_code(code, redirect_url)

    def renew(self, seller: str) -> AccessToken:
        """Spend the seller's refresh token now, unless another worker is just doing that."""
        with _airflow():
            custodian = self._custodian(seller)
            record = custodian.record()
            # As if FeedAMP had refused the present one: the way that exists for a renewal before its time.
            present = record.access_token if record is not None else None
            return custodian.replace(present) if present else custodian.token()

    def forget(self, seller: str, *, force: bool) -> bool:
        """Remove a seller's record.

        :param force: Remove it also when it cannot be read from here.
        :return: Whether the connection still holds a refresh token for this seller.
        :raises FailedError: if there is none, or if it cannot be read from here.
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
            except TokenStoreError as error:
                # What no worker can use is removed. What others may well read goes on request only.
                if not force and not isinstance(error, TokenRecordError):
                    raise FailedError(
                        f"{error} Nothing was removed. To remove the record without reading it, add --force: "
                        "the seller then has to authorise again."
                    ) from error
                store.delete(key)
            return custodian.seed is not None

    def put(self, record: TokenRecord, *, force: bool) -> bool:
        """Store a record that was exported elsewhere.

        :param force: Store it whatever is stored here now.
        :return: Whether it was written; otherwise the very same tokens are stored already.
        :raises FailedError: if the stored record is as new or newer, or cannot be read, or another client's
            is to be stored.
        """
        with _airflow():
            custodian = self._custodian(record.key.seller)
            store, key = custodian.store, custodian.key
            if record.key != key:
                raise FailedError(self._other_client(record.key, key))
            try:
                store.read(key)
            except TokenStoreError as error:
                if not force:
                    raise FailedError(f"{error} Nothing was written. --force replaces the record.") from error
                store.delete(key)
            with _locked(store, key, custodian.lock_wait) as nonce:
                stored = store.read(key)
                if stored is not None and not force:
                    if _same_tokens(stored, record):
                        return False
                    _check_older(stored, record)
                moved = record.changed(released=nonce, imported=True)
                store.write(moved, expected=stored.revision if stored else None)
                return True

    def present_keys(self) -> frozenset[str]:
        """Return the names under which a record stands that is encrypted with the first key.

        :raises ConfigurationError: if ``[feedamp] encryption_key`` cannot be used.
        """
        with _airflow():
            from airflow_provider_feedamp.tokens.crypto import AIRFLOW_KEY, OWN_KEY, Sealer

            # No name: the store leaves the encryption to Airflow, whose keys cannot be told apart.
            return frozenset([OWN_KEY] if Sealer.configured().own else [AIRFLOW_KEY, ""])

    def reencrypt(self, seller: str) -> None:
        """Write a seller's record again as it is, which encrypts it with the first key.

        :raises FailedError: if it is then still not under that key.
        """
        with _airflow():
            custodian = self._custodian(seller)
            store, key = custodian.store, custodian.key
            with _locked(store, key, custodian.lock_wait) as nonce:
                record = store.read(key)
                if record is None:
                    raise FailedError(f"seller {seller!r} was forgotten meanwhile.")
                store.write(record.changed(released=nonce), expected=record.revision)
                written = store.read(key)
        if written is None or written.sealed_with not in self.present_keys():
            raise FailedError(
                f"the record of seller {seller!r} was written, and is still not under [feedamp] "
                f"encryption_key: the token store ({type(store).__name__}) does not encrypt with it."
            )

    def check_lasting(self) -> None:
        """Refuse to obtain tokens that would end with this very command.

        :raises FailedError: if tokens are kept in memory.
        """
        with _airflow():
            from airflow_provider_feedamp.tokens.store import MemoryStore

            store = self._custodian().store
        if type(store) is MemoryStore:
            raise FailedError(
                "The token store of this deployment is 'memory', so the tokens would be lost when this "
                "command ends. Set [feedamp] token_store to variable or sql."
            )

    def place_orders(
        self,
        source: OrderInput,
        seller: str | None,
        *,
        max_workers: int,
        requests_per_second: float | None,
        check: bool,
        **options: Any,
    ) -> PlaceCounts:
        """Place all orders of a source as a task does; SIGINT and SIGTERM stop it in order.

        :param check: Only check them: neither connection nor token is needed.
        :param options: ``rejects`` and ``observers``, as :func:`import_orders` takes them.
        """
        with _airflow():
            from airflow_provider_feedamp.bulk.run import import_orders
            from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

            api = None
            if not check:
                api = FeedAmpHook(
                    self.conn_id, seller, requests_per_second=requests_per_second, pool_size=max_workers
                ).client.orders
            with _stopped_by_signals() as stop:
                return import_orders(source, api, max_workers=max_workers, stop=stop, **options)

    def _hook(self, seller: str | None = None) -> FeedAmpHook:
        from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

        return FeedAmpHook(self.conn_id, seller)

    def _custodian(self, seller: str | None = None) -> TokenCustodian:
        from airflow_provider_feedamp.hooks.feedamp import custodian_of

        hook = self._hook(seller)
        return custodian_of(hook.config, hook.seller)

    def _other_client(self, found: TokenKey, own: TokenKey) -> str:
        return (
            f"The file holds tokens of client {found.client_id!r} at {found.token_url}; connection "
            f"{self.conn_id!r} is client {own.client_id!r} at {own.token_url}. Name the right --conn-id."
        )


class _Plain(logging.Handler):
    """Shows what our own loggers say to the person at the command line: a line each, on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line; a traceback is for ``--debug``."""
        kind = "" if record.levelno <= logging.INFO else f"{record.levelname.capitalize()}: "
        click.echo(kind + one_line(record.getMessage()), err=True)


@contextmanager
def _airflow() -> Iterator[None]:
    """Use Airflow as its own commands do: with the metadata database; its talk goes to standard error."""
    # Without this, connections outside of a task come from the environment and secrets backends only (3.1+).
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    talk, own = logging.getLogger("airflow"), logging.getLogger(OWN_LOGGER)
    former = (talk.level, own.level, own.propagate)
    plain = _Plain()
    talk.setLevel(logging.ERROR)  # that a connection is being retrieved is no answer to anything
    own.setLevel(logging.INFO)
    own.addHandler(plain)
    own.propagate = False  # Airflow's own handlers would show it a second time, with much around it
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        own.removeHandler(plain)
        talk.setLevel(former[0])
        own.setLevel(former[1])
        own.propagate = former[2]


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


def _found(custodian: TokenCustodian) -> TokenRecord | TokenStoreError | None:
    try:
        return custodian.record()
    except TokenStoreError as error:
        return error


def _check_older(stored: TokenRecord, record: TokenRecord) -> None:
    """Refuse to replace a record by an older one, or by one of the same age.

    Generations count within one authorisation only; of two, the later one is in force.
    """
    from airflow_provider_feedamp.cli.listing import iso, span

    later = stored.issued_at - record.issued_at
    older_by = f" ({span(later)} older)" if later > 0 else ""
    if stored.family and stored.family == record.family:
        newer_by: float = stored.generation - record.generation
        here = f"generation {stored.generation} is stored here"
        there = f"the file has {record.generation} of the same authorisation{older_by}"
    else:
        newer_by = later
        here = f"another authorisation of {iso(stored.issued_at)} is stored here"
        there = f"the file's is of {iso(record.issued_at)}{older_by}"
    if newer_by >= 0:
        raise FailedError(
            f"seller {record.key.seller!r}: {here}, {there}. Overwriting a newer refresh token can lose the "
            "seller; --force does it."
        )
