"""The command ``python -m airflow_provider_feedamp.sandbox``, as a process of its own."""

from __future__ import annotations

import json
import shlex
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_feedamp.sandbox.control import SandboxControl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND = [sys.executable, "-m", "airflow_provider_feedamp.sandbox"]


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the command and yield it with its ready line."""
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.communicate()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_when_it_is_ready_and_ends_cleanly_on_a_signal(number: signal.Signals) -> None:
    with started() as (process, line):
        assert "http://127.0.0.1:" in line
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")


def test_it_prints_a_connection_for_each_seller() -> None:
    with started("--seller", "hooli", "--seller", "o'ü/1") as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        output = process.stdout.read()
    values = [shlex.split(each)[1].partition("=")[2] for each in output.splitlines() if "export" in each]
    found = [json.loads(value) for value in values]
    assert [each["extra"]["seller"] for each in found] == ["hooli", "o'ü/1"]
    assert len({each["extra"]["refresh_token"] for each in found}) == 2


def test_the_ready_file_is_there_while_it_serves(tmp_path: Path) -> None:
    path = tmp_path / "ready.json"
    path.write_text("left from another run")
    with started("--ready-file", str(path)) as (process, line):
        assert process.stdout is not None
        while "globex" not in line:
            line = process.stdout.readline()
        process.stdout.readline()
        ready = _ready(path, process)
        assert set(ready["connections"]) == {"hooli", "globex"}
        assert path.stat().st_mode & 0o077 == 0
        assert SandboxControl(ready["base_url"]).sellers() == {"hooli": 0, "globex": 0}
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert not path.exists()


def test_every_setting_can_be_given() -> None:
    arguments = ["--rotation", "grace", "--token-ttl", "5", "--client-id", "me"]
    switches = ["--set", "strict_fields=true", "--set", "write_status=204", "--set", "grace_seconds=1.5"]
    with started(*arguments, *switches) as (_, line):
        settings = SandboxControl(line.split(" on ")[1].split()[0]).settings()
    wanted = {"rotation": "grace", "access_token_ttl": 5, "client_id": "me", "strict_fields": True}
    assert wanted.items() <= settings.items()
    assert (settings["write_status"], settings["grace_seconds"]) == ("204", 1.5)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--set", "rotations=grace"], "no setting 'rotations'"),
        (["--set", "cursor_end=sudden"], "null, missing, empty"),
        (["--seller", "hooli", "--seller", "hooli"], "different names"),
        (["--token-ttl", "-1"], "access_token_ttl"),
        (["--port", "0", "--ready-file", "/nonexistent/ready.json"], "/nonexistent/ready.json"),
    ],
)
def test_a_wrong_argument_ends_it_with_one_line(arguments: list[str], hint: str) -> None:
    done = run(*arguments)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert hint in done.stderr


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("--port", port)
    assert done.returncode == 1
    assert f"port {port}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("package", ["fastapi", "uvicorn"])
def test_without_the_extra_it_says_what_to_install(package: str) -> None:
    run_it = f"runpy.run_module({COMMAND[-1]!r}, run_name='__main__')"
    code = f"import sys, runpy; sys.modules[{package!r}] = None; {run_it}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"The sandbox needs {package}: pip install 'airflow-provider-feedamp[sandbox]'"
    ]


def _ready(path: Path, process: subprocess.Popen[str]) -> dict[str, Any]:
    """Read the ready file as soon as it is whole: it is moved into place."""
    while process.poll() is None:
        if path.exists() and path.stat().st_size > 100:
            value: dict[str, Any] = json.loads(path.read_text())
            return value
    pytest.fail("the sandbox ended")
