"""Find the Python interpreters of this machine, whoever installed them. Nothing is ever downloaded."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# What an interpreter must be able to import to be of use here; hand-built ones may lack some of it.
PROBE = "import ctypes, sqlite3, ssl, sys; print('%d.%d' % sys.version_info[:2])"


def find(version: str) -> Path | None:
    """Return an interpreter of a version such as `3.12` that runs, or None."""
    return next((path for path in candidates(version) if runs(path, version)), None)


def runs(path: Path, version: str) -> bool:
    """Tell whether this interpreter starts, is of the version and has the usual extensions."""
    try:
        answer = subprocess.run(
            [str(path), "-c", PROBE], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0 and answer.stdout.strip() == version


def candidates(version: str) -> Iterator[Path]:
    """Yield the places to look: ourselves, uv's own search, the path, pyenv's versions."""
    yield Path(sys.executable).resolve()
    yield from uv_finds(version)
    if found := shutil.which(f"python{version}"):
        yield Path(found)
    yield from pyenv_has(version)


def uv_finds(version: str) -> Iterator[Path]:
    """Yield what uv finds: its managed interpreters and those on the path."""
    uv = Path(sys.prefix, "bin", "uv")
    if uv.exists():
        yield from printed(str(uv), "python", "find", "--no-project", "--system", version)


def pyenv_has(version: str) -> Iterator[Path]:
    """Yield pyenv's interpreters, newest patch first; its shims answer only for the versions switched on."""
    if pyenv := shutil.which("pyenv"):
        for root in printed(pyenv, "root"):
            found = root.glob(f"versions/{version}.*/bin/python{version}")
            yield from sorted(found, key=patch_number, reverse=True)


def patch_number(path: Path) -> int:
    """Return 12 for .../versions/3.11.12/bin/python3.11, and 0 for names that are no plain release."""
    patch = path.parent.parent.name.split(".")[-1]
    return int(patch) if patch.isdigit() else 0


def printed(*command: str) -> list[Path]:
    """Return the path that a command prints, as a list that is empty when it fails."""
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    line = answer.stdout.strip()
    return [Path(line)] if answer.returncode == 0 and line else []
