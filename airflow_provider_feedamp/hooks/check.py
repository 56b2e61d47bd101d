"""What ``feedamp check`` and the Test button of a connection check, spending nothing."""

from __future__ import annotations

import os
import queue
import secrets
import socket
import ssl
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests

from airflow_provider_feedamp.exceptions import (
    ApiError,
    BadRequestError,
    ConfigurationError,
    FeedAmpError,
    TokenStoreError,
)
from airflow_provider_feedamp.tokens.crypto import Sealer
from airflow_provider_feedamp.tokens.endpoint import Watch, watched_session
from airflow_provider_feedamp.tokens.records import RecordState, TokenRecord
from airflow_provider_feedamp.tokens.store import MemoryStore
from airflow_provider_feedamp.tokens.variable_store import VariableStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_feedamp.api.client import FeedAmpClient, Unverified
    from airflow_provider_feedamp.api.types import Return
    from airflow_provider_feedamp.hooks.connection import FeedAmpConnection
    from airflow_provider_feedamp.tokens.custodian import TokenCustodian

#: Seconds that the answer of FeedAMP is waited for, look-up of its name and all.
_DEADLINE = 20.0
_IN_CLEAR = (
    "No Fernet key is set: Airflow keeps its connections in clear, and in its Variables the tokens of all "
    "sellers. Set [core] fernet_key, or [feedamp] encryption_key for the tokens."
)
#: Seconds to connect and to wait for an answer while a person waits, and tries after the first.
_TIMEOUT, _RETRIES = (5.0, 10.0), 1
#: A year in which no marketplace and no seller asked for anything.
_LONG_AGO = datetime(1990, 1, 1, tzinfo=UTC)
#: How many returns are looked through for the known one.
_LOOKED_AT = 50


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked.

    :param subject: What, such as ``store``, ``seller 'x'`` or ``guess returns_by_order``.
    :param ok: Whether nothing is wrong; None when that could not be told.
    :param text: What is known, in a sentence or two; nothing of it is secret.
    """

    subject: str
    ok: bool | None
    text: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What :meth:`.FeedAmpHook.check` found.

    :param conn_id: The connection.
    :param findings: All of it, in the order in which it was checked.
    """

    conn_id: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; what could not be told is not."""
        return all(finding.ok is not False for finding in self.findings)


def check_all(
    own: TokenCustodian, seller: str | None, connection: FeedAmpConnection, unverified: Unverified
) -> Checked:
    """Check connection, store, every seller, whether FeedAMP answers, and what the client guesses.

    No refresh token is spent, and nothing is changed at FeedAMP. In the store one record is written, and
    removed again.

    :param own: The custodian of the connection's own seller.
    :param seller: Who must have tokens, and whose access token is tried first; None for anybody.
    :param connection: The connection.
    :param unverified: What the client guesses.
    """
    base_url = connection.base_url
    findings = [Finding("connection", ok=True, text=f"Fields are well-formed (base URL {base_url}).")]
    findings += _store_findings(own)
    token_of, token, sellers = _seller_findings(own, seller)
    findings += sellers
    answer, accepts = _ask(f"{base_url}/orders", token, f"the access token of seller {token_of!r}")
    findings.append(answer)
    if token is None or not accepts:
        why = "No seller has an access token that works now: run a task or `feedamp sellers refresh` first."
        findings.append(Finding("guesses", None, why))
    else:
        findings += _guess_findings(client_with(token, base_url, unverified), unverified)
    return Checked(connection.conn_id, tuple(findings))


def _store_findings(own: TokenCustodian) -> Iterator[Finding]:
    from airflow_provider_feedamp.tokens.sql_store import SqlStore

    store = own.store
    probe = TokenRecord(
        key=replace(own.key, token_url=f"{own.key.token_url}#check", seller=secrets.token_hex(8)),
        refresh_token="",
    )
    try:
        store.write(probe, expected=None)
    except FeedAmpError as error:
        yield Finding("store", ok=False, text=f"The token store cannot be written: {error}")
    else:
        lasts = type(store) is not MemoryStore
        end = "" if lasts else ", and ends with each process: no task finds what another one has stored"
        yield Finding("store", ok=lasts, text=f"The token store can be written and read{end}.")
    finally:
        with suppress(FeedAmpError):
            store.delete(probe.key)
    if isinstance(store, VariableStore | SqlStore):
        encrypts = _encrypts()
        yield Finding("encryption", encrypts, "Tokens are encrypted in the store." if encrypts else _IN_CLEAR)
    else:
        text = f"Whether tokens are encrypted is for the store to say: {store.guarantee}"
        yield Finding("encryption", None, text)


def _seller_findings(own: TokenCustodian, wanted: str | None) -> tuple[str | None, str | None, list[Finding]]:
    """Return a seller (the wanted one if possible), its access token that should work, and all findings."""
    from airflow_provider_feedamp.hooks.sellers import records_by_seller, seller_row

    now = own.now()
    try:
        records = records_by_seller(own)
    except TokenStoreError as error:
        text = f"The token store cannot list its sellers here: {error}"
        return None, None, [Finding("sellers", None, text)]
    findings, tokens = [], {}
    if not records or (wanted is not None and wanted not in records):
        text = "has no tokens: put a refresh token into the connection, or authorise the seller."
        findings.append(Finding(f"seller {(wanted or own.key.seller)!r}", ok=False, text=text))
    for seller, found in records.items():
        row = seller_row(seller, found, now)
        left = "" if row.refresh_token_days_left is None else f", {row.refresh_token_days_left} d left"
        problem = row.problem()
        text = problem or f"is {row.state}: {row.outcome}{left}."
        findings.append(Finding(f"seller {seller!r}", not problem, text))
        if isinstance(found, TokenRecord) and found.access_token and found.expires_at > now:
            tokens[seller] = found.access_token
    first = wanted or own.key.seller
    token_of = first if first in tokens else next(iter(tokens), None)
    return token_of, tokens.get(token_of or ""), findings


def _guess_findings(client: FeedAmpClient, names: Unverified) -> Iterator[Finding]:
    """Say of each guessed filter of returns whether it excludes a return that it has to exclude."""
    try:
        known = next(client.returns.list(page_size=10), None)
    except ApiError as error:
        yield Finding("guesses", None, f"The returns of the account cannot be listed: {error}")
        return
    if known is None:
        text = "The account has no return to check the guessed filters of returns with."
        yield Finding("guesses", None, text)
        return
    others = [status for status in ("COMPLETED", "AWAITING_AUTHORIZATION") if status != known.get("status")]
    excluding: dict[str, dict[str, Any]] = {
        "returns_by_order": {"mp_order_numbers": [f"feedamp-check-{secrets.token_hex(8)}"]},
        "returns_by_status": {"return_status": others[:1]},
        "returns_after": {"requested_after": datetime.now(UTC) + timedelta(days=365)},
        "returns_before": {"requested_before": _LONG_AGO},
    }
    for guess, filters in excluding.items():
        yield _guess(f"guess {guess}", getattr(names, guess), client, known, filters)


def _guess(subject: str, name: str, client: FeedAmpClient, known: Return, filters: dict[str, Any]) -> Finding:
    number = known.get("mp_return_number")
    try:
        found = [each.get("mp_return_number") for each in islice(client.returns.list(**filters), _LOOKED_AT)]
    except BadRequestError as error:
        text = f"FeedAMP refuses the filter {name!r} of returns: {error}"
        return Finding(subject, ok=False, text=text)
    except ApiError as error:
        return Finding(subject, None, f"The filter {name!r} of returns could not be looked at: {error}")
    if number in found:
        text = f"FeedAMP ignores the filter {name!r}: it gives return {number!r}, which is to be excluded."
        return Finding(subject, ok=False, text=f"{text} Give the hook an Unverified with the right name.")
    return Finding(subject, ok=True, text=f"The filter {name!r} excludes a return that it has to exclude.")


def client_with(token: str, base_url: str, unverified: Unverified | None = None) -> FeedAmpClient:
    """Return a client that has one access token, and little patience: a person waits.

    :param unverified: What it guesses. Default: as :class:`.Unverified` has it.
    """
    from airflow_provider_feedamp.api.client import FeedAmpClient
    from airflow_provider_feedamp.api.http import Http

    http = Http(base_url, _OneToken(token), _TIMEOUT, retries=_RETRIES, pool_size=1)
    return FeedAmpClient(http, unverified)


@dataclass(frozen=True, slots=True, repr=False)
class _OneToken:
    """An access token that is not renewed (``api.types.TokenSource``)."""

    value: str

    def token(self) -> str:
        return self.value

    def replace(self, refused: str) -> str:
        return self.value

    def accepted(self, token: str) -> None:
        pass


def check_connection(custodian: TokenCustodian, base_url: str) -> tuple[bool, str]:
    """Check token store, token record and whether FeedAMP answers; no refresh token is spent.

    :param custodian: The custodian of the seller's tokens.
    :param base_url: The connection's base URL.
    :return: Whether nothing is wrong, and a sentence for each thing that was checked: first what failed.
    """
    wrong: list[str] = []
    well = [f"Fields are well-formed (base URL {base_url})."]
    answer, _ = _ask(f"{base_url}/orders", _stored_token(custodian, wrong, well))
    (well if answer.ok else wrong).append(answer.text)
    return not wrong, " ".join([*wrong, *well])


def _stored_token(custodian: TokenCustodian, wrong: list[str], well: list[str]) -> str | None:
    """Look into the token store, note what is wrong or well there, and return an access token that lasts."""
    if _is_on_a_worker():
        well.append(
            "The token store was not checked from here: a worker tests a connection without Airflow's "
            "Variables and other connections."
        )
        return None
    if isinstance(custodian.store, VariableStore) and not _encrypts():
        well.append(_IN_CLEAR)
    seller = repr(custodian.key.seller)
    try:
        record = custodian.record()
    except TokenStoreError as error:
        wrong.append(f"The token store cannot be read: {error}")
        return None
    if record is None and custodian.seed:
        well.append(
            f"Seller {seller} has a refresh token here that was not used yet; this test does not use it."
        )
    elif record is None:
        wrong.append(
            f"Seller {seller} has no refresh token: neither here nor in the token store. Put one into "
            "the connection, or authorise the seller (feedamp sellers authorize)."
        )
    if record is None:
        return None
    token = record.token()
    if record.state is RecordState.REAUTH_REQUIRED:
        wrong.append("A person has to authorise this seller again.")
    well.append(
        f"The token store has seller {seller}: state {record.state}, generation {record.generation}"
        + (f", access token until {token.expires_at.to_iso8601_string()}." if token else ".")
    )
    return token.value if token and record.expires_at > custodian.now() else None


def _is_on_a_worker() -> bool:
    """Say whether this is Airflow's test on a worker (3.3): no task, so no way to Variables."""
    runner = sys.modules.get("airflow.sdk.execution_time.task_runner")
    return os.environ.get("_AIRFLOW_PROCESS_CONTEXT") == "client" and not hasattr(runner, "SUPERVISOR_COMMS")


def _encrypts() -> bool:
    try:
        Sealer.configured().seal("")
    except ConfigurationError:
        return False
    return True


def _ask(url: str, token: str | None, name: str = "the present access token") -> tuple[Finding, bool]:
    """Read one page of orders, with the access token if there is one; the answer calls it by this name.

    :return: Whether FeedAMP answers as its API does, and whether it accepts the access token.
    """
    answer: queue.SimpleQueue[int | Exception] = queue.SimpleQueue()
    asked: dict[str, Any] = {
        "params": {"page_size": 10},
        "headers": {"Authorization": f"Bearer {token}"} if token else {},
        "timeout": _DEADLINE,
        "allow_redirects": False,
        "stream": True,  # the status says it all, so the body stays where it is, however large it be
    }

    def fetch() -> None:
        try:
            with watched_session(Watch(_DEADLINE + 1)) as session, session.get(url, **asked) as found:
                answer.put(found.status_code)
        except Exception as error:  # noqa: BLE001 - whatever it was, the person at the button reads it
            answer.put(error)

    # A thread, since nothing ends the look-up of a name early; its own deadline ends it a second later.
    threading.Thread(target=fetch, daemon=True).start()
    try:
        status = answer.get(timeout=_DEADLINE)
    except queue.Empty:
        status = TimeoutError()
    accepts = ok = False
    if isinstance(status, Exception):
        text = f"FeedAMP could not be reached: {_reason(status, urlsplit(url).hostname or '')}"
    elif token and 200 <= status < 300:
        accepts, ok, text = True, True, f"FeedAMP accepts {name}."
    elif token and status == 401:
        ok, text = True, f"FeedAMP refuses {name} (401); the next task renews it."
    elif status == 401:
        ok, text = True, "FeedAMP answers; Client ID and Secret are checked when the first token is obtained."
    else:
        text = f"FeedAMP answers {status}, which is not what its API does: is the base URL right?"
    return Finding("FeedAMP", ok, text), accepts


def _reason(error: Exception, host: str) -> str:
    """Say why there was no answer, and what to do."""
    causes: list[BaseException] = [error]
    while before := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(before)
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"the certificate of {host} is not trusted ({cause.verify_message}). Check the base URL; "
                "when a proxy in between has a certificate of its own, name its authority in "
                "REQUESTS_CA_BUNDLE."
            )
    for kind, text in (
        (requests.exceptions.ProxyError, "the proxy that HTTPS_PROXY names does not let the call through."),
        (ssl.SSLError, f"{host} does not speak TLS as it should. Check scheme and port of the base URL."),
        (socket.gaierror, f"the name {host} is unknown. Check the base URL, and DNS on this machine."),
        (ConnectionRefusedError, f"{host} refuses the connection. Check the port of the base URL."),
        (
            (TimeoutError, requests.exceptions.Timeout),
            f"no answer from {host} within {_DEADLINE:.0f} s. Does a firewall let this machine out?",
        ),
    ):
        if any(isinstance(cause, kind) for cause in causes):
            return text
    broken = next((each.strerror for each in causes if isinstance(each, OSError) and each.strerror), None)
    return f"no answer came from {host} ({broken or type(error).__name__}). Try again."
