"""What the leak tests look for, and how they listen."""

from __future__ import annotations

import logging
import re
import traceback
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING

from airflow_provider_feedamp.sandbox.settings import SandboxSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_feedamp.sandbox.server import RunningSandbox

CLIENT_SECRET = "c11e47" + "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
WRONG_SECRET = "badbad" + "102132435465768798a9bacbdcedfe0f"
# Every token of the sandbox is this and 40 hexadecimal digits, so already the beginning gives one away.
_BEGINNING = re.compile(r"sbx-(?:access|refresh|code)-\w*")
_HEXADECIMAL = re.compile(r"[0-9a-f]{12,}")
_PIECE = 12


def settings() -> SandboxSettings:
    return SandboxSettings(client_secret=CLIENT_SECRET)


class Secrets:
    """Everything that a sandbox has ever issued, in pieces."""

    def __init__(self, sandbox: RunningSandbox) -> None:
        self._desk = sandbox.state.tokens

    def values(self) -> dict[str, list[str]]:
        """Return all secrets by kind, also those that have ended."""
        return {
            "access": list(self._desk._access),
            "refresh": list(self._desk._refresh),
            "code": [*self._desk._codes, *self._desk._used_codes],
            "client": [CLIENT_SECRET, WRONG_SECRET],
        }

    def found_in(self, text: str) -> list[str]:
        """Return the pieces of secrets that a text holds, with what stands around them."""
        pieces = {
            value[start : start + _PIECE]
            for value in chain.from_iterable(self.values().values())
            for start in range(len(value) - _PIECE + 1)
        }
        places = [match.start() for match in _BEGINNING.finditer(text)]
        for match in _HEXADECIMAL.finditer(text):
            run = match.group()
            if any(run[start : start + _PIECE] in pieces for start in range(len(run) - _PIECE + 1)):
                places.append(match.start())
        return [text[max(place - 100, 0) : place + 60] for place in sorted(places)]


class Tape(logging.Handler):
    """Keeps every line as it is before Airflow's masking: what is masked must not need it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        shown = logging.Formatter("%(levelname)s %(name)s %(message)s").format(record)
        self.lines.append(f"{shown} {record.args!r}")

    def text(self) -> str:
        return "\n".join(self.lines)


@contextmanager
def everything_logged() -> Iterator[Tape]:
    """Log from DEBUG on, whatever logger it is, onto a tape."""
    tape, root = Tape(), logging.getLogger()
    loggers = [root, *(each for each in root.manager.loggerDict.values() if isinstance(each, logging.Logger))]
    before = [(each, each.level, each.propagate, each.disabled) for each in loggers]
    for each in loggers:
        each.setLevel(logging.DEBUG)
        each.propagate, each.disabled = True, False
    root.addHandler(tape)
    try:
        yield tape
    finally:
        root.removeHandler(tape)
        for each, level, propagate, disabled in before:
            each.setLevel(level)
            each.propagate, each.disabled = propagate, disabled


def all_that_an_error_shows(error: BaseException) -> str:
    """Return an error's text, repr, fields and traceback, and those of every error that is shown with it."""
    shown = [str(error), repr(error), repr(error.args), repr(vars(error))]
    behind = error.__cause__ if error.__suppress_context__ else error.__context__
    if behind is not None:
        shown.append(all_that_an_error_shows(behind))
    return "\n".join([*shown, *traceback.format_exception(error)])


def with_variables(error: BaseException) -> str:
    """Return an error's traceback with local variables, as Airflow 3 shows it on a console."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(told.format())
