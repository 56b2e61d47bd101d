"""What the house tests share: where things are, and which files there are."""

from __future__ import annotations

import subprocess
import tomllib
from typing import TYPE_CHECKING, Any

from scripts.house import PACKAGE, ROOT

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PACKAGE", "PROJECT", "ROOT", "repository_files"]

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def repository_files() -> list[Path]:
    """Return the files that are, or are about to be, in the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]
