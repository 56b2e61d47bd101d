"""How the command ends: one line on standard error, and an exit code that a script can go by."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

import click

from airflow_provider_feedamp.exceptions import FeedAmpError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence


class FailedError(click.ClickException):
    """What was asked for did not happen."""

    exit_code = 1


class MisuseError(FailedError):
    """What was handed in cannot be used."""

    exit_code = 2


class FeedAmpGroup(click.Group):
    """The root group: every failure becomes one line, with a traceback before it only after ``--debug``."""

    def run(self, arguments: Sequence[str] | None, prog_name: str | None) -> int:
        """Run a command line and return its exit code."""
        try:
            code = super().main(arguments, prog_name, standalone_mode=False)
        except click.ClickException as error:
            click.echo(f"Error: {one_line(error.format_message())}{_hint(error)}", err=True)
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
        """Run the command, and say in one line what failed."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except FeedAmpError as error:
            _show_traceback(ctx, error)
            kind = MisuseError if isinstance(error, InputError) else FailedError
            raise kind(str(error)) from error
        except Exception as error:
            _show_traceback(ctx, error)
            # Whatever it says may quote what was handled; a person can ask for it.
            raise FailedError(
                f"{type(error).__name__}, which was not expected. `feedamp --debug ...` shows where."
            ) from error


def one_line(text: str) -> str:
    """Return the text on one line, without characters that steer a terminal."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in " ".join(text.split()))


def _hint(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f" Try '{context.command_path} --help'." if context is not None else ""


def _show_traceback(ctx: click.Context, error: BaseException) -> None:
    if ctx.params.get("debug"):
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
