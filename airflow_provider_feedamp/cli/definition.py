"""Makes the command a part of Airflow's own: ``airflow feedamp ...`` (Airflow 3.2 and later)."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.cli.cli_config import CLICommand


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
    from airflow_provider_feedamp.cli.main import main

    # argparse takes a --help in first place for itself.
    words = ["--help"] if arguments.arguments == ["help"] else arguments.arguments
    sys.exit(main(words, prog_name="airflow feedamp"))
