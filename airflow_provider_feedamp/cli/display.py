"""Shows how far an import is: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import logging
import shutil
import time
from typing import TYPE_CHECKING, TextIO

from airflow_provider_feedamp.bulk.progress import duration, line_of, orders_in_words
from airflow_provider_feedamp.cli.deployment import OWN_LOGGER

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_feedamp.bulk.progress import Progress

#: Seconds between two lines where there is no terminal.
LINE_EVERY = 5.0
_WIDEST = 30  # columns of the bar alone


class Lines:
    """Writes a line every few seconds.

    :param out: Where to.
    :param clock: Seconds on a clock that never goes back; tests hand in their own.
    """

    def __init__(self, out: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._next = clock() + LINE_EVERY

    def __call__(self, progress: Progress) -> None:
        """Write a line if it is time; what came of it all is said elsewhere."""
        now = self._clock()
        if progress.ended or now < self._next:
            return
        self._next = now + LINE_EVERY
        self._out.write(f"{line_of(progress)}\n")
        self._out.flush()


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
        text = drawn(progress, shutil.get_terminal_size().columns)
        self.acquire()
        try:
            self._out.write("\r" + text.ljust(self._drawn) + ("\n" if progress.ended else ""))
            self._drawn = 0 if progress.ended else len(text)
            self._out.flush()
        finally:
            self.release()
        self._stay_first(progress.ended)

    def emit(self, record: logging.LogRecord) -> None:
        """Make room for a log line."""
        self.clear()

    def clear(self) -> None:
        """Take the bar away, for something else to be written."""
        if self._drawn:
            self._out.write("\r" + " " * self._drawn + "\r")
            self._out.flush()
            self._drawn = 0

    def _stay_first(self, ended: bool) -> None:
        # Our own lines do not get to the root's handlers.
        for logger in (logging.getLogger(), logging.getLogger(OWN_LOGGER)):
            if logger.handlers[:1] != [self] or ended:
                logger.removeHandler(self)
                if not ended:
                    logger.handlers.insert(0, self)


def drawn(progress: Progress, columns: int) -> str:
    """Return the line with the bar, in words as short as they have to be."""
    left = progress.seconds_left
    pace = f"{progress.rate:,.0f}/s, {progress.rejected:,} rejected"
    if not progress.total or left is None:
        return f"{orders_in_words(progress.done)} done, {pace}"[: columns - 1]
    words = f"{progress.done:,} of about {progress.total:,}, {pace}, {duration(left)} left"
    share = min(progress.done / progress.total, 1.0)
    width = max(min(_WIDEST, columns - len(words) - 10), 5)
    full = int(share * width)
    return f"[{'#' * full}{'-' * (width - full)}] {share:4.0%}  {words}"[: columns - 1]
