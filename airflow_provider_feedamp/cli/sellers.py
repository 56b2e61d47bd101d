"""``feedamp sellers``: list, authorise, refresh and forget."""

from __future__ import annotations

import hmac
import json
import math
import queue
import re
import secrets
import threading
import time
import unicodedata
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import click

from airflow_provider_feedamp.cli.base import (
    Deployment,
    FailedError,
    MisuseError,
    airflow,
    conn_id_option,
    iso,
    locked,
    one_line,
    prompt_secret,
    seller_name,
)
from airflow_provider_feedamp.exceptions import TokenRecordError, TokenStoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from airflow_provider_feedamp.tokens.records import TokenRecord


_LOOPBACK = "127.0.0.1"
_PAGE = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>FeedAMP</title>"
    "<body style='font:1.2em sans-serif;margin:4em'><h1>{title}</h1><p>{text}</p>"
)
_ARRIVED = ("Thank you", "You can close this window. The command line goes on.")
_DECLINED = ("Not authorised", "Access was declined. You can close this window.")
_OTHERS = ("Not this one", "This link belongs to another authorisation. Use the latest one.")
_HEADINGS = ("SELLER", "STATE", "GENERATION", "ACCESS TOKEN UNTIL", "REFRESH TOKEN", "KEY", "LAST OUTCOME")


@click.group(no_args_is_help=False)
def sellers() -> None:
    """Authorise sellers, and look after their tokens."""


@sellers.command("list")
@conn_id_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array instead of a table.")
def list_sellers(conn_id: str, as_json: bool) -> None:
    """List every seller of the connection's client, with the state of its tokens."""
    now = time.time()
    with airflow():
        rows = [seller_row(seller, found, now) for seller, found in Deployment(conn_id).records().items()]
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
    elif rows:
        click.echo("\n".join(table(rows, now)))
    else:
        click.echo(f"No seller of connection {conn_id!r} has tokens. Try 'feedamp sellers authorize SELLER'.")


@sellers.command()
@click.argument("seller", type=seller_name)
@conn_id_option
@click.option(
    "--redirect-url", metavar="URL", help="Where FeedAMP sends the browser; default: the port here."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Catch the redirect on this port of 127.0.0.1; default: a free one.",
)
@click.option(
    "--send-redirect-url",
    is_flag=True,
    help="Send the redirect URL with the code too, for servers that ask for it again; FeedAMP shows none.",
)
@click.option("--code-from-stdin", is_flag=True, help="Read the URL that the browser came back to instead.")
@click.option(
    "--timeout", type=click.FloatRange(min=1), default=300, show_default=True, help="Seconds to wait for it."
)
def authorize(
    seller: str,
    conn_id: str,
    redirect_url: str | None,
    port: int | None,
    send_redirect_url: bool,
    code_from_stdin: bool,
    timeout: float,
) -> None:
    """Have SELLER authorise the marketplace in a browser, and store the tokens.

    Without --redirect-url the redirect is caught on a port of this machine. With it (a page of your own), or
    with --code-from-stdin, paste the URL that the browser came back to; add --port if your page passes the
    redirect on to this machine.
    """
    if code_from_stdin and port is not None:
        raise click.UsageError("--code-from-stdin and --port exclude each other.")
    deployment, state = Deployment(conn_id), secrets.token_urlsafe(32)
    with airflow():
        deployment.check_lasting()
        hook = deployment.hook(seller)

    def show(redirect_url: str) -> None:
        with airflow():
            url = hook.authorize_url(redirect_url, state)
        click.echo(f"Open this in the browser of seller {seller!r}:\n\n  {url}\n")

    if code_from_stdin or (redirect_url is not None and port is None):
        # A person pastes it back: nothing needs to listen there.
        sent_to = redirect_url or f"http://{_LOOPBACK}/"
        show(sent_to)
        pasted = prompt_secret("URL that the browser came back to (not shown)")
        code = code_of(redirect_query(pasted), state)
    else:
        with listening(port or 0, state) as listener:
            sent_to = redirect_url or listener.url
            show(sent_to)
            click.echo(f"Waiting for the redirect on {listener.url}", err=True)
            code = listener.wait(timeout)
    click.echo("The code is here; storing the tokens.", err=True)
    with airflow():
        hook.exchange_code(code, sent_to if send_redirect_url else None)
        record = deployment.custodian(seller).record()
    click.echo(f"Seller {seller!r} is authorised. {_summary(record)}")


@sellers.command()
@click.argument("seller", type=seller_name)
@conn_id_option
def refresh(seller: str, conn_id: str) -> None:
    """Renew SELLER's tokens now, whatever is left on the access token."""
    deployment = Deployment(conn_id)
    with airflow():
        deployment.check_lasting()
        custodian = deployment.custodian(seller)
        record = custodian.record()
        # As if FeedAMP had refused the present one: the way that exists for a renewal before its time.
        present = record.access_token if record is not None else None
        token = custodian.replace(present) if present else custodian.token()
        record = custodian.record()
    done = "Renewed the tokens" if token.renewed else "Another worker has just renewed the tokens"
    click.echo(f"{done} of seller {seller!r}. {_summary(record)}")


@sellers.command()
@click.argument("seller", type=seller_name)
@conn_id_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Remove them also when they cannot be read from here.")
def forget(seller: str, conn_id: str, yes: bool, force: bool) -> None:
    """Remove SELLER's tokens from the store; the seller then has to authorise again."""
    if not yes:
        question = f"Remove the tokens of seller {seller!r}? The seller will have to authorise again."
        click.confirm(question, abort=True, err=True)
    with airflow():
        custodian = Deployment(conn_id).custodian(seller)
        store, key = custodian.store, custodian.key
        try:
            if store.read(key) is None:
                raise FailedError(
                    f"There is no token record of seller {seller!r} for connection {conn_id!r}."
                )
            # A renewal under way would write its record after all.
            with locked(custodian):
                store.delete(key)
        except TokenStoreError as error:
            # A record that no worker can use is removed. One that others may well read goes on request only.
            if not force and not isinstance(error, TokenRecordError):
                raise FailedError(
                    f"{error} Nothing was removed. To remove the record without reading it, add --force: the "
                    "seller then has to authorise again."
                ) from error
            store.delete(key)
    click.echo(f"The tokens of seller {seller!r} are removed from the store.")
    if custodian.seed is not None:
        click.echo(
            f"Connection {conn_id!r} still holds a refresh token for this seller: the next task starts with "
            "it."
        )


def _summary(record: TokenRecord | None) -> str:
    until = iso(record.expires_at) if record is not None and record.access_token else None
    return f"Generation {record.generation if record else None}, access token until {until}."


@dataclass(frozen=True, slots=True)
class SellerRow:
    """One seller's line; the field names are those of the JSON.

    :param state: The record's state; ``new`` without a record, ``unreadable`` for one that cannot be read.
    :param access_token_expires_at: ISO 8601 in UTC, or None.
    :param refresh_token_since: When the refresh token reached this deployment, ISO 8601 in UTC, or None.
    :param refresh_token_days_left: To the end of its year; negative after that.
    :param key: The name of the key that the record is encrypted with; None when Airflow alone encrypts it.
    :param outcome: How the last renewal ended, or what a person has to do.
    """

    seller: str
    state: str
    generation: int | None = None
    access_token_expires_at: str | None = None
    refresh_token_since: str | None = None
    refresh_token_age_days: int | None = None
    refresh_token_days_left: int | None = None
    key: str | None = None
    outcome: str = ""

    def cells(self, now: float) -> tuple[str, ...]:
        """Return the row as the table shows it."""
        until = self.access_token_expires_at
        age = self.refresh_token_age_days
        return (
            self.seller,
            self.state,
            "-" if self.generation is None else str(self.generation),
            "-" if until is None else f"{until} ({_time_left(until, now)})",
            "-" if age is None else f"{age} d old, {self.refresh_token_days_left} d left",
            self.key or "-",
            self.outcome,
        )


def seller_row(seller: str, found: TokenRecord | Exception | None, now: float) -> SellerRow:
    """Return a seller's row.

    :param found: The record, why it cannot be read, or None when there is none.
    :param now: Epoch seconds.
    """
    from airflow_provider_feedamp.tokens.records import YEAR

    if found is None:
        return SellerRow(seller, "new", outcome="the connection's refresh token was not used yet")
    if isinstance(found, Exception):
        return SellerRow(seller, "unreadable", outcome=one_line(str(found)))
    left = found.days_left(now)
    return SellerRow(
        seller=seller,
        state=found.state.value,
        generation=found.generation,
        access_token_expires_at=iso(found.expires_at) if found.access_token else None,
        refresh_token_since=None if left is None else iso(found.issued_at),
        refresh_token_age_days=None if left is None else int(YEAR - left),
        refresh_token_days_left=None if left is None else math.floor(left),
        key=found.sealed_with or None,
        outcome=one_line(_outcome(found)),
    )


def table(rows: Sequence[SellerRow], now: float) -> Iterable[str]:
    """Yield the lines of the table."""
    cells = [_HEADINGS, *(tuple(one_line(cell) for cell in row.cells(now)) for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = [cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        yield "  ".join(padded).rstrip()


def _outcome(record: TokenRecord) -> str:
    from airflow_provider_feedamp.tokens.records import RecordState

    if record.refused_seed and record.state is RecordState.ACTIVE:
        return "the connection's new refresh token was refused; the former one is in use"
    if record.state is RecordState.REFRESHING:
        begun = f" at {iso(record.attempt.started_at)}" if record.attempt else ""
        return f"a renewal was begun{begun} and has not ended"
    if record.state is not RecordState.ACTIVE:
        return record.reason
    return (
        f"renewed at {iso(record.expires_at - record.lifetime)}" if record.access_token else "not renewed yet"
    )


def _time_left(until: str, now: float) -> str:
    seconds = datetime.fromisoformat(until).timestamp() - now
    if seconds <= 0:
        return "ended"
    return f"{seconds / 3600:.0f} h" if seconds >= 2 * 3600 else f"{seconds / 60:.0f} min"


def _width(text: str) -> int:
    return sum(1 + (unicodedata.east_asian_width(each) in "WF") for each in text)


def redirect_query(url: str) -> dict[str, str] | None:
    """Return ``code``, ``error`` and ``state`` of a redirect URL or of its query; None if it is none."""
    text = url.strip()
    try:
        fields = parse_qs(urlsplit(text).query or text.lstrip("?"), max_num_fields=20)
    except ValueError:
        return None
    found = {name: fields[name] for name in ("code", "error", "state") if name in fields}
    if "state" not in found or len(found) < 2 or any(len(values) > 1 for values in found.values()):
        return None
    return {name: values[0] for name, values in found.items()}


def has_state(redirect: dict[str, str], state: str) -> bool:
    """Return whether a redirect carries the state that we sent the browser away with."""
    return hmac.compare_digest(redirect["state"].encode(errors="replace"), state.encode())


def code_of(redirect: dict[str, str] | None, state: str) -> str:
    """Return the code of a redirect.

    :raises MisuseError: if it is none.
    :raises FailedError: if it is another authorisation's, or access was declined.
    """
    if redirect is None:
        raise MisuseError(
            "That is not the URL which the browser came back to. Copy it whole from the address bar: it has "
            "code and state in it."
        )
    if not has_state(redirect, state):
        raise FailedError(
            "The redirect's state is not the one of this authorisation, so its code was not used. Start "
            "again and use the redirect that follows the new URL."
        )
    if "code" not in redirect:
        named = re.fullmatch(r"[a-zA-Z_]{1,64}", redirect["error"])
        reason = named[0] if named else "no reason that can be shown"
        raise FailedError(f"FeedAMP sent the browser back without a code ({reason}): access was declined.")
    return redirect["code"]


class Listener(ThreadingHTTPServer):
    """A loopback port that waits for the redirect."""

    daemon_threads = True
    #: One authorisation at a time: a second command on the same port has to fail.
    allow_reuse_port = False

    def __init__(self, port: int, state: str) -> None:
        super().__init__((_LOOPBACK, port), _Handler)
        self.state = state
        self.url = f"http://{_LOOPBACK}:{self.server_address[1]}/"
        self.came: queue.Queue[dict[str, str]] = queue.Queue()

    def wait(self, seconds: float) -> str:
        """Return the code of the redirect that carries our state.

        :raises FailedError: if access was declined, or none came in time.
        """
        try:
            return code_of(self.came.get(timeout=seconds), self.state)
        except queue.Empty:
            raise FailedError(
                f"No redirect with this authorisation's state came within {seconds:.0f} s. If the browser is "
                "on another machine, use --code-from-stdin and paste the URL that it came back to."
            ) from None


class _Handler(BaseHTTPRequestHandler):
    """Answers the browser; nothing of the request is logged or echoed."""

    server: Listener
    timeout = 10  # a browser opens connections ahead of time and says nothing on them
    server_version = "feedamp"
    sys_version = ""

    def do_GET(self) -> None:
        """Take a redirect; anything else that a browser asks for is not here."""
        redirect = redirect_query(urlsplit(self.path).query)
        if redirect is None:
            return self.send_error(404)
        if not has_state(redirect, self.server.state):  # anybody can send one: the true one may still come
            return self._answer(400, *_OTHERS)
        self._answer(200, *(_ARRIVED if "code" in redirect else _DECLINED))
        return self.server.came.put(redirect)

    def _answer(self, status: int, title: str, text: str) -> None:
        body = _PAGE.format(title=title, text=text).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the request line holds the code."""


@contextmanager
def listening(port: int, state: str) -> Iterator[Listener]:
    """Catch redirects on 127.0.0.1 for as long as the block runs.

    :param port: 0 takes a free one.
    :raises FailedError: if the port is taken.
    """
    try:
        server = Listener(port, state)
    except OSError as error:
        raise FailedError(
            f"Cannot listen on {_LOOPBACK}:{port} ({error.strerror}). Name another --port, or leave it out."
        ) from None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
