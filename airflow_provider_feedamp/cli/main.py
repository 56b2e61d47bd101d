"""The command line's root: its groups, and the sandbox's own command line beneath it."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from airflow_provider_feedamp import __version__
from airflow_provider_feedamp.cli.base import (
    Deployment,
    FailedError,
    FeedAmpGroup,
    airflow,
    columns,
    conn_id_option,
    seller_name,
)
from airflow_provider_feedamp.cli.orders import orders
from airflow_provider_feedamp.cli.sellers import sellers
from airflow_provider_feedamp.cli.tokens import tokens
from airflow_provider_feedamp.exceptions import documentation
from airflow_provider_feedamp.hooks.sellers import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.cli.cli_config import CLICommand


_SIGNS = {True: "ok", False: "WRONG", None: "?"}


@click.group(
    cls=FeedAmpGroup,
    commands=[orders, sellers, tokens],
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="airflow-provider-feedamp")
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
def cli(debug: bool) -> None:
    """Authorise FeedAMP sellers, list and move their tokens, import orders, serve the sandbox.

    Run it where Airflow is configured: it reads the connection as tasks do, and writes to the token store
    that tasks use. It never prints a token.
    """


@cli.command(short_help="Check connection, store and sellers.")
@conn_id_option
@click.option(
    "--seller", type=seller_name, help="This seller must have tokens, and its access token is tried first."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object instead of a table.")
def check(conn_id: str, seller: str | None, as_json: bool) -> None:
    """Check the connection, the token store, every seller, and FeedAMP's answer; change nothing.

    Ends with exit code 1 if something is wrong. What could not be told (?) is not wrong.
    """
    with airflow():
        checked = Deployment(conn_id).hook(seller).check()
    if as_json:
        click.echo(json.dumps({"conn_id": conn_id, "ok": checked.ok, **asdict(checked)}, indent=2))
    else:
        rows = [(_SIGNS[each.ok], one_line(each.subject), one_line(each.text)) for each in checked.findings]
        click.echo("\n".join(columns([("", "CHECKED", "FOUND"), *rows])))
    if not checked.ok:
        wrong = sum(each.ok is False for each in checked.findings)
        raise FailedError(f"{wrong} of {len(checked.findings)} checks found something wrong.")


@cli.command()
def docs() -> None:
    """Print the documentation's address."""
    click.echo(
        documentation()
        or "This package names no address: whoever built it gave none. Its sources have the pages in docs/."
    )


@cli.command(short_help="Print a new Fernet key.")
def keygen() -> None:
    """Print a new Fernet key, for [feedamp] encryption_key or for a key file of an export."""
    from cryptography.fernet import Fernet

    click.echo(Fernet.generate_key())
    click.echo(
        "Set it as AIRFLOW__FEEDAMP__ENCRYPTION_KEY wherever Airflow runs; a former key goes behind it "
        "(new,former).",
        err=True,
    )


@cli.command(
    add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def sandbox(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Serve a local FeedAMP for tests and demos."""
    from airflow_provider_feedamp.sandbox.__main__ import main as serve

    context.exit(serve(arguments))


def main(arguments: Sequence[str] | None = None, *, prog_name: str = "feedamp") -> int:
    """Run the command.

    :param arguments: Its arguments; the process's own when None.
    :param prog_name: How the caller was called, for the help texts.
    :return: The exit code: 0, 1 after a failure, 2 after a misuse.
    """
    return cli.run(arguments, prog_name)


def get_feedamp_cli_commands() -> list[CLICommand]:
    """Return the one command that hands everything on to ours."""
    from airflow.cli.cli_config import ActionCommand, Arg

    arguments = Arg(  # type: ignore[no-untyped-call]
        ("arguments",), nargs=argparse.REMAINDER, help="what `feedamp` takes: `airflow feedamp help` lists it"
    )
    return [
        ActionCommand(
            name="feedamp",
            help="Authorise FeedAMP sellers, list and move their tokens, import orders, serve the sandbox",
            func=run,
            args=(arguments,),
        )
    ]


def run(arguments: argparse.Namespace) -> None:
    """Run ``feedamp`` with the arguments, and end as it ends."""
    # argparse takes a --help in first place for itself.
    words = ["--help"] if arguments.arguments == ["help"] else arguments.arguments
    sys.exit(main(words, prog_name="airflow feedamp"))
