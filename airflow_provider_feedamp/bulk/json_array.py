"""Split a JSON array into its elements while it is read, without holding more than one of them.

The splitter only follows quotes, brackets and commas. What an element holds is judged later, element by
element, so that a broken one is a reject with its position while the others go on, and so that each element
keeps its bytes as they were written.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

from airflow_provider_feedamp.exceptions import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_STRING = rb'"(?:[^"\\]++|\\.)*+"'
#: Everything up to the next bracket; at the array's own level a comma stops it too. A string that is not
#: complete yet stops both at its opening quote.
_NESTED = re.compile(rb'(?:[^"\[\]{}]++|' + _STRING + rb")*+", re.DOTALL)
_TOP = re.compile(rb'(?:[^"\[\]{},]++|' + _STRING + rb")*+", re.DOTALL)


def array_elements(read: Callable[[], bytes], *, what: str, limit: int) -> Iterator[bytes]:
    """Yield the bytes of each element of a JSON array, in order.

    :param read: Returns the next piece of the text in UTF-8, and nothing at its end.
    :param what: What is read, to begin an error message with.
    :param limit: The most bytes that one element may have; it bounds the memory.
    :raises InputError: If the text is not one array, ends before the array does, or exceeds the limit. It
        says after which element, and all elements before were yielded.
    """
    return _Splitter(read, what, limit).elements()


class _Splitter:
    def __init__(self, read: Callable[[], bytes], what: str, limit: int) -> None:
        self._read = read
        self._what = what
        self._limit = limit
        self._text = b""
        self._at = 0  # How far the text has been looked at.
        self._count = 0

    def elements(self) -> Iterator[bytes]:
        """Yield the elements between the opening and the closing bracket."""
        first = self._next_visible()
        if not first:
            return
        if first != b"[":
            raise InputError(
                f"{self._what} does not begin with [, so it is not a JSON array. "
                "One order per line belongs in an .ndjson file."
            )
        self._at += 1
        if self._next_visible() == b"]":
            self._at += 1
        else:
            more = True
            while more:
                element, more = self._element()
                self._count += 1
                yield element
        if self._next_visible():
            self._fail("something follows the array")

    def _element(self) -> tuple[bytes, bool]:
        """Return the next element and whether a comma, so another one, follows."""
        start, depth = self._at, 0
        while True:
            found = (_NESTED if depth else _TOP).match(self._text, self._at)
            self._at = found.end() if found else self._at
            mark = self._text[self._at : self._at + 1]
            if mark in (b"", b'"'):
                self._more(start)
                start = 0
                continue
            self._at += 1
            if not depth and mark in (b",", b"]"):
                return self._text[start : self._at - 1], mark == b","
            depth += 1 if mark in (b"[", b"{") else -1
            if depth < 0:
                self._fail("a bracket closes that was not opened")

    def _next_visible(self) -> bytes:
        while True:
            rest = self._text[self._at :].lstrip()
            if rest:
                self._text, self._at = rest, 0
                return rest[:1]
            self._text, self._at = self._read(), 0
            if not self._text:
                return b""

    def _more(self, start: int) -> None:
        """Read on, and keep only what has been read of the element that begins at the start."""
        if len(self._text) - start > self._limit:
            self._fail(f"the next element is longer than {self._limit:,} bytes")
        piece = self._read()
        if not piece:
            self._fail("it ends before its closing bracket,")
        self._text = self._text[start:] + piece
        self._at -= start

    def _fail(self, problem: str) -> NoReturn:
        raise InputError(
            f"{self._what} is not a whole JSON array: {problem} after element {self._count}. "
            "What stands before was read; correct the rest and run it again."
        )
