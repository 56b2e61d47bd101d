"""``feedamp orders``: place orders from a shell, as the operator does in a DAG."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from airflow_provider_feedamp.bulk.counts import orders_in_words
from airflow_provider_feedamp.cli.deployment import Deployment, conn_id_option, seller_name
from airflow_provider_feedamp.cli.group import FailedError
from airflow_provider_feedamp.exceptions import FeedAmpError, InputError, StoppedError
from airflow_provider_feedamp.operators.parameters import limit, rate

if TYPE_CHECKING:
    from airflow_provider_feedamp.bulk.inputs import OrderInput
    from airflow_provider_feedamp.bulk.progress import Progress
    from airflow_provider_feedamp.cli.display import Bar, Lines

_AGAIN = "A new import sends all orders again, which is safe: FeedAMP keys them by their number."


def _most(value: str) -> int | None:
    try:
        return limit("--max-failures", None if value == "any" else value)
    except InputError as error:
        raise click.BadParameter(f"{value!r} is neither a whole number from 0 nor 'any'.") from error


def _pace(value: str) -> float | None:
    try:
        return rate("--requests-per-second", value)
    except InputError as error:
        raise click.BadParameter(f"{value!r} is not a number above 0.") from error


@click.group(no_args_is_help=False)
def orders() -> None:
    """Place orders into a seller's account."""


@orders.command("import")
@click.argument("file")
@conn_id_option
@click.option("--seller", type=seller_name, help="Whose account gets the orders; default: the connection's.")
@click.option("--rejects", metavar="PATH", help="File for rejected orders; replaced. Default: none is kept.")
@click.option(
    "--max-failures",
    type=_most,
    metavar="NUMBER|any",
    default="0",
    show_default=True,
    help="The most rejects that are fine.",
)
@click.option("--allow-empty", is_flag=True, help="No order at all is fine, too.")
@click.option(
    "--max-workers",
    type=click.IntRange(1, 256),
    default=16,
    show_default=True,
    help="How many orders are on their way at a time.",
)
@click.option("--requests-per-second", type=_pace, metavar="NUMBER", help="Pace; default: the connection's.")
@click.option("--check", is_flag=True, help="Read and check all orders, and send nothing.")
@click.option("--sql-conn-id", help="FILE is a SQL query for this Airflow connection.")
def import_orders(
    file: str,
    conn_id: str,
    seller: str | None,
    rejects: str | None,
    max_failures: int | None,
    allow_empty: bool,
    max_workers: int,
    requests_per_second: float | None,
    check: bool,
    sql_conn_id: str | None,
) -> None:
    """Place the orders of FILE into a seller's account.

    FILE is a path or URL as the operator's source: .ndjson, .jsonl or .json, each also .gz. Every order is
    sent: there is no checkpoint, so a second import sends all of them again; FeedAMP keys them by number.
    Ctrl-C lets the orders on their way end and prints the account. With --check no order is sent, and no
    connection or token is needed.
    """
    source = _input(file, sql_conn_id, rejects, allow_empty)
    deployment = Deployment(conn_id)
    if not check:
        deployment.check_lasting()
    last = _Last(rejects)
    try:
        counts = deployment.place_orders(
            source,
            seller,
            rejects=rejects,
            max_workers=max_workers,
            requests_per_second=requests_per_second,
            check=check,
            observers=(_display(), last),
        )
    except StoppedError as error:
        last.tell()
        raise FailedError(f"Stopped before the end. {_AGAIN}") from error
    except FeedAmpError:
        last.tell()
        raise
    click.echo(f"{'Checked all' if check else 'All'} orders of {source.name}: {counts}")
    last.tell_where()
    if max_failures is not None and counts.rejected > max_failures:
        raise FailedError(f"{counts.rejected_in_words()}, and --max-failures is {max_failures}.")


class _Last:
    """Remembers how far the import came, for the account of one that does not reach its end."""

    def __init__(self, rejects: str | None) -> None:
        self._rejects = rejects
        self._progress: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        self._progress = progress

    def tell(self) -> None:
        """Print what is accounted for, if it had begun."""
        found = self._progress
        if found is not None:
            done = orders_in_words(found.done)
            click.echo(f"Until then: {done} done, {found.placed} placed, {found.rejected} rejected")
            self.tell_where()

    def tell_where(self) -> None:
        """Print where the rejects are, if there are any."""
        from airflow_provider_feedamp.bulk.paths import shown

        if self._progress is None or not self._progress.rejected:
            return
        if self._rejects:
            click.echo(f"Rejects, whole and with reasons: {shown(self._rejects)} (mend it and import it)")
        else:
            click.echo("The rejects were not kept: --rejects names a file for them.")


def _display() -> Bar | Lines:
    from airflow_provider_feedamp.cli.display import Bar, Lines

    return Bar(sys.stderr) if sys.stderr.isatty() else Lines(sys.stderr)


def _input(file: str, sql_conn_id: str | None, rejects: str | None, allow_empty: bool) -> OrderInput:
    from airflow_provider_feedamp.bulk.inputs import FileInput
    from airflow_provider_feedamp.bulk.paths import same_place, shown
    from airflow_provider_feedamp.bulk.sql_source import QueryInput

    if sql_conn_id:
        return QueryInput(file, sql_conn_id, allow_empty=allow_empty)
    if rejects and same_place(file, rejects):
        raise click.UsageError(
            f"FILE and --rejects are the same file, {shown(file)}, which would be overwritten."
        )
    return FileInput(file, allow_empty=allow_empty)
