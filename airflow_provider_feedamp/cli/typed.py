"""Reads what must not be seen: a secret typed or pasted by a person, or handed in by a script."""

from __future__ import annotations

import sys

import click


def typed_in(prompt: str, *, twice: bool = False) -> str:
    """Return one line of standard input, which a terminal does not show.

    :param prompt: Shown on a terminal only.
    :param twice: Have a person type it again.
    """
    if sys.stdin.isatty():
        typed: str = click.prompt(prompt, type=str, hide_input=True, confirmation_prompt=twice, err=True)
        return typed
    return sys.stdin.readline().rstrip("\r\n")
