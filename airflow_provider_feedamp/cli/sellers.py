"""``feedamp sellers``: list, authorise, refresh and forget."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import asdict

import click

from airflow_provider_feedamp.cli.deployment import Deployment, conn_id_option, seller_name
from airflow_provider_feedamp.cli.typed import typed_in

#: Where the browser is sent when a person pastes the URL back: nothing needs to listen there.
_NOWHERE = "http://127.0.0.1/"


@click.group(no_args_is_help=False)
def sellers() -> None:
    """Authorise sellers, and look after their tokens."""


@sellers.command("list")
@conn_id_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array instead of a table.")
def list_sellers(conn_id: str, as_json: bool) -> None:
    """List every seller of the connection's client, with the state of its tokens."""
    from airflow_provider_feedamp.cli.listing import seller_row, table

    now = time.time()
    rows = [seller_row(seller, found, now) for seller, found in Deployment(conn_id).records()]
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
    deployment = Deployment(conn_id)
    deployment.check_lasting()
    state = secrets.token_urlsafe(32)
    if code_from_stdin or (redirect_url is not None and port is None):
        code, sent_to = _pasted(deployment, seller, redirect_url or _NOWHERE, state)
    else:
        code, sent_to = _caught(deployment, seller, redirect_url, state, port or 0, timeout)
    click.echo("The code is here; storing the tokens.", err=True)
    deployment.exchange_code(seller, code, sent_to if send_redirect_url else None)
    click.echo(f"Seller {seller!r} is authorised. {_standing(deployment, seller)}")


@sellers.command()
@click.argument("seller", type=seller_name)
@conn_id_option
def refresh(seller: str, conn_id: str) -> None:
    """Renew SELLER's tokens now, whatever is left on the access token."""
    deployment = Deployment(conn_id)
    deployment.check_lasting()
    renewed = deployment.renew(seller).renewed
    what = "Renewed the tokens" if renewed else "Another worker has just renewed the tokens"
    click.echo(f"{what} of seller {seller!r}. {_standing(deployment, seller)}")


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
    seeded = Deployment(conn_id).forget(seller, force=force)
    click.echo(f"The tokens of seller {seller!r} are removed from the store.")
    if seeded:
        click.echo(
            f"Connection {conn_id!r} still holds a refresh token for this seller: the next task starts with "
            "it."
        )


def _pasted(deployment: Deployment, seller: str, redirect_url: str, state: str) -> tuple[str, str]:
    """Return the code, and the redirect URL that brought it."""
    from airflow_provider_feedamp.cli.redirect import code_of

    _show(deployment.authorize_url(seller, redirect_url, state), seller)
    return code_of(typed_in("URL that the browser came back to (not shown)"), state), redirect_url


def _caught(
    deployment: Deployment, seller: str, redirect_url: str | None, state: str, port: int, timeout: float
) -> tuple[str, str]:
    """Return the code, and the redirect URL that brought it."""
    from airflow_provider_feedamp.cli.redirect import listening

    with listening(port, state) as listener:
        sent_to = redirect_url or listener.url
        _show(deployment.authorize_url(seller, sent_to, state), seller)
        click.echo(f"Waiting for the redirect on {listener.url}", err=True)
        return listener.wait(timeout), sent_to


def _show(url: str, seller: str) -> None:
    click.echo(f"Open this in the browser of seller {seller!r}:\n\n  {url}\n")


def _standing(deployment: Deployment, seller: str) -> str:
    from airflow_provider_feedamp.cli.listing import seller_row

    row = seller_row(seller, deployment.record(seller), time.time())
    return f"Generation {row.generation}, access token until {row.access_token_expires_at}."
