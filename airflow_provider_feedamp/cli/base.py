"""What all commands share: how they end, and the deployment that they work on as its tasks see it."""

from __future__ import annotations

import logging
import os
import sys
import traceback
import unicodedata
import warnings
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from airflow_provider_feedamp.exceptions import FeedAmpError, InputError
from airflow_provider_feedamp.hooks.sellers import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook
    from airflow_provider_feedamp.tokens.custodian import TokenCustodian

#: What our own loggers are below.
OWN_LOGGER = "airflow_provider_feedamp"

_Command = TypeVar("_Command", bound="Callable[..., Any]")


class FailedError(click.ClickException):
    """The command did not do what it was asked for."""

    exit_code = 1


class MisuseError(FailedError):
    """The command cannot use what it was given."""

    exit_code = 2


class FeedAmpGroup(click.Group):
    """The root group: every failure becomes one line, with a traceback before it only after ``--debug``."""

    def run(self, arguments: Sequence[str] | None, prog_name: str | None) -> int:
        """Run a command line and return its exit code."""
        try:
            code = super().main(arguments, prog_name, standalone_mode=False)
        except click.ClickException as error:
            context = error.ctx if isinstance(error, click.UsageError) else None
            hint = f" Try '{context.command_path} --help'." if context is not None else ""
            click.echo(f"Error: {one_line(error.format_message())}{hint}", err=True)
            return error.exit_code
        except click.Abort:
            click.echo("Aborted; nothing more was done.", err=True)
            return 1
        return code if isinstance(code, int) else 0

    def main(  # type: ignore[override]  # click's has two return types, by a flag that is not ours
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run a command line and exit, as click's own test runner expects it."""
        sys.exit(self.run(args, prog_name))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and turn what failed into one line."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            if ctx.params.get("debug"):
                click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
            if isinstance(error, FeedAmpError):
                kind = MisuseError if isinstance(error, InputError) else FailedError
                raise kind(str(error)) from error
            # Its text may quote a token; a person can ask for it.
            raise FailedError(
                f"{type(error).__name__}, which was not expected. `feedamp --debug ...` shows where."
            ) from error


def columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield the lines of a table, with columns as wide as a terminal shows them."""
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = [cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        yield "  ".join(padded).rstrip()


def _width(text: str) -> int:
    return sum(1 + (unicodedata.east_asian_width(each) in "WF") for each in text)


def prompt_secret(prompt: str, *, twice: bool = False) -> str:
    """Return one line of standard input, which a terminal does not show.

    :param prompt: Shown on a terminal only.
    :param twice: Have a person type it again.
    """
    if sys.stdin.isatty():
        typed: str = click.prompt(prompt, type=str, hide_input=True, confirmation_prompt=twice, err=True)
        return typed
    return sys.stdin.readline().rstrip("\r\n")


def seller_name(value: str) -> str:
    """Return a seller's name as it was given: any text that is not blank.

    :raises BadParameter: It is blank.
    """
    if not value.strip():
        raise click.BadParameter("the seller's name is empty.")
    return value


def conn_id_option(command: _Command) -> _Command:
    """Add the option of every command that works on a deployment."""
    text = "The Airflow connection, type feedamp."
    return click.option("--conn-id", default="feedamp_default", show_default=True, help=text)(command)


class _Plain(logging.Handler):
    """Shows what our own loggers write to the person at the command line: a line each, on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line; a traceback is for ``--debug``."""
        kind = "" if record.levelno <= logging.INFO else f"{record.levelname.capitalize()}: "
        click.echo(kind + one_line(record.getMessage()), err=True)


@contextmanager
def airflow() -> Iterator[None]:
    """Use Airflow as its own commands do: with the metadata database; what it prints is no output of ours."""
    # Without this, connections outside of a task come from the environment and secrets backends only (3.1+).
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    airflows, own = logging.getLogger("airflow"), logging.getLogger(OWN_LOGGER)
    alembic = logging.getLogger("alembic")  # 3.1 imports it, and shows each part that it loads
    former = (airflows.level, own.level, own.propagate, alembic.level)
    plain = _Plain()
    alembic.setLevel(logging.ERROR)
    airflows.setLevel(logging.ERROR)  # that a connection is being retrieved is no answer to anything
    own.setLevel(logging.INFO)
    own.addHandler(plain)
    own.propagate = False  # Airflow's own handlers would show it a second time, with much around it
    try:
        with redirect_stdout(sys.stderr), warnings.catch_warnings():
            if not sys.warnoptions:
                # Airflow 2 asks for its own warnings when it is imported; they are no answer to anything.
                import_module("airflow.configuration")
                warnings.simplefilter("ignore")
            yield
    finally:
        own.removeHandler(plain)
        airflows.setLevel(former[0])
        own.setLevel(former[1])
        own.propagate = former[2]
        alembic.setLevel(former[3])


@dataclass(frozen=True, slots=True)
class Deployment:
    """The connection and its token store; used inside :func:`airflow`.

    :param conn_id: The Airflow connection.
    """

    conn_id: str

    def hook(self, seller: str | None = None, **options: Any) -> FeedAmpHook:
        """Return the hook of a seller, by default of the connection's own; options are the hook's."""
        from airflow_provider_feedamp.hooks.feedamp import FeedAmpHook

        return FeedAmpHook(self.conn_id, seller, **options)

    def custodian(self, seller: str | None = None) -> TokenCustodian:
        """Return the custodian of a seller's tokens, by default of the connection's own seller."""
        from airflow_provider_feedamp.hooks.feedamp import custodian_of

        hook = self.hook(seller)
        return custodian_of(hook.config, hook.seller)

    def check_lasting(self) -> None:
        """Refuse to obtain tokens that would end with this very command.

        :raises FailedError: if tokens are kept in memory.
        """
        from airflow_provider_feedamp.tokens.store import MemoryStore

        if type(self.custodian().store) is MemoryStore:
            raise FailedError(
                "The token store of this deployment is 'memory', so the tokens would be lost when this "
                "command ends. Set [feedamp] token_store to variable or sql."
            )
