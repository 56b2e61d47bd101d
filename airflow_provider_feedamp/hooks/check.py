"""What the Test button of a connection checks, spending nothing."""

from __future__ import annotations

import os
import queue
import socket
import ssl
import sys
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests

from airflow_provider_feedamp.exceptions import ConfigurationError, TokenStoreError
from airflow_provider_feedamp.tokens.crypto import Sealer
from airflow_provider_feedamp.tokens.endpoint import Watch, watched_session
from airflow_provider_feedamp.tokens.records import RecordState
from airflow_provider_feedamp.tokens.variable_store import VariableStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_feedamp.tokens.custodian import TokenCustodian
    from airflow_provider_feedamp.tokens.records import AccessToken

#: Seconds that the answer of FeedAMP is waited for, look-up of its name and all.
_DEADLINE = 20.0


def check_connection(custodian: TokenCustodian, base_url: str) -> tuple[bool, str]:
    """Check token store, token record and whether FeedAMP answers; no refresh token is spent.

    :param custodian: The custodian of the seller's tokens.
    :param base_url: The connection's base URL.
    :return: Whether nothing is wrong, and a sentence for each thing that was checked: first what failed.
    """
    wrong: list[str] = []
    well = [f"Fields are well-formed (base URL {base_url})."]
    token = _stored_token(custodian, wrong, well)
    alive = token is not None and token.expires_at.timestamp() > custodian.now()
    ok, fact = _ask(f"{base_url}/orders", token.value if token and alive else None)
    (well if ok else wrong).append(fact)
    return not wrong, " ".join([*wrong, *well])


def _stored_token(custodian: TokenCustodian, wrong: list[str], well: list[str]) -> AccessToken | None:
    """Look into the token store, note what is wrong or well there, and return the seller's access token."""
    if _is_on_a_worker():
        well.append(
            "The token store was not checked from here: a worker tests a connection without Airflow's "
            "Variables and other connections."
        )
        return None
    if isinstance(custodian.store, VariableStore) and not _encrypts():
        well.append(
            "No Fernet key is set: Airflow keeps its connections in clear, and in its Variables the "
            "tokens of all sellers. Set [core] fernet_key, or [feedamp] encryption_key for the tokens."
        )
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
    return token


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


def _ask(url: str, token: str | None) -> tuple[bool, str]:
    """Read one page of orders, with the present access token if there is one."""
    answer: queue.SimpleQueue[int | Exception] = queue.SimpleQueue()
    # A thread, since nothing ends the look-up of a name early; its own deadline ends it a second later.
    threading.Thread(target=_fetch, args=(url, token, answer), daemon=True).start()
    try:
        status = answer.get(timeout=_DEADLINE)
    except queue.Empty:
        status = TimeoutError()
    if isinstance(status, Exception):
        return False, f"FeedAMP could not be reached: {_reason(status, urlsplit(url).hostname or '')}"
    if token and 200 <= status < 300:
        return True, "FeedAMP accepts the present access token."
    if token and status == 401:
        return True, "FeedAMP refuses the present access token (401); the next task renews it."
    if not token and status == 401:
        return True, "FeedAMP answers; Client ID and Secret are checked when the first token is obtained."
    return False, f"FeedAMP answers {status}, which is not what its API does: is the base URL right?"


def _fetch(url: str, token: str | None, answer: queue.SimpleQueue[int | Exception]) -> None:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with (
            watched_session(Watch(_DEADLINE + 1)) as session,
            # Streamed: the status says it all, so the body stays where it is, however large it be.
            session.get(
                url,
                params={"page_size": 10},
                headers=headers,
                timeout=_DEADLINE,
                allow_redirects=False,
                stream=True,
            ) as found,
        ):
            answer.put(found.status_code)
    except Exception as error:  # noqa: BLE001 - whatever it was, the person at the button reads it
        answer.put(error)


def _reason(error: Exception, host: str) -> str:
    """Say why there was no answer, and what to do."""
    causes = list(_causes(error))
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


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
