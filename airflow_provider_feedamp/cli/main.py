"""The command line's root: its groups, and the sandbox's own command line beneath it."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

import click

from airflow_provider_feedamp import __version__
from airflow_provider_feedamp.cli.base import FeedAmpGroup
from airflow_provider_feedamp.cli.orders import orders
from airflow_provider_feedamp.cli.sellers import sellers
from airflow_provider_feedamp.cli.tokens import tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.cli.cli_config import CLICommand


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


@cli.command()
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
