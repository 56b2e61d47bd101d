"""``feedamp orders``: place orders from a shell, as the operator does in a DAG."""

from __future__ import annotations

import logging
import math
import shutil
import signal
import sys
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

import click

from airflow_provider_feedamp.cli.base import (
    OWN_LOGGER,
    Deployment,
    FailedError,
    airflow,
    conn_id_option,
    seller_name,
)
from airflow_provider_feedamp.exceptions import FeedAmpError, StoppedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_feedamp.bulk.progress import Progress
    from airflow_provider_feedamp.bulk.source import OrderInput
    from airflow_provider_feedamp.bulk.threads import Stop

#: Seconds between two lines where there is no terminal.
LINE_EVERY = 5.0
_WIDEST = 30  # columns of the bar alone
_AGAIN = "A new import sends all orders again, which is safe: FeedAMP keys them by their number."


def _most(value: str) -> int | None:
    if value.strip().isdecimal():
        return int(value)
    if value != "any":
        raise click.BadParameter(f"{value!r} is neither a whole number from 0 nor 'any'.")
    return None


def _pace(value: str) -> float:
    with suppress(ValueError):
        if 0 < float(value) < math.inf:
            return float(value)
    raise click.BadParameter(f"{value!r} is not a number above 0.")


@click.group(no_args_is_help=False)
def orders() -> None:
    """Place orders into a seller's account."""


@orders.command("import", short_help="Place the orders of a file.")
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
    Ctrl-C lets the orders on their way end and prints the counts. With --check no order is sent, and no
    connection or token is needed.
    """
    from airflow_provider_feedamp.bulk.progress import ProgressLog, orders_in_words

    source = _input(file, sql_conn_id, rejects, allow_empty)
    deployment = Deployment(conn_id)
    last: deque[Progress] = deque(maxlen=1)
    display = Bar(sys.stderr) if sys.stderr.isatty() else ProgressLog(LINE_EVERY)
    try:
        with airflow():
            from airflow_provider_feedamp.bulk.place import import_orders as run_import

            api = None
            if not check:
                deployment.check_lasting()
                pace = {"requests_per_second": requests_per_second, "pool_size": max_workers}
                api = deployment.hook(seller, **pace).client.orders
            observers = (display, last.append)
            with _stopped_by_signals() as stop:
                counts = run_import(
                    source, api, rejects=rejects, max_workers=max_workers, observers=observers, stop=stop
                )
    except FeedAmpError as error:
        for reached in last:
            done = orders_in_words(reached.done)
            click.echo(f"Until then: {done} done, {reached.placed} placed, {reached.rejected} rejected")
            _tell_rejects(reached.rejected, rejects)
        if isinstance(error, StoppedError):
            raise FailedError(f"Stopped before the end. {_AGAIN}") from error
        raise
    click.echo(f"{'Checked all' if check else 'All'} orders of {source.name}: {counts}")
    _tell_rejects(counts.rejected, rejects)
    if max_failures is not None and counts.rejected > max_failures:
        raise FailedError(f"{counts.rejected_in_words()}, and --max-failures is {max_failures}.")


def _tell_rejects(rejected: int, rejects: str | None) -> None:
    from airflow_provider_feedamp.bulk.paths import loggable

    if rejected and rejects:
        click.echo(f"Rejects, whole and with reasons: {loggable(rejects)} (correct it and import it)")
    elif rejected:
        click.echo("The rejects were not kept: --rejects names a file for them.")


def _input(file: str, sql_conn_id: str | None, rejects: str | None, allow_empty: bool) -> OrderInput:
    from airflow_provider_feedamp.bulk.paths import loggable, same_place
    from airflow_provider_feedamp.bulk.source import FileInput
    from airflow_provider_feedamp.bulk.sql import QueryInput

    if sql_conn_id:
        return QueryInput(file, sql_conn_id, allow_empty=allow_empty)
    if rejects and same_place(file, rejects):
        raise click.UsageError(
            f"FILE and --rejects are the same file, {loggable(file)}, which would be overwritten."
        )
    return FileInput(file, allow_empty=allow_empty)


@contextmanager
def _stopped_by_signals() -> Iterator[Stop]:
    from airflow_provider_feedamp.bulk.threads import Stop

    stop = Stop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    former = {number: signal.signal(number, lambda *_: stop.request()) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler or signal.SIG_DFL)


class Bar(logging.Handler):
    """Draws a bar in the last line of a terminal; log lines come above it.

    It is a log handler before all others, which makes room: the bar is drawn again with the next progress.

    :param out: The terminal.
    """

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self._out = out
        self._drawn = 0

    def __call__(self, progress: Progress) -> None:
        """Draw the bar; the last one stays."""
        text = bar_line(progress, shutil.get_terminal_size().columns)
        self.acquire()
        try:
            self._out.write("\r" + text.ljust(self._drawn) + ("\n" if progress.ended else ""))
            self._drawn = 0 if progress.ended else len(text)
            self._out.flush()
        finally:
            self.release()
        # Our own lines do not get to the root's handlers.
        for logger in (logging.getLogger(), logging.getLogger(OWN_LOGGER)):
            if progress.ended:
                logger.removeHandler(self)
            elif self not in logger.handlers:
                logger.handlers.insert(0, self)

    def emit(self, record: logging.LogRecord) -> None:
        """Make room for a log line."""
        self.clear()

    def clear(self) -> None:
        """Take the bar away, for something else to be written."""
        if self._drawn:
            self._out.write("\r" + " " * self._drawn + "\r")
            self._out.flush()
            self._drawn = 0


def bar_line(progress: Progress, columns: int) -> str:
    """Return the line with the bar, in words as short as they have to be."""
    from airflow_provider_feedamp.bulk.progress import duration_in_words, orders_in_words

    left = progress.seconds_left
    pace = f"{progress.rate:,.0f}/s, {progress.rejected:,} rejected"
    if not progress.total or left is None:
        return f"{orders_in_words(progress.done)} done, {pace}"[: columns - 1]
    words = f"{progress.done:,} of about {progress.total:,}, {pace}, {duration_in_words(left)} left"
    share = min(progress.done / progress.total, 1.0)
    width = max(min(_WIDEST, columns - len(words) - 10), 5)
    full = int(share * width)
    return f"[{'#' * full}{'-' * (width - full)}] {share:4.0%}  {words}"[: columns - 1]
