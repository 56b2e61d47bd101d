"""``feedamp sellers``: list, authorise, refresh and forget."""

from __future__ import annotations

import hmac
import json
import queue
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from airflow_provider_feedamp.cli.base import (
    Deployment,
    FailedError,
    airflow,
    columns,
    conn_id_option,
    prompt_secret,
    seller_name,
)
from airflow_provider_feedamp.exceptions import FeedAmpError, TokenStoreError
from airflow_provider_feedamp.hooks.sellers import iso, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from airflow_provider_feedamp.hooks.authorisation import Authorisation
    from airflow_provider_feedamp.hooks.sellers import SellerRow
    from airflow_provider_feedamp.tokens.records import TokenRecord


_LOOPBACK = "127.0.0.1"
#: Who authorises, as the state of an authorisation has it.
_BY = "command"
#: Seconds that an authorisation may take at least: a URL that is pasted comes when it comes.
_LEAST = 600.0
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


@sellers.command("list", short_help="List all sellers with their state.")
@conn_id_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array instead of a table.")
@click.option(
    "--fail-under-days",
    type=click.IntRange(min=0),
    metavar="DAYS",
    help="Exit with 1 if a refresh token's year ends within so many days, or a person has to do something.",
)
def list_sellers(conn_id: str, as_json: bool, fail_under_days: int | None) -> None:
    """List every seller of the connection's client, with the state of its tokens."""
    now = time.time()
    with airflow():
        rows = Deployment(conn_id).hook().seller_states()
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
    elif rows:
        click.echo("\n".join(table(rows, now)))
    else:
        click.echo(f"No seller of connection {conn_id!r} has tokens. Try 'feedamp sellers authorize SELLER'.")
    if fail_under_days is not None:
        needy = [repr(row.seller) for row in rows if row.problem(fail_under_days)]
        if needy:
            raise FailedError(f"{len(needy)} of {len(rows)} sellers need a person: {', '.join(needy)}.")


@sellers.command(short_help="Have a seller authorise the marketplace.")
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
    help="Send the redirect URL with the code too, as some OAuth servers ask; FeedAMP's pages do not.",
)
@click.option("--code-from-stdin", is_flag=True, help="Ask for the URL that the browser came back to.")
@click.option(
    "--force", is_flag=True, help="Store the tokens without a question, whatever account they are for."
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=300,
    show_default=True,
    help="Seconds to wait for the redirect.",
)
def authorize(
    seller: str,
    conn_id: str,
    redirect_url: str | None,
    port: int | None,
    send_redirect_url: bool,
    code_from_stdin: bool,
    force: bool,
    timeout: float,
) -> None:
    """Have SELLER authorise the marketplace in a browser, and store the tokens.

    The account is looked at before anything is replaced: if it is not known as the seller's by an order that
    was imported before, you are asked, or need --force where there is no terminal.

    Without --redirect-url the redirect is caught on a port of this machine. With it (a page of your own), or
    with --code-from-stdin, paste the URL that the browser came back to; add --port if your page passes the
    redirect on to this machine.
    """
    if code_from_stdin and port is not None:
        raise click.UsageError("--code-from-stdin and --port exclude each other.")
    deployment = Deployment(conn_id)
    with airflow():
        from airflow_provider_feedamp.hooks.authorisation import Authorisation, redirect_query

        deployment.check_lasting()
        authorisation = Authorisation(deployment.hook(seller), _BY)

    def show(redirect_url: str) -> str:
        with airflow():
            started = authorisation.start(redirect_url, max(timeout, _LEAST))
        click.echo(f"Open this in the browser of seller {seller!r}:\n\n  {started.url}\n")
        return started.state

    redirect: dict[str, str] | str
    if code_from_stdin or (redirect_url is not None and port is None):
        # A person pastes it back: nothing needs to listen there.
        sent_to = redirect_url or f"http://{_LOOPBACK}/"
        show(sent_to)
        redirect = prompt_secret("URL that the browser came back to (not shown)")
    else:
        with listening(port or 0) as listener:
            sent_to = redirect_url or listener.url
            listener.state = show(sent_to)
            click.echo(f"Waiting for the redirect on {listener.url}", err=True)
            redirect = listener.wait(timeout)
    if redirect_query(redirect) is not None:
        click.echo("The browser is back; looking at the account.", err=True)
    with airflow():
        found = authorisation.redeem(redirect, sent_to if send_redirect_url else None)
    if found.question:
        _ask(found.question, authorisation, found.state, force=force)
    with airflow():
        record = deployment.custodian(seller).record()
    click.echo(f"Seller {seller!r} is authorised. {_summary(record)}")


def _ask(question: str, authorisation: Authorisation, state: str, *, force: bool) -> None:
    """Store the tokens if the person says so, else drop them."""
    if force:
        click.echo(f"{question} Yes (--force).", err=True)
    elif not sys.stdin.isatty() or not click.confirm(question, err=True):
        with airflow():
            authorisation.discard(state)
        said = "" if sys.stdin.isatty() else f"{question} "
        raise FailedError(
            f"{said}Nothing was replaced, and the new tokens were dropped. If it is the right account, "
            "authorise once more with --force."
        )
    while True:
        try:
            with airflow():
                authorisation.confirm(state)
            return
        except FeedAmpError as error:
            again = f"{one_line(str(error))} The new tokens still wait. Try again?"
            if not error.retryable or not sys.stdin.isatty() or not click.confirm(again, err=True):
                raise


@sellers.command(short_help="Renew a seller's tokens now.")
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


@sellers.command(short_help="Remove a seller's tokens.")
@click.argument("seller", type=seller_name)
@conn_id_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Remove them also when they cannot be read from here.")
def forget(seller: str, conn_id: str, yes: bool, force: bool) -> None:
    """Remove SELLER's tokens from the store; the seller then has to authorise again."""
    if not yes:
        question = f"Remove the tokens of seller {seller!r}? The seller will have to authorise again."
        click.confirm(question, abort=True, err=True)
    deployment = Deployment(conn_id)
    with airflow():
        try:
            found = deployment.hook(seller).forget(force=force)
        except TokenStoreError as error:
            raise FailedError(
                f"{error} Nothing was removed. To remove the record without reading it, add --force: the "
                "seller then has to authorise again."
            ) from error
        if not found:
            raise FailedError(f"There is no token record of seller {seller!r} for connection {conn_id!r}.")
        custodian = deployment.custodian(seller)
    click.echo(f"The tokens of seller {seller!r} are removed from the store.")
    if custodian.seed is not None:
        click.echo(
            f"Connection {conn_id!r} still holds a refresh token for this seller: the next task starts with "
            "it."
        )


def _summary(record: TokenRecord | None) -> str:
    until = iso(record.expires_at) if record is not None and record.access_token else None
    return f"Generation {record.generation if record else None}, access token until {until}."


def table(rows: Sequence[SellerRow], now: float) -> Iterable[str]:
    """Return the lines of the table."""
    return columns([_HEADINGS, *(tuple(one_line(cell) for cell in _cells(row, now)) for row in rows)])


def _cells(row: SellerRow, now: float) -> tuple[str, ...]:
    until, age = row.access_token_expires_at, row.refresh_token_age_days
    return (
        row.seller,
        row.state,
        "-" if row.generation is None else str(row.generation),
        "-" if until is None else f"{until} ({_time_left(until, now)})",
        "-" if age is None else f"{age} d old, {row.refresh_token_days_left} d left",
        row.key or "-",
        row.outcome,
    )


def _time_left(until: str, now: float) -> str:
    seconds = datetime.fromisoformat(until).timestamp() - now
    if seconds <= 0:
        return "ended"
    return f"{seconds / 3600:.0f} h" if seconds >= 2 * 3600 else f"{seconds / 60:.0f} min"


class Listener(ThreadingHTTPServer):
    """A loopback port that waits for the redirect."""

    daemon_threads = True
    #: One authorisation at a time: a second command on the same port has to fail.
    allow_reuse_port = False

    def __init__(self, port: int) -> None:
        super().__init__((_LOOPBACK, port), _Handler)
        #: What the redirect that is waited for carries.
        self.state = ""
        self.url = f"http://{_LOOPBACK}:{self.server_address[1]}/"
        self.came: queue.Queue[dict[str, str]] = queue.Queue()

    def wait(self, seconds: float) -> dict[str, str]:
        """Return the redirect that carries our state.

        :raises FailedError: if none came in time.
        """
        try:
            return self.came.get(timeout=seconds)
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
        from airflow_provider_feedamp.hooks.authorisation import redirect_query

        redirect = redirect_query(urlsplit(self.path).query)
        if redirect is None:
            return self.send_error(404)
        state = redirect["state"].encode(errors="replace")
        # Anybody can send one: the true one may still come.
        if not self.server.state or not hmac.compare_digest(state, self.server.state.encode()):
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
def listening(port: int) -> Iterator[Listener]:
    """Catch redirects on 127.0.0.1 for as long as the block runs.

    :param port: 0 takes a free one.
    :raises FailedError: if the port is taken.
    """
    try:
        server = Listener(port)
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
