"""Make a virtual environment with this project in it, and only when something that it depends on has changed.

`python3 -m scripts.environment` is `make setup`: it needs nothing but a Python of 3.11 or newer.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.versions import NEWEST, ROOT, Line

if TYPE_CHECKING:
    from collections.abc import Mapping

VENV = ROOT / ".venv"
UV = VENV / "bin" / "uv"
GROUPS = ("test", "celery", "fuzz", "lineage", "storage", "browser", "bench", "docs", "lint", "tools")
# With MariaDB's headers here (scripts/databases.sh), the tests get the drivers of real database servers too.
DATABASES = ("databases",) if shutil.which("mariadb_config") else ()
# What an environment is made from: a change in any of these makes it anew.
RECIPE = ("pyproject.toml", "airflow_provider_feedamp/__init__.py", "scripts/environment.py")


def is_current(venv: Path, line: Line, python: Path, groups: tuple[str, ...]) -> bool:
    """Tell whether the environment is there and made from what is in the checkout now."""
    stamp = venv / ".stamp"
    return stamp.exists() and stamp.read_text() == fingerprint(line, python, groups)


def make(venv: Path, line: Line, python: Path, groups: tuple[str, ...]) -> None:
    """Make the environment anew; its stamp is written last, so that half an environment never counts."""
    create(venv, line, python)
    install(venv, line, groups)
    (venv / ".stamp").write_text(fingerprint(line, python, groups))


def fingerprint(line: Line, python: Path, groups: tuple[str, ...]) -> str:
    """Return a digest of everything that decides what the environment holds."""
    digest = hashlib.sha256(repr((str(ROOT), str(python), groups)).encode())
    for path in (line.constraints, *(ROOT / name for name in RECIPE)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def create(venv: Path, line: Line, python: Path) -> None:
    """Make an empty environment; the first one, `.venv`, gets uv by pip and then serves all the others."""
    if venv == VENV:
        run(str(python), "-m", "venv", "--clear", str(venv))
        pip = (str(venv / "bin" / "pip"), "--quiet", "--disable-pip-version-check")
        run(*pip, "install", "--constraint", str(line.constraints), "uv")
    else:
        run(str(UV), "venv", "--quiet", "--clear", "--python", str(python), str(venv))


def install(venv: Path, line: Line, groups: tuple[str, ...]) -> None:
    """Install this checkout, editable, with the sandbox and the groups, under the line's constraints."""
    run(
        *(str(UV), "pip", "install", "--quiet", "--python", str(venv / "bin" / "python")),
        *("--constraint", str(line.constraints), "--editable", ".[sandbox]"),
        *(part for group in groups for part in ("--group", group)),
    )


def run(*command: str | Path, cwd: Path = ROOT, env: Mapping[str, str] | None = None) -> str:
    """Run a command and return what it printed; a failure ends the whole, and shows that.

    :param cwd: Default: the checkout.
    :param env: Default: this process's own.
    """
    words = [str(part) for part in command]
    answer = subprocess.run(
        words, cwd=cwd, env=env, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if answer.returncode:
        raise SystemExit(f"this failed (exit code {answer.returncode}): {' '.join(words)}\n{answer.stdout}")
    return answer.stdout


def main() -> None:
    """Make `.venv` with the newest Airflow, the tools of tests and lint, and uv."""
    python = Path(sys.executable).resolve()
    groups = GROUPS + DATABASES
    if is_current(VENV, NEWEST, python, groups):
        return
    started = time.monotonic()
    version = sys.version.split()[0]
    print(f"setting up {VENV.name}: Airflow {NEWEST.patch}, Python {version} ...", flush=True)
    make(VENV, NEWEST, python, groups)
    print(f"setting up {VENV.name}: done in {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
